"""The data sets that can be downloaded: their original sources, checksums and licences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pathlen.errors import DataError
from pathlen.training.keywords import unknown_name


@dataclass(frozen=True, slots=True)
class Download:
    """A file to download.

    Attributes:
        url: Where it is.
        checksum: "sha256:..." or "md5:..." in hexadecimal digits; empty for a file that changes.
    """

    url: str
    checksum: str

    @property
    def name(self) -> str:
        """Its name, the last part of the URL."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as it is published.

    Attributes:
        name: The task that reads it.
        folder: The folder that it makes in the folder of all data.
        downloads: The files to download.
        kind: What is done with them: "tar" and "zip" archives with `folder` in them, "flat zip"
            archives without, "gunzip", or "keep" for files that are read as they are.
        needed: Files that lie in `folder` in the end.
        instead: Files that the task reads as well, where somebody has laid them out.
        size: Bytes to download, about.
        unpacked: Bytes in the end, about. Twice as many are refused.
        licence: In short.
        home: The page of the data set.
        places: Folders where other installers put it.
        elsewhere: Where else it can be had.
    """

    name: str
    folder: str
    downloads: tuple[Download, ...]
    kind: Literal["tar", "zip", "flat zip", "gunzip", "keep"]
    needed: tuple[str, ...]
    size: int
    unpacked: int
    licence: str
    home: str
    places: tuple[Path, ...] = ()
    elsewhere: str = ""
    instead: tuple[str, ...] = ()

    def missing(self, place: Path) -> list[str]:
        """The needed files that a folder lacks; those of .gz files may be there decompressed."""
        if self.instead and all((place / name).exists() for name in self.instead):
            return []
        return [
            name
            for name in self.needed
            if not any((place / one).exists() for one in (name, name.removesuffix(".gz")))
        ]


def _idx(base: str, checksums: Sequence[str]) -> tuple[Download, ...]:
    names = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    return tuple(
        Download(base + name, f"sha256:{checksum}")
        for name, checksum in zip(names, checksums, strict=True)
    )


def _names(downloads: Sequence[Download], suffix: str = "") -> tuple[str, ...]:
    return tuple(download.name.removesuffix(suffix) for download in downloads)


KRIZ = "https://www.cs.toronto.edu/~kriz/"

CIFAR10 = Source(
    name="cifar10",
    folder="cifar-10-batches-bin",
    downloads=(
        Download(
            KRIZ + "cifar-10-binary.tar.gz",
            "sha256:c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
    ),
    kind="tar",
    needed=(*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"),
    size=170_052_171,
    unpacked=184_380_000,
    licence="none stated; cite Krizhevsky 2009",
    home=KRIZ + "cifar.html",
)

CIFAR100 = Source(
    name="cifar100",
    folder="cifar-100-binary",
    downloads=(
        Download(
            KRIZ + "cifar-100-binary.tar.gz",
            "sha256:58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
    ),
    kind="tar",
    needed=("train.bin", "test.bin"),
    size=168_513_733,
    unpacked=184_440_000,
    licence="none stated; cite Krizhevsky 2009",
    home=KRIZ + "cifar.html",
)

_FASHION = _idx(
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)

_DEBIAN = "/usr/share/datasets/fashion-mnist"
"""Where Debian's package dataset-fashion-mnist puts its files."""

FASHION_MNIST = Source(
    name="fashion_mnist",
    folder="fashion-mnist",
    downloads=_FASHION,
    kind="keep",
    needed=_names(_FASHION),
    size=30_900_000,
    unpacked=30_900_000,
    licence="MIT",
    home="https://github.com/zalandoresearch/fashion-mnist",
    places=(Path(_DEBIAN),),
    elsewhere=f"Debian: apt install dataset-fashion-mnist ({_DEBIAN})",
)

_MNIST = _idx(
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)

MNIST = Source(
    name="mnist",
    folder="mnist",
    downloads=_MNIST,
    kind="keep",
    needed=_names(_MNIST),
    size=11_600_000,
    unpacked=11_600_000,
    licence="CC BY-SA 3.0",
    home="http://yann.lecun.com/exdb/mnist/",
    elsewhere="--url https://storage.googleapis.com/cvdf-datasets/mnist/",
)

TINY_IMAGENET = Source(
    name="tiny_imagenet",
    folder="tiny-imagenet-200",
    downloads=(
        Download(
            "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
        ),
    ),
    kind="zip",
    needed=("train", "val"),
    size=248_100_043,
    unpacked=260_000_000,
    licence="research only, as ImageNet",
    home="http://cs231n.stanford.edu/",
)

_RAW = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"

_MULTI30K = tuple(
    Download(f"{_RAW}{name}.gz", f"sha256:{checksum}")
    for name, checksum in {
        "train.en": "d79cfa999dd4c51d2cb42499b6796d5a882c3a8a961923c25a898c90f8bbd56f",
        "train.de": "726e39b2fa9eb9ffb6dc763fb35a179f80fae06ffc5d28b6ace5faa883de28a6",
        "val.en": "14f7d25ddd868909a9213e361768460edcacdd6ab9d1e77b92560dc10c10dc28",
        "val.de": "f0cba2f995189cf5770f29a8a9a537a3ad3f51657ad873405082ff6863a5e75a",
        "test_2016_flickr.en": "611d361c6334bc7246101d48097c13cf5c4413c5befc793cc629934359d532d9",
        "test_2016_flickr.de": "9204244e408ccb38d2a55cfcd344df15005fc42a07a6e55ca6c52b6ababb8cc8",
    }.items()
)

MULTI30K = Source(
    name="multi30k",
    folder="multi30k",
    downloads=_MULTI30K,
    kind="gunzip",
    needed=_names(_MULTI30K, ".gz"),
    size=1_300_000,
    unpacked=4_200_000,
    licence="research only, as Flickr30k",
    home="https://github.com/multi30k/dataset",
)

TATOEBA = Source(
    name="tatoeba",
    folder="tatoeba",
    # The archive is made anew every few weeks, so there is no checksum that could be known here.
    downloads=(Download("https://www.manythings.org/anki/deu-eng.zip", ""),),
    kind="flat zip",
    needed=("deu.txt",),
    size=12_000_000,
    unpacked=50_000_000,
    licence="CC BY 2.0 FR",
    home="https://tatoeba.org",
    instead=("train.en", "train.de", "test.en", "test.de"),
)

SOURCES = {
    source.name: source
    for source in (CIFAR10, CIFAR100, FASHION_MNIST, MNIST, TINY_IMAGENET, MULTI30K, TATOEBA)
}


def find_source(name: str) -> Source:
    """Give the source of the data set of a task.

    Raises:
        DataError: None is known.
    """
    if name not in SOURCES:
        raise DataError(f"{unknown_name('data set', name, SOURCES)}; see `pathlen data list`")
    return SOURCES[name]
