"""Installs a package of entry points for a while."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def installed(
    entry_points: Mapping[str, Mapping[str, str]], *, name: str = "my-plug-in", version: str = "1.0"
) -> Iterator[None]:
    """Install a package of entry points in this process and those that it starts, for a while.

    It stands on the import path as pip would have put it there; its modules are your own.

    Args:
        entry_points: by group, such as `keisei.trackers`: by name, `module:attribute`.
        name: the package's name.
        version: its version.
    """
    sections = [
        f"[{group}]\n" + "".join(f"{each} = {value}\n" for each, value in points.items())
        for group, points in entry_points.items()
    ]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        about = Path(directory, f"{name.replace('-', '_')}-{version}.dist-info")
        about.mkdir()
        about_text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        (about / "METADATA").write_text(about_text, encoding="utf-8")
        (about / "entry_points.txt").write_text("\n".join(sections), encoding="utf-8")
        sys.path.append(directory)
        importlib.invalidate_caches()
        try:
            yield
        finally:
            with suppress(ValueError):
                sys.path.remove(directory)
            importlib.invalidate_caches()
