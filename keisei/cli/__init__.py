"""The program `keisei`."""

from __future__ import annotations

import os
import sys

from keisei.errors import MissingExtraError


def main() -> None:
    """Run the program; only the command that is named is imported."""
    try:
        _check_extra()
        from keisei.cli import program

        program.load(sys.argv[1:])
        program.app()
    except MissingExtraError as exc:
        print(exc, file=sys.stderr)  # noqa: T201
        sys.exit(2)
    except KeyboardInterrupt:  # before a command has begun
        sys.exit(130)
    except BrokenPipeError:
        # Nobody reads any more: what is left in the buffer would fail again at the exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _check_extra() -> None:
    try:
        import rich
        import typer
    except ImportError as exc:
        raise MissingExtraError(
            f'the program keisei needs {exc.name}: pip install "keisei[cli]"'
        ) from None
    del rich, typer
