"""`keisei doctor --plugins`: what installed packages offer, and what of it cannot be loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace

from rich.console import Console
from rich.text import Text

from keisei._io.plugins import Kind, Offer, Unreadable, scan
from keisei._io.spawn import GREETING, kill, program, reap, spawn, why_not
from keisei.cli.probe import KINDS
from keisei.cli.shared import plain
from keisei.errors import describe

_AT_ONCE = 4
_BEGINS = "keisei.cli.probe"
_COLOURS = {"ok": "green", "failed": "red", "hung": "red", "hidden": "yellow", "ambiguous": "red"}


@dataclass(frozen=True)
class Found:
    """A plug-in that is installed, and how it is.

    Attributes:
        group: the group of its entry point.
        name: its name.
        value: where it is: `module:attribute`.
        package: the distribution that offers it.
        version: the distribution's version.
        state: `ok`, `failed`, `hung`, `hidden` (keisei has one of its own of that name) or
            `ambiguous` (another package offers the name, too).
        problem: what is wrong with it, in one line; empty where nothing is.
    """

    group: str
    name: str
    value: str
    package: str
    version: str
    state: str = "ok"
    problem: str = ""


def check_plugins(console: Console, *, as_json: bool, timeout: float) -> int:
    """Print what installed packages offer, and how it is; return the exit status.

    Each is loaded in a process of its own, so that none can do anything to another, or to this.

    Args:
        console: where it is printed.
        as_json: whether a document is written to the standard output in its place.
        timeout: how long each may take to load, in seconds.

    Returns:
        0 where all can be used; 1 where one cannot.
    """
    offers, unreadable = scan(kind.group for kind in KINDS)
    found = [_clashing(offer, offers) for offer in offers]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda each: _probed(each, timeout), found))
    attention = sum(each.state != "ok" for each in found)
    if as_json:
        document = {
            "plugins": [asdict(each) for each in found],
            "unreadable": [each._asdict() for each in unreadable],
            "own": {kind.group: sorted(kind.own) for kind in KINDS},
            "need_attention": attention,
        }
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        _print(found, unreadable, attention, console)
    sys.stdout.flush()
    return int(attention > 0)


def _clashing(offer: Offer, offers: list[Offer]) -> Found:
    """Return a plug-in, and whether its name is another's, too."""
    found = Found(*offer)
    kind = _kind(offer.group)
    if offer.name in kind.own:
        problem = f"keisei has a {kind.noun} of that name, which goes before it: rename this one"
        return replace(found, state="hidden", problem=problem)
    others = [
        f"{each.package} {each.version}"
        for each in offers
        if each != offer and (each.group, each.name) == (offer.group, offer.name)
    ]
    if others:
        problem = f"{' and '.join(others)} offers the name, too: uninstall all but one"
        return replace(found, state="ambiguous", problem=problem)
    return found


def _probed(found: Found, timeout: float) -> Found:
    """Return a plug-in with how loading it goes, in a process of its own."""
    if found.state != "ok":
        return found
    if (reason := why_not()) is not None:
        return replace(found, state="failed", problem=f"it cannot be tried: {reason}")
    try:
        process = spawn(program(), dict(os.environ), os.getcwd(), _BEGINS)
    except OSError as exc:
        return replace(found, state="failed", problem=f"it cannot be tried: {describe(exc)}")
    question = json.dumps([found.group, found.name]).encode() + b"\n"
    try:
        answer, _ = process.communicate(question, timeout)
    except subprocess.TimeoutExpired:
        problem = f"it has not loaded after {timeout:g} s"
        return replace(found, state="hung", problem=problem)
    finally:
        kill(process)
        reap(process)
    try:
        problem = str(json.loads(answer.removeprefix(GREETING)))
    except ValueError:
        problem = f"it ends the process that loads it (status {process.returncode})"
    return replace(found, state="failed", problem=problem) if problem else found


def _print(
    found: list[Found], unreadable: list[Unreadable], attention: int, console: Console
) -> None:
    rows = [(_kind(each.group).noun, each.name, f"{each.package} {each.version}") for each in found]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for each, row in zip(found, rows, strict=True):
        texts = (
            f"{plain(text, console):<{width}}" for text, width in zip(row, widths, strict=True)
        )
        line = Text.assemble("  ".join(texts), "  ", (each.state, _COLOURS[each.state]))
        if each.problem:
            line.append(plain(f": {each.problem}", console))
        console.print(line, soft_wrap=True)
    for package in unreadable:
        text = f"the entry points of {package.package} cannot be read: {package.problem}"
        console.print(Text(plain(text, console), "cyan"), soft_wrap=True)
    count = f"{len(found)} {'plug-in is' if len(found) == 1 else 'plug-ins are'} installed"
    needs = "needs" if attention == 1 else "need"
    more = f"{attention} {needs} attention" if attention else "nothing needs attention"
    console.print(Text(f"{count}; {more}"))


def _kind(group: str) -> Kind:
    return next(kind for kind in KINDS if kind.group == group)
