"""Tasks of classification: what is read, split, shifted and cropped, and what is refused."""

from __future__ import annotations

import numpy
import pytest
import torch
from PIL import Image

from pathlen.errors import DataError, SettingsError
from pathlen.training.task import Augmented
from pathlen.training.tasks import build_task
from pathlen.training.tasks.cifar import PIXELS
from pathlen.training.tasks.classification import ImageSet, channel_statistics, count_correct
from pathlen.training.tasks.imagefolder import DEVIATION, MEAN, random_region
from pathlen.training.tasks.subsets import stratified_share


def batch_of(task, data, indices=range(4)):
    return torch.utils.data.default_collate([data[index] for index in indices])


def check_is_usable(task):
    """What every classification task must give a loop."""
    batch = batch_of(task, task.train)
    (images,) = task.inputs(batch)
    (example,) = task.example
    assert images.shape[1:] == example.shape[1:]
    assert images.dtype == example.dtype == torch.float32
    logits = torch.zeros(4, task.model_arguments["num_classes"], requires_grad=True)
    loss = task.loss(logits, batch, 0.1)
    assert loss.item() == pytest.approx(numpy.log(task.model_arguments["num_classes"]), rel=1e-5)
    loss.backward()
    one_hot = torch.nn.functional.one_hot(batch[1], task.model_arguments["num_classes"])
    assert [int(number) for number in task.counts(one_hot.float(), batch)] == [4, 4]
    assert task.metric == "accuracy"
    assert task.decode is None


# --- by name ---------------------------------------------------------------------------------


def test_unknown_names_and_settings_are_refused_with_suggestions():
    with pytest.raises(SettingsError, match="no task 'digit'; did you mean 'digits'"):
        build_task({"name": "digit"})
    with pytest.raises(SettingsError, match="no task None; there are cifar10, cifar100, digits, "):
        build_task({})
    with pytest.raises(
        SettingsError, match=r"'shfit'; did you mean 'shift'\?; classes must be a w"
    ):
        build_task({"name": "digits", "shfit": 1, "classes": "all"})
    with pytest.raises(SettingsError, match=r"task 'cifar10': folder is missing \(a text\)"):
        build_task({"name": "cifar10"})
    with pytest.raises(SettingsError, match="flip must be true or false, not 1"):
        build_task({"name": "cifar10", "folder": ".", "flip": 1})
    with pytest.raises(SettingsError, match="shift must be a whole number, not True"):
        build_task({"name": "digits", "shift": True})


# --- digits ----------------------------------------------------------------------------------


def test_digits():
    task = build_task({"name": "digits"})
    check_is_usable(task)
    assert task.train_size + task.test_size == 1797
    assert task.model_arguments == {"num_classes": 10, "in_channels": 1, "image_size": 8}
    pixels = torch.stack([image for image, _ in task.train])
    assert pixels.mean().item() == pytest.approx(0, abs=1e-5)
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_images_on_a_canvas_lie_anywhere_and_keep_their_pixels():
    plain = build_task({"name": "digits"})
    task = build_task({"name": "digits", "canvas": 12, "shift": 2})
    check_is_usable(task)
    assert task.model_arguments["image_size"] == 12
    held_out, placed = plain.test.images, task.test.images
    places = set()
    for image, moved in zip(held_out, placed, strict=True):
        windows = [
            (down, right)
            for down in range(5)
            for right in range(5)
            if torch.equal(moved[:, down : down + 8, right : right + 8], image)
        ]
        assert moved.sum() == image.sum()
        assert windows
        places.add(windows[0])
    assert len(places) == 25
    assert torch.equal(task.train.images[:, :, 2:10, 2:10], plain.train.images)
    again = build_task({"name": "digits", "canvas": 12, "shift": 2, "seed": 7})
    assert torch.equal(again.test.images, placed)  # the same for all seeds of the augmentation
    assert torch.equal(build_task({"name": "digits", "canvas": 8}).test.images, held_out)
    for canvas in (7, 11):
        with pytest.raises(SettingsError, match="canvas must be 8 or larger by an even number"):
            build_task({"name": "digits", "canvas": canvas})


