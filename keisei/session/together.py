"""What the checkpoints of a rank need of the others: a common count, and how long to wait."""

from __future__ import annotations

from collections import Counter
from typing import Any

from keisei.checkpoints.meeting import Ranks
from keisei.checkpoints.shards import Reader
from keisei.errors import CheckpointError
from keisei.session.facts import SessionFacts
from keisei.session.permit import Permit


class Together:
    """The ranks of a session, as its checkpoints see them; a session alone is the only one.

    Args:
        facts: what is known of the session.
    """

    def __init__(self, facts: SessionFacts[Any]) -> None:
        self._facts = facts
        self._saves: Counter[int | None] = Counter()
        self._choices = 0
        self._has_chosen = False

    @property
    def shared(self) -> bool:
        """Whether there are several ranks."""
        return self._facts.shared is not None

    @property
    def leads(self) -> bool:
        """Whether this rank commits, removes and chooses: rank 0, and a session alone."""
        return self._facts.rank == 0

    def counted(self, step: int | None) -> int:
        """Count a save of a step, on the caller's thread, and return how many it has had."""
        self._saves[step] += 1
        return self._saves[step]

    def ranks(self, permit: Permit, time_left: float, saves: int = 1) -> Ranks | None:
        """Return which rank this is and how long it waits; ``None`` for a session alone.

        Args:
            permit: whether the work may still take effect.
            time_left: how long it may take, in seconds.
            saves: which save of a step it is.
        """
        launch = self._facts.shared
        if launch is None:
            return None

        def check() -> None:
            permit.check()
            ranks = self._facts.ranks
            if ranks is not None and (ended := ranks.ended_by) is not None:
                raise CheckpointError(f"no rank is waited for: {ended}")

        timeout = min(self._facts.config.distributed.checkpoint_timeout, time_left)
        return Ranks(launch.rank, launch.world_size, saves, timeout, check)

    def reader(self, shard: int | None) -> Reader:
        """Return which rank reads.

        Args:
            shard: whose shard it reads; ``None`` for its own.
        """
        launch = self._facts.shared
        return (
            Reader(0, 1, shard) if launch is None else Reader(launch.rank, launch.world_size, shard)
        )

    def next_choice(self, resume: bool | None) -> int | None:
        """Return which common restore this one is, from 1; ``None`` where it is this rank's alone.

        Args:
            resume: what was asked for.
        """
        if not self.shared or resume is False or self._has_chosen:
            return None
        self._choices += 1
        return self._choices

    def has_chosen(self) -> None:
        """Note that all ranks have restored the same: each later restore is one rank's alone."""
        self._has_chosen = True
