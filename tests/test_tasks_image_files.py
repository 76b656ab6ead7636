"""Images of folders that are decoded into memory: any folder, and Tiny ImageNet in two layouts."""

from __future__ import annotations

import os
import struct
import zlib
from collections import Counter

import numpy
import pytest
import torch
from PIL import EpsImagePlugin, Image

from pathlen.errors import DataError, SettingsError
from pathlen.training.tasks import build_task
from pathlen.training.tasks.image_files import read_image

RANDOM = numpy.random.default_rng(0)


def save(path, width=8, height=8):
    """Write random pixels; give them, [3, h, w]."""
    pixels = RANDOM.integers(0, 256, (height, width, 3), dtype=numpy.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is that of the data set; Pillow goes by the content, and PNG loses nothing.
    Image.fromarray(pixels).save(path, format="PNG")
    return torch.from_numpy(pixels).permute(2, 0, 1)


def folder_task(name, folder, **settings):
    return build_task({"name": name, "folder": str(folder), **settings})


# --- any folder ------------------------------------------------------------------------------


def test_folders_with_images_held_out(tmp_path):
    kept = {}
    for part, number in (("train", 3), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for index in range(number):
                pixels = save(tmp_path / part / name / "deep" / f"{index}.jpg")
                kept[part, label, index] = pixels
    task = folder_task("images", tmp_path)
    assert task.model_arguments == {"num_classes": 2, "in_channels": 3, "image_size": 8}
    assert task.train.classes == [0, 0, 0, 1, 1, 1]
    assert torch.equal(task.train.images[4], kept["train", 1, 1])
    assert torch.equal(task.test.images[3], kept["test", 1, 1])
    assert (task.train.shift, task.train.flip) == (0, False)
    with pytest.raises(SettingsError, match="has images held out; leave test_share out"):
        folder_task("images", tmp_path, test_share=0.5)


def test_folders_without_are_split_by_class(tmp_path):
    for name, number in (("cat", 10), ("dog", 20)):
        for index in range(number):
            save(tmp_path / name / f"{index}.png")
    task = folder_task("images", tmp_path)
    assert Counter(task.train.classes) == {0: 8, 1: 16}
    assert Counter(task.test.classes) == {0: 2, 1: 4}
    every = {tuple(i.flatten().tolist()) for d in (task.train, task.test) for i in d.images}
    assert len(every) == 30
    again, other = folder_task("images", tmp_path), folder_task("images", tmp_path, split_seed=1)
    assert torch.equal(again.test.images, task.test.images)
    assert not torch.equal(other.test.images, task.test.images)
    assert folder_task("images", tmp_path, test_share=0.5).test_size == 15
    assert folder_task("images", tmp_path, train_size=6, classes=2).train_size == 6
    with pytest.raises(SettingsError, match=r"test_share must be between 0 and 1, not 1"):
        folder_task("images", tmp_path, test_share=1)


def test_images_are_scaled_from_their_middle_square(tmp_path):
    # Grey at the left and right, a white middle square: only white is left, of any size.
    for index, side in enumerate((9, 30, 64)):
        pixels = numpy.full((side, 3 * side, 3), 77, dtype=numpy.uint8)
        pixels[:, side : 2 * side] = 255
        for name in ("cat", "dog"):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / name / f"{index}.png")
    task = folder_task("images", tmp_path, image_size=12, test_share=0.34)
    for data in (task.train, task.test):
        assert data.images.shape[1:] == (3, 12, 12)
        assert (data.images[:, :, :, 1:-1] == 255).all()
        assert (data.images > 200).all()  # at the edge a pixel takes a little from beside it
    with pytest.raises(DataError, match=r"0\.png' has 27 x 9 pixels; images must be square"):
        folder_task("images", tmp_path)
    with pytest.raises(SettingsError, match="image_size must be at least 1, not 0"):
        folder_task("images", tmp_path, image_size=0)


def test_scaling_down_averages(tmp_path):
    fine = numpy.indices((64, 64)).sum(0) % 2 * 255  # pixels of a chessboard: grey from afar
    for name in ("a", "b"):
        for index in range(2):
            (tmp_path / name).mkdir(exist_ok=True)
            Image.fromarray(fine.astype(numpy.uint8)).save(tmp_path / name / f"{index}.png")
    task = folder_task("images", tmp_path, image_size=10)
    assert (task.train.images[:, :, 1:-1, 1:-1].float() - 127.5).abs().max() < 8


def test_folders_that_are_not_there_are_named(tmp_path):
    with pytest.raises(DataError, match=r"images: .*none' has no class folders"):
        folder_task("images", tmp_path / "none")
    save(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(DataError, match=r"images: .*val' has no class folders"):
        folder_task("images", tmp_path)
    save(tmp_path / "val" / "wolf" / "0.png")
    with pytest.raises(DataError, match="classes that train has not: wolf"):
        folder_task("images", tmp_path)


# --- Tiny ImageNet ---------------------------------------------------------------------------

CLASSES = ("n01", "n02", "n03")


def write_published(folder):
    """The layout of tiny-imagenet-200.zip; classes of images held out are in a list alone."""
    for name in CLASSES:
        for index in range(4):
            save(folder / "train" / name / "images" / f"{name}_{index}.JPEG")
        (folder / "train" / name / f"{name}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t9\t9\n")
    held_out = {}
    for index, name in enumerate((2, 0, 1, 2)):
        pixels = save(folder / "val" / "images" / f"val_{index}.JPEG")
        held_out[f"val_{index}.JPEG"] = name, pixels
    save(folder / "test" / "images" / "test_0.JPEG")
    lines = [f"{file}\t{CLASSES[name]}\t0\t0\t3\t4\n" for file, (name, _) in held_out.items()]
    (folder / "val" / "val_annotations.txt").write_text("".join(lines))
    return held_out


def test_tiny_imagenet_as_published(tmp_path):
    held_out = write_published(tmp_path / "tiny-imagenet-200")
    task = folder_task("tiny_imagenet", tmp_path)
    assert (task.train_size, task.test_size) == (12, 4)
    assert task.model_arguments == {"num_classes": 3, "in_channels": 3, "image_size": 8}
    assert Counter(task.train.classes) == {0: 4, 1: 4, 2: 4}
    for place, (name, pixels) in enumerate(held_out.values()):
        assert task.test.classes[place] == name
        assert torch.equal(task.test.images[place], pixels)
    assert (task.train.shift, task.train.flip, task.test.flip) == (4, True, False)
    small = folder_task("tiny_imagenet", tmp_path / "tiny-imagenet-200", image_size=4, classes=2)
    assert small.model_arguments == {"num_classes": 2, "in_channels": 3, "image_size": 4}


@pytest.mark.parametrize("inner", ["", "images"])
def test_tiny_imagenet_in_class_folders(tmp_path, inner):
    for part, number in (("train", 3), ("val", 2)):
        for name in CLASSES:
            for index in range(number):
                save(tmp_path / part / name / inner / f"{index}.JPEG")
    task = folder_task("tiny_imagenet", tmp_path)
    assert task.train.classes == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert task.test.classes == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    "line", ["val_0.JPEG\tn09\t0\n", "../x.JPEG\tn01\t0\n", "val_0.JPEG n01\n"]
)
def test_lines_that_name_no_image_and_class_are_refused(tmp_path, line):
    write_published(tmp_path)
    path = tmp_path / "val" / "val_annotations.txt"
    path.write_text("val_1.JPEG\tn01\t0\n" + line)
    with pytest.raises(DataError, match=r"line 2 of .*val_annotations\.txt' must begin with"):
        folder_task("tiny_imagenet", tmp_path)


def test_what_tiny_imagenet_lacks_is_named_with_the_command_that_gets_it(tmp_path):
    with pytest.raises(DataError, match="no train/CLASS, val/CLASS in") as error:
        folder_task("tiny_imagenet", tmp_path)
    assert f"`pathlen data get tiny_imagenet --folder {tmp_path}`" in str(error.value)
    write_published(tmp_path)
    (tmp_path / "val" / "images" / "val_2.JPEG").unlink()
    with pytest.raises(DataError, match=r"val_2\.JPEG' cannot be read as an image"):
        folder_task("tiny_imagenet", tmp_path)


def png(width: int, height: int) -> bytes:
    """The beginning of an image of that size."""

    def part(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", b"") + part(b"IEND", b"")


@pytest.mark.parametrize(
    "data",
    [
        png(60_000, 60_000),
        b"P6 4 4",
        b"P6 4 x 255 ",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
        None,
    ],
    ids=["a bomb", "no end", "no number", "PostScript", "a pipe"],
)
def test_hostile_images_are_refused(data, tmp_path, monkeypatch):
    """A pipe was waited for, and PostScript begins a program."""
    path = tmp_path / "image.png"
    if data is None:
        os.mkfifo(path)
    else:
        path.write_bytes(data)
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *a, **k: pytest.fail("it is run"))
    with pytest.raises(DataError, match=r"image\.png' cannot be read as an image"):
        read_image(path)
