"""Which optional packages are installed: looked up once, at import, and never on a loop."""

from __future__ import annotations

from importlib.util import find_spec

from keisei.errors import MissingExtraError

_INSTALLED = {name: find_spec(name) is not None for name in ("PIL", "av")}


def need(package: str, what: str, instead: str) -> None:
    """Check that a package is installed.

    Args:
        package: its name, as it is imported.
        what: what needs it.
        instead: what can be done without it.

    Raises:
        MissingExtraError: it is not.
    """
    if not _INSTALLED[package]:
        raise MissingExtraError(
            f"{what} needs {package}: install it with `pip install 'keisei[media]'`, or {instead}"
        )
