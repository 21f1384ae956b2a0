"""The report in a real browser, opened from the disk."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import report as _report  # noqa: F401 - registers the command
from keisei.cli.program import app
from tests.conftest import MakeConfig
from tests.support.chromium import HOSTILE, IN_CHROMIUM, INKED, tabs

pytestmark = IN_CHROMIUM


@pytest.fixture
def files(make_config: MakeConfig, tmp_path: Path) -> Path:
    """The report of one run, and that of two."""
    for seed in (1, 2):
        noise = random.Random(seed)
        with SessionManager(make_config(env={"seed": seed}), run_name=f"r{seed}") as session:
            for step in range(400):
                loss = math.exp(-step / 100) + noise.gauss(0, 0.05)
                session.log_metrics({"loss": loss, "train/reward": step * 0.5}, step)
            session.log_metrics({HOSTILE: 1.0}, 400)
            session.log_metrics({"system/memory.used_bytes": 2.0**30, "system/cpu": 50.0}, None)
            with open(session.log_file_path, "a", encoding="utf-8") as log:
                log.write(f"{HOSTILE}\n")
            session.log_text("sample", HOSTILE)
    for name, runs in (("one", ["r1"]), ("two", ["r1", "r2"])):
        where = ["-o", str(tmp_path / f"{name}.html"), "--root", str(tmp_path / "runs")]
        assert CliRunner().invoke(app, ["report", *runs, *where]).exit_code == 0
    return tmp_path


@pytest.fixture
def opened(browser: Any, files: Path) -> Iterator[Any]:
    """A function that opens a report; whatever the page complains of or asks for is a failure."""
    with tabs(browser, "file:", errors_of_console=True) as open_tab:

        def open_page(name: str, width: int = 1280, scheme: str = "light") -> Any:
            page = open_tab(color_scheme=scheme, offline=True)
            page.set_viewport_size({"width": width, "height": 900})
            page.goto(f"file://{files}/{name}.html")
            page.wait_for_function(INKED, arg="loss")
            return page

        yield open_page


def readout(page: Any) -> str:
    """Return what the chart of the loss says of the value under the cursor."""
    text: str = page.locator("[data-metric=loss] .readout").inner_text()
    return text


@pytest.mark.requirement("LOOK-2")
def test_it_opens_from_the_disk_and_its_charts_are_read_and_zoomed(opened: Any) -> None:
    """No request leaves and no error is told; a value is read, and a drag zooms in."""
    page = opened("one")
    assert page.title() == "r1 · keisei"
    plot = page.locator("[data-metric=loss] .plot")
    box = plot.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    page.wait_for_function("() => document.querySelector('.readout')?.textContent.includes('step')")
    middle = readout(page)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 60, box["y"] + 60)
    page.mouse.up()
    page.get_by_role("button", name="Show all").wait_for()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 61)
    other = "said => document.querySelector('.readout').innerText !== said"
    page.wait_for_function(other, arg=middle)
    page.get_by_role("button", name="Show all").click()
    page.get_by_label("X axis").select_option("time")
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 60)
    after = "() => document.querySelector('.readout').innerText.startsWith('after')"
    page.wait_for_function(after)
    page.get_by_label("log y").check()
    page.get_by_role("searchbox", name="Metrics").fill("reward")
    page.wait_for_function("() => document.querySelectorAll('.chart').length === 1")


def test_what_a_run_says_is_text_in_the_page(opened: Any) -> None:
    """Names, log lines and texts with markup in them run nothing."""
    page = opened("one")
    assert page.title() == "r1 · keisei"
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("#log").inner_text()
    assert HOSTILE in page.locator("#media").inner_text()
    assert HOSTILE in page.locator(".metric").evaluate_all("all => all.map(one => one.title)")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280, 3840])
def test_it_fits_any_width_in_light_and_dark(opened: Any, width: int, scheme: str) -> None:
    """Nothing is wider than the window, and every chart is drawn, seen or not."""
    page = opened("two", width, scheme)
    for metric in ("loss", "train/reward"):
        page.wait_for_function(INKED, arg=metric)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, paper[4:-1].split(","))) < 384) is (scheme == "dark")
    assert page.locator(".legend li").all_inner_texts() == ["r1", "r2"]
    page.locator("details.run").first.locator("> summary").click()
    assert page.locator("#run1-config").is_visible()


def test_it_is_printed_in_light_with_all_charts(opened: Any) -> None:
    """In print a dark page is light, its tools are gone, and its charts are there."""
    page = opened("one", scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator(".tools").is_visible()
    page.wait_for_function(INKED, arg="train/reward")
