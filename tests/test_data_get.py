"""`pathlen data` against a server on this machine that cuts, changes and damages what it sends."""

from __future__ import annotations

import dataclasses
import errno
import gzip
import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
import zipfile
from pathlib import Path

import numpy
import pytest
from click.testing import CliRunner

from pathlen.cli.main import main
from pathlen.errors import DataError
from pathlen.training.sources import download as downloading
from pathlen.training.sources.download import fetch
from pathlen.training.sources.get import get
from pathlen.training.sources.known import CIFAR10, FASHION_MNIST, SOURCES, TATOEBA, Download
from pathlen.training.sources.unpack import unpack
from pathlen.training.tasks import TASKS, build_task
from tests.loopback import serving

CONTENT = numpy.random.default_rng(0).bytes(700_000)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


def tar_of(files, prepare=lambda member: None):
    """A gzipped tar archive of contents by name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            prepare(member)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zip_of(files):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def cifar(number=4):
    random = numpy.random.default_rng(1)
    files = {"cifar-10-batches-bin/readme.html": b"<p>"}
    for name in CIFAR10.needed:
        table = random.integers(0, 256, (number, 1 + 3 * 32 * 32), dtype=numpy.uint8)
        table[:, 0] %= 10
        files[f"cifar-10-batches-bin/{name}"] = table.tobytes()
    return tar_of(files)


def published(site, archive, checksum=None, **changes):
    """CIFAR-10 as this server publishes it."""
    site.files["cifar-10-binary.tar.gz"] = archive
    checksum = checksum or f"sha256:{hashlib.sha256(archive).hexdigest()}"
    address = Download(f"{site.url}cifar-10-binary.tar.gz", checksum)
    changes = {"size": len(archive), "unpacked": 100_000, **changes}
    return dataclasses.replace(CIFAR10, downloads=(address,), **changes)


def obtain(source, folder, url="", tries=3):
    return get(source, folder, lambda name: lambda done, total: None, url, tries=tries, pause=0)


def download(site, part, limit=10**6, tries=3):
    """Fetch the file `it`; what the watcher was told."""
    told = []
    fetch(f"{site.url}it", part, limit, lambda *now: told.append(now), tries=tries, pause=0)
    return told


# --- whole -----------------------------------------------------------------------------------


def test_a_data_set_is_downloaded_checked_unpacked_and_read(tmp_path):
    with serving() as site:
        source = published(site, cifar())
        got = obtain(source, tmp_path / "new" / "data")
        assert got.place == tmp_path / "new" / "data" / "cifar-10-batches-bin"
        assert os.listdir(tmp_path / "new" / "data") == ["cifar-10-batches-bin"]
        task = build_task({"name": "cifar10", "folder": str(tmp_path / "new" / "data")})
        assert (task.train_size, task.test_size) == (20, 4)
        assert obtain(source, tmp_path / "new" / "data").checksums == {}
        assert len(site.log) == 1  # nothing is asked for again


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_checksums_of_either_kind(tmp_path, algorithm):
    archive = cifar()
    expected = f"{algorithm}:{hashlib.new(algorithm, archive).hexdigest()}"
    with serving() as site:
        got = obtain(published(site, archive, expected), tmp_path)
    assert got.checksums == {"cifar-10-binary.tar.gz": expected}


def test_several_files_and_mirrors(tmp_path):
    contents = {name: gzip.compress(name.encode()) for name in FASHION_MNIST.needed}
    downloads = tuple(
        Download(f"http://127.0.0.1:9/{name}", f"md5:{hashlib.md5(content).hexdigest()}")
        for name, content in contents.items()
    )
    source = dataclasses.replace(FASHION_MNIST, downloads=downloads, kind="gunzip")
    with serving(files={f"mirror/{name}": content for name, content in contents.items()}) as site:
        got = obtain(source, tmp_path, f"{site.url}mirror/")
        with pytest.raises(DataError, match=r"has several files .* ending in a slash"):
            obtain(source, tmp_path / "other", f"{site.url}mirror")
    for name in contents:
        assert (got.place / name.removesuffix(".gz")).read_text() == name


# --- interrupted -----------------------------------------------------------------------------


def test_a_cut_connection_is_made_again_and_goes_on(tmp_path):
    part = tmp_path / "it.part"
    with serving(files={"it": CONTENT}, cuts=[1000, 300_000, 0, 5]) as site:
        told = download(site, part)
    assert part.read_bytes() == CONTENT
    starts = [None, 1000, 301_000, 301_000, 301_005]
    ranges = [None if start is None else f"bytes={start}-" for start in starts]
    assert site.log == [("it", one, one and '"one"') for one in ranges]
    assert told[-1] == (700_000, 700_000)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_a_later_call_goes_on(tmp_path):
    part = tmp_path / "it.part"
    with serving(files={"it": CONTENT}, cuts=[500_000]) as site:
        with pytest.raises(
            DataError, match="cut after 500,000 of 700,000 bytes; 500,000 bytes are"
        ):
            download(site, part, tries=0)
        download(site, part)
        assert site.log[1:] == [("it", "bytes=500000-", '"one"')]
        assert part.read_bytes() == CONTENT
        download(site, part)
        assert len(site.log) == 2  # it is complete


def test_tries_end_where_nothing_more_comes(tmp_path):
    with serving(files={"it": CONTENT}, cuts=[10] + [0] * 20) as site:
        with pytest.raises(DataError, match="cut after 10 of 700,000"):
            download(site, tmp_path / "it.part", tries=4)
        assert len(site.log) == 5


def test_a_server_without_ranges_sends_all_again(tmp_path):
    part = tmp_path / "it.part"
    with serving(files={"it": CONTENT}, cuts=[600_000, 100_000], ranges=False) as site:
        download(site, part)
        assert [one[1] for one in site.log] == [None, "bytes=600000-", "bytes=100000-"]
    assert part.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"ETag": '"one"'}, {"ETag": '"two"'}),
        ({"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, {"Last-Modified": "Tue, 02"}),
        ({"ETag": 'W/"weak"'}, {"ETag": 'W/"weak"'}),
        ({}, {}),
    ],
)
def test_a_file_that_changes_between_tries_starts_anew(tmp_path, before, after):
    part = tmp_path / "it.part"
    with serving(files={"it": CONTENT}, cuts=[400_000], headers=before) as site:
        with pytest.raises(DataError, match="400,000 bytes are kept"):
            download(site, part, tries=0)
        site.files["it"], site.headers = CONTENT[::-1], after
        download(site, part)
    assert part.read_bytes() == CONTENT[::-1]


def test_a_part_of_which_nothing_is_known_starts_anew(tmp_path):
    part = tmp_path / "it.part"
    for note in (None, "{", "[]", '{"url": 1}'):
        part.write_bytes(b"something else")
        if note is not None:
            part.with_name("it.part.json").write_text(note)
        with serving(files={"it": CONTENT}) as site:
            download(site, part)
            assert site.log == [("it", None, None)]
        assert part.read_bytes() == CONTENT


def test_a_part_that_is_longer_than_the_file_starts_anew(tmp_path):
    part = tmp_path / "it.part"
    with serving(files={"it": CONTENT}, cuts=[400_000]) as site:
        with pytest.raises(DataError):
            download(site, part, tries=0)
        site.files["it"] = CONTENT[:300_000]
        download(site, part)
    assert part.read_bytes() == CONTENT[:300_000]


def test_answers_that_do_not_say_their_length(tmp_path):
    part = tmp_path / "it.part"
    with serving(files={"it": CONTENT}, length=False) as site:
        assert download(site, part)[-1] == (700_000, None)
        assert part.read_bytes() == CONTENT
        download(site, part)
        assert len(site.log) == 1
        with pytest.raises(DataError, match="more than the 9,000 bytes expected"):
            download(site, tmp_path / "other.part", limit=9000)
        assert left(tmp_path) == ["it.part", "it.part.json"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are those of POSIX")
def test_ctrl_c_keeps_what_has_arrived(tmp_path):
    table = "".join(f"Sentence {number}.\tSatz {number}.\n" for number in range(40_000))
    archive = zip_of({"deu.txt": table, "_about.txt": "x"})
    part = tmp_path / "tatoeba.unfinished" / "deu-eng.zip.part"
    command = [sys.executable, "-m", "pathlen", "data", "get", "tatoeba"]
    command += ["--folder", str(tmp_path), "--url"]
    with serving(cuts=[9000], stall=threading.Event()) as site:
        site.files["deu-eng.zip"] = archive
        url = f"{site.url}deu-eng.zip"
        process = subprocess.Popen([*command, url], stderr=subprocess.PIPE, text=True)
        while not (part.exists() and part.stat().st_size == 9000):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        assert process.returncode == 130
        assert "Stopped; the same command goes on" in errors
        assert os.listdir(tmp_path) == ["tatoeba.unfinished"]
        done = CliRunner().invoke(main, [*command[3:], url])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "tatoeba" / "deu.txt").read_text() == table
    assert os.listdir(tmp_path) == ["tatoeba"]
    assert f"sha256:{hashlib.sha256(archive).hexdigest()} (found; none is known" in done.output
    assert f"task: {{name: tatoeba, folder: {tmp_path}}}" in done.output


# --- refused ---------------------------------------------------------------------------------


def left(folder):
    """All files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_wrong_checksum_is_refused_and_the_file_removed(tmp_path):
    with serving() as site:
        source = published(site, cifar(), "sha256:" + "0" * 64)
        with pytest.raises(
            DataError, match=r"has the sha256 checksum .* not 0{64}: it was damaged"
        ):
            obtain(source, tmp_path)
        assert left(tmp_path) == []
        right = published(site, cifar())
        obtain(right, tmp_path)
    assert os.listdir(tmp_path) == ["cifar-10-batches-bin"]


