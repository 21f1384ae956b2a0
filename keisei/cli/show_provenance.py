"""What `keisei show` says of where a run comes from: its code, packages, machine and values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from keisei.cli.shared import plain, print_fact
from keisei.errors import KeiseiError
from keisei.provenance.reading import (
    mappings,
    origin_text,
    part,
    read_origins,
    read_snapshot,
    texts,
)
from keisei.provenance.restore import restore_code
from keisei.reports.words import code_in_words

_MOST = 20  # lines of a kind, on a screen


def snapshot_of(directory: str, attempt: int | None) -> Mapping[str, Any] | None:
    """Return what an attempt was started from; ``None`` where that is not to be had here."""
    try:
        return read_snapshot(directory, attempt)
    except OSError:
        return None


def print_snapshot(snapshot: Mapping[str, Any], console: Console) -> None:
    """Print what an attempt was started from, a line for each subject."""
    machine, command = part(snapshot, "machine"), part(snapshot, "command")
    packages = part(snapshot, "packages")
    models = [gpu.get("model") for gpu in mappings(machine, "gpus")]
    known = {
        "code": code_in_words(part(snapshot, "code")),
        "command": " ".join(_quoted(word) for word in texts(command, "arguments")),
        "machine": _joined(machine, "host", "system", "processor", "container"),
        "gpus": ", ".join([str(model) for model in models] + [str(machine.get("driver") or "")]),
        "python": _joined(machine, "python", "executable"),
        "packages": f"{len(packages)} (--json has them)" if packages else "",
    }
    for name, value in known.items():
        if value.strip(", "):
            print_fact(name, value, console)
    differs = texts(snapshot, "differs")
    for number, text in enumerate(differs[:_MOST]):
        print_fact("" if number else "differs", text, console)
    for number, one in enumerate(mappings(snapshot, "config_changes")[:_MOST]):
        text = f"{one.get('key')}: {one.get('earlier')}, now {one.get('now')}"
        text += f" ({one.get('verdict')})"
        print_fact("" if number else "changed", text, console)


def print_origins(directory: str, console: Console) -> None:
    """Print where each value of a run's config came from, and what it beat."""
    origins = read_origins(directory)
    if origins is None:
        raise KeiseiError("where the values of the run's config came from is not recorded")
    table = Table(box=None, padding=(0, 1, 0, 1), header_style="bold")
    for name in ("key", "value", "from", "before"):
        table.add_column(name, overflow="fold")
    for key, one in origins.items():
        about = one if isinstance(one, dict) else {}
        beaten = [f"{origin_text(each)} ({_value(each)})" for each in mappings(about, "beat")]
        cells = (key, _value(about), origin_text(about), ", ".join(beaten))
        table.add_row(*(Text(plain(cell, console)) for cell in cells))
    console.print(table)


def print_restored(
    directory: str, target: str, repository: str, attempt: int | None, console: Console
) -> None:
    """Restore the code of an attempt, and print what was done and what is not as it was."""
    restored = restore_code(directory, target, repository, attempt)
    commit = restored.commit or "no commit"
    console.print(
        Text(
            plain(
                f"restored into {target}: {commit}, {restored.written} files written over it, "
                f"{restored.deleted} removed",
                console,
            )
        )
    )
    if not restored.differs:
        console.print("The tree is as it was, byte for byte; what git ignores is not in it.")
        return
    console.print("Not as it was:")
    for text in restored.differs[:1000]:
        console.print(Text(f"  {plain(text, console)}"))


def _value(about: Mapping[str, Any]) -> str:
    return json.dumps(about.get("value"), ensure_ascii=False)


def _joined(data: Mapping[str, Any], *keys: str) -> str:
    return ", ".join(str(data[key]) for key in keys if data.get(key))


def _quoted(word: str) -> str:
    return json.dumps(word, ensure_ascii=False) if " " in word or not word else word
