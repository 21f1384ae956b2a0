"""`keisei sync`: send trackers what they have not got of the runs, from the runs' journals."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from itertools import chain
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from keisei.cli.program import app
from keisei.cli.shared import Json, Root, Runs, failures_of, plain
from keisei.errors import KeiseiError, TrackerError, describe
from keisei.redaction import clean
from keisei.run.find import FoundRun, find_runs, is_others, root_of_runs
from keisei.trackers.backfill import catch_up, find_behind, is_signed
from keisei.trackers.wandb import backfill, upload
from keisei.trackers.wandb.backfill import ASK_TIMEOUT, Outcome, State
from keisei.trackers.wandb.local_runs import LocalRun, attempts_in, id_of
from keisei.trackers.wandb.mode import NAME as WANDB

Progress = Callable[[str], None]


@app.command()
def sync(
    runs: Runs = None,
    root: Root = None,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.5,
            metavar="SECONDS",
            show_default=False,
            help="How long one tracker of one run may take; 60.",
        ),
    ] = 60.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded; send nothing.")
    ] = False,
    trust: Annotated[
        bool, typer.Option("--trust", help="Do what the directories of these runs ask for.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send trackers what they have not got of the runs.

    This is for runs that were killed, runs that ended before a tracker had taken the whole
    journal, and runs that W&B tracked offline. Each row is sent once; the command may be
    interrupted and started again.

    A run's directory may come from somebody else. Where only that names a server, a path outside
    the run or a tracker to load, and not you on this machine, nothing is done without --trust.

    Exit status: 0 where the trackers have everything, 1 where something remains, 2 where a run or
    the directory of runs cannot be found or read, 130 after Ctrl-C.
    """
    output = sys.stdout
    console = Console(file=sys.stderr if as_json else output, highlight=False, soft_wrap=True)
    outcomes = []
    with failures_of("sync", "interrupted: start it again to go on"):
        directory = root_of_runs(root)
        found = find_runs(directory, runs or [])
        readable = [run for run in found if run.record is not None]
        _leave(readable)
        with (
            console.status("looking for runs") if console.is_terminal else nullcontext() as status,
            redirect_stdout(sys.stderr),  # what a tracker prints is no part of the output
        ):

            def progress(text: str) -> None:
                if status is not None:
                    status.update(Text(plain(text, console)))

            for outcome in chain(
                _unreadable(found, named=bool(runs)),
                _send(readable, timeout, progress, dry_run=dry_run, trust=trust),
            ):
                outcomes.append(outcome)
                if not as_json:
                    console.print(Text(plain(_line(outcome), console)))
        if as_json:
            document = [asdict(outcome) for outcome in outcomes]
            output.write(json.dumps(document, indent=2) + "\n")
        else:
            console.print(Text(plain(_summary(outcomes, found, directory), console)))
        output.flush()
    remaining = any(outcome.state in ("remaining", "would upload") for outcome in outcomes)
    raise typer.Exit(1 if remaining else 0)


def _leave(runs: list[FoundRun]) -> None:
    """Leave the directory of a run: W&B's SDK takes the working directory's settings for ours."""
    here = os.path.realpath(os.curdir)
    for run in runs:
        above, place = os.path.split(os.path.realpath(run.directory))
        if os.path.join(here, "").startswith(os.path.join(above, place, "")):
            os.chdir(above)


def _unreadable(found: list[FoundRun], *, named: bool) -> Iterator[Outcome]:
    """Yield an outcome for each run of this user whose session file cannot be used."""
    for run in found:
        lost = run.state == "no session file"  # a directory that may be another program's
        if run.record is None and (named or not (lost or is_others(run.directory))):
            what = {"corrupt": "its session file is corrupt", "unreadable": run.problem}
            reason = what.get(run.state, "it has no session file")
            yield Outcome(
                run.name, "", run.directory, "remaining", f"{reason}; see `keisei doctor`"
            )


