"""An owner that is stopped right before it writes, and loses its run meanwhile, changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei._io.directories import OpenDirectory
from keisei.journal.reader import read_run
from keisei.run.lease import Holder
from keisei.run.session_file import Lease
from keisei.session.facts import SessionFacts
from tests.conftest import MakeConfig

TIMEOUT = 60.0  # seconds


class OverLease:
    """A lease that was another owner's until its time was over."""

    lease = Lease(epoch=1, ttl=1.0, registry="the test's")
    was_over = True

    def keep(self, lost: Callable[[Holder], object], acquired: Callable[[Lease], object]) -> None:
        """Renew nothing."""

    def confirm(self) -> None:
        """Know of nobody else."""

    def release(self) -> None:
        """Release nothing."""


class OverLeases:
    """A registry in which the time of every lease is over at once."""

    def acquire(self, *args: object, **kwargs: object) -> OverLease:
        """Acquire a lease, whoever has it."""
        return OverLease()


class Stop:
    """Stops a thread right after the n-th look at the session file that has found nothing.

    Args:
        owner: the session.
        number: which look it is.
    """

    def __init__(self, owner: SessionManager[Any], number: int) -> None:
        owned = owner._facts.owned
        assert owned is not None
        self.stopped, self.goes_on = threading.Event(), threading.Event()
        self._check, self._left = owned.home.check, number
        self._guard = threading.Lock()
        owned.home.check = self._look
        owned.check = self._look_once  # type: ignore[method-assign] # the models directory's guard
        self._home = owned.home

    def _look(self, directory: OpenDirectory) -> None:
        self._check(directory)
        with self._guard:
            self._left -= 1
            stops = self._left == 0
        if stops:
            self.stopped.set()
            assert self.goes_on.wait(TIMEOUT)

    def _look_once(self) -> None:
        with self._home.entered():
            pass


def content(run: Path) -> dict[str, bytes]:
    """Return what a reader finds of a run: each file, and where each link leads to."""
    found = {}
    for path in run.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(run))] = str(path.readlink()).encode()
        elif path.is_file():
            found[str(path.relative_to(run))] = path.read_bytes()
    return found


def write_everything(session: SessionManager[Any]) -> None:
    """Write in each way that a session has; what is refused is left out."""
    for call in (
        session.save_effective_config,
        session.log_session_start,
        lambda: session.log_metrics({"loss": 2.0}, step=2),
        session.flush,
        lambda: session.log_evaluation({"score": 2.0}, step=2),
        session.flush,
        lambda: session.save_checkpoint({"step": 2}, 2),
        lambda: session.save_final_model({"step": 2}),
        session.finalize_session,
    ):
        with suppress(OSError, RuntimeError):
            call()


def one_round(config: Any, name: str, number: int) -> bool:
    """Stop an owner at its n-th look, take its run over and wake it; return whether it stopped."""
    first = SessionManager(config, run_name=name)
    first.setup_directories()
    first.save_effective_config()
    first.log_metrics({"loss": 1.0}, step=1)
    first.log_evaluation({"score": 1.0}, step=1)
    first.flush()
    first.save_checkpoint({"step": 1}, 1)
    stop = Stop(first, number)
    writes = threading.Thread(target=write_everything, args=(first,))
    writes.start()
    while not stop.stopped.wait(0.005):
        if not writes.is_alive():
            return False
    ended = '"status": "completed"' in Path(first.run_artifact_dir, "session.json").read_text()
    second = SessionManager(config, run_name=name)
    second.setup_directories()
    second.save_effective_config()
    second.log_session_start()
    second.log_metrics({"loss": 3.0}, step=3)
    second.save_checkpoint({"step": 3}, 3)
    second.flush()
    run = Path(second.run_artifact_dir)
    before = content(run)
    rows = [row.values for row in read_run(run).rows()]
    stop.goes_on.set()
    writes.join(TIMEOUT)
    assert not writes.is_alive()
    after = content(run)
    changed = {at: after.get(at) for at in before | after if before.get(at) != after.get(at)}
    assert not changed, (number, changed)
    assert [row.values for row in read_run(run).rows()] == rows
    assert second.finalize_session() == "completed"
    assert first.status == ("completed" if ended else "failed")
    return True


@pytest.mark.requirement("REG-3")
def test_whatever_look_an_owner_is_stopped_behind_it_writes_nothing(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Session file, config, logs, journal, evaluations and checkpoints stay as they are."""
    monkeypatch.setattr(SessionFacts, "leases", OverLeases())
    config = make_config()
    stops = 0
    while one_round(config, f"r{stops}", stops + 1):
        stops += 1
    assert stops > 20
