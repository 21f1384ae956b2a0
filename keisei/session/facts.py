"""What is known of one session: the one object that all its parts read."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

from keisei.config.conversion import as_app_config
from keisei.config.schema import AppConfig
from keisei.distributed.launch import Given
from keisei.distributed.launchers import Launch, Launcher
from keisei.distributed.launching import launch_here, start_of_job
from keisei.distributed.rank import Owned
from keisei.distributed.ranks import Ranks
from keisei.errors import ForkedSessionError, NotReadyError, SessionEndedError, SessionInUseError
from keisei.run import names
from keisei.run.failure import Failure
from keisei.run.layout import RunPaths
from keisei.run.status import FinalStatus, Status, Step, too_late
from keisei.store.opening import URL_VARIABLE
from keisei.store.renewal import Leases

ConfigT = TypeVar("ConfigT")


class SessionFacts(Generic[ConfigT]):
    """What is known of a session by now.

    The set-up steps change it, each when it is done (`claimed`, `done`, `seeded`, `config_text`),
    and the end (`ends_as`, `has_ended`); everybody else reads it, from any thread.

    Args:
        config: the run's config, of any kind (see `as_app_config`).
        args: the program's arguments, as they were given.
        run_name: the run's name, where the caller has chosen one.

    Attributes:
        config: the config as an `AppConfig`; what was given, where it is one.
        given_config: the config as it was given.
        done: the steps taken.
        owned: the run's directories, once they are claimed.
        resumes: which attempt this is and after which, in words; ``None`` at the first.
        config_text: the effective config as text, as it was serialised last.
        seeded: what was seeded.
        duration_s: how long the session took, once it has ended.
        failure: why it ended so, where an error or a signal ended it.
        entered: whether the session's block was entered.
        logger_errors: how often the user's logger has raised.
        provenance: what the attempt was started from, in short, once that is recorded.
        asked_by: which argument names the run; ``None`` where none does.
        process: the process that the session belongs to.
        given: what the program or the config says of the launch.
        ranks: the other ranks of this attempt, where there are any, once it is claimed.

    Raises:
        ConfigError: the config is none, or a section of keisei's in it is not valid.
        InvalidRunNameError: the name is not a safe one.
    """

    def __init__(self, config: ConfigT, args: object, run_name: str | None) -> None:
        self.config: AppConfig = as_app_config(config)
        self.given_config, self.args = config, args
        self.done: set[Step] = set()
        self.owned: Owned | None = None
        self.ranks: Ranks | None = None
        self.resumes: str | None = None
        self.config_text: str | None = None
        self.seeded: tuple[str, ...] | None = None
        self.duration_s: float | None = None
        self.failure: Failure | None = None
        self.logger_errors = 0
        self.provenance: Mapping[str, Any] | None = None
        self.process = os.getpid()
        self.chosen_name = names.chosen_run_name(run_name, args, self.config)
        self._asked_name = self.chosen_name or names.generate_run_name(self.config)
        asked = self.config.distributed
        self.given = Given(asked.rank, asked.world_size, asked.identity, asked.detect)
        self._launch: Launch | None = None
        self._is_launch_known = False
        # Those of installed packages, which the claim imports: here a loop may run.
        self._launchers: list[Launcher] | None = None if asked.detect and asked.launchers else []
        self.asked_by = names.asked_by(run_name, args)
        self._new_id = names.new_session_id()
        self._started: float | None = None
        self._end: FinalStatus | None = None
        self.entered = False
        self._ending = threading.Lock()

    @property
    def launch(self) -> Launch | None:
        """The launch that this process belongs to; ``None`` where it has been started alone.

        It is ``None``, too, as long as launchers that the config names are not imported. Raises
        LaunchError where what is said of it contradicts itself.
        """
        if not self._is_launch_known and self._launchers is not None:
            self._launch = launch_here(self.given, self.chosen_name, self._launchers)
            self._is_launch_known = True
        return self._launch

    @property
    def has_to_import_launchers(self) -> bool:
        """Whether launchers that the config names are still to be imported."""
        return self._launchers is None

    def have_launchers(self, launchers: list[Launcher]) -> None:
        """Take the launchers that the config names."""
        self._launchers = launchers

    def give_launch(self, given: Given) -> None:
        """Take what the program says of the launch in place of what is found.

        Raises:
            LaunchError: it makes no sense.
        """
        if self._launchers is not None:
            self._launch = launch_here(given, self.chosen_name, self._launchers)
            self._is_launch_known = True
        self.given = given

    @property
    def shared(self) -> Launch | None:
        """The launch, where it has other processes than this one."""
        launch = self.launch
        return launch if launch is not None and launch.world_size > 1 else None

    @property
    def meets(self) -> Launch | None:
        """The launch whose processes, or starts, have to come to one run.

        A job that asks for its requeue is started again without a word of the run that it had.
        """
        asks = self.chosen_name is None and self.config.distributed.requeue
        if self.shared is not None or not asks:
            return self.shared
        return start_of_job(self.launch, self.given.identity)

    @property
    def rank(self) -> int:
        """Which rank this process is: 0 is the run's owner."""
        return 0 if self.launch is None else self.launch.rank

    @property
    def world_size(self) -> int:
        """How many ranks the launch has; 1 without one."""
        return 1 if self.launch is None else self.launch.world_size

    @property
    def status(self) -> Status:
        """`created`, `running` from the claim on, or how the session ended."""
        return self._end or ("created" if self.owned is None else "running")

    @property
    def run_name(self) -> str:
        """The run's name; numbering can change it when the directories are claimed."""
        return self._asked_name if self.owned is None else self.owned.record.run_name

    @property
    def session_id(self) -> str:
        """The run's id; a resumed run's own from when the directories are claimed."""
        return self._new_id if self.owned is None else self.owned.record.session_id

    @property
    def attempt(self) -> int:
        """Which start of the run this is."""
        return 1 if self.owned is None else self.owned.record.attempt

    @property
    def paths(self) -> RunPaths | None:
        """The run's paths, once its directories are claimed."""
        return None if self.owned is None else self.owned.paths

    @property
    def registry(self) -> str | None:
        """The URL of the registry, where one is named."""
        return self.config.registry.url or os.environ.get(URL_VARIABLE) or None

    @property
    def leases(self) -> Leases | None:
        """The registry's leases, where one is named."""
        return None if self.registry is None else Leases(self.registry, self.config.registry.lease)

    def can_be_taken(self) -> bool:
        """Return whether something else than a signal may end the session.

        That is another process, which is an owner that takes the run or a rank, or its budget.
        """
        timeout, budget = self.config.logging.owner_timeout, self.config.budget.is_set
        return budget or self.registry is not None or timeout is not None or self.shared is not None

    def claimed(self, owned: Owned) -> None:
        """Note that the run's directories are the session's own; on the thread that claims."""
        self._started = time.monotonic()
        self.owned = owned
        self.done.add(Step.DIRECTORIES)

    def ends_as(self, status: FinalStatus, failure: Failure | None = None) -> FinalStatus:
        """Note how the session ends and why, and return how: the first caller's word counts."""
        with self._ending:
            if self._end is None:
                self._end, self.failure = status, failure
            return self._end

    def lost(self, failure: Failure | None) -> None:
        """Note that the run was taken over: an end that could not be recorded is a failure."""
        with self._ending:
            if self._end is not None and not (self.owned is not None and self.owned.recorded):
                self._end, self.failure = "failed", failure

    def has_ended(self) -> float:
        """Note that the session is over, and return how long it took, in seconds."""
        with self._ending:
            self.duration_s = self.elapsed()
            return self.duration_s or 0.0

    def elapsed(self) -> float | None:
        """Return the time since the claim, in seconds, by the monotonic clock."""
        if self.duration_s is not None or self._started is None:
            return self.duration_s
        return time.monotonic() - self._started

    def enter(self) -> None:
        """Note that the session's block is entered.

        Raises:
            ForkedSessionError: this process was forked from the session's own.
            SessionEndedError: the session has ended.
            SessionInUseError: the block was entered before.
        """
        self.check_process("entering the session")
        _ = self.launch  # what is wrong with it is known before anything is begun
        if self._end is not None:
            raise SessionEndedError(
                f"the session of run {self.run_name} has ended as {self._end}, and has one life: "
                "make a new one, which is the run's next attempt where it has the same run name"
            )
        with self._ending:
            before, self.entered = self.entered, True
        if before:
            raise SessionInUseError(
                f"the session of run {self.run_name} is entered already: use it inside its block "
                "as it is, or make a second session with another run name"
            )

    def not_open(self, step: str) -> Exception:
        """Return the error that nothing may be logged now: it is too early, or too late."""
        if self._end is not None:
            return too_late(step, self._end)
        return NotReadyError(f"{step} needs the run's directories: call setup_directories() first")

    def forked(self) -> bool:
        """Check whether this process was forked from the session's own."""
        return os.getpid() != self.process

    def check_process(self, step: str) -> None:
        """Check that this process is the session's own.

        Raises:
            ForkedSessionError: it was forked from it.
        """
        if self.forked():
            raise ForkedSessionError(
                f"{step}: run {self.run_name} belongs to process {self.process}, which has forked "
                "this one. Call it there, or start a session of its own, with another name, here."
            )
