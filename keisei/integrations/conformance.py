"""The conformance kit of adapters: twelve checks with the real framework."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from itertools import pairwise
from pathlib import Path

from keisei import SessionManager
from keisei.errors import describe
from keisei.integrations.attached import HYPERPARAMETERS
from keisei.integrations.planned import (
    SAVE_EVERY,
    STEPS,
    TIMEOUT,
    Adapter,
    Ended,
    Fault,
    Plan,
    Train,
    config_in,
    run_ranks,
    trained,
)
from keisei.journal.reader import Row, read_run
from keisei.run.find import find_runs


def check_adapter(
    train: Train,
    *,
    module: str,
    framework: str,
    extra: str,
    metric: str = "loss",
    starts_ranks: bool = False,
    starts_runs: bool = False,
    without: Mapping[str, str] | None = None,
) -> list[str]:
    """Check that a trainer's adapter tells a run the truth; call it in a test of your adapter.

    Args:
        train: runs a small training with the framework, as its plan says: it logs the plan's
            value of each step by the framework's own way, and calls ``plan.on_step`` in it. It
            has to be importable: two processes run it as two ranks.
        module: the adapter's module.
        framework: the package that it needs.
        extra: keisei's extra that brings it.
        metric: what the run calls the metric that the training logs.
        starts_ranks: whether ``train`` starts the plan's ranks itself; otherwise two processes
            with `RANK` and `WORLD_SIZE` call it.
        starts_runs: whether the adapter enters the session itself: ``train`` is then called with
            an `AppConfig` in its place, once for each attempt of the one run.
        without: the checks that the framework has no way for, by their sentence, and why.

    Returns:
        What was checked, a sentence each; what was left out has its reason behind it.

    Raises:
        AssertionError: a check has failed; the message says which and how.
    """
    left_out = dict(without or {})
    unknown = left_out.keys() - {sentence for sentence, _ in CHECKS}
    if unknown:
        raise ValueError(f"there is no such check: {', '.join(sorted(unknown))}")
    said = []
    with _home() as kept:

        @cache
        def whole() -> tuple[Ended, Path]:
            return trained(adapter, kept, Plan(kept / "files")), kept

        adapter = Adapter(train, module, framework, extra, metric, starts_ranks, starts_runs, whole)
        for sentence, check in CHECKS:
            if sentence in left_out:
                said.append(f"{sentence} (left out: {left_out[sentence]})")
                continue
            with _home() as home:
                try:
                    check(adapter, home)
                except Exception as exc:
                    what = str(exc) if type(exc) is AssertionError else describe(exc)
                    message = f"check_adapter: {sentence!r} does not hold: {what}"
                    raise AssertionError(message) from exc
            said.append(sentence)
    return said


@contextmanager
def _home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        yield Path(os.path.realpath(directory))


def _names_its_extra(adapter: Adapter, home: Path) -> None:
    code = (
        "import sys\n"
        "import keisei, keisei.testing\n"
        f"assert {adapter.framework!r} not in sys.modules, 'keisei imports it'\n"
        f"sys.modules[{adapter.framework!r}] = None\n"
        f"try:\n    import {adapter.module}\n"
        "except keisei.MissingExtraError as exc:\n    print(exc)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT
    )
    told = done.stdout + done.stderr
    _require(f"keisei[{adapter.extra}]" in done.stdout, f"without the framework: {told!r}")


def _logs_each_step_once(adapter: Adapter, home: Path) -> None:
    ended, _ = adapter.whole()
    _check_curve(adapter, ended.rows, STEPS)


def _takes_what_is_no_number(adapter: Adapter, home: Path) -> None:
    extra = {"nan": float("nan"), "inf": float("inf"), "note": "a text"}
    ended = trained(adapter, home, Plan(home / "files", extra=extra))
    _require(ended.error is None, f"the training has raised {ended.error!r}")
    names = {name.rpartition("/")[2] for row in ended.rows for name in row.values}
    _require({"nan", "inf"} <= names, f"no nan or no inf among {sorted(names)}")
    _check_curve(adapter, ended.rows, STEPS)


def _records_hyperparameters(adapter: Adapter, home: Path) -> None:
    ended, _ = adapter.whole()
    found = [event.data for event in ended.events if event.name == HYPERPARAMETERS]
    _require(bool(found) and bool(found[0]), f"no event {HYPERPARAMETERS!r}, or an empty one")


def _keeps_checkpoints(adapter: Adapter, home: Path) -> None:
    ended, kept = adapter.whole()
    count, wanted = len(ended.saved), STEPS // SAVE_EVERY
    _require(count >= wanted, f"{count} checkpoints, and the framework has saved {wanted} times")
    (run,) = find_runs(str(kept / "runs"))
    with SessionManager(config_in(kept), run_name=run.name) as session:
        restored = session.restore_checkpoint()
        _require(restored is not None, "none can be restored")
        assert restored is not None
        files = [] if restored.directory is None else list(restored.directory.iterdir())
        _require(bool(files), "the last one holds no file")


def _ends_as(adapter: Adapter, home: Path, fault: Fault, status: str) -> Ended:
    ended = trained(adapter, home, Plan(home / "files", fault=fault, fault_at=6))
    found = ended.status
    _require(found == status, f"the run is {found}, left by {ended.error!r}")
    return ended


def _completes(adapter: Adapter, home: Path) -> None:
    ended, _ = adapter.whole()
    _require(ended.status == "completed", f"the run is {ended.status}, left by {ended.error!r}")
    _require(ended.error is None, f"the training has raised {ended.error!r}")


def _fails(adapter: Adapter, home: Path) -> None:
    ended = _ends_as(adapter, home, "crash", "failed")
    _require("as planned" in str(ended.failure), f"why: {ended.failure}")


def _is_cancelled(adapter: Adapter, home: Path) -> None:
    _ends_as(adapter, home, "interrupt", "cancelled")


def _stops_early(adapter: Adapter, home: Path) -> None:
    ended = _ends_as(adapter, home, "stop", "completed")
    count = len(_curve(adapter, ended.rows))
    _require(0 < count < STEPS, f"{count} of {STEPS} steps were logged: it has not stopped early")


def _resumes(adapter: Adapter, home: Path) -> None:
    first = Plan(home / "files", fault="crash", fault_at=SAVE_EVERY * 2 + 2)
    trained(adapter, home, first)
    _check_resumed(adapter, home, SAVE_EVERY)


def _saves_when_preempted(adapter: Adapter, home: Path) -> None:
    at = SAVE_EVERY + 1
    ended = trained(adapter, home, Plan(home / "files", fault="preempt", fault_at=at))
    found = ended.status
    _require(found == "preempted", f"the run is {found}, left by {ended.error!r}")
    _require(bool(ended.saved), "no checkpoint was saved")
    _check_resumed(adapter, home, at)


def _check_resumed(adapter: Adapter, home: Path, least: int) -> None:
    ended = trained(adapter, home, Plan(home / "files", resumes=True))
    found = ended.status
    _require(found == "completed", f"the resumed run is {found}, left by {ended.error!r}")
    again = [row for row in ended.rows if row.attempt == 2 and adapter.metric in row.values]
    _require(
        0 < len(again) <= STEPS - least,
        f"the second attempt has logged {len(again)} steps: it was to go on after step {least}",
    )
    _check_curve(adapter, ended.rows, STEPS)


def _has_one_run_of_all_ranks(adapter: Adapter, home: Path) -> None:
    root = home / "runs"
    if adapter.starts_ranks:
        ended = trained(adapter, home, Plan(home / "files", ranks=2))
        _require(ended.error is None, f"the training has raised {ended.error!r}")
    else:
        run_ranks(adapter, home)
    runs = sorted(path for path in root.iterdir() if (path / "session.json").exists())
    _require(len(runs) == 1, f"{len(runs)} runs: {[path.name for path in runs]}")
    journal = read_run(runs[0])
    _check_curve(adapter, list(journal.rows()), STEPS)
    for part in journal.parts():
        logged = _curve(adapter, list(journal.of(part).rows()))
        _require(not logged, f"part {part} has logged the metric {len(logged)} times, too")


def _curve(adapter: Adapter, rows: list[Row]) -> list[tuple[int | None, float]]:
    return [
        (row.step, float(row.values[adapter.metric]))
        for row in rows
        if adapter.metric in row.values
    ]


def _check_curve(adapter: Adapter, rows: list[Row], steps: int) -> None:
    curve, plan = _curve(adapter, rows), Plan(Path())
    if not curve:
        names = sorted({name for row in rows for name in row.values})
        raise AssertionError(f"nothing is called {adapter.metric!r} among {names[:20]}")
    values = [value for _, value in curve]
    wanted = [plan.value(step) for step in range(steps)]
    same = len(values) == len(wanted) and all(
        abs(a - b) < 1e-5 for a, b in zip(values, wanted, strict=True)
    )
    _require(same, f"the values are {values}, and {wanted} were logged")
    counted = [step for step, _ in curve]
    grows = all(a is not None and b is not None and a < b for a, b in pairwise(counted))
    _require(grows, f"the steps are {counted}")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise AssertionError(otherwise)


CHECKS: list[tuple[str, Callable[[Adapter, Path], object]]] = [
    ("without the framework, the error names the extra", _names_its_extra),
    ("each step is logged once, in order, under the framework's step", _logs_each_step_once),
    ("what is no number, or not finite, stops nothing", _takes_what_is_no_number),
    ("the hyper-parameters are recorded", _records_hyperparameters),
    ("what the framework saves are checkpoints of the run, verified", _keeps_checkpoints),
    ("a training that comes to its end completes the run", _completes),
    ("a crash fails the run, with its error", _fails),
    ("an interrupt cancels the run", _is_cancelled),
    ("a training that the framework ends early completes the run", _stops_early),
    ("a resumed training goes on, and its curve is whole", _resumes),
    ("a preempted run is saved, ends as preempted, and goes on", _saves_when_preempted),
    ("two ranks are one run, and rank 0 alone logs", _has_one_run_of_all_ranks),
]
