"""What a shell completes: the names of runs."""

from __future__ import annotations

import os
from collections.abc import Iterable

import typer

from keisei.errors import InvalidRunNameError
from keisei.run import trash
from keisei.run.find import root_of_runs
from keisei.run.layout import RECORD_FILE
from keisei.run.names import check_run_name


def run_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the runs under the root that begin so.

    Args:
        context: what the command line holds so far; its `--root` counts.
        incomplete: the beginning of a name.
    """
    try:
        with os.scandir(_root(context)) as entries:
            begun = [entry for entry in entries if entry.name.startswith(incomplete)]
        return _safe(one.name for one in begun if os.path.exists(f"{one.path}/{RECORD_FILE}"))
    except OSError:
        return []


def removed_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the names of the runs in the root's trash that begin so, as `run_names` does."""
    try:
        names = [entry.partition("~")[0] for entry in trash.removed(_root(context))]
        return _safe(name for name in names if name.startswith(incomplete))
    except OSError:
        return []


def _root(context: typer.Context) -> str:
    return root_of_runs(context.params.get("root"))


def _safe(names: Iterable[str]) -> list[str]:
    """Return the names that a session can have, sorted: a shell may evaluate any other."""
    kept = []
    for name in names:
        try:
            kept.append(check_run_name(name))
        except InvalidRunNameError:
            continue
    return sorted(set(kept))
