"""`keisei doctor`: check what state runs are in, and repair what is safe to repair."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from keisei.cli.checkpoint_listing import leftovers, list_checkpoints, models_of
from keisei.cli.doctor_plugins import check_plugins
from keisei.cli.doctor_wandb import check_wandb
from keisei.cli.known import Known
from keisei.cli.program import app
from keisei.cli.shared import COLOURS, Json, RegistryUrl, Root, Runs, failures_of, plain
from keisei.errors import CheckpointError, describe, quoted
from keisei.run.find import find_runs, root_of_runs
from keisei.run.health import Diagnosis, Finding, diagnose
from keisei.run.repair import repair
from keisei.trackers.backfill import find_behind
from keisei.trackers.wandb.local_runs import attempts_in

_VERIFIED = 2**30  # bytes of checkpoints that are read of each run
_WIDEST = 40  # characters of a name, to line up the states behind


@app.command()
def doctor(
    runs: Runs = None,
    root: Root = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Repair what is safe to repair; nothing is deleted.")
    ] = False,
    gone: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="What cannot be seen on this host is known to be gone.",
        ),
    ] = None,
    url: RegistryUrl = None,
    as_json: Json = False,
    wandb: Annotated[
        bool, typer.Option("--wandb", help="List what the installed SDK of W&B's lacks; no runs.")
    ] = False,
    plugins: Annotated[
        bool,
        typer.Option("--plugins", help="List what packages plug in, and try each; no runs."),
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(
            min=0.1, max=3600.0, help="With --plugins: seconds that each may take to load."
        ),
    ] = 30.0,
) -> None:
    """Check runs: their state, their owners, and what is damaged.

    With --fix, what is safe to repair is repaired, never of a run whose owner lives. Whether an
    owner lives that cannot be seen from here, a registry knows by its lease.

    Exit status: 0 where nothing needs attention, 1 where something does, 2 where a run or the
    directory of runs cannot be found or read, 130 after Ctrl-C.
    """
    console = Console(stderr=as_json, highlight=False, soft_wrap=True)
    if wandb:
        raise typer.Exit(check_wandb(console, as_json=as_json))
    if plugins:
        with failures_of("doctor"):
            status = check_plugins(console, as_json=as_json, timeout=timeout)
        raise typer.Exit(status)
    with failures_of("doctor", "interrupted: start it again to go on"):
        directory = root_of_runs(root)
        known = Known("doctor", url)
        found = list(_diagnoses(directory, runs or [], gone or [], known, console, fix=fix))
        attention = sum(run.needs_attention for run in found)
        if as_json:
            document = {
                "root": directory,
                "runs": [_as_data(run) for run in found],
                "need_attention": attention,
            }
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        else:
            _print(found, console)
            console.print(Text(plain(_summary(found, attention, directory, fix=fix), console)))
        sys.stdout.flush()
    raise typer.Exit(1 if attention else 0)


def _diagnoses(
    root: str, names: list[str], gone: list[str], known: Known, console: Console, *, fix: bool
) -> Iterator[Diagnosis]:
    """Diagnose runs, and repair them, showing the progress in a terminal."""
    with console.status("looking for runs") if console.is_terminal else nullcontext() as status:
        for found in find_runs(root, names, gone):
            if status is not None:
                status.update(Text(plain(f"checking {found.name}", console)))
            run = diagnose(found.directory, gone)
            if run is not None:
                run = _judged(run, known, gone, fix=fix)
                if run.repairs:
                    known.update(run.directory)
                more = (*_about_checkpoints(run), *_about_trackers(run))
                yield replace(run, findings=(*run.findings, *more))
            elif names:
                raise FileNotFoundError(f"run {quoted(found.name)} has just been removed")


def _judged(run: Diagnosis, known: Known, gone: list[str], *, fix: bool) -> Diagnosis:
    """Return a run, repaired where that is wanted, and as its lease says that it stands."""
    lease = known.lease(run)
    if lease is not None and lease.lives and run.state == "elsewhere":
        return replace(run, state="running")
    if lease is not None and not lease.lives:
        ago = "" if lease.silent is None else f", {lease.silent:.0f} s ago for the last time"
        silent = f"its owner has stopped renewing its lease{ago}"
        if run.state == "elsewhere":
            return _lost(run, known, [*gone, lease.holder.host], silent, fix=fix)
        text = f"{silent}: the registry lists it as lost, and the next start takes it over"
        run = replace(run, findings=(*run.findings, Finding("owner", "", text, "hint")))
    return repair(run, gone) if fix else run


def _lost(run: Diagnosis, known: Known, gone: list[str], why: str, *, fix: bool) -> Diagnosis:
    """Return a run that is lost; its end is recorded under its lease, as another owner's is."""
    seen = diagnose(run.directory, gone)
    if seen is None or seen.state != "died":
        return seen or run
    if fix:
        with known.taken(run) as taken:
            return repair(seen, gone) if taken else run
    findings = (replace(one, text=why) if one.kind == "owner" else one for one in seen.findings)
    return replace(seen, state="lost", findings=tuple(findings))


