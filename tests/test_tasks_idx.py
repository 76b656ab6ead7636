"""Fashion-MNIST and MNIST: IDX files, as they are published and as they are damaged."""

from __future__ import annotations

import gzip
import struct

import numpy
import pytest
import torch

from pathlen.errors import DataError
from pathlen.training.tasks import build_task

NAMES = {"train": 40, "t10k": 20}


def idx(array):
    """The bytes of an IDX file: the format in words at yann.lecun.com/exdb/mnist."""
    head = b"\0\0\x08" + bytes([array.ndim])
    return head + b"".join(struct.pack(">I", length) for length in array.shape) + array.tobytes()


def write_idx(folder, zipped=True):
    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(0)
    arrays = {}
    for start, number in NAMES.items():
        images = random.integers(0, 256, (number, 28, 28), dtype=numpy.uint8)
        labels = (numpy.arange(number) % 10).astype(numpy.uint8)
        arrays[start] = images, labels
        for name, array in (("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)):
            content = idx(array)
            path = folder / f"{start}-{name}{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(content) if zipped else content)
    return arrays


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("name", "inner"), [("fashion_mnist", "fashion-mnist"), ("mnist", "MNIST/raw"), ("mnist", ".")]
)
def test_idx_files(tmp_path, name, inner, zipped):
    arrays = write_idx(tmp_path / inner, zipped)
    task = build_task({"name": name, "folder": str(tmp_path)})
    assert (task.name, task.train_size, task.test_size) == (name, 40, 20)
    assert task.model_arguments == {"num_classes": 10, "in_channels": 1, "image_size": 28}
    assert (task.train.shift, task.train.flip) == (0, name == "fashion_mnist")
    images, labels = arrays["t10k"]
    image, label = task.test[13]
    expected = (images[13] / 255 - task.test.mean.item()) / task.test.deviation.item()
    assert label == labels[13]
    assert torch.allclose(image[0].double(), torch.from_numpy(expected), atol=1e-5)


def test_settings_of_images_in_memory(tmp_path):
    write_idx(tmp_path)
    settings = {"classes": 4, "train_size": 8, "image_size": 14, "mean": [0.5], "std": [0.25]}
    task = build_task({"name": "fashion_mnist", "folder": str(tmp_path), **settings})
    assert (task.train_size, task.test_size) == (8, 8)
    assert task.model_arguments == {"num_classes": 4, "in_channels": 1, "image_size": 14}


def test_missing_files_are_named_with_the_command_that_gets_them(tmp_path):
    write_idx(tmp_path / "fashion-mnist")
    (tmp_path / "fashion-mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    for folder in (tmp_path, tmp_path / "fashion-mnist"):
        with pytest.raises(DataError, match=r"no t10k-labels-idx1-ubyte\[\.gz\] in") as error:
            build_task({"name": "fashion_mnist", "folder": str(folder)})
        assert f"`pathlen data get fashion_mnist --folder {tmp_path}`" in str(error.value)
        assert "dataset-fashion-mnist" in str(error.value)


def damaged(content, way):
    if way == "cut":
        return content[:-7]
    if way == "long":
        return content + b"\0"
    if way == "floats":
        return content[:2] + b"\x0d" + content[3:]
    return content[:4] + struct.pack(">I", 1 << 31) + content[8:]


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("cut", r"says that it has \(20, 28, 28\) bytes and has only 15673"),
        ("long", r"bytes and has more"),
        ("floats", "no IDX file of bytes with 3 axes: it begins with 00 00 0d 03"),
        ("huge", "more than fits such data"),
    ],
)
def test_damaged_files_are_refused(tmp_path, way, message):
    write_idx(tmp_path)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(damaged(gzip.decompress(path.read_bytes()), way)))
    with pytest.raises(DataError, match=message):
        build_task({"name": "mnist", "folder": str(tmp_path)})


@pytest.mark.parametrize(
    "content", [b"no gzip", gzip.compress(bytes(9000))[:-9]], ids=["other", "cut short"]
)
def test_damaged_gzip_is_refused(tmp_path, content):
    write_idx(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz' is no"):
        build_task({"name": "mnist", "folder": str(tmp_path)})


def test_images_and_classes_must_belong_together(tmp_path):
    write_idx(tmp_path)
    path = tmp_path / "train-labels-idx1-ubyte.gz"
    path.write_bytes(gzip.compress(idx(numpy.arange(39, dtype=numpy.uint8) % 10)))
    with pytest.raises(DataError, match=r"40 images and .* 39 classes"):
        build_task({"name": "mnist", "folder": str(tmp_path)})
    path.write_bytes(gzip.compress(idx(numpy.full(40, 10, numpy.uint8))))
    with pytest.raises(DataError, match="has class 10; there are 10"):
        build_task({"name": "mnist", "folder": str(tmp_path)})
