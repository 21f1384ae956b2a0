"""A run that another process owns, as the parts of it in this process write to it."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from keisei._io.directories import OpenDirectory
from keisei._io.forks import after_in_child
from keisei._io.held import JoinedDirectory
from keisei.errors import HandleError, KeiseiError, RunEndedError, TakenOverError, quoted
from keisei.run import find
from keisei.run.layout import RECORD_FILE
from keisei.run.session_file import SessionRecord
from keisei.run.status import FINAL

_guard = threading.Lock()
_joined: dict[tuple[str, str, int], JoinedRun] = {}


class JoinedRun:
    """A run that another process owns: its directory, for as long as that attempt lives.

    All parts of a run in one process share one of these; `join` returns it, and each of them
    calls `leave` once. Thread-safe.

    Args:
        directory: the path of the run's directory, absolute.
        run_name: the run's name.
        session_id: its id.
        attempt: which attempt.

    Attributes:
        home: the run's directory; entering it raises `over` where there is one.
        over: why nothing more may be written to the run from here, once that is known.
    """

    def __init__(self, directory: str, run_name: str, session_id: str, attempt: int) -> None:
        self.home = JoinedDirectory(directory)
        self.run_name, self.session_id, self.attempt = run_name, session_id, attempt
        self.over: RunEndedError | TakenOverError | None = None
        self.users = 0
        self._told: list[Callable[[RunEndedError | TakenOverError], object]] = []
        self._seen: tuple[int, int, int] | None = None  # the session file, as it was last read
        self._noting = threading.Lock()

    def on_over(self, callback: Callable[[RunEndedError | TakenOverError], object]) -> None:
        """Call a function, once, when nothing more may be written; on whatever thread sees it."""
        with self._noting:
            over = self.over
            if over is None:
                self._told.append(callback)
        if over is not None:
            callback(over)

    def forget(self, callback: Callable[[RunEndedError | TakenOverError], object]) -> None:
        """Call a function that was given to `on_over` no more."""
        with self._noting, suppress(ValueError):
            self._told.remove(callback)

    def look(self) -> RunEndedError | TakenOverError | None:
        """Look at the session file, and return why nothing more may be written. It blocks."""
        with suppress(OSError), self.home.entered():
            pass
        return self.over

    def leave(self) -> None:
        """Write to it no longer; the last part that does so closes its directory."""
        with _guard:
            self.users -= 1
            if self.users:
                return
            _joined.pop((self.home.path, self.session_id, self.attempt), None)
        self.home.release()

    def open(self) -> None:
        """Open the directory, check that it is that run's, and hold it.

        Raises:
            HandleError: it cannot be opened, or it is not that run's.
            RunEndedError: the run has ended.
            TakenOverError: it goes on as a later attempt.
        """
        where = quoted(self.home.path, 300)
        try:
            directory = OpenDirectory(self.home.path)
        except OSError as exc:
            raise self._unusable(
                f"{where} cannot be opened: {find.reason(exc)}. {_hint(exc)}"
            ) from None
        try:
            text = directory.read(RECORD_FILE)
            record = None if text is None else SessionRecord.parsed(text)
        except OSError as exc:
            directory.close()
            raise self._unusable(
                f"{where}: its session file cannot be read: {find.reason(exc)}"
            ) from None
        try:
            self._check_run(record, where)
            assert record is not None
            self._compare(record)
            if find.owner_state(record.owner, directory) == "died":
                raise self._ended("its owner is gone, and has not recorded how it ended")
        except BaseException:
            directory.close()
            raise
        self.home.hold(directory)
        self.home.check = self._check

    def _check_run(self, record: SessionRecord | None, where: str) -> None:
        if record is None:
            raise self._unusable(
                f"{where} has no valid session file. Take a handle of a session that lives"
            )
        mine = (self.session_id, self.run_name)
        if (record.session_id, record.run_name) != mine or record.attempt < self.attempt:
            raise self._unusable(
                f"{where} is of run {quoted(record.run_name)}, id {record.session_id}, attempt "
                f"{record.attempt}, and not of run {quoted(self.run_name)}, id {self.session_id}, "
                f"attempt {self.attempt}. Take a handle of the session that is meant"
            )

    def _check(self, directory: OpenDirectory) -> None:
        """Refuse to write where the run has ended, or another attempt goes on with it."""
        if self.over is None:
            try:
                fd = directory.open(RECORD_FILE, os.O_RDONLY)
            except OSError:
                return  # it was removed: its owner writes it again
            with open(fd, "rb") as file:
                stat = os.fstat(fd)
                seen = stat.st_ino, stat.st_mtime_ns, stat.st_size
                if seen == self._seen:
                    return
                record = SessionRecord.parsed(file.read())
            if record is not None:
                self._compare(record)
            self._seen = seen
        else:
            raise again(self.over)

    def _compare(self, record: SessionRecord) -> None:
        """Compare what the session file says with the attempt that was joined.

        Raises:
            RunEndedError: the attempt has ended.
            TakenOverError: another one goes on with the run, or another run stands there.
        """
        over: RunEndedError | TakenOverError
        if record.session_id != self.session_id or record.attempt != self.attempt:
            owner = record.owner
            over = TakenOverError(
                f"run {quoted(self.run_name)} goes on as attempt {record.attempt}, of process "
                f"{owner.pid} on host {quoted(owner.host)[1:-1]}: nothing more is written to its "
                f"attempt {self.attempt}. Take a handle of the session that goes on",
                path=self.home.path,
                host=owner.host,
                pid=owner.pid,
            )
        elif record.status in FINAL:
            over = self._ended(f"it has ended as {record.status}")
        else:
            return
        with self._noting:
            first, self.over = self.over is None, self.over or over
            told, self._told = self._told, []
        if first:
            for callback in told:
                callback(over)
        raise again(self.over)

    def _ended(self, why: str) -> RunEndedError:
        return RunEndedError(
            f"run {quoted(self.run_name)} takes nothing more from here: {why}. Log before the "
            "session ends; or start it again, and take a handle of that session"
        )

    def _unusable(self, problem: str) -> HandleError:
        return HandleError(f"this handle cannot be used: {problem}.", path=self.home.path)


def join(directory: str, run_name: str, session_id: str, attempt: int) -> JoinedRun:
    """Join a run that another process owns, to write a part of it. It blocks.

    Args:
        directory: the path of the run's directory, absolute.
        run_name: the run's name.
        session_id: its id.
        attempt: which attempt.

    Raises:
        HandleError: the directory cannot be opened here, or is not that run's.
        RunEndedError: the run has ended, or its owner is gone.
        TakenOverError: it goes on as a later attempt.
    """
    key = directory, session_id, attempt
    with _guard:
        run = _joined.get(key)
        if run is None:
            run = JoinedRun(directory, run_name, session_id, attempt)
            run.open()
            _joined[key] = run
        run.users += 1
    if (over := run.look()) is not None:
        run.leave()
        raise again(over)
    return run


def again(error: KeiseiError) -> KeiseiError:
    """Return an error of `JoinedRun.over` anew, to be raised in one more place."""
    if isinstance(error, TakenOverError):
        return TakenOverError(str(error), path=error.path, host=error.host, pid=error.pid)
    return RunEndedError(str(error))


def _hint(exc: OSError) -> str:
    """Return the way out of an error of opening a run's directory."""
    if exc.errno in (errno.ENOENT, errno.ESTALE):
        return (
            "A member needs to see the run's directory under the same path as its owner does: "
            "mount it there on this host, or set logging.log_dir to a directory that all share"
        )
    if exc.errno in (errno.ELOOP, errno.ENOTDIR):
        return "No link is followed: let logging.log_dir name the directory itself"
    if exc.errno in (errno.EACCES, errno.EPERM):
        return "It is another user's: start the member as the user who runs the session"
    return "Make it usable, or log from the owner's process"


def _forget() -> None:
    global _guard
    _guard = threading.Lock()
    _joined.clear()


after_in_child(_forget)