def _about_checkpoints(run: Diagnosis) -> Iterator[Finding]:
    """Yield a problem for each checkpoint that cannot be used, and hints at what is left over."""
    if run.record is None:
        return
    models = models_of(run)
    try:
        listing = list_checkpoints(run, models, most=_VERIFIED)
    except (FileNotFoundError, NotADirectoryError):  # the second is found elsewhere
        return
    except (CheckpointError, OSError) as exc:
        yield Finding("checkpoint", "models", describe(exc))
        return
    for fault in listing.faults:
        text = f"it cannot be restored: {fault.problem}"
        yield Finding("checkpoint", f"models/{fault.name}", text)
    if run.live_owner is None:
        for what, name in leftovers(listing):
            yield Finding("checkpoint", f"models/{name}", what, "hint")
    if listing.unverified:
        command = f"keisei checkpoints {run.name} --verify"
        text = f"{listing.unverified} checkpoints are too many bytes to verify here: {command}"
        yield Finding("checkpoint", "models", text, "hint")


def _about_trackers(run: Diagnosis) -> Iterator[Finding]:
    """Yield a hint for each tracker that has not got all of a run whose owner does not live."""
    if run.record is None or run.live_owner is not None:
        return
    command = f"keisei sync {run.name}"
    with suppress(Exception):  # a hint the less
        for behind in find_behind(run.directory):
            what = f"has not got {behind.rows:,} rows" if behind.rows else "was not told of the end"
            yield Finding("tracker", behind.tracker, f"it {what}: {command}", "hint")
    with suppress(OSError):
        if missing := sum(not attempt.uploaded for attempt in attempts_in(run.directory)):
            text = f"W&B has not got all of {missing} run files: {command}"
            yield Finding("tracker", "wandb", text, "hint")


def _print(found: list[Diagnosis], console: Console) -> None:
    names = [plain(run.name, console) for run in found]
    width = min(_WIDEST, max(map(len, names), default=0))
    for run, name in zip(found, names, strict=True):
        state = (f"{run.state:<10}", COLOURS[run.state])
        line = Text.assemble(f"{name:<{width}}  ", state, f"  {plain(_about(run), console)}")
        line.rstrip()
        console.print(line)
        for text, colour in [
            *((f"repaired: {done}", "green") for done in run.repairs),
            *map(_about_finding, run.findings),
        ]:
            console.print(Text(f"    {plain(text, console)}", colour))


def _about(run: Diagnosis) -> str:
    """Return who owns a run, since when, and when it ended."""
    record = run.record
    if record is None:
        return ""
    owner = record.owner
    about = f"attempt {record.attempt}, "
    whose = f"process {owner.pid} on {owner.host}, since {record.started_at}"
    if run.state == "running":
        return f"{about}{whose}"
    if run.state in ("died", "lost"):
        return f"{about}{whose}, is {'gone' if run.state == 'died' else 'silent'}"
    if run.state == "elsewhere":
        return f"{about}{whose}; cannot be seen from here; if it is gone: --gone {owner.host}"
    why = "" if record.failure is None else f": {record.failure}"
    return f"{about}started {record.started_at}, ended {record.ended_at or '?'}{why}"


def _about_finding(finding: Finding) -> tuple[str, str]:
    label, colour = {
        "repairable": ("to repair", "yellow"),
        "problem": ("problem", "red"),
        "hint": ("hint", "cyan"),
    }[finding.weight]
    file = {"": "", ".": "the directory: "}.get(finding.file, f"{finding.file}: ")
    return f"{label}: {file}{finding.text}", colour


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


def _as_data(run: Diagnosis) -> dict[str, Any]:
    """Return a run's diagnosis as plain data."""
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
        "failure": record and record.failure and record.failure.model_dump(),
        "findings": [asdict(finding) for finding in run.findings],
        "repairs": list(run.repairs),
    }