def test_files_that_are_not_there_are_said_so_at_once(tmp_path):
    with serving() as site:
        with pytest.raises(DataError, match=r"answers 404 Not Found.* give --url of a mirror"):
            download(site, tmp_path / "it.part")
        assert len(site.log) == 1
        site.files["it"], site.status = CONTENT, 503
        with pytest.raises(DataError, match="answers 503"):
            download(site, tmp_path / "it.part")
    with pytest.raises(DataError, match=r"cannot be reached: .*is there a network\?"):
        download(site, tmp_path / "it.part")  # nobody listens any more
    assert left(tmp_path) == []
    for url in ("file:///etc/passwd", "ftp://127.0.0.1/it", "it.zip"):
        with pytest.raises(DataError, match="no http or https URL"):
            fetch(url, tmp_path / "it.part", 10, lambda *_: None)


def test_files_that_are_too_large_are_refused_before_they_come(tmp_path):
    expected = pytest.raises(DataError, match="has 700,000 bytes, more than the 600,000 expected")
    with serving(files={"it": CONTENT}) as site, expected:
        download(site, tmp_path / "it.part", limit=600_000)
    assert left(tmp_path) == []


def test_folders_with_other_things_are_left_alone(tmp_path):
    mine = tmp_path / "cifar-10-batches-bin"
    mine.mkdir()
    (mine / "test_batch.bin").write_bytes(b"mine")
    with serving() as site:
        with pytest.raises(DataError, match=r"is there, without data_batch_1\.bin.*move it away"):
            obtain(published(site, cifar()), tmp_path)
        assert site.log == []
    assert left(tmp_path) == ["cifar-10-batches-bin/test_batch.bin"]


