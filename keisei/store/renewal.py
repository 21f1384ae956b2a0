"""Keeps the leases of a process's runs in a registry: one daemon thread renews all in one commit.

It needs no event loop, and nobody waits for it but a start, which does so shortly. While the
registry is away nobody can take a run over, and so trainings go on: what could not be renewed is
renewed late, as long as nobody else has acquired it. SQLAlchemy is imported on the thread.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from keisei._io.backoff import Backoff
from keisei._io.forks import after_in_child
from keisei._io.process import since_boot
from keisei._io.switching import quick_switches
from keisei._log import logger
from keisei.errors import MissingExtraError
from keisei.run.lease import Holder
from keisei.run.session_file import Lease
from keisei.store.kept_lease import BEATS, Answer, KeptLease

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

    from keisei.store.database import Database

ENTRY_TIMEOUT = 5.0  # seconds that a start waits for the registry
CONFIRM_TIMEOUT = 2.0  # seconds that a write waits for it, after the process was stopped
QUIET = 10.0  # seconds after a failure, in which nobody waits for it
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 2.0  # between retries: a short one leaves others little time
_IDLE = 0.5  # seconds that the thread lives on with nothing to do

_Call = Callable[["Connection", str], object]
_T = TypeVar("_T")

_keepers: dict[str, Keeper] = {}
_lock = threading.Lock()


@dataclass
class _Asked:
    """A call for the next transaction, and its answer with the registry's id and the time."""

    call: _Call
    answer: Future[tuple[Any, str, float]] = field(default_factory=Future)
    given_up: threading.Event = field(default_factory=threading.Event)


