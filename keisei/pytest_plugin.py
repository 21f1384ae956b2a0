"""Fixtures for tests of training code; a conftest names them.

``pytest_plugins = ["keisei.pytest_plugin"]`` in the `conftest.py` at the root of the tests is all.
They are plain fixtures, so they serve blocking tests and async ones, whichever plug-in runs those.
"""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Generator, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from keisei.testing.leaks import KINDS, Leaks

if TYPE_CHECKING:
    from keisei.testing import Clock, Faults, MemoryTracker, Sessions, WandbServer

_LEAKS = pytest.StashKey[Leaks]()
_FAILED = pytest.StashKey[bool]()
_MARK = "keisei_leaks"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker.

    Args:
        config: what knows the markers.
    """
    text = f"{_MARK}(*kinds): what this test may leave behind: {', '.join(KINDS)}; all, if none"
    config.addinivalue_line("markers", text)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Watch the tasks of an async test that uses the fixtures, and note whether it fails.

    Args:
        item: the test.
    """
    leaks = item.stash.get(_LEAKS, None)
    if leaks is None or not isinstance(item, pytest.Function):
        return (yield)
    test = item.obj
    if inspect.iscoroutinefunction(test):
        item.obj = _watched(test, leaks)
    item.stash[_FAILED] = True
    try:
        result = yield
    finally:
        item.obj = test
    item.stash[_FAILED] = False
    return result


def _watched(test: Any, leaks: Leaks) -> Any:
    @wraps(test)
    async def watched(**arguments: object) -> object:
        __tracebackhide__ = True
        return await leaks.watch(lambda: test(**arguments))

    return watched


@pytest.fixture
def keisei_root(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """Return the directory in which every run of the test lives, whatever its config says.

    The variables `KEISEI_...` and `WANDB_...` are taken out of the environment, and no login to
    W&B is found. Provenance and resources, which cost a process each, are off. What the test
    leaves behind is reported at its end.
    """
    root = tmp_path / "runs"
    root.mkdir(exist_ok=True)
    for name in list(os.environ):
        if name.startswith(("KEISEI_", "WANDB_")) and name != "WANDB_SERVICE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("KEISEI_LOG_DIR", str(root))
    for switch in ("KEISEI_PROVENANCE", "KEISEI_RESOURCES"):
        monkeypatch.setenv(switch, "off")
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "wandb-home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "wandb-home" / "netrc"))
    logger = logging.getLogger("keisei")
    level = logger.level
    ignored = [kind for mark in request.node.iter_markers(_MARK) for kind in mark.args or KINDS]
    request.node.stash[_LEAKS] = leaks = Leaks(str(tmp_path), ignored)
    yield root
    logger.setLevel(level)
    # A test that has broken off leaves things behind, and tells why by its own error.
    if not request.node.stash.get(_FAILED, False) and (left := leaks.left()):
        lines = "\n".join(f"- {sentence}" for sentence in left)
        way_out = f"(@pytest.mark.{_MARK}(kind, ...) allows it: {', '.join(KINDS)})"
        pytest.fail(f"the test has left this behind:\n{lines}\n{way_out}", pytrace=False)


@pytest.fixture
def keisei_session(request: pytest.FixtureRequest, keisei_root: Path) -> Iterator[Sessions]:
    """Return what makes sessions: `keisei_session()`, and `keisei_session.blocking()`."""
    from keisei.testing import Sessions

    sessions = Sessions()
    yield sessions
    request.node.stash[_LEAKS].note("sessions", sessions.let_go())


@pytest.fixture
def keisei_tracker(keisei_root: Path) -> MemoryTracker:
    """Return a tracker in memory, for `session.setup_remote_logging(keisei_tracker)`."""
    from keisei.testing import MemoryTracker

    return MemoryTracker()


@pytest.fixture
def keisei_faults(keisei_root: Path) -> Iterator[Faults]:
    """Return the faults: a full disk, a slow one, a tracker that hangs, a kill."""
    from keisei.testing import Faults

    with Faults() as faults:
        yield faults


@pytest.fixture
def keisei_wandb_server(
    keisei_root: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[WandbServer]:
    """Return a W&B server on loopback, to which the sessions of the test send."""
    from keisei.testing import WandbServer

    with WandbServer() as server:
        for name, value in server.environ().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def keisei_clock(keisei_root: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return a wall clock that stands still; run names and ids come of it."""
    from keisei.testing import Clock

    clock = Clock()
    clock.install(monkeypatch.setattr)
    return clock
