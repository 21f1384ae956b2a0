"""The program `keisei`."""

from __future__ import annotations

import gc
import os
import sys
import threading

from keisei._io.exits import exit_at_once
from keisei.errors import MissingExtraError

_HOOKS_TIMEOUT = 5.0  # seconds
_RARELY = 100_000  # new objects between two collections of garbage


def main() -> None:
    """Run the program; only the command that is named is imported."""
    gc.set_threshold(_RARELY)  # what a command imports and lists stays until its end
    try:
        _open_closed_streams()
        _check_extra()
        from keisei.cli import program

        if os.environ.get("_KEISEI_COMPLETE"):  # a shell asks what could follow
            line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
            program.load_for_completion(line)
        else:
            program.load(sys.argv[1:])
        program.app(prog_name="keisei")
    except SystemExit as exc:
        if threading.active_count() > 1 and isinstance(exc.code, int | None):
            exit_at_once(exc.code or 0, _HOOKS_TIMEOUT)  # a tracker's call hangs
        raise
    except (MissingExtraError, OSError) as exc:
        print(f"keisei: {exc}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(130)


def _open_closed_streams() -> None:
    """Replace standard streams that are closed, before a file gets their descriptors."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r+"))  # noqa: SIM115 - open to the end


def _check_extra() -> None:
    try:
        import rich
        import typer
    except ImportError as exc:
        raise MissingExtraError(
            f'the program needs {exc.name}: pip install "keisei[cli]"'
        ) from None
    del rich, typer