class Keeper:
    """The thread of a process that keeps leases in a registry; thread-safe.

    Args:
        url: the registry's.

    Attributes:
        said: whether it has been logged that the registry is away, and is so still.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._changed = threading.Condition()
        self._asked: list[_Asked] = []
        self._kept: set[KeptLease] = set()
        self._thread: threading.Thread | None = None
        self._database: Database | None = None
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._quiet_until = 0.0
        self._hangs = False  # whether the call that is under way has been waited for enough
        self.said = False

    def acquire(self, held: KeptLease, over: Lease | None) -> KeptLease | Holder:
        """Acquire a lease; see `keisei.run.lease.LeaseSource`."""

        def call(connection: Connection, registry: str) -> Answer:
            answer = held.acquired_in(connection, over, registry)
            if asked.given_up.is_set() and over is not None:  # the run was left to the other owner
                raise TimeoutError("the start that has asked waits no more")
            return answer

        asked = _Asked(call)
        if (answered := self._answered(asked)) is None:
            return held
        answer, registry, asked_at = answered
        if isinstance(answer, int):
            held.acquired(answer, registry, asked_at)
        return answer if isinstance(answer, Holder) else held

    def answer(self, call: Callable[[Connection], _T]) -> _T | None:
        """Return what a call in the next transaction returns; waits shortly.

        Args:
            call: called on the thread with the transaction.

        Returns:
            Its answer; ``None`` where the registry is away, which is logged once.
        """
        answered = self._answered(_Asked(lambda connection, registry: call(connection)))
        return None if answered is None else answered[0]

    def _answered(self, asked: _Asked) -> tuple[Any, str, float] | None:
        if self._is_quiet():
            return None
        try:
            self._ask(asked)
            return asked.answer.result(ENTRY_TIMEOUT)
        except TimeoutError:
            asked.given_up.set()
            with self._changed:
                self._hangs = not asked.answer.done()
                asked.answer.cancel()
            self._is_away(f"no answer within {ENTRY_TIMEOUT:g} s")
        except Exception as exc:  # noqa: BLE001 - a registry never stops a training
            self._is_away(str(exc))
        return None

    def ask(self, call: Callable[[Connection], _T]) -> Future[_T]:
        """Begin a call in the next transaction; never waits.

        Args:
            call: called on the thread with the transaction.

        Returns:
            Its result, or its error, once the registry has answered.
        """
        result: Future[_T] = Future()

        def answered(answer: Future[tuple[Any, str, float]]) -> None:
            if (error := answer.exception()) is not None:
                result.set_exception(error)
            else:
                result.set_result(answer.result()[0])

        asked = _Asked(lambda connection, registry: call(connection))
        asked.answer.add_done_callback(answered)
        with suppress(RuntimeError):  # no thread is left now
            self._ask(asked)
        return result

    def keep(self, held: KeptLease) -> None:
        """Renew a lease from now on."""
        held.due = held.renewed + held.ttl / BEATS if held.lease is not None else 0.0
        with self._changed, suppress(RuntimeError):  # no thread is left: others may take it
            self._kept.add(held)
            self._wake()

    def confirm(self, held: KeptLease) -> None:
        """Renew a lease now, and wait for the answer, shortly."""
        with self._changed:
            if self._is_quiet() or held not in self._kept:
                return
            held.due, before = 0.0, held.renewed
            try:
                self._wake()
            except RuntimeError:  # no thread is left
                return
            hangs = not self._changed.wait_for(
                lambda: held.other or held.renewed > before or self._is_quiet() or not self._kept,
                CONFIRM_TIMEOUT,
            )
            self._hangs = self._hangs or hangs
        if hangs:
            self._is_away(f"no answer within {CONFIRM_TIMEOUT:g} s")

    def release(self, held: KeptLease) -> None:
        """Release a lease; never waits."""
        with self._changed:
            self._kept.discard(held)
            if held.lease is None or held.other or time.monotonic() < self._quiet_until:
                return
        with suppress(RuntimeError):
            self._ask(_Asked(held.released_in))

    def _is_quiet(self) -> bool:
        """Return whether nobody waits now: the last call has failed just now, or this one hangs."""
        return self._hangs or time.monotonic() < self._quiet_until

    def _ask(self, asked: _Asked) -> None:
        with self._changed:
            self._asked.append(asked)
            self._wake()

    def _wake(self) -> None:
        """Wake the thread, or start it.

        Raises:
            RuntimeError: none can be started.
        """
        if self._thread is None:
            thread = threading.Thread(target=self._work, name="keisei-leases", daemon=True)
            thread.start()
            self._thread = thread
        self._changed.notify_all()

    def _work(self) -> None:
        while self._wait():
            self._serve()

    def _wait(self) -> bool:
        """Wait until something is to be done; where there is nothing left, end the thread."""
        idle_until = time.monotonic() + _IDLE
        with self._changed:
            while not self._asked:
                if self._kept:
                    pause = min(held.due for held in self._kept) - since_boot()
                    idle_until = time.monotonic() + _IDLE
                else:
                    pause = idle_until - time.monotonic()
                if pause <= 0 and not self._kept:
                    self._thread = None
                    self._close()
                    return False
                if pause <= 0:
                    break
                self._changed.wait(pause)
            return True

    def _serve(self) -> None:
        """Do what is asked and what is due, in one commit."""
        asked_at = since_boot()
        with self._changed:
            asked, self._asked = self._asked, []
            # What is due soon is renewed with what is due now.
            due = [one for one in self._kept if one.due <= asked_at + one.ttl / BEATS / 2]
        asked = [one for one in asked if one.answer.set_running_or_notify_cancel()]
        try:
            database = self._opened()
            registry = database.registry
            with database.writing() as connection:
                answers = [one.call(connection, registry) for one in asked]
                renewed = [one.renewed_in(connection, registry) for one in due]
        except BaseException as exc:  # noqa: BLE001 - whoever waits gets it
            self._close()
            for one in asked:
                one.answer.set_exception(exc)
            self._retry(due, exc)
            return
        for one, answer in zip(asked, answers, strict=True):
            one.answer.set_result((answer, registry, asked_at))
        with self._changed:
            for held, answer in zip(due, renewed, strict=True):
                if held in self._kept:
                    held.answered(answer, registry, asked_at)
                    if held.other is not None:
                        self._kept.discard(held)
            self._backoff.reset()
            self._quiet_until, self._hangs = 0.0, False
            said, self.said = self.said, False
            self._changed.notify_all()
        if said:
            logger.info("the registry %s answers again: leases are renewed", database.shown)

    def _retry(self, due: list[KeptLease], exc: BaseException) -> None:
        """Try again soon; at the first lease whose time is over, say so."""
        now = since_boot()
        with self._changed:
            self._quiet_until, self._hangs = time.monotonic() + QUIET, False
            again = now + self._backoff.next()
            for held in due:
                held.due = again
            self._changed.notify_all()
        if any(held.lease is not None and now - held.renewed > held.ttl for held in due):
            self._is_away(str(exc))

    def _is_away(self, reason: str) -> None:
        """Note that the registry is away, and log it once."""
        with self._changed:
            self._quiet_until = time.monotonic() + QUIET
            said, self.said = self.said, True
        if not said:
            logger.warning(
                "the registry does not answer (%s): runs go on without a lease, owned by their "
                "directories' locks alone, and look lost to others until it answers again",
                reason,
            )

    def _opened(self) -> Database:
        if self._database is None:
            with quick_switches():
                try:
                    from keisei.store.database import Database
                except ImportError as exc:
                    extra = "pip install 'keisei[registry]'"
                    raise MissingExtraError(f"a registry needs {exc.name}: {extra}") from None
            self._database = Database(self._url)
        return self._database

    def _close(self) -> None:
        database, self._database = self._database, None
        if database is not None:
            with suppress(Exception):
                database.close()


class Leases:
    """The leases of runs in a registry, each with the same time to live.

    Args:
        url: the registry's.
        ttl: the time to live, in seconds.
    """

    def __init__(self, url: str, ttl: float) -> None:
        self._url, self._ttl = url, ttl

    def acquire(
        self,
        session_id: str,
        owner: Holder,
        *,
        gone: Holder | None = None,
        over: Lease | None = None,
        least: int = 1,
    ) -> KeptLease | Holder:
        """Acquire a run's lease; see `keisei.run.lease.LeaseSource`."""
        keeper = keeper_for(self._url)
        return keeper.acquire(KeptLease(keeper, session_id, owner, self._ttl, gone, least), over)

    def known_away(self) -> bool:
        """Return whether it has been logged that the registry is away, and is so still."""
        return keeper_for(self._url).said


def keeper_for(url: str) -> Keeper:
    """Return the thread of this process that asks a registry.

    Args:
        url: the registry's.
    """
    with _lock:
        return _keepers.setdefault(url, Keeper(url))


def _forget() -> None:
    global _lock
    _keepers.clear()
    _lock = threading.Lock()


after_in_child(_forget)
