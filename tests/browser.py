"""Headless Chromium for the tests of the HTML report, with no network and a profile of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless=new",
    "--no-sandbox",  # root, as in most CI, cannot have one
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--window-size=1360,1000",
)


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A selenium driver of Chromium; the test is skipped where there is none."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver")
    # With both paths given, selenium downloads nothing.
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(driver)
    opened = webdriver.Chrome(options, service)
    try:
        yield opened
    finally:
        opened.quit()


class Page:
    """A report that is open in a browser."""

    def __init__(self, driver: Any, path: Path) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        driver.get_log("browser")  # what earlier pages said is not this one's
        driver.get(path.as_uri())
        self.driver = driver
        WebDriverWait(driver, 60).until(
            lambda _: self.run("return document.documentElement.dataset.ready") == "yes"
        )

    def run(self, script: str, *arguments: object) -> Any:
        """Run JavaScript in the page."""
        return self.driver.execute_script(script, *arguments)

    def ask_for(self, scheme: str) -> None:
        """What the system asks for from here on, "light" or "dark"; back when the page knows it."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        # A page is told of a change when its next frame is made, before the frame's callbacks.
        self.driver.execute_async_script("requestAnimationFrame(arguments[0])")

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait until something holds: what follows an event may take frames on a loaded machine."""
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.driver, 60).until(lambda _: holds())

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """The text of an element, whether it is within the window or not."""
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def boxes(self) -> list[str]:
        """The labels of what the graph shows, also outside of the window."""
        return self.run("return pathlen.view.drawing.boxes.map((box) => box.item.label)")

    def press(self, selector: str) -> None:
        self.one(selector).click()

    def press_item(self, label: str) -> None:
        """Click a box of the graph, or the title of an open module."""
        self.run(
            """
            const wanted = arguments[0];
            const all = document.querySelectorAll("#graph [data-place], #graph [data-group]");
            const name = (node) => node.querySelector(".label").textContent.slice(2);
            const found = [...all].filter((node) => name(node) === wanted);
            if (found.length !== 1) throw new Error(`${found.length} items ${wanted}`);
            found[0].dispatchEvent(new MouseEvent("click", { bubbles: true }));
            """,
            label,
        )

    def keys(self, *keys: str) -> None:
        """Press keys in what has the focus."""
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def said(self) -> list[str]:
        """Warnings and errors that the browser's console has got since the page was opened."""
        return [
            entry["message"]
            for entry in self.driver.get_log("browser")
            if entry["level"] in ("WARNING", "SEVERE")
        ]
