"""The page of `keisei ui` in a real browser: how soon something is seen, and what that costs.

A run of a million rows of 20 metrics, a list of a thousand runs, a row that is logged while its
chart is looked at, and a hundred runs that log ten rows a second each while the list is open. Each
page is opened in a new browser context, at a server that has just been started. Without a Chromium
there are no rows.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil

from keisei import SessionManager, load_config
from keisei.dashboard import serving
from tests.benchmarks.measure import ROOT, Row, child_environment, progress, row, workplace
from tests.support.chromium import CHROMIUM, launched

ROWS, METRICS, RUNS = 1_000_000, 20, 1_000
LIVE, RATE = 100, 10.0  # runs, and rows a second of each
TOKEN = "a-token-of-the-benchmarks"
FIRST = "document.querySelector('.latest')?.textContent"
SIX = "[...document.querySelectorAll('.latest')].filter(one => one.textContent).length >= 6"
LISTED = "document.querySelectorAll('tbody tr').length > 0"


def run(*, quick: bool) -> list[Row]:
    """Measure the page.

    Args:
        quick: take fewer rows, runs and repeats.
    """
    if CHROMIUM is None:
        progress("page: no Chromium is installed")
        return []
    rows, runs, repeats = (ROWS // 10, RUNS // 10, 2) if quick else (ROWS, RUNS, 5)
    with ExitStack() as stack:
        home = stack.enter_context(workplace())
        environ = child_environment(home) | {serving.TOKEN_VARIABLE: TOKEN}
        browser = stack.enter_context(launched())
        progress(f"page: a run of {rows:,} rows")
        _log(home / "large", "large", rows, METRICS)
        _log(home / "many", "r-0000", 5, 2)
        for number in range(1, runs):
            shutil.copytree(home / "many" / "r-0000", home / "many" / f"r-{number:04d}")
        large: list[tuple[float, float, float]] = []
        listed: list[tuple[float, float]] = []
        for repeat in range(repeats):
            progress(f"page: {repeat + 1} of {repeats}")
            with _served(home / "large", environ) as (address, server):
                first, six = _seen(browser, f"{address}/run/large", FIRST, SIX)
                large.append((first, six, _cpu(server)))
            with _served(home / "many", environ) as (address, server):
                (first,) = _seen(browser, f"{address}/", LISTED)
                listed.append((first, _cpu(server)))
        with _served(home / "live", environ) as (address, _):
            pixels = _pixels(browser, address, home / "live", 3 * repeats)
        share = _followed(browser, home / "hundred", environ, 5.0 if quick else 20.0)
    return [
        row(f"{rows:,} rows: the first chart", [one[0] for one in large], unit="ms", at_most=500),
        row(f"{rows:,} rows: six charts", [one[1] for one in large], unit="ms"),
        row("its server, start included: CPU", [one[2] for one in large], unit="ms"),
        row(f"{runs:,} runs: the list", [one[0] for one in listed], unit="ms", at_most=500),
        row("its server, start included: CPU", [one[1] for one in listed], unit="ms"),
        row("from a row to its chart", pixels, unit="ms", at_most=1000),
        row(f"{LIVE} live runs, the list open: CPU, in % of a core", [share], unit="", at_most=10),
    ]


def _log(root: Path, name: str, rows: int, metrics: int) -> None:
    names, chance = [f"train/m{number}" for number in range(metrics)], random.Random(1)
    root.mkdir(exist_ok=True)
    with SessionManager(_config(root), run_name=name) as session:
        for step in range(rows):
            base = math.sin(step / 5000) + chance.random() * 0.3
            session.log_metrics({key: base + at for at, key in enumerate(names)}, step)


def _config(root: Path) -> Any:
    journal = {"when_full": "wait"}
    overrides = {"logging": {"log_dir": str(root)}, "wandb": {"mode": "disabled"}}
    return load_config(overrides={**overrides, "journal": journal})


@contextmanager
def _served(root: Path, environ: dict[str, str]) -> Iterator[tuple[str, psutil.Process]]:
    """Serve a root by a process of its own: its address, and the process."""
    root.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "keisei", "ui", "--root", str(root), "--no-browser"]
    with subprocess.Popen(
        [*command, "--port", "0"], cwd=ROOT, env=environ, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            address = next(line for line in server.stdout if "token=" in line).strip()
            yield address.partition("/?")[0], psutil.Process(server.pid)
        finally:
            server.kill()


@contextmanager
def _tab(browser: Any, address: str) -> Iterator[Any]:
    """Open a tab that has the server's token."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    tab.goto(f"{address.partition('/run')[0].rstrip('/')}/static/icon.svg")
    tab.evaluate("token => localStorage.setItem('keisei-token', token)", TOKEN)
    yield tab
    context.close()


