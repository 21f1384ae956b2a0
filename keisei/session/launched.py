"""What a session knows, and is told, of the launch that its process belongs to."""

from __future__ import annotations

from keisei.distributed.launch import Given
from keisei.errors import LaunchError, NotReadyError
from keisei.run.status import Step
from keisei.session.facts import ConfigT
from keisei.session.view import SessionView


class SessionLaunch(SessionView[ConfigT]):
    """Which rank of which launch a session is, on both faces."""

    @property
    def rank(self) -> int:
        """Which rank of its launch this process is: 0, which owns the run, where it is alone.

        Raises NotReadyError before the block where the config names launchers.
        """
        self._check_launchers("rank")
        return self._facts.rank

    @property
    def world_size(self) -> int:
        """How many ranks the launch has; 1 where the program was started alone.

        Raises NotReadyError before the block where the config names launchers.
        """
        self._check_launchers("world_size")
        return self._facts.world_size

    def enable_distributed_session(
        self, rank: int, world_size: int, *, identity: str | None = None
    ) -> None:
        """Make this session one rank of a launch, where no launcher says so.

        Call it on every rank before the block, or before `setup_directories`.

        Args:
            rank: which process of the launch this is, from 0; rank 0 owns the run.
            world_size: how many processes the launch has.
            identity: what tells this launch from all others, the same on all ranks; without it
                the address of the master (`MASTER_ADDR`, `MASTER_PORT`), the process that has
                spawned this one by `multiprocessing`, or the run's name.

        Raises:
            LaunchError: it makes no sense, contradicts the launcher, or comes too late; or nothing
                tells the launch from others.
            TypeError: rank or world size is no whole number.
            ForkedSessionError: this process was forked from the session's own.
        """
        facts = self._facts
        facts.check_process("enable_distributed_session()")
        for what, value in (("rank", rank), ("world_size", world_size)):
            if type(value) is not int:
                raise TypeError(f"{what} must be a whole number, not {type(value).__name__}")
        if Step.DIRECTORIES in facts.done or facts.entered:
            raise LaunchError(
                "enable_distributed_session() comes too late: the run has been claimed. Call it "
                "before the block, on every rank"
            )
        identity = facts.given.identity if identity is None else identity
        said_by = "enable_distributed_session()"
        facts.give_launch(Given(rank, world_size, identity, facts.given.detect, said_by))

    def _check_launchers(self, what: str) -> None:
        if self._facts.has_to_import_launchers:
            raise NotReadyError(
                f"{what} is not known yet, for distributed.launchers names some: read it in the "
                "block, or after setup_directories()"
            )
