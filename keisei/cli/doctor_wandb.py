"""`keisei doctor --wandb`: what the installed SDK of W&B's lacks, and what is done without it."""

from __future__ import annotations

import json
import sys

from rich.console import Console
from rich.text import Text

from keisei.cli.shared import plain
from keisei.trackers.wandb import private, sdk


def check_wandb(console: Console, *, as_json: bool) -> int:
    """Print what the installed SDK lacks; return the exit status.

    Args:
        console: where it is printed.
        as_json: whether a document is written to the standard output in its place.

    Returns:
        0 where keisei can use it; 1 where it is too old, or lacks what its release should have.
    """
    try:
        module = sdk.load_sdk()
    except ImportError:
        found, release, version = [], None, None
    else:
        found, release = private.missing(), sdk.release_of(module)
        version = str(getattr(module, "__version__", "?"))
    oldest = ".".join(map(str, sdk.OLDEST))
    fits = release is not None and release >= sdk.OLDEST
    if as_json:
        names = [
            {"name": one.where, "wanted_for": one.wanted_for, "without": one.without}
            for one in found
        ]
        document = {"version": version, "needed": f">={oldest}", "fits": fits, "missing": names}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        said = "is not installed" if version is None else f"{version} is installed"
        console.print(Text(plain(f"wandb {said}; keisei needs wandb>={oldest}", console)))
        for one in found:
            console.print(Text(plain(f"  it lacks {one.where}: {one.wanted_for}", console)))
            console.print(Text(plain(f"    without it: {one.without}", console)))
        if fits and not found:
            console.print(Text("  it has all that keisei uses of it"))
    sys.stdout.flush()
    return int(not fits or any(release is not None and release >= one.since for one in found))
