"""The page in a real browser: Chromium where one is installed, driven by Playwright."""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager, SessionMember
from keisei.run import labels
from keisei.run.labels import Labels
from tests.conftest import MakeConfig
from tests.support.chromium import HOSTILE, IN_CHROMIUM, INKED, tabs
from tests.support.logged_runs import Log, line
from tests.support.page import Served, served

TURNED = "\N{RIGHT-TO-LEFT OVERRIDE}gnp"

pytestmark = IN_CHROMIUM


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A tab, whose script makes no error and leads nowhere else."""
    with tabs(browser, "http://127.0.0.1:") as open_tab:
        yield open_tab()


def names(tab: Any) -> list[str]:
    """Return the runs that the list shows."""
    found: list[str] = tab.locator("tbody .c-name").all_text_contents()
    return found


def until(tab: Any, condition: str, argument: object = None) -> None:
    """Wait until a condition holds in the page."""
    tab.wait_for_function(condition, arg=argument)


SHOWS = "n => document.querySelectorAll('tbody .c-name').length === n"


@pytest.mark.requirement("LOOK-3")
def test_the_list_is_filtered_sorted_and_opened_by_keys(tab: Any, page: Served) -> None:
    """A query narrows the list, the address keeps it, and a run is opened without a mouse."""
    tab.goto(page.address)
    until(tab, SHOWS, 2)
    assert "token" not in tab.url
    tab.keyboard.press("/")
    tab.keyboard.type("loss.last>150")
    until(tab, SHOWS, 1)
    assert names(tab) == ["second"]
    assert "q=loss.last" in tab.url
    tab.reload()
    until(tab, SHOWS, 1)
    tab.locator("#search").fill("statsu:x")
    tab.wait_for_selector("#problem:has-text('character 1')")
    tab.locator("#search").fill("")
    until(tab, SHOWS, 2)
    tab.get_by_role("button", name="Run", exact=True).click()
    until(tab, "() => document.querySelector('tbody .c-name')?.textContent === 'first'")
    tab.keyboard.press("Escape")
    tab.keyboard.press("j")
    tab.keyboard.press("j")
    tab.keyboard.press("Enter")
    tab.wait_for_url(re.compile("/run/second$"))
    until(tab, INKED, "loss")
    tab.keyboard.press("Escape")
    until(tab, SHOWS, 2)


def test_runs_are_compared_and_the_address_is_a_link(tab: Any, page: Served) -> None:
    """Two runs are chosen and drawn over each other; zoom and smoothing are in the address."""
    tab.goto(page.address)
    until(tab, SHOWS, 2)
    for name in ("first", "second"):
        tab.get_by_role("checkbox", name=f"Choose {name}").check()
    tab.get_by_role("button", name="Compare 2").click()
    until(tab, INKED, "loss")
    plot = tab.locator("[data-metric=loss] .plot")
    box = plot.bounding_box()
    tab.mouse.move(box["x"] + 150, box["y"] + 60)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 250, box["y"] + 60)
    tab.mouse.up()
    tab.wait_for_url(re.compile("from=.*to="))
    tab.get_by_label("log y").check()
    tab.wait_for_url(re.compile("log=1"))
    tab.reload()
    until(tab, INKED, "loss")
    assert tab.get_by_label("log y").is_checked()
    tab.get_by_role("button", name="Table of loss").click()
    assert tab.locator("[data-metric=loss] tbody tr").count() > 2
    tab.get_by_role("button", name="Show all").click()
    until(tab, "() => !location.search.includes('from')")


def test_a_live_chart_grows(tab: Any, page: Served, make_config: MakeConfig) -> None:
    """What is logged while the page is open is drawn, without anything being pressed."""
    with SessionManager(make_config(), run_name="live") as session:
        session.log_metrics({"loss": 1.0}, 0)
        tab.goto(page.address.replace("/?", "/run/live?"))
        latest = "v => document.querySelector('[data-metric=loss] .latest')?.textContent === v"
        until(tab, latest, "1")
        for step in range(1, 4):
            session.log_metrics({"loss": 1.0 + step, "new": 1.0}, step)
            until(tab, latest, str(1 + step))
        until(tab, INKED, "new")
        assert tab.locator(".head .state").text_content() == "running"
    until(tab, "() => document.querySelector('.head .state').textContent === 'completed'")


def test_tags_and_notes_are_changed_in_place(tab: Any, page: Served, root: Path) -> None:
    """A tag and a note that are written in the list are those of the run, and come to others."""
    tab.goto(page.address)
    until(tab, SHOWS, 2)
    row = tab.locator("tr", has=tab.get_by_text("first", exact=True))
    row.hover()
    row.get_by_role("button", name="Add a tag to first").click()
    tab.keyboard.type("ppo")
    tab.keyboard.press("Enter")
    row.get_by_role("button", name="Remove the tag ppo").wait_for()
    row.get_by_role("button", name="Write a note for first").click()
    tab.keyboard.type(HOSTILE)
    tab.keyboard.press("Enter")
    row.get_by_text(HOSTILE).wait_for()
    changed: Callable[[Labels], Labels] = lambda now: labels.tagged(now, ["from-elsewhere"])  # noqa: E731
    assert labels.change_labels(str(root / "first"), changed).note == HOSTILE
    row.get_by_text("from-elsewhere").wait_for()
    row.get_by_role("button", name="Remove the tag ppo").click()
    until(
        tab,
        "() => ![...document.querySelectorAll('.chip-text')].some(c => c.textContent === 'ppo')",
    )
    assert tab.title() == "Runs · keisei"


def test_hostile_names_and_lines_are_text(tab: Any, page: Served, root: Path, log: Log) -> None:
    """Markup in a metric, a log line, an event and a run's name does nothing; marks are shown."""
    directory = log("bad", [({f"m/{HOSTILE}": 1.0, f"m/{TURNED}": 2.0}, 1)])
    os.rename(directory, root / f"bad{HOSTILE.replace('/', '')}{TURNED}")
    (name,) = (one.name for one in root.iterdir() if one.name.startswith("bad"))
    with open(root / name / "training.log", "a", encoding="utf-8") as file:
        file.write(f"{HOSTILE}\x1b[31mred {TURNED}\n{'x' * 100_000}\nlast\n")
    tab.goto(page.address)
    until(tab, SHOWS, 3)
    shown = name.replace(TURNED[0], "\\u202e")
    tab.get_by_role("link", name=shown).click()
    tab.get_by_role("heading", name=shown).wait_for()
    until(tab, "() => document.querySelectorAll('.chart').length === 2")
    tab.get_by_role("tab", name="Log").click()
    tab.get_by_text("last", exact=True).wait_for()
    lines = tab.locator(".line").all_text_contents()
    assert f"{HOSTILE}\\u001b[31mred \\u202egnp" in lines
    assert "characters more" in lines[-2]
    for view in ("Config", "Events", "Usage", "Media", "Verdict"):
        tab.get_by_role("tab", name=view).click()
        until(tab, "() => document.querySelector('#panel').textContent.length > 5")
    assert tab.title().startswith("bad<img")
    assert tab.locator("main img, main script").count() == 0