def test_the_images_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    task = build_task({"name": "digits", "classes": 2})
    images, labels = load_digits(return_X_y=True)
    known = {(tuple(i.astype(int)), int(k)) for i, k in zip(images, labels, strict=True) if k < 2}
    found = set()
    for data in (task.train, task.test):
        for image, label in data:
            grey = (image * data.deviation + data.mean) * 255 / 16
            found.add((tuple(grey.round().int().flatten().tolist()), label))
    assert found == known


@pytest.mark.parametrize("classes", [2, 5, 10])
def test_the_split_is_stratified_and_fixed(classes):
    settings = {"name": "digits", "classes": classes, "test_share": 0.2, "split_seed": 3}
    task, again = build_task(settings), build_task(settings)
    train, test = (numpy.bincount(data.classes) for data in (task.train, task.test))
    assert len(train) == len(test) == classes
    assert (numpy.abs(test - 0.2 * (train + test)) <= 0.5).all()
    assert torch.equal(task.test.images, again.test.images)
    other = build_task({**settings, "split_seed": 4})
    assert not torch.equal(task.test.images, other.test.images)


def test_each_class_keeps_an_item_on_both_sides():
    labels = numpy.array([0, 0, 1, 1, 1])
    for share in (0.01, 0.99):
        chosen = stratified_share(labels, share, seed=0)
        for label in (0, 1):
            assert 0 < chosen[labels == label].sum() < (labels == label).sum()


def test_a_share_out_of_range_is_refused():
    with pytest.raises(SettingsError, match=r"between 0 and 1, not 1\.0"):
        build_task({"name": "digits", "test_share": 1.0})


# --- augmentation ----------------------------------------------------------------------------


def image_set(**settings):
    random = numpy.random.default_rng(0)
    images = random.integers(1, 256, (6, 3, 5, 5), dtype=numpy.uint8)
    return ImageSet(images, numpy.arange(6), torch.zeros(3), torch.ones(3), **settings)


def test_an_item_is_a_function_of_seed_epoch_and_index():
    data = image_set(shift=2, flip=True)
    assert isinstance(data, Augmented)
    data.set_epoch(3)
    first = [data[index][0] for index in range(6)]
    data.set_epoch(4)
    others = [data[index][0] for index in range(6)]
    data.set_epoch(3)
    for index in (5, 0, 2):  # in another order, and once more
        assert torch.equal(data[index][0], first[index])
    assert any(not torch.equal(a, b) for a, b in zip(first, others, strict=True))
    same, different = image_set(shift=2, flip=True), image_set(shift=2, flip=True, seed=1)
    for other in (same, different):
        other.set_epoch(3)
    assert all(torch.equal(same[index][0], first[index]) for index in range(6))
    assert any(not torch.equal(different[index][0], first[index]) for index in range(6))


def test_shifts_and_flips_are_those_of_a_padded_image_and_each_occurs():
    data, plain = image_set(shift=1, flip=True), image_set()
    padded = torch.nn.functional.pad(plain[2][0], (1, 1, 1, 1))
    expected = {}
    for down in range(3):
        for right in range(3):
            crop = padded[:, down : down + 5, right : right + 5]
            expected[down, right, False], expected[down, right, True] = crop, crop.flip(2)
    seen = set()
    for epoch in range(300):
        data.set_epoch(epoch)
        image = data[2][0]
        (way,) = [way for way, crop in expected.items() if torch.equal(crop, image)]
        seen.add(way)
    assert seen == set(expected)


def test_a_batch_holds_the_items_wherever_they_stand_in_it():
    data = image_set(shift=2, flip=True)
    for epoch in (0, 5):
        data.set_epoch(epoch)
        items = [data[index] for index in range(6)]
        for order in ([4], [5, 0, 2], [3, 3, 1, 0, 2]):
            images, classes = data.get_batch(torch.tensor(order), torch.device("cpu"))
            assert torch.equal(images, torch.stack([items[index][0] for index in order]))
            assert classes.tolist() == [items[index][1] for index in order]


def test_images_are_standardized_by_channel():
    random = numpy.random.default_rng(1)
    images = random.integers(0, 256, (4, 3, 5, 7), dtype=numpy.uint8)
    mean, deviation = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 1.0, 0.3])
    data = ImageSet(images, numpy.arange(4), mean, deviation)
    found, _ = data.get_batch(torch.arange(4), torch.device("cpu"))
    for image in range(4):
        for channel in range(3):
            centred = images[image, channel] / 255 - mean[channel].item()
            wanted = centred / deviation[channel].item()
            assert found[image, channel].numpy() == pytest.approx(wanted, abs=1e-6)


