"""Chromium where one is installed, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
_FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
IN_CHROMIUM = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
HOSTILE = "<img src=x onerror=\"document.title='taken'\"></script>"
# Whether the chart of a metric has been drawn.
INKED = """metric => {
  const canvas = document.querySelector(`[data-metric="${metric}"] canvas`);
  if (!canvas || !canvas.width) return false;
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  return data.some((v, i) => i % 4 === 3 && v > 0);
}"""


@contextmanager
def launched() -> Iterator[Any]:
    """Start a browser, and close it in the end; the test is skipped without Playwright."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=_FLAGS.split())
        yield chromium
        chromium.close()


@contextmanager
def tabs(
    browser: Any, home: str, *, errors_of_console: bool = False
) -> Iterator[Callable[..., Any]]:
    """Yield a function that opens a tab, given what its context has of its own.

    In the end the tabs are closed, and it is a failure where a script failed, a dialog came up, or
    a request left.

    Args:
        browser: the browser.
        home: how the addresses begin that a request may go to; `blob:` and `data:` leave nothing.
        errors_of_console: whether an error in the console is a failure too, as the answer to a bad
            request is one.
    """
    problems: list[str] = []
    contexts = []

    def open_tab(**options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1280, "height": 900}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.on("dialog", lambda dialog: problems.append(dialog.message))
        tab.on("request", lambda asked: problems.extend(_leaving(asked.url, home)))
        if errors_of_console:
            tab.on("console", lambda said: problems.extend(_error(said)))
        return tab

    yield open_tab
    for context in contexts:
        context.close()
    assert problems == []


def _leaving(url: str, home: str) -> list[str]:
    return [] if url.startswith((home, "blob:", "data:")) else [url]


def _error(said: Any) -> list[str]:
    return [said.text] if said.type == "error" else []
