"""The launchers of installed packages, by the names that the config has: `keisei.launchers`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import anyio

from keisei._io.offload import Work
from keisei._io.plugins import Kind, check_name, load
from keisei.distributed.launchers import LARGEST, LAUNCHERS, Environ, Launch, Launcher
from keisei.errors import KeiseiError, LaunchError, describe, quoted

TIMEOUT = 30.0  # seconds, for importing all that are named
_LONGEST = 1000  # characters of an identity

LAUNCHER = Kind(
    "keisei.launchers",
    "launcher",
    dict.fromkeys((each.name for each in LAUNCHERS), "keisei.distributed.launchers:LAUNCHERS"),
    LaunchError,
    "find",
)


class Named:
    """A launcher of an installed package, whose answers are checked.

    Args:
        name: the name that it is installed under.
        launcher: the launcher.
    """

    def __init__(self, name: str, launcher: Launcher) -> None:
        self.name, self._launcher = name, launcher

    def find(self, environ: Environ, pid: int) -> Launch | None:
        """Return what it says of a process, under the name that it is installed under.

        Raises:
            LaunchError: it has failed, or what it says makes no sense.
        """
        try:
            found: object = self._launcher.find(dict(environ), pid)
        except LaunchError:
            raise
        except Exception as exc:
            raise LaunchError(f"the launcher {self.name} has failed: {describe(exc)}") from exc
        if found is None:
            return None
        if (problem := _problem(found)) is not None:
            raise LaunchError(f"what the launcher {self.name} says makes no sense: {problem}")
        launch = cast(Launch, found)
        identity, begins = launch.identity, f"{self.name}/"
        if not identity.startswith(begins):
            identity = begins + identity
        decided_by = launch.decided_by or f"the launcher {self.name}"
        return launch._replace(launcher=self.name, identity=identity, decided_by=decided_by)


def named_launchers(names: Iterable[str]) -> list[Launcher]:
    """Return the launchers of installed packages that have these names; blocks, and imports them.

    Args:
        names: the names, in the order in which they are asked.

    Raises:
        LaunchError: one of them is keisei's own, is not installed, or cannot be imported.
    """
    found: list[Launcher] = []
    for name in names:
        check_name(LAUNCHER, name)
        try:
            found.append(Named(name, cast(Launcher, load(LAUNCHER, name))))
        except LaunchError:
            raise
        except (KeiseiError, OSError, MemoryError) as exc:
            raise LaunchError(f"{name} cannot be imported: {describe(exc)}") from exc
    return found


async def load_named(names: list[str]) -> list[Launcher]:
    """Return the launchers of these names, imported on a thread; see `named_launchers`.

    Raises:
        LaunchError: as there; or that has taken too long.
    """
    work = Work(lambda: named_launchers(names), is_long=True)
    with anyio.move_on_after(TIMEOUT):
        try:
            return await work.result()
        finally:
            if not work.ended:
                work.leave()
    raise LaunchError(
        f"the launchers {quoted(', '.join(names))[1:-1]} are not imported after {TIMEOUT:.0f} s: "
        "one of them hangs. `keisei doctor --plugins` says which; leave it out of "
        "distributed.launchers"
    )


def _problem(found: object) -> str | None:
    """Return what is wrong with an answer of a launcher; ``None`` where nothing is."""
    if not isinstance(found, Launch):
        return f"it is a {type(found).__name__}, and no Launch"
    for field in ("rank", "world_size", "local_rank", "node", "restart", "requeues"):
        value: object = getattr(found, field)
        if value is None and field in ("local_rank", "node"):
            continue
        if type(value) is not int or not 0 <= value <= LARGEST:
            return f"its {field} is {quoted(value)[1:-1]}, which is no count"
    if found.rank >= found.world_size:
        return f"its rank is {found.rank} of {found.world_size}, and ranks are counted from 0"
    identity: object = found.identity
    if not isinstance(identity, str) or not 0 < len(identity) <= _LONGEST:
        return f"its identity is {quoted(identity)}, and no text of 1 to {_LONGEST} characters"
    if not isinstance(found.decided_by, str):
        return f"its decided_by is {quoted(found.decided_by)}, and no text"
    return None