def test_values_at_the_limits_are_drawn(tab: Any, page: Served, log: Log) -> None:
    """The largest and smallest floats have a line and an axis, NaN alone is said, also on log."""
    rows = [
        ({"big": 1e308 * (-1) ** step, "tiny": 1e-308, "nan": math.nan, "below": -1.0}, step)
        for step in range(3)
    ]
    log("odd", rows)
    tab.goto(page.address.replace("/?", "/run/odd?"))
    for query in ("", "?log=1"):
        tab.goto(page.address.partition("/?")[0] + f"/run/odd{query}")
        for metric in ("big", "tiny", "nan", "below"):
            until(tab, INKED, metric)


def test_the_tables_of_usage_and_differences_are_shown(
    tab: Any, page: Served, make_config: MakeConfig
) -> None:
    """Phases and money in units; a part chosen by keys; in what runs differ."""
    config = make_config(monitoring={"phases": True})
    with SessionManager(config, run_name="paid") as session:
        with session.phase("evaluation"):
            session.log_metrics({"loss": 1.0}, 1)
        session.log_cost(2.5, "judge")
        with SessionMember(session.handle(), role="rollout-1") as member:
            member.log_metrics({"reward": 7.0}, 3)
    tab.goto(page.address.replace("/?", "/run/paid?tab=usage&"))
    tab.get_by_role("region", name="Time by phase").get_by_text("evaluation").wait_for()
    tab.get_by_role("region", name="Cost").get_by_text("2.50").first.wait_for()
    tab.get_by_role("tab", name="Charts").click()
    tab.get_by_label("Part").select_option("rollout-1")
    until(tab, INKED, "reward")
    assert "part=rollout-1" in tab.url
    tab.goto(page.address.partition("/?")[0] + "/compare?run=first&run=paid&differ=1")
    tab.get_by_role("region", name="Last values").get_by_text("99", exact=True).wait_for()
    tab.get_by_role("region", name="How they went").get_by_text("2.50 USD", exact=True).wait_for()


