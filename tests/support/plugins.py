"""Packages with plug-ins, as pip would install them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def install(
    directory: Path, name: str, groups: Mapping[str, Mapping[str, str]], version: str = "1.0"
) -> Path:
    """Install a package's metadata; its modules are the caller's matter.

    Args:
        directory: where; it is made.
        name: the package's name.
        groups: its entry points, by group and name.
        version: its version.

    Returns:
        The directory of the metadata.
    """
    about = directory / f"{name.replace('-', '_')}-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    sections = [
        f"[{group}]\n" + "".join(f"{each} = {value}\n" for each, value in points.items())
        for group, points in groups.items()
    ]
    (about / "entry_points.txt").write_text("\n".join(sections))
    return about
