"""The documentation is built without warnings, needs no other server, and is complete."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.vision import import_torchvision

ROOT = Path(__file__).parent.parent
LOADED_BY_CSS = re.compile(
    r"url\(\s*[\"']?((?:https?:)?//[^)\"']+)|@import\s+[\"']((?:https?:)?//[^\"']+)"
)
PACKAGES = (
    "pathlen",
    "pathlen.activity",
    "pathlen.backends",
    "pathlen.figures",
    "pathlen.integrations",
    "pathlen.training",
)


class Requests(HTMLParser):
    """What a browser loads by itself when it opens a page; links are followed by readers only."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.found += [values.get(name) or "" for name in ("src", "srcset", "data", "poster")]
        if tag == "link" and values.get("rel") not in ("canonical", "alternate", "next", "prev"):
            self.found.append(values.get("href") or "")


def requests_of(page: str) -> list[str]:
    """The addresses on other servers that a page loads something from."""
    parser = Requests()
    parser.feed(page)
    styles = [first or second for first, second in LOADED_BY_CSS.findall(page)]
    return [url for url in [*parser.found, *styles] if re.match(r"(https?:)?//", url)]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) >= 30
    for page in pages:
        assert requests_of(page.read_text()) == [], page
    for sheet in site.rglob("*.css"):
        assert requests_of(f"<style>{sheet.read_text()}</style>") == [], sheet


@pytest.mark.slow
def test_every_page_of_the_docs_is_in_the_navigation(site):
    home = (site / "index.html").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        place = page.relative_to(ROOT / "docs").with_suffix("").as_posix()
        assert place == "index" or f'href="{place}/"' in home, page


def test_requests_are_found():
    page = """<script src="https://a.example/x.js"></script>
    <link rel="stylesheet" href="//b.example">
    <style>@import "https://c.example/x.css"; x { background: url(https://d.example/y.png) }</style>
    <a href="https://e.example">read</a><img src="images/local.svg"><link rel="next" href="//f">"""
    hosts = [re.sub(r"(https?:)?//", "", url)[0] for url in requests_of(page)]
    assert sorted(hosts) == ["a", "b", "c", "d"]


@pytest.mark.slow
@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_in_the_reference(site, package):
    import_torchvision()  # which what integrates with transformers imports
    anchors = anchors_of(site / "objects.inv")
    offered = importlib.import_module(package)
    missing = []
    for name in offered.__all__:
        value = getattr(offered, name)
        names = {f"{package}.{name}", f"{getattr(value, '__module__', package)}.{name}"}
        # A package below is not listed as a whole; its names are tested on their own.
        if not names & {*anchors, *PACKAGES}:
            missing.append(name)
    assert missing in ([], ["__version__"]), f"docs/api.md needs ::: lines for {package}"


def anchors_of(inventory: Path) -> set[str]:
    """The names that have an entry in the reference: mkdocstrings lists them for other sites."""
    *head, body = inventory.read_bytes().split(b"\n", 4)
    assert b"zlib" in head[-1]
    return {line.split()[0] for line in zlib.decompress(body).decode().splitlines()}