def _seen(browser: Any, address: str, *conditions: str) -> list[float]:
    """Return after how many seconds from its opening a page fulfils each condition."""
    with _tab(browser, address) as tab:
        for number, condition in enumerate(conditions):
            tab.add_init_script(
                f"(() => {{ const look = () => {{ if ({condition}) window.seen{number} = "
                "performance.now(); else requestAnimationFrame(look); }; "
                "addEventListener('DOMContentLoaded', look); })()"
            )
        tab.goto(address)
        found = []
        for number in range(len(conditions)):
            tab.wait_for_function(f"() => window.seen{number}", timeout=60_000)
            found.append(tab.evaluate(f"() => window.seen{number}") / 1000)
        return found


def _pixels(browser: Any, address: str, root: Path, count: int) -> list[float]:
    """Return how many seconds it takes from a row to the frame that shows it."""
    with SessionManager(_config(root), run_name="live") as session:
        session.log_metrics({"loss": 0.5}, 0)
        with _tab(browser, address) as tab:
            tab.goto(f"{address}/run/live")
            tab.wait_for_function(f"() => {FIRST} === '0.5'")
            tab.evaluate(
                f"() => {{ window.seen = {{}}; const look = () => {{ const text = {FIRST}; "
                "window.seen[text] ??= Date.now() / 1000; requestAnimationFrame(look); }; look(); }"
            )
            logged = {}
            for number in range(1, count + 1):
                time.sleep(1.0 + random.random())  # at any point of the page's own rhythm
                logged[str(number)] = time.time()
                session.log_metrics({"loss": float(number)}, number)
            tab.wait_for_function("last => last in window.seen", arg=str(count))
            seen = tab.evaluate("() => window.seen")
            return [seen[number] - moment for number, moment in logged.items() if number in seen]


def _followed(browser: Any, root: Path, environ: dict[str, str], seconds: float) -> float:
    """Return the CPU of the server of an open list of runs that log, in per cent of a core."""
    root.mkdir()
    command = [sys.executable, "-m", "tests.benchmarks.page", "child", str(root)]
    with (
        subprocess.Popen(
            command, cwd=ROOT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as runs,
        _served(root, environ) as (address, server),
    ):
        assert runs.stdin is not None
        assert runs.stdout is not None
        runs.stdout.readline()
        progress(f"page: {LIVE} runs are live")
        with _tab(browser, address) as tab:
            tab.goto(f"{address}/?columns=loss.last")
            tab.wait_for_function(
                "n => document.querySelectorAll('tbody tr').length >= n", arg=LIVE
            )
            time.sleep(2.0)
            begun, before = time.monotonic(), _cpu(server)
            time.sleep(seconds)
            share = (_cpu(server) - before) / (time.monotonic() - begun)
        runs.stdin.close()
        runs.wait(60)
    return 100 * share


def _live(root: Path) -> None:
    """Log to many runs until the input ends."""
    config = _config(root)
    with ExitStack() as stack:
        sessions = [
            stack.enter_context(SessionManager(config, run_name=f"live-{number:03d}"))
            for number in range(LIVE)
        ]
        os.set_blocking(0, False)
        begun, step = time.monotonic(), 0
        print("up", flush=True)
        while _is_open():
            for session in sessions:
                session.log_metrics({"loss": 1 / (step + 1), "return": 2.0 * step}, step)
            step += 1
            time.sleep(max(0.0, begun + step / RATE - time.monotonic()))


def _is_open() -> bool:
    try:
        return os.read(0, 1) != b""
    except BlockingIOError:
        return True


def _cpu(server: psutil.Process) -> float:
    used = server.cpu_times()
    return float(used.user + used.system)


if __name__ == "__main__":
    _live(Path(sys.argv[2]))