def _send(
    runs: list[FoundRun], timeout: float, progress: Progress, *, dry_run: bool, trust: bool
) -> Iterator[Outcome]:
    """Send trackers what they have not got; only this part knows how each kind takes it."""
    waiting, in_vain = [], set()
    for run in runs:
        try:
            local = _uploads_of(run, trust=trust)
            left = backfill.remaining(local)
        except Exception as exc:  # noqa: BLE001 - whatever is odd, the other runs are sent
            yield _remaining(run, exc)
            continue
        if left and not (local.alive or dry_run):
            waiting.append(local)
        else:
            yield from left
    if waiting:  # first: the journal has what comes after what the files have
        for outcome in _upload(waiting, timeout, progress):
            if outcome.state == "remaining":
                in_vain.add(outcome.run)
            yield outcome
    for run in runs:
        if run.live_owner is None:
            no_wandb = run.name in in_vain
            yield from _catch_up(
                run, timeout, progress, dry_run=dry_run, trust=trust, no_wandb=no_wandb
            )


def _uploads_of(run: FoundRun, *, trust: bool) -> LocalRun:
    """Return a run with the files that W&B's SDK has kept of it."""
    assert run.record is not None
    session_id, alive = run.record.session_id, run.live_owner is not None
    trusted = trust or is_signed(run.directory, session_id, "wandb")
    files = tuple(attempts_in(run.directory))
    run_id = id_of(run.directory, session_id)
    return LocalRun(run.name, run_id, run.directory, alive, files, trusted)


def _remaining(run: FoundRun, exc: Exception) -> Outcome:
    session_id = run.record.session_id if run.record is not None else ""
    problem = str(exc) if isinstance(exc, (KeiseiError, OSError)) else describe(exc)
    return Outcome(run.name, session_id, run.directory, "remaining", clean(problem))


def _catch_up(
    run: FoundRun,
    timeout: float,
    progress: Progress,
    *,
    dry_run: bool,
    trust: bool,
    no_wandb: bool,
) -> Iterator[Outcome]:
    """Send the trackers of one run what the journal has and they have not."""
    try:
        behind_of_run = find_behind(run.directory)
    except Exception as exc:  # noqa: BLE001 - whatever is odd, the other runs are sent
        yield _remaining(run, exc)
        return
    for behind in behind_of_run:
        state: State = "would upload"
        rows, reason = behind.rows, None
        if behind.refusal is not None and not trust:
            state, reason = "remaining", clean(behind.refusal)
        elif behind.tracker == WANDB and no_wandb:
            state, reason = "remaining", "W&B has not taken the files that come before"
        elif not dry_run:
            progress(f"{run.name}: sending {rows:,} rows to {behind.tracker}")
            try:
                state, rows = "uploaded", catch_up(behind, timeout, trusted=trust)
            except Exception as exc:  # noqa: BLE001 - whatever is odd, the others are sent
                state, reason = "remaining", _remaining(run, exc).reason
        yield Outcome(run.name, behind.id, behind.tracker, state, reason, rows)


def _upload(runs: list[LocalRun], timeout: float, progress: Progress) -> Iterator[Outcome]:
    """Upload W&B's files run by run; a server that does not answer is waited for once."""
    progress("asking W&B")
    asked, away = False, None
    try:
        upload.log_in()
    except TrackerError as exc:
        away = str(exc)
    for run in runs:
        progress(f"{run.name}: uploading")
        if not asked and away is None:
            try:
                upload.ask(min(ASK_TIMEOUT, timeout))
            except OSError as exc:
                away = clean(f"W&B does not answer ({getattr(exc, 'reason', None) or exc})")
            asked = True
        if away is not None:
            for left in backfill.remaining(run):
                yield Outcome(left.run, left.id, left.file, "remaining", away)
            continue
        for outcome in backfill.sync_run(run, timeout):
            asked = asked and outcome.state == "uploaded"
            yield outcome


def _line(outcome: Outcome) -> str:
    rows = f", {outcome.rows} rows" if outcome.state in ("uploaded", "would upload") else ""
    reason = f": {outcome.reason}" if outcome.reason else ""
    return f"{outcome.run}: {outcome.state}{rows}{reason} ({outcome.file})"


def _summary(outcomes: list[Outcome], found: list[FoundRun], root: str) -> str:
    if not found:
        return f"There are no runs under {root}."
    if not outcomes:
        return "All trackers are up to date."
    counts = Counter(outcome.state for outcome in outcomes)
    return ", ".join(f"{number} {state}" for state, number in counts.items())
