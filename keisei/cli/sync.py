"""`keisei sync`: bring the trackers of runs that have ended up to date."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from keisei.cli.program import app
from keisei.cli.shared import Root, stop
from keisei.errors import KeiseiError, TrackerError
from keisei.redaction import clean
from keisei.run.claim import DEFAULT_ROOT
from keisei.trackers.backfill import catch_up, find_behind
from keisei.trackers.wandb import backfill, local_runs, upload
from keisei.trackers.wandb.backfill import ASK_TIMEOUT, Outcome, State
from keisei.trackers.wandb.local_runs import LocalRun


@app.command()
def sync(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Names or paths; all if none.")
    ] = None,
    root: Root = None,
    timeout: Annotated[
        float, typer.Option(min=0.5, help="How long each file may take, in seconds.")
    ] = 60.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be uploaded; touch nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Send each tracker what it has not got of the runs, each row once.

    Runs that were killed or that ended before a tracker had all of the journal, and what W&B
    tracked offline. It may be interrupted and started again. The exit status is 0 only if nothing
    remains.
    """
    place = os.environ.get("KEISEI_LOG_DIR") or root or DEFAULT_ROOT
    try:
        found = local_runs.find_runs(place, runs or [])
    except FileNotFoundError as exc:
        stop("sync", str(exc))
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)

    def show(outcome: Outcome) -> None:
        if not as_json:
            console.print(_line(outcome))

    try:
        caught_up = list(_catch_up(found, timeout, console, show, dry_run=dry_run))
    except KeyboardInterrupt:
        stop("sync", "interrupted: start it again to go on", 130)
    if caught_up and not dry_run:
        found = local_runs.find_runs(place, runs or [])  # W&B may have a file more
    todo = [(run, left) for run in found if (left := backfill.remaining(run))]
    waiting = [run for run, _ in todo if not run.alive]
    outcomes = [outcome for run, left in todo if run.alive or dry_run for outcome in left]
    for outcome in outcomes:
        show(outcome)
    try:
        if waiting and not dry_run:
            outcomes += _upload(waiting, timeout, console, quiet=as_json)
    except TrackerError as exc:
        stop("sync", str(exc))
    except KeyboardInterrupt:
        stop("sync", "interrupted: start it again to go on", 130)
    outcomes = caught_up + outcomes
    remaining = [outcome for outcome in outcomes if outcome.state in ("remaining", "would upload")]
    if as_json:
        sys.stdout.write(json.dumps([asdict(outcome) for outcome in outcomes], indent=2) + "\n")
    else:
        console.print(_summary(outcomes) if outcomes else "The trackers have got everything.")
    sys.stdout.flush()
    raise typer.Exit(1 if remaining else 0)


def _catch_up(
    runs: list[LocalRun],
    timeout: float,
    console: Console,
    show: Callable[[Outcome], object],
    *,
    dry_run: bool,
) -> Iterator[Outcome]:
    """Send the trackers what the journals of runs have beyond them."""
    for run in runs:
        try:
            waiting_for_it = [] if run.alive else find_behind(run.directory)
        except OSError as exc:
            outcome = Outcome(run.name, run.id, run.directory, "remaining", clean(str(exc)))
            show(outcome)
            yield outcome
            continue
        for behind in waiting_for_it:
            state: State = "would upload"
            rows, reason = behind.rows, None
            if not dry_run:
                waiting = escape(f"{run.name}: sending {rows:,} rows to {behind.tracker}")
                with console.status(waiting) if console.is_terminal else nullcontext():
                    try:
                        state, rows = "uploaded", catch_up(behind, timeout)
                    except (KeiseiError, OSError) as exc:
                        state, reason = "remaining", clean(str(exc))
            outcome = Outcome(run.name, run.id, behind.tracker, state, reason, rows)
            show(outcome)
            yield outcome


def _upload(
    runs: list[LocalRun], timeout: float, console: Console, *, quiet: bool
) -> list[Outcome]:
    outcomes = []
    upload.log_in()
    with console.status("asking W&B") if console.is_terminal else nullcontext() as status:

        def begin(run: LocalRun) -> None:
            if status is not None:
                status.update(escape(f"{run.name}: uploading"))

        for outcome in _each(runs, timeout, begin):
            outcomes.append(outcome)
            if not quiet:
                console.print(_line(outcome))
    return outcomes


def _each(
    runs: list[LocalRun], timeout: float, begin: Callable[[LocalRun], None]
) -> Iterator[Outcome]:
    """Upload run by run; from the moment the server does not answer, nobody waits for it again."""
    asked, away = False, None
    for run in runs:
        begin(run)
        if not asked:
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
    text = f"{outcome.run}: {outcome.state}{rows}{reason} ({outcome.file})"
    return escape("".join(c if c.isprintable() else "?" for c in text))


def _summary(outcomes: list[Outcome]) -> str:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[outcome.state] = counts.get(outcome.state, 0) + 1
    return ", ".join(f"{number} {state}" for state, number in counts.items())
