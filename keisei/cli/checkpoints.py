"""`keisei checkpoints`: what checkpoints a run has, whether they verify, what stays and may go."""

from __future__ import annotations

import json
import math
import sys
from contextlib import nullcontext
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.checkpoints.listing import Stored
from keisei.cli.checkpoint_listing import Listing, leftovers, list_checkpoints, models_of
from keisei.cli.metric_names import short_number
from keisei.cli.program import app
from keisei.cli.shared import Json, Root, Run, failures_of, plain
from keisei.config.schema import CheckpointsConfig
from keisei.redaction import clean
from keisei.run.find import find_run, root_of_runs

_WIDEST = 2000  # columns
_MOST_METRICS = 3  # of a checkpoint, on a screen
_UNITS = ("B", "kB", "MB", "GB", "TB")


@app.command()
def checkpoints(
    run: Run,
    root: Root = None,
    models: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="The run's models, where they are not in its directory."),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte, and compare it with its digest.")
    ] = False,
    as_json: Json = False,
) -> None:
    """List a run's checkpoints, and verify them.

    It says what the policy in the run's recorded config would keep, what is staged and what is
    left over. Nothing is changed.

    Exit status: 0 where all is well, 1 where a checkpoint cannot be used or does not verify, 2
    where the run or its models cannot be found or read, 130 after Ctrl-C.
    """
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:  # a program reads it: no line is folded
        console.width = _WIDEST
    progress = Console(stderr=True, highlight=False, soft_wrap=True)
    with failures_of("checkpoints", "interrupted"):
        found = find_run(root_of_runs(root), run)
        wait = progress.status("looking") if progress.is_terminal else nullcontext()
        with wait as status:

            def show(name: str) -> None:
                if status is not None:
                    status.update(Text(plain(f"verifying {name}", progress)))

            place = models_of(found, models)
            listing = list_checkpoints(found, place, most=None if verify else 0, progress=show)
        if as_json:
            sys.stdout.write(json.dumps(clean(_as_data(listing)), indent=2, allow_nan=False) + "\n")
        else:
            _print(listing, console)
        sys.stdout.flush()
    raise typer.Exit(1 if listing.faults else 0)


def _print(listing: Listing, console: Console) -> None:
    there = listing.there
    if there.checkpoints or there.final_model is not None:
        console.print(_table(listing, console))
    else:
        console.print(Text(plain(f"There is no checkpoint in {listing.models}.", console)))
    for fault in listing.faults:
        text = clean(f"problem: {fault.name}: {fault.problem}")
        console.print(Text(plain(text, console), "red"))
    for what, name in leftovers(listing):
        console.print(Text(plain(clean(f"{what}: {name}"), console), "dim"))
    if there.checkpoints:
        console.print(Text(plain(clean(_about_policy(listing)), console)))


def _table(listing: Listing, console: Console) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    stands = [*listing.there.checkpoints, *filter(None, [listing.there.final_model])]
    of_ranks = any(stored.manifest.world_size > 1 for stored in stands)
    for name in ("step", "attempt", *(["ranks"] if of_ranks else []), "saved", "size", "marks"):
        right = name in ("step", "attempt", "ranks", "size")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    if listing.verified:
        table.add_column("verified", no_wrap=True)
    table.add_column("metrics", overflow="fold")
    for stored in stands:
        one = stored.checkpoint
        cells = [
            "final" if one.step is None else str(one.step),
            str(one.attempt),
            *([str(stored.manifest.world_size)] if of_ranks else []),
            one.created_at[:19].replace("T", " "),
            size(one.size),
            ", ".join(_marks(listing, stored)),
        ]
        if listing.verified:
            cells.append("no" if listing.verified.get(stored.name) else "yes")
        cells.append(_metrics(one.metrics))
        table.add_row(*(Text(plain(clean(cell), console)) for cell in cells))
    return table


def _marks(listing: Listing, stored: Stored) -> list[str]:
    marks = [
        mark
        for mark, name in (("latest", listing.latest), ("best", listing.best))
        if name == stored.name
    ]
    if stored.checkpoint.step is not None and listing.policy is not None:
        marks.append("kept" if stored.name in listing.kept else "may go")
    return marks


def _metrics(metrics: dict[str, float]) -> str:
    shown = [f"{name}={short_number(value)}" for name, value in list(metrics.items())]
    more = f" and {len(shown) - _MOST_METRICS} more" if len(shown) > _MOST_METRICS else ""
    return "  ".join(shown[:_MOST_METRICS]) + more


def size(count: float) -> str:
    """Return a number of bytes as people read it."""
    for unit in _UNITS[:-1]:
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 100 else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} {_UNITS[-1]}"


def _about_policy(listing: Listing) -> str:
    """Return what the recorded policy keeps, in a sentence."""
    if listing.policy is None:
        return "The run's config cannot be read: what its policy would keep is not known."
    left = len(listing.there.checkpoints) - len(listing.kept)
    what = "keeps all of them" if not left else f"would keep {len(listing.kept)}, {left} may go"
    return f"The policy of the run's config ({_rules(listing.policy)}) {what}."


def _rules(policy: CheckpointsConfig) -> str:
    if policy.keep_last is None:
        return "all"
    rules = [f"the last {policy.keep_last}"]
    if policy.keep_best is not None:
        best = policy.keep_best
        rules.append(f"the best {best.count} by {best.metric} ({best.mode})")
    if policy.keep_every is not None:
        rules.append(f"each multiple of {policy.keep_every}")
    return ", ".join(rules)


def _as_data(listing: Listing) -> dict[str, Any]:
    there = listing.there
    final = there.final_model
    return {
        "run": listing.run.name,
        "directory": listing.run.directory,
        "models": listing.models,
        "policy": listing.policy and listing.policy.model_dump(mode="json", exclude={"remote"}),
        "checkpoints": [_stored_as_data(listing, stored) for stored in there.checkpoints],
        "final_model": None if final is None else _stored_as_data(listing, final),
        "unusable": [fault._asdict() for fault in there.unusable],
        "staged": there.staged,
        "removing": there.removing,
        "corrupt": there.corrupt,
        "superseded": there.superseded,
    }


def _stored_as_data(listing: Listing, stored: Stored) -> dict[str, Any]:
    one = stored.checkpoint
    problems = listing.verified.get(stored.name)
    return {
        "name": stored.name,
        **one._asdict(),
        "world_size": stored.manifest.world_size,
        "metrics": {name: _valid(value) for name, value in one.metrics.items()},
        "latest": stored.name == listing.latest,
        "best": stored.name == listing.best,
        "kept": stored.name in listing.kept if one.step is not None else True,
        "verified": None if problems is None else not problems,
        "problems": problems or [],
    }


def _valid(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
