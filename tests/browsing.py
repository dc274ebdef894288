"""Pages in a real browser: Chromium of the system, driven by Playwright, with all that a page says and asks for."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright


class Visit:
    """A page from disk, open in a browser.

    Attributes:
        said: What the console was told, and errors that nothing caught.
        asked: Addresses that were asked for, but for the page's own; those that it forbids itself too.
        refused: Those that were not got, and why.
    """

    def __init__(self, page: Page, file: Path, scripts: bool) -> None:
        self.page = page
        self.said: list[str] = []
        self.asked: list[str] = []
        self.refused: list[tuple[str, str]] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("requestfailed", lambda request: self.refused.append((request.url, str(request.failure))))
        page.set_default_timeout(60_000)  # a busy machine is slow, and only then is it waited for
        page.goto(file.as_uri(), wait_until="load")
        if scripts:
            self.settle()
        self.asked.remove(file.as_uri())

    def settle(self) -> None:
        """Wait until what was asked for is drawn: two frames."""
        self.page.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression."""
        return self.page.evaluate(expression)

    @property
    def width(self) -> int:
        """Of all that is there, in pixels: more than the window's, where the page can be pushed sideways."""
        return int(self.ask("document.documentElement.scrollWidth"))


class Visitor:
    """Opens pages, each in a browser profile of its own."""

    def __init__(self, browser: Browser, folder: Path) -> None:
        self._browser = browser
        self._folder = folder

    @contextmanager
    def visit(
        self,
        text: str,
        width: int = 1280,
        scheme: Literal["light", "dark"] = "light",
        file: str = "page.html",
        scripts: bool = True,
    ) -> Iterator[Visit]:
        """Write a page to disk and open it.

        Args:
            scheme: What the system of the reader prefers.
            file: Its place below the folder of the test.
            scripts: Whether the browser runs any.
        """
        place = self._folder / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
        context = self._browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
        )
        try:
            yield Visit(context.new_page(), place, scripts)
        finally:
            context.close()


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium; the test is skipped where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium is installed; Debian's package is called chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            yield browser
        finally:
            browser.close()