WIDE_OF = """selector => [...document.querySelectorAll(selector)].filter(one => {
  const box = one.getBoundingClientRect();
  return box.width && (box.left < 0 || box.right > innerWidth);
}).length"""


def test_nothing_is_cut_off_on_a_phone(tab: Any, page: Served, root: Path) -> None:
    """What the list is sorted by, long tags, the tab that is open, and a config's values."""
    tagged: Callable[[Labels], Labels] = lambda now: labels.tagged(now, ["t" * 64])  # noqa: E731
    labels.change_labels(str(root / "first"), tagged)
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.goto(page.address)
    until(tab, SHOWS, 2)
    assert tab.locator("thead button").count() == 7
    assert tab.evaluate(WIDE_OF, "thead button, .chip, .chip-x") == 0
    tab.get_by_role("button", name="Run", exact=True).click()
    until(tab, "() => document.querySelector('tbody .c-name')?.textContent === 'first'")
    tab.goto(page.address.partition("/?")[0] + "/run/first?tab=verdict")
    until(tab, "() => document.querySelector('[aria-selected=true]')?.id === 'tab-verdict'")
    assert tab.evaluate(WIDE_OF, "[aria-selected=true]") == 0
    tab.get_by_role("tab", name="Config").click()
    tab.get_by_text("training.total_timesteps", exact=True).wait_for()
    assert tab.evaluate(WIDE_OF, "tbody tr, tbody th, tbody td, [aria-selected=true]") == 0
    assert tab.evaluate("() => document.documentElement.scrollWidth") == 360


def test_a_run_says_how_far_it_is_whatever_is_read_first(tab: Any, page: Served) -> None:
    """Its step and rows are followed, and what is known of it otherwise takes them from no one."""
    answered: list[Any] = []
    tab.route("**/api/run/first", lambda route: answered.append(route))
    tab.goto(page.address.replace("/?", "/run/first?"))
    tab.locator(".fact-step").get_by_text("99", exact=True).wait_for()
    answered.pop().continue_()
    tab.locator(".fact-id").wait_for()
    assert tab.locator(".fact-step dd").text_content() == "99"


def test_a_name_that_no_address_can_hold_is_drawn(tab: Any, page: Served, log: Log) -> None:
    """A metric's name of 100 KB, and half a character in one, keep no chart from being drawn."""
    log("long", [({"m" * 100_000: 1.0, "a\ud800": 2.0, "loss": 3.0}, step) for step in range(3)])
    tab.goto(page.address.replace("/?", "/run/long?"))
    until(tab, INKED, "loss")
    latest = tab.locator(".latest")
    until(tab, "() => document.querySelectorAll('.latest:not(:empty)').length === 3")
    assert sorted(latest.all_text_contents()) == ["1", "2", "3"]
    assert tab.get_by_text("a\\ud800", exact=True).count() == 1


