"""`keisei doctor`: what state runs are in, and the repair of what is safe to repair."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from contextlib import nullcontext
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from keisei._io import process
from keisei.cli.program import app
from keisei.cli.shared import Root, plain, root_of_runs, stop
from keisei.errors import quoted
from keisei.run import repair as doctors
from keisei.run.health import Diagnosis, Finding, State, diagnose
from keisei.trackers import backfill

_COLOURS: dict[State, str] = {
    "running": "green",
    "elsewhere": "cyan",
    "completed": "green",
    "cancelled": "yellow",
    "preempted": "yellow",
    "failed": "magenta",
    "died": "red",
    "corrupt": "red",
    "no record": "red",
    "unreadable": "red",
}
_WIDEST = 40  # characters of a name, to line up the states behind


@app.command()
def doctor(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Names or paths; all if none.")
    ] = None,
    root: Root = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what is safe to repair; nothing is deleted.")
    ] = False,
    gone: Annotated[
        list[str] | None,
        typer.Option(metavar="HOST", help="This other host is gone, and its runs have died."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Tell what state runs are in, who owns them, and what is torn.

    With --fix, what is safe to repair is repaired, never of a run whose owner lives. The exit
    status is 0 only if nothing needs attention.
    """
    place, known = root_of_runs(root)
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    if process.host_name() in (gone or []):
        problem = "is this host, and not gone: --gone is for others"
        stop("doctor", f"{quoted(process.host_name())} {problem}")
    found: list[Diagnosis] = []
    try:
        with console.status("looking at runs") if console.is_terminal else nullcontext() as status:
            for path in _places(place, runs or [], known=known):
                if status is not None:
                    status.update(Text(plain(f"looking at {os.path.basename(path)}", console)))
                run = diagnose(path, gone or [])
                if run is not None:
                    run = doctors.repair(run, gone or []) if fix else run
                    more = backfill.findings(run)
                    found.append(replace(run, findings=(*run.findings, *more)))
    except (OSError, ValueError) as exc:
        stop("doctor", str(exc))
    except KeyboardInterrupt:
        stop("doctor", "interrupted: start it again to go on", 130)
    attention = sum(run.needs_attention for run in found)
    if as_json:
        document = {
            "root": place,
            "runs": [_told(run) for run in found],
            "need_attention": attention,
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _print(found, console)
        console.print(Text(plain(_summary(found, attention, place, fix=fix), console)))
    sys.stdout.flush()
    raise typer.Exit(1 if attention else 0)


def _places(root: str, runs: list[str], *, known: bool) -> list[str]:
    try:
        return doctors.places(root, runs)
    except FileNotFoundError as exc:
        if runs or exc.filename is None:
            raise
        if not known:
            return []
        problem = f"there is no directory {quoted(root, 300)}"
        raise FileNotFoundError(
            f"{problem}: KEISEI_LOG_DIR, or --root, says where runs live"
        ) from exc
    except OSError as exc:
        raise OSError(f"{quoted(root, 300)} cannot be listed: {exc.strerror}") from exc


def _print(found: list[Diagnosis], console: Console) -> None:
    names = [plain(run.name, console) for run in found]
    width = min(_WIDEST, max(map(len, names), default=0))
    for run, name in zip(found, names, strict=True):
        state = (f"{run.state:<10}", _COLOURS[run.state])
        about = plain(_about(run), console)
        line = Text.assemble(f"{name:<{width}}  ", state, f"  {about}")
        line.rstrip()
        console.print(line)
        for text, colour in [
            *((f"repaired: {done}", "green") for done in run.repairs),
            *(_said(finding) for finding in run.findings),
        ]:
            console.print(Text(f"    {plain(text, console)}", colour))


def _about(run: Diagnosis) -> str:
    """Say who owns a run, since when, and when it ended."""
    record = run.record
    if record is None:
        return ""
    owner = record.owner
    about = f"attempt {record.attempt}, "
    whose = f"process {owner.pid} on {owner.host}, since {record.started_at}"
    if run.state == "running":
        return f"{about}{whose}"
    if run.state == "died":
        return f"{about}{whose}, is gone"
    if run.state == "elsewhere":
        return f"{about}{whose}; if that host is gone: --gone {owner.host}"
    return f"{about}started {record.started_at}, ended {record.ended_at or '?'}"


def _said(finding: Finding) -> tuple[str, str]:
    label, colour = {
        "repairable": ("to repair", "yellow"),
        "problem": ("problem", "red"),
        "hint": ("hint", "cyan"),
    }[finding.weight]
    return f"{label}: {_with_file(finding)}", colour


def _with_file(finding: Finding) -> str:
    file = {"": "", ".": "the directory: "}.get(finding.file, f"{finding.file}: ")
    return f"{file}{finding.text}"


def _summary(found: list[Diagnosis], attention: int, root: str, *, fix: bool) -> str:
    if not found:
        return f"There are no runs under {root}."
    counts = Counter(run.state for run in found)
    states = ", ".join(f"{number} {state}" for state, number in counts.items())
    repairs = sum(len(run.repairs) for run in found)
    parts = [f"{len(found)} {'run' if len(found) == 1 else 'runs'}: {states}"]
    if fix:
        parts.append(f"{repairs} {'repair' if repairs == 1 else 'repairs'} made")
    if not attention:
        parts.append("nothing needs attention")
    else:
        parts.append(f"{attention} {'needs' if attention == 1 else 'need'} attention")
        if any(finding.weight == "repairable" for run in found for finding in run.findings):
            parts.append("--fix repairs what is to repair")
    return "; ".join(parts)


def _told(run: Diagnosis) -> dict[str, Any]:
    """Give a run's diagnosis as plain data."""
    record = run.record
    return {
        "run": run.name,
        "directory": run.directory,
        "state": run.state,
        "needs_attention": run.needs_attention,
        "session_id": record and record.session_id,
        "attempt": record and record.attempt,
        "owner": record and record.owner.model_dump(),
        "started_at": record and record.started_at,
        "ended_at": record and record.ended_at,
        "findings": [asdict(finding) for finding in run.findings],
        "repairs": list(run.repairs),
    }