def link(member):
    member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0


BAD_TARS = {
    "up": (tar_of({"../evil": b"x"}), "'../evil' leads out of the folder"),
    "root": (tar_of({"/tmp/evil-of-pathlen": b"x"}), "leads out of the folder"),
    "link": (tar_of({"cifar-10-batches-bin/a": b""}, link), "is no plain file"),
    "bomb": (tar_of({"a": bytes(300_000)}), "more than the 200,000 bytes expected"),
    "other": (tar_of({"b/readme": b"x"}), "there is no data_batch_1.bin, .*another data set"),
    "cut": (cifar()[:-900], "cannot be unpacked"),
    "none": (b"<html>moved</html>", "cannot be unpacked"),
}

BAD_ZIPS = {
    "up": (zip_of({"../evil": b"x"}), "'../evil' leads out of the folder"),
    "windows": (zip_of({"..\\evil": b"x"}), "leads out of the folder"),
    "drive": (zip_of({"C:/evil": b"x"}), "leads out of the folder"),
    "root": (zip_of({"/evil": b"x"}), "leads out of the folder"),
    "bomb": (zip_of({"a": bytes(300_000)}), "more than the 200,000 bytes expected"),
    "cut": (zip_of({"deu.txt": b"a" * 9000})[:-30], "cannot be unpacked"),
}