@pytest.mark.parametrize(
    ("value", "step", "text"),
    [(1525, 25, "1525"), (10.25, 0.25, "10.25"), (1550, 50, "1550"), (0.975, 0.025, "0.975"),
     (125_000, 25_000, "125k"), (102_500, 2500, "102.5k"), (2.0, 0.5, "2"), (0.3, 0.1, "0.3"),
     (1000, 0, "1000"), (1e308, 5e307, "1e308")],
)  # fmt: skip
def test_a_mark_says_where_it_is(
    tab: Any, page: Served, value: float, step: float, text: str
) -> None:
    """A mark at 1525 is no 1530, as rounding to three digits makes it."""
    tab.goto(page.address)
    short = "async ([value, step]) => (await import('/static/chart.js')).short(value, step)"
    assert tab.evaluate(short, [value, step]).replace("+", "") == text


def test_a_thousand_runs_are_listed(tab: Any, tmp_path: Path, log: Log) -> None:
    """However many there are, the first come at once, and more where the list is scrolled."""
    first = log("r-0000", line(range(2)))
    for number in range(1, 1000):
        shutil.copytree(first, first.parent / f"r-{number:04d}")
    with served(tmp_path / "runs") as page:
        tab.goto(page.address)
        until(tab, SHOWS, 200)
        assert "1,000 runs" in tab.locator(".summary").text_content()
        tab.keyboard.press("End")
        until(tab, "() => document.querySelectorAll('tbody .c-name').length >= 400")
        tab.locator("#search").fill("r-0777")
        until(tab, SHOWS, 1)


def test_many_metrics_are_found_and_only_some_drawn(tab: Any, tmp_path: Path, log: Log) -> None:
    """Of twelve thousand metrics only those that are seen are asked for; a search finds one."""
    log("wide", [({f"layer{n % 100}/w{n}": float(n) for n in range(12_000)}, s) for s in (1, 2)])
    with served(tmp_path / "runs") as page:
        tab.goto(page.address.replace("/?", "/run/wide?"))
        tab.get_by_text("12,000 metrics", exact=True).wait_for()
        assert tab.locator(".chart").count() <= 200
        tab.locator("#search").fill("w11999")
        until(tab, INKED, "layer99/w11999")
        assert tab.locator(".chart").count() == 1


def test_a_server_that_comes_back_is_found_again(tab: Any, root: Path, log: Log) -> None:
    """A page says that the server is away, goes on where it is back, and shows what is new."""
    with served(root) as page:
        tab.goto(page.address)
        until(tab, SHOWS, 2)
        tab.get_by_text("Live", exact=True).wait_for()
    tab.get_by_text("Connection lost: trying again").wait_for()
    log("third", line(range(2)))
    with served(root, page.port) as again:
        assert again.port == page.port
        tab.get_by_text("Connected again").wait_for()
        until(tab, SHOWS, 3)


def test_a_narrow_page_fits(browser: Any, page: Served) -> None:
    """At 360 pixels nothing is wider than the screen, neither the list nor a run."""
    context = browser.new_context(viewport={"width": 360, "height": 740}, color_scheme="dark")
    tab = context.new_page()
    tab.goto(page.address)
    until(tab, SHOWS, 2)
    fits = "() => document.documentElement.scrollWidth <= innerWidth"
    assert tab.evaluate(fits)
    tab.get_by_role("link", name="first").click()
    until(tab, INKED, "loss")
    for view in ("Log", "Config", "Events", "Charts"):
        tab.get_by_role("tab", name=view).click()
        until(tab, fits)
    context.close()
