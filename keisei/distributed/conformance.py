"""The conformance kit of launchers: checks that one tells the ranks of a launch the truth."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping, Sequence

from keisei.distributed.launchers import Environ, Launch, Launcher
from keisei.distributed.named import Named
from keisei.errors import LaunchError, describe


def check_launcher(launcher: Launcher, ranks: Sequence[Environ], other: Environ) -> list[str]:
    """Check that a launcher tells ranks and launches apart; call it in a test of your launcher.

    Args:
        launcher: the launcher.
        ranks: the environment of each rank of one launch of two or more, in the ranks' order, as
            the launcher sets it; what it does not set may be left out.
        other: the environment of any rank of another launch.

    Returns:
        What was checked, a sentence each.

    Raises:
        AssertionError: a check has failed; the message says which, and how.
    """
    asked = Named(getattr(launcher, "name", type(launcher).__name__), launcher)
    pid = os.getpid()

    def found(environ: Environ) -> Launch:
        try:
            launch = asked.find(environ, pid)
        except LaunchError as exc:
            raise AssertionError(f"check_launcher: {describe(exc)}") from exc
        _require(launch is not None, "it finds nothing in the environment of a rank")
        assert launch is not None
        return launch

    _require(len(ranks) > 1, "a launch of one rank shows nothing: give the environments of two")
    launches = [found(environ) for environ in ranks]
    numbers = [launch.rank for launch in launches]
    _require(numbers == list(range(len(ranks))), f"it counts the ranks as {numbers}")
    sizes = {launch.world_size for launch in launches}
    _require(sizes == {len(ranks)}, f"it says that {len(ranks)} ranks are {sorted(sizes)}")
    identities = {launch.identity for launch in launches}
    _require(len(identities) == 1, f"one launch has several identities: {sorted(identities)}")
    _require(
        found(other).identity not in identities,
        "another launch has the same identity: its ranks would join this one's run",
    )
    for nothing in ({}, {"PATH": "/bin", "HOME": "/"}):
        _require(
            _alone(asked, nothing, pid),
            "it finds a launch where nothing has set its variables: every program would be a rank",
        )
    _require(
        [found(environ) for environ in ranks] == launches
        and pickle.loads(pickle.dumps(launches)) == launches,
        "it does not say the same twice of one environment",
    )
    for environ in ranks:
        before = dict(environ)
        launcher.find(environ, pid)
        _require(dict(environ) == before, "it changes the environment that it is given")
    return [
        "each rank is found, and counted from 0",
        "all say the same world size and the same identity",
        "another launch has another identity",
        "a program that was started alone is alone",
        "it says the same each time, and changes nothing",
    ]


def _alone(launcher: Named, environ: Mapping[str, str], pid: int) -> bool:
    try:
        return launcher.find(environ, pid) is None
    except LaunchError:
        return False


def _require(holds: bool, problem: str) -> None:
    if not holds:
        raise AssertionError(f"check_launcher: {problem}")
