"""What each adapter does with the session that it is given, whatever the framework.

An adapter owns no session: the program's `with` block does, and so says how the run ends. In a
process that the framework has forked or spawned, the adapter logs as a member of the run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from weakref import WeakKeyDictionary

from anyio import from_thread

from keisei import (
    AsyncSessionManager,
    Checkpoint,
    CheckpointError,
    NotReadyError,
    Restored,
    RunHandle,
    SessionEndedError,
    SessionManager,
    SessionMember,
)
from keisei._log import logger
from keisei.errors import describe, quoted
from keisei.integrations.values import plain, sort
from keisei.run.status import status_after

Session = SessionManager[Any] | AsyncSessionManager[Any]
HYPERPARAMETERS = "hyperparameters"  # the event that holds them
TEXTS = "texts"  # the event that holds the texts of a row
# Of each session the last number by name: its step, itself, and the role that has logged it.
_LOGGED: WeakKeyDictionary[object, dict[Any, tuple[int, float, str]]] = WeakKeyDictionary()


class Attached:
    """A session, as an adapter uses it.

    Args:
        session: the program's session, entered; ``None`` on a process that logs nothing.
        role: what the adapter is called as a member of the run, in a process of the framework's.

    Attributes:
        restored_step: the step of the checkpoint that was restored last; 0 where none was.

    Raises:
        TypeError: it is no session.
    """

    def __init__(self, session: Session | SessionMember | None, role: str) -> None:
        known = (SessionManager, AsyncSessionManager, SessionMember)
        if session is not None and not isinstance(session, known):
            raise TypeError(
                f"an adapter takes a session, not a {type(session).__name__}: enter one with "
                "`with SessionManager(config) as session:` around the training, and hand it over"
            )
        self._session = session
        self._role = role
        self._process: int | None = os.getpid()
        self._handle: RunHandle | None = None
        self._left_out: set[str] = set()
        self._has_begun = self._has_restored = False
        self.restored_step = 0
        self._source: tuple[Path, str | None] | None = None
        with suppress(NotReadyError, SessionEndedError):
            self._note_handle()

    def _note_handle(self) -> RunHandle | None:
        if self._handle is None and self._session is not None:
            member = isinstance(self._session, SessionMember)
            self._handle = self._session.handle if member else self._session.handle()  # type: ignore[assignment,operator]
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs to log to the same run, as a member."""
        return {"role": self._role, "handle": self._note_handle()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(None, state["role"])  # type: ignore[misc]
        self._handle, self._process = state["handle"], None

    @property
    def target(self) -> Session | SessionMember | None:
        """What is logged to here: the session, or in another process than its own a member."""
        if self._process != os.getpid():
            self._process, self._session = os.getpid(), None
            if self._handle is not None:
                member = SessionMember(self._handle, self._role)
                member.__enter__()
                self._session = member
                # Children of `multiprocessing` run no hooks of `atexit`.
                Finalize(None, member.__exit__, (None, None, None), exitpriority=10)
        return self._session

    @property
    def session(self) -> Session | None:
        """The session; ``None`` in another process than its own, and where there is none."""
        if self._process != os.getpid() or isinstance(self._session, SessionMember):
            return None
        return self._session

    @property
    def directory(self) -> str | None:
        """The run's directory, in any process; ``None`` where there is no session."""
        with suppress(NotReadyError, SessionEndedError):
            self._note_handle()
        return None if self._handle is None else self._handle.directory

    @property
    def attempt(self) -> int:
        """Which attempt of the run this is, from 1."""
        with suppress(NotReadyError, SessionEndedError):
            self._note_handle()
        return 1 if self._handle is None else self._handle.attempt

    def log(self, values: Mapping[Any, Any], step: int | None = None) -> None:
        """Log a row of what a framework calls metrics; what is no number stops no training.

        Texts are logged as an event; of anything else one warning names it. A number that an
        adapter of another role has logged by this name at this step is there already. After the
        session's end nothing is logged: a framework may tear itself down after an interrupt.

        Args:
            values: numbers by name, and what else the framework hands over.
            step: the framework's step, if the row has one.
        """
        target, when = self.target, None if step is None else int(step)
        if target is None or not self._logs(target):
            return
        if when is not None:
            row = self._not_yet_logged(target, values, when)
            if values and not row:
                return
            values = row
        try:
            try:
                target.log_metrics(values, when)
            except TypeError:
                self._log_sorted(target, values, when)
        except SessionEndedError as exc:
            logger.debug("not logged: %s", exc)

    def _not_yet_logged(
        self, target: Session | SessionMember, values: Mapping[Any, Any], step: int
    ) -> dict[Any, Any]:
        known, new = _LOGGED.setdefault(target, {}), {}
        for name, value in values.items():
            if isinstance(value, (int, float)):
                at, number, role = known.get(name, (None, None, None))
                if (at, number) == (step, value) and role != self._role:
                    continue
                known[name] = (step, value, self._role)
            new[name] = value
        return new

    @staticmethod
    def _logs(target: Session | SessionMember) -> bool:
        """Return whether this process logs: rank 0 does, and a member."""
        return isinstance(target, SessionMember) or target.rank == 0

    def _log_sorted(
        self, target: Session | SessionMember, values: Mapping[Any, Any], step: int | None
    ) -> None:
        found = sort(values)
        if found.numbers:
            target.log_metrics(found.numbers, step)
        if found.texts:
            target.log_event(TEXTS, {"step": step, "texts": found.texts})
        new = [name for name in found.others if name not in self._left_out]
        self._left_out.update(new)
        if new:
            names = ", ".join(quoted(name) for name in new[:10])
            logger.warning("%s: neither numbers nor texts, and not logged: %s", self._role, names)

    def hyperparameters(self, values: Mapping[Any, Any]) -> None:
        """Log the framework's hyper-parameters as the event `hyperparameters`.

        Args:
            values: anything by name; of what JSON cannot hold, its text is kept.
        """
        if values:
            self.event(HYPERPARAMETERS, values)

    def event(self, name: str, values: Mapping[Any, Any]) -> None:
        """Log an event of whatever values; after the session's end nothing is logged.

        Args:
            name: the kind of event.
            values: anything by name; of what JSON cannot hold, its text is kept.
        """
        target = self.target
        if target is not None and self._logs(target):
            with suppress(SessionEndedError):
                target.log_event(name, plain(values))

    def flush(self) -> None:
        """Wait until what was logged is in the journal."""
        if (target := self.target) is not None:
            with suppress(SessionEndedError):
                self._wait_for(target.flush)

    def keep(self) -> None:
        """Keep the run's checkpoints by the config's policy, unless the program has its own.

        The framework decides when to save; keisei what is kept, and that a preempted run is saved
        before it ends. Of several ranks a preempted one is not saved by an adapter.
        """
        session = self.session
        if session is None or session.world_size > 1 or self._is_over(session):
            return
        if session._checkpointing.schedule.policy is None:
            session.setup_auto_checkpointing(
                None, state=self._write, at_steps=[], every_seconds=None, at_end=False
            )

    def _is_over(self, session: Session) -> bool:
        return session.status not in ("created", "running")

    def _write(self, directory: Path) -> None:
        """Copy what the framework has saved into a checkpoint."""
        if self._source is None:
            raise CheckpointError("the framework has saved nothing at this step")
        source, name = self._source
        into = directory if name is None else directory / name
        if source.is_dir():
            shutil.copytree(source, into, dirs_exist_ok=True)
        else:
            shutil.copyfile(source, into)

    def commit(
        self,
        source: str | os.PathLike[str],
        step: int,
        metrics: Mapping[Any, Any] | None = None,
        name: str | None = None,
    ) -> Checkpoint | None:
        """Commit what the framework has saved as a checkpoint of the run; each rank calls it.

        A failure is an error in the log: the framework has its own files all the same.

        Args:
            source: the file, or the directory, that the framework has saved. It is copied.
            step: the framework's step.
            metrics: numbers by name to keep with it.
            name: what it is called in the checkpoint; a directory without one is its content.

        Returns:
            The checkpoint; ``None`` where there is no session here, or it failed.
        """
        session = self.session
        if session is None or self._is_over(session):
            return None
        path = Path(source)
        if session.rank == 0 and not path.exists():
            logger.warning("%s: %s is no checkpoint any more", self._role, quoted(str(source), 300))
            if session.world_size == 1:
                return None
        self._source = path, name
        numbers = sort(metrics or {}).numbers
        try:
            state = self._write if session.rank == 0 else None
            saved: Checkpoint = self._wait_for(session.save_checkpoint, state, int(step), numbers)
            return saved
        except CheckpointError as exc:
            logger.error("%s: not kept as a checkpoint of the run: %s", self._role, describe(exc))
        return None

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """Return a directory for what the framework is to save, removed at the end of the block."""
        session = self.session
        home = None if session is None else session.run_artifact_dir
        with TemporaryDirectory(dir=home, prefix=".saving-") as directory:
            yield Path(directory)

    @property
    def is_preempted(self) -> bool:
        """Whether the run is preempted, and waits for the framework to save."""
        session = self.session
        return session is not None and session.preempting is not None and session.world_size == 1

    def end_preempted(self, source: Path, step: int, name: str | None = None) -> None:
        """Commit what the framework has saved, and end the body of a run that is preempted.

        Args:
            source: the file, or the directory, that the framework has saved.
            step: the framework's step.
            name: what it is called in the checkpoint; see `commit`.

        Raises:
            SystemExit: what leaves the session's block.
        """
        if (session := self.session) is not None:
            self._source = source, name
            self._wait_for(session.checkpoint_if_due, int(step))

    def restore(self, which: str | int = "latest") -> Path | None:
        """Return where the files of a checkpoint are, verified, from which the run goes on.

        Args:
            which: ``"latest"``, ``"best"`` or a step.

        Returns:
            ``None`` where the run has none.

        Raises:
            CheckpointError: none verifies, or it holds no files.
        """
        if (session := self.session) is None:
            return None
        restored: Restored | None = self._wait_for(session.restore_checkpoint, which)
        self._has_restored = True
        if restored is None:
            return None
        if restored.directory is None:
            raise CheckpointError(
                "the checkpoint holds a state that the program has saved, and no files of the "
                "framework's: read it with session.restore_checkpoint()",
                path=restored.checkpoint.path,
            )
        self.restored_step = restored.step or 0
        return restored.directory

    def began(self, step: int) -> None:
        """Note at which step the framework begins, which a checkpoint of its own may have said.

        Args:
            step: its step: above 0 where it goes on.
        """
        session, first = self.session, not self._has_begun
        self._has_begun = True
        if session is None or self._is_over(session):
            return
        if first and step > 0 and self.attempt > 1 and not self._has_restored:
            session.resume_at(int(step))

    def interrupted(self, error: BaseException | None) -> None:
        """End the run as cancelled, where a framework has caught what would have said so.

        Args:
            error: what the framework has caught; an error that is no interrupt changes nothing.
        """
        session = self.session
        if error is None or session is None or status_after(error) != "cancelled":
            return
        if session.preempting is None and not self._is_over(session):
            self._wait_for(session.finalize_session, "cancelled")

    def _wait_for(self, func: Callable[..., Any], *args: object) -> Any:
        """Call a method of the session, on either face, and wait for it."""
        if not isinstance(self._session, AsyncSessionManager):
            return func(*args)
        try:
            return from_thread.run(partial(func, *args))
        except RuntimeError as exc:
            if "AnyIO worker thread" not in str(exc):
                raise
            raise NotReadyError(
                "the training of an AsyncSessionManager has to run in a thread of its loop: call "
                "it by `await anyio.to_thread.run_sync(train)`, or use a SessionManager"
            ) from None
