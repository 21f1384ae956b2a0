"""The program `keisei`."""

from __future__ import annotations

import sys

from keisei.errors import MissingExtraError


def main() -> None:
    """Run the program; says which extra to install where it is missing."""
    try:
        _check_extra()
    except MissingExtraError as exc:
        print(exc, file=sys.stderr)  # noqa: T201
        sys.exit(1)
    # The commands register themselves.
    from keisei.cli import doctor, plot, program, sync, tail  # noqa: F401

    program.app()


def _check_extra() -> None:
    try:
        import rich
        import typer  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError(
            f'the program keisei needs {exc.name}: pip install "keisei[cli]"'
        ) from None
    del rich