@pytest.mark.parametrize("case", BAD_TARS)
def test_bad_tar_archives_are_refused_and_nothing_is_left(tmp_path, case):
    archive, message = BAD_TARS[case]
    with serving() as site:
        source = published(site, archive)
        with pytest.raises(DataError, match=message):
            obtain(source, tmp_path / "data")
    assert left(tmp_path) == []
    assert not Path("/tmp/evil-of-pathlen").exists()


@pytest.mark.parametrize("case", BAD_ZIPS)
@pytest.mark.parametrize("kind", ["zip", "flat zip"])
def test_bad_zip_archives_are_refused_and_nothing_is_left(tmp_path, case, kind):
    archive, message = BAD_ZIPS[case]
    with serving(files={"deu-eng.zip": archive}) as site:
        source = dataclasses.replace(TATOEBA, kind=kind, unpacked=100_000)
        with pytest.raises(DataError, match=message):
            obtain(source, tmp_path / "data", f"{site.url}deu-eng.zip")
    assert left(tmp_path) == []


def test_gzip_that_grows_too_large_is_refused(tmp_path):
    path = tmp_path / "a.gz.part"
    path.write_bytes(gzip.compress(bytes(10**6)))
    source = dataclasses.replace(
        TATOEBA, kind="gunzip", downloads=(Download("a.gz", ""),), unpacked=1000
    )
    (tmp_path / "staging").mkdir()
    with pytest.raises(DataError, match="more than the 2,000 bytes expected"):
        unpack(source, [path], tmp_path / "staging")
    path.write_bytes(b"no gzip")
    shutil.rmtree(tmp_path / "staging")
    (tmp_path / "staging").mkdir()
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(source, [path], tmp_path / "staging")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is full")
def test_a_full_disk_is_told_and_what_has_arrived_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(downloading, "_writable", lambda part, mode: io.FileIO("/dev/full", "wb"))
    with serving(files={"it": CONTENT}) as site:
        with pytest.raises(DataError, match=r"it\.part' cannot be written: .*No space left"):
            download(site, tmp_path / "it.part")
        assert len(site.log) == 1


def test_a_disk_that_is_full_while_unpacking_costs_no_second_download(tmp_path, monkeypatch):
    def full(member, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    with serving() as site:
        source = published(site, cifar())
        with monkeypatch.context() as patch:
            patch.setattr(tarfile.TarFile, "extract", full)
            with pytest.raises(DataError, match=r"No space left.*what was downloaded is kept"):
                obtain(source, tmp_path)
        assert not (tmp_path / "cifar-10-batches-bin").exists()
        assert not (tmp_path / "cifar-10-batches-bin.unfinished" / "unpacked").exists()
        obtain(source, tmp_path)
        assert len(site.log) == 1
    assert os.listdir(tmp_path) == ["cifar-10-batches-bin"]


# --- what is known ---------------------------------------------------------------------------


def test_what_is_known_fits_the_tasks(tmp_path):
    for name, source in SOURCES.items():
        assert name == source.name
        assert name in TASKS
        for one in source.downloads:
            digits = {"": 0, "md5": 32, "sha256": 64}
            algorithm, _, checksum = one.checksum.partition(":")
            assert len(checksum) == digits[algorithm]
            assert set(checksum) <= set("0123456789abcdef")
            assert one.checksum or source is TATOEBA
        with pytest.raises(DataError) as error:
            build_task({"name": name, "folder": str(tmp_path)})
        assert f"in {str(tmp_path / source.folder)!r}; `pathlen data get {name}" in str(error.value)


def test_the_list_says_what_is_there(tmp_path):
    (tmp_path / "multi30k").mkdir()
    for name in SOURCES["multi30k"].needed:
        (tmp_path / "multi30k" / name).touch()
    (tmp_path / "tatoeba").mkdir()
    done = CliRunner().invoke(main, ["data", "list", "--folder", str(tmp_path)])
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.output.splitlines()}
    assert set(SOURCES) < set(lines)
    assert f" {tmp_path / 'multi30k'} " in lines["multi30k"]
    assert f"{tmp_path / 'tatoeba'}, without deu.txt" in lines["tatoeba"]
    assert " no " in lines["cifar100"]
    assert "169 MB" in lines["cifar100"]
    assert "apt install dataset-fashion-mnist" in lines["fashion_mnist"]


def test_unknown_data_sets_are_refused_with_suggestions():
    done = CliRunner().invoke(main, ["data", "get", "cifar-10"])
    assert done.exit_code == 2
    assert "there is no data set 'cifar-10'; did you mean 'cifar10'" in done.output
