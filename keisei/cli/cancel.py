"""`keisei cancel`: end runs from elsewhere, by a request that their sessions look for."""

from __future__ import annotations

import getpass
import json
import os
import time
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from keisei._io import files, process
from keisei.cli.completion import run_names
from keisei.cli.program import app
from keisei.cli.shared import Json, Root, failures_of, plain
from keisei.run.find import FoundRun, find_run, find_runs, root_of_runs
from keisei.run.status import FINAL
from keisei.run.stop_request import StopRequest, write_request

_LOOK = 0.1  # seconds between two looks at the session file
_FORCED = 10.0  # seconds until a process that is ended at once is gone

Named = Annotated[
    list[str],
    typer.Argument(metavar="RUN...", help="Names or paths.", autocompletion=run_names),
]


@app.command()
def cancel(
    runs: Named,
    root: Root = None,
    wait: Annotated[
        float,
        typer.Option(metavar="SECONDS", min=0, help="How long to wait for their ends; 0: not."),
    ] = 30.0,
    force: Annotated[
        bool, typer.Option("--force", help="After that time their processes end at once.")
    ] = False,
    as_json: Json = False,
) -> None:
    """End runs gracefully, on whichever host they run.

    It writes a request in the run's directory, which the run's session notices within two seconds.
    Its body is cancelled, the run ends as `cancelled`, and its trackers finish as ever.

    Exit status: 0 where all have ended as cancelled, or are asked with `--wait 0`; 1 where one was
    not running, has ended otherwise, or still runs after that time; 2 where a run cannot be found
    or written, 130 after Ctrl-C.
    """
    with failures_of("cancel"):
        where = root_of_runs(root)
        asked = [(found, _ask(found, wait, force=force)) for found in find_runs(where, runs)]
        give_up = time.monotonic() + wait + (_FORCED if force else 0.0)
        told = [_outcome(found, is_asked, give_up) for found, is_asked in asked]
    console = Console(highlight=False, soft_wrap=True)
    if as_json:
        typer.echo(json.dumps({"runs": told}, indent=2))
    else:
        for one in told:
            console.print(Text(plain(f"{one['name']}: {_words(one, wait)}", console)))
    done = all(one["asked"] and (one["state"] == "cancelled" or not wait) for one in told)
    raise typer.Exit(0 if done else 1)


def _ask(found: FoundRun, wait: float, *, force: bool) -> bool:
    """Write the request, where the run is running."""
    record = found.record
    if record is None or record.status in FINAL or found.live_owner is None:
        return False
    request = StopRequest(
        session_id=record.session_id,
        attempt=record.attempt,
        status="cancelled",
        source=f"keisei cancel, by {_user()} on {process.host_name()}",
        deadline=time.time() + wait if force else None,
        asked_at=datetime.now().astimezone().isoformat(timespec="milliseconds"),
    )
    with files.OpenDirectory(found.directory) as directory:
        write_request(directory, request)
    return True


def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # an id without a name
        return str(os.getuid())


def _outcome(found: FoundRun, is_asked: bool, give_up: float) -> dict[str, Any]:
    """Wait for a run's end, and return how it stands then, as plain data."""
    now = found
    attempt = found.record and found.record.attempt
    while is_asked and now.live_owner is not None and time.monotonic() < give_up:
        if now.record is not None and now.record.attempt != attempt:
            break
        time.sleep(_LOOK)
        now = find_run(found.directory, found.directory)
    return {
        "name": found.name,
        "directory": found.directory,
        "attempt": attempt,
        "asked": is_asked,
        "state": now.state,
    }


def _words(one: dict[str, Any], wait: float) -> str:
    if not one["asked"]:
        return f"nothing to cancel: it is {one['state']}"
    if one["state"] not in ("running", "elsewhere"):
        return f"ended as {one['state']}"
    return "asked to end" if not wait else f"asked to end, and still running after {wait:g} s"