def test_shifts_are_drawn_apart_from_the_order_of_items():
    """Both are functions of a seed and an epoch; had they one stream, they would go together."""
    of_the_order = numpy.random.default_rng((0, 0)).integers(0, 5, (6, 2))
    data, plain = image_set(shift=2), image_set()
    padded = [torch.nn.functional.pad(image, (2,) * 4) for image, _ in plain]
    crops = [
        padded[index][:, down : down + 5, right : right + 5]
        for index, (down, right) in enumerate(of_the_order)
    ]
    assert not all(torch.equal(data[index][0], crop) for index, crop in enumerate(crops))


def test_no_index_beyond_the_images():
    data = image_set()
    assert torch.equal(data[-1][0], data[5][0])
    with pytest.raises(IndexError, match="index 6 of 6 images"):
        data[6]


def test_without_augmentation_epochs_are_the_same():
    data = image_set()
    before = data[1][0]
    data.set_epoch(5)
    assert torch.equal(before, data[1][0])


def test_statistics_are_those_of_the_pixels():
    images = numpy.random.default_rng(1).integers(0, 256, (5, 2, 3, 4), dtype=numpy.uint8)
    images = numpy.concatenate([images, numpy.full((5, 1, 3, 4), 9, numpy.uint8)], axis=1)
    mean, deviation = channel_statistics(images)
    expected = images / 255
    assert mean.numpy() == pytest.approx(expected.mean((0, 2, 3)))
    assert deviation.numpy()[:2] == pytest.approx(expected.std((0, 2, 3))[:2])
    assert deviation[2] == 1  # a constant channel


def test_counts_of_wrong_items():
    logits = torch.tensor([[1.0, 2.0], [1.0, 2.0], [5.0, 0.0]])
    correct, total = count_correct(logits, (torch.zeros(3), torch.tensor([1, 0, 0])))
    assert (int(correct), int(total)) == (2, 3)


# --- CIFAR -----------------------------------------------------------------------------------


def write_cifar10(folder, number=3):
    folder.mkdir(parents=True)
    random = numpy.random.default_rng(0)
    tables = {}
    for name in [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"]:
        table = random.integers(0, 256, (number, 1 + PIXELS), dtype=numpy.uint8)
        table[:, 0] %= 10
        (folder / name).write_bytes(table.tobytes())
        tables[name] = table
    return tables


def test_cifar10(tmp_path):
    tables = write_cifar10(tmp_path / "cifar-10-batches-bin")
    task = build_task({"name": "cifar10", "folder": str(tmp_path)})
    check_is_usable(task)
    assert (task.train_size, task.test_size) == (15, 3)
    table = tables["test_batch.bin"]
    image, label = task.test[1]
    assert label == table[1, 0]
    grey = (image * task.test.deviation + task.test.mean) * 255
    # Red, row 2, column 5; then blue, the last pixel.
    assert grey[0, 2, 5].item() == pytest.approx(table[1, 1 + 2 * 32 + 5], abs=1e-3)
    assert grey[2, 31, 31].item() == pytest.approx(table[1, -1], abs=1e-3)
    assert task.train.classes[3:6] == tables["data_batch_2.bin"][:, 0].tolist()


def test_the_folder_itself_can_be_named(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    write_cifar10(folder)
    plain = {"name": "cifar10", "folder": str(folder), "shift": 0, "flip": False}
    task = build_task(plain)
    assert torch.equal(task.train[0][0], task.train[0][0])
    assert task.train_size == 15


def test_cifar100_has_the_fine_classes(tmp_path):
    folder = tmp_path / "cifar-100-binary"
    folder.mkdir()
    for name, number in (("train.bin", 4), ("test.bin", 2)):
        table = numpy.zeros((number, 2 + PIXELS), dtype=numpy.uint8)
        table[:, 0], table[:, 1] = 7, 90 + numpy.arange(number)
        table[:, 2:] = numpy.arange(number)[:, None]
        (folder / name).write_bytes(table.tobytes())
    task = build_task({"name": "cifar100", "folder": str(tmp_path)})
    check_is_usable(task)
    assert task.train.classes == [90, 91, 92, 93]
    assert (task.test_size, task.model_arguments["num_classes"]) == (2, 100)


def test_missing_files_are_listed(tmp_path):
    with pytest.raises(DataError, match=r"data_batch_1\.bin.*cifar-10-binary\.tar\.gz") as error:
        build_task({"name": "cifar10", "folder": str(tmp_path / "none")})
    assert str(tmp_path / "none") in str(error.value)
    write_cifar10(tmp_path / "cifar-10-batches-bin")
    (tmp_path / "cifar-10-batches-bin" / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match=r"no data_batch_4\.bin in"):
        build_task({"name": "cifar10", "folder": str(tmp_path)})


def test_pickles_are_refused(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train").write_bytes(b"\x80\x04.")
    with pytest.raises(DataError, match=r"cifar-100-binary\.tar\.gz.*pickles, which pathlen never"):
        build_task({"name": "cifar100", "folder": str(tmp_path)})


def test_truncated_and_foreign_files_are_refused(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    tables = write_cifar10(folder)
    path = folder / "data_batch_2.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_2\.bin' has 9218 bytes.*truncated"):
        build_task({"name": "cifar10", "folder": str(tmp_path)})
    table = tables["data_batch_2.bin"]
    table[0, 0] = 10
    path.write_bytes(table.tobytes())
    with pytest.raises(DataError, match="class 10; cifar10 has classes 0 to 9"):
        build_task({"name": "cifar10", "folder": str(tmp_path)})


# --- folders of images -----------------------------------------------------------------------


@pytest.fixture
def image_folder(tmp_path):
    """Two classes of pictures of one colour, of several sizes and modes, in both sets."""
    for part, number in (("train", 3), ("val", 2)):
        for name, colour in (("cat", (250, 10, 20)), ("dog", (0, 128, 255))):
            (tmp_path / part / name).mkdir(parents=True)
            for index in range(number):
                image = Image.new("RGB", (20 + 7 * index, 16 + index), colour)
                image.save(tmp_path / part / name / f"{index}.png")
    Image.new("L", (9, 30), 77).save(tmp_path / "train" / "cat" / "grey.png")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    return tmp_path


def test_imagefolder(image_folder):
    task = build_task({"name": "imagefolder", "folder": str(image_folder), "image_size": 8})
    check_is_usable(task)
    assert (task.train_size, task.test_size) == (7, 4)
    assert task.model_arguments == {"num_classes": 2, "in_channels": 3, "image_size": 8}
    mean, deviation = torch.tensor(MEAN), torch.tensor(DEVIATION)
    for image, label in [*task.test, task.train[0], task.train[6]]:
        colour = torch.tensor([(250, 10, 20), (0, 128, 255)][label]) / 255
        expected = ((colour - mean) / deviation)[:, None, None].expand(3, 8, 8)
        assert torch.allclose(image, expected, atol=1e-5)
    grey = (task.train[3][0] * deviation[:, None, None] + mean[:, None, None]) * 255
    assert torch.allclose(grey, torch.full((3, 8, 8), 77.0), atol=1e-3)


def test_crops_are_a_function_of_seed_epoch_and_index(image_folder):
    ramp = numpy.arange(40 * 30 * 3, dtype=numpy.uint32).reshape(40, 30, 3) * 255 // (40 * 30 * 3)
    for path in image_folder.glob("train/*/*.png"):
        Image.fromarray(ramp.astype(numpy.uint8)).save(path)
    settings = {"name": "imagefolder", "folder": str(image_folder), "image_size": 8}
    task, again = build_task(settings), build_task(settings)
    task.train.set_epoch(2)
    items = [image for image, _ in task.train]
    again.train.set_epoch(2)
    assert torch.equal(again.train[5][0], items[5])
    again.train.set_epoch(3)
    assert not torch.equal(again.train[5][0], items[5])


def test_images_held_out_are_cropped_in_the_middle(image_folder):
    # Left third black, middle third white, right third black: the middle square is white.
    image = numpy.zeros((10, 30, 3), dtype=numpy.uint8)
    image[:, 10:20] = 255
    for path in image_folder.glob("val/*/*.png"):
        Image.fromarray(image).save(path)
    settings = {"name": "imagefolder", "folder": str(image_folder), "image_size": 4, "resize": 5}
    white = build_task(settings).test[0][0]
    assert torch.allclose(white, white[:, :1, :1].expand_as(white), atol=1e-5)
    assert white.min() > 1


def test_regions_lie_inside_and_have_the_area_asked_for():
    random = numpy.random.default_rng(0)
    for _ in range(200):
        left, top, right, bottom = random_region(random, 40, 25, 0.3)
        assert 0 <= left < right <= 40
        assert 0 <= top < bottom <= 25
        assert (right - left) * (bottom - top) >= 0.3 * 40 * 25 - 1e-6
    assert random_region(random, 40, 25, 1) == (0, 0, 40, 25)


def test_folders_that_are_not_there_are_named(tmp_path, image_folder):
    with pytest.raises(DataError, match=r"train' has no class folders.*train/CLASS/\*\.jpg"):
        build_task({"name": "imagefolder", "folder": str(tmp_path / "none")})
    (image_folder / "val" / "wolf").mkdir()
    with pytest.raises(DataError, match="classes that train has not: wolf"):
        build_task({"name": "imagefolder", "folder": str(image_folder)})
    (image_folder / "train" / "wolf").mkdir()
    with pytest.raises(DataError, match=r"wolf' has no image"):
        build_task({"name": "imagefolder", "folder": str(image_folder)})


def test_a_file_that_is_no_image_is_named(image_folder):
    (image_folder / "train" / "dog" / "0.png").write_bytes(b"not a picture")
    task = build_task({"name": "imagefolder", "folder": str(image_folder), "image_size": 8})
    with pytest.raises(DataError, match=r"0\.png' cannot be read as an image"):
        task.train[4]


@pytest.mark.parametrize("wrong", [{"image_size": 0}, {"resize": 7}, {"smallest_crop": 0.0}])
def test_sizes_out_of_range_are_refused(image_folder, wrong):
    settings = {"name": "imagefolder", "folder": str(image_folder), "image_size": 8, **wrong}
    with pytest.raises(SettingsError, match="image_size <= resize"):
        build_task(settings)


# --- the teacher -----------------------------------------------------------------------------


def linear_accuracy(task):
    """Accuracy on held-out items of a linear classifier fitted by least squares."""
    inputs, labels = task.train.tensors
    ones = torch.ones(len(inputs), 1)
    targets = torch.nn.functional.one_hot(labels).float()
    weights = torch.linalg.lstsq(torch.cat([inputs, ones], 1), targets).solution
    inputs, labels = task.test.tensors
    guesses = torch.cat([inputs, torch.ones(len(inputs), 1)], 1) @ weights
    return (guesses.argmax(1) == labels).float().mean().item()


def test_the_teacher_is_fixed_by_its_seed():
    settings = {"name": "teacher", "train_size": 100, "test_size": 50}
    task, again = build_task(settings), build_task(settings)
    check_is_usable(task)
    assert (task.train_size, task.test_size) == (100, 50)
    for one, other in zip(task.test.tensors, again.test.tensors, strict=True):
        assert torch.equal(one, other)
    other = build_task({**settings, "seed": 1})
    assert not torch.equal(task.test.tensors[0], other.test.tensors[0])


def test_deeper_teachers_are_harder():
    accuracy = [
        linear_accuracy(build_task({"name": "teacher", "difficulty": difficulty}))
        for difficulty in (0, 1, 3, 6)
    ]
    assert accuracy[0] > 0.9  # hyperplanes tell the classes apart
    assert accuracy == sorted(accuracy, reverse=True)
    assert accuracy[-1] < 0.6


def test_deep_teachers_use_all_classes():
    task = build_task({"name": "teacher", "difficulty": 10, "classes": 5})
    shares = task.train.tensors[1].bincount(minlength=5) / task.train_size
    assert shares.min() > 0.05


@pytest.mark.parametrize("wrong", [{"difficulty": -1}, {"classes": 1}, {"features": 0}])
def test_teachers_out_of_range_are_refused(wrong):
    with pytest.raises(SettingsError, match="difficulty and seed must be at least 0"):
        build_task({"name": "teacher", **wrong})
