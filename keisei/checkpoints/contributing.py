"""The other ranks' side of a checkpoint: a shard is written, offered, and withdrawn or taken."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from keisei._io.directories import OpenDirectory
from keisei._io.switching import quick_switches
from keisei.checkpoints import failing
from keisei.checkpoints.content import Content, Facts, write_content
from keisei.checkpoints.digests import best_algorithm
from keisei.checkpoints.forecast import check_space
from keisei.checkpoints.layout import MANIFEST, checkpoint_name
from keisei.checkpoints.listing import stored_as
from keisei.checkpoints.meeting import (
    Ranks,
    late,
    met,
    outcome_of,
    pauses,
    text_of,
    write_note,
)
from keisei.checkpoints.opening import (
    GoneError,
    is_named,
    opened,
    read_manifest,
)
from keisei.checkpoints.packing import Packed
from keisei.checkpoints.shards import FAILED, READY, WRITING, shard_name
from keisei.checkpoints.values import Checkpoint
from keisei.errors import CheckpointError, describe, quoted

_COMMITTED_WITHIN = 30.0  # seconds that a rank waits for rank 0, which has taken its shard


def contribute(
    models: OpenDirectory,
    content: Content,
    facts: Facts,
    ranks: Ranks,
    *,
    before_ready: Callable[[], object],
) -> Checkpoint:
    """Write a rank's shard, and wait until rank 0 has committed the checkpoint; it blocks.

    Args:
        models: the run's models directory.
        content: the packed state, a function that writes files, or ``None`` for nothing.
        facts: what the shard's manifest says.
        ranks: which rank, above 0.
        before_ready: called when all is written and synced, and rank 0 does not count on it yet.

    Raises:
        CheckpointError: it cannot be written, another rank's cannot, or one has not come in time:
            there is no such checkpoint, and what stood there before is as it was.
    """
    name = checkpoint_name(facts.step)
    with quick_switches(), failing.saving(os.path.join(models.path, name)):
        with met(models, facts, ranks) as (directory, temporary):
            shard = _Shard(models, directory, temporary, ranks)
            try:
                standing = outcome_of(directory)
                if standing is None:
                    if isinstance(content, Packed):
                        check_space(models, content.nbytes)
                    shard.write(content, facts)
                    before_ready()
                    shard.offer()
                    standing = shard.wait()
            except BaseException as exc:
                if shard.withdraw():
                    shard.say_failed(exc)
                raise
        return shard.found(standing or name, is_new=standing is None)


class _Shard:
    """A rank's shard on its way into a checkpoint."""

    def __init__(
        self, models: OpenDirectory, directory: OpenDirectory, temporary: str, ranks: Ranks
    ) -> None:
        self._models, self._directory, self._temporary = models, directory, temporary
        self._ranks = ranks
        self._writing = shard_name(ranks.rank, WRITING)
        self._ready = shard_name(ranks.rank, READY)
        self._stands = False
        self._text = b""

    def write(self, content: Content, facts: Facts) -> None:
        """Write it, where nobody counts on it yet."""
        ranks, directory = self._ranks, self._directory
        mine = {self._writing, self._ready, shard_name(ranks.rank)}
        if mine & set(directory.names()) or not directory.make(self._writing, sync=False):
            raise CheckpointError(
                f"another process saves the shard of rank {ranks.rank} in "
                f"{quoted(directory.path, 300)}: each process needs a rank of its own",
                path=directory.path,
            )
        self._stands = True
        with directory.inside(self._writing) as inner:
            _, self._text = write_content(
                inner,
                content,
                facts,
                best_algorithm(),
                rank=ranks.rank,
                world_size=ranks.world_size,
            )

    def offer(self) -> None:
        """Offer it: rank 0 may take it from now on."""
        self._directory.replace(self._writing, self._ready)
        self._directory.sync()

    def withdraw(self) -> bool:
        """Withdraw it; return whether rank 0 has not taken it before."""
        if not self._stands:
            return True
        try:
            with suppress(FileNotFoundError):
                self._directory.replace(self._ready, self._writing)
            if not self._directory.holds(self._writing):
                return False
            self._stands = False
            self._directory.remove_tree(self._writing)
        except OSError:
            return not self._stands
        return True

    def say_failed(self, exc: BaseException) -> None:
        """Write that rank 0 need not wait for this rank."""
        with suppress(OSError):
            name = shard_name(self._ranks.rank, FAILED)
            write_note(self._directory, name, {"error": describe(exc)})

    def wait(self) -> str | None:
        """Wait until rank 0 has committed it.

        Returns:
            ``None`` where it has; the name of the checkpoint that stood there before, with the
            same content, where that is so.
        """
        # A little longer than rank 0, which knows whom it has waited for.
        give_up, pause = time.monotonic() + self._ranks.timeout * 1.1 + 0.5, pauses()
        is_taken = False
        while is_named(self._models, self._temporary, self._directory):
            if (standing := outcome_of(self._directory)) is not None:
                self.withdraw()
                return standing
            self._ranks.check()
            if time.monotonic() > give_up:
                if is_taken or self.withdraw():
                    raise late(self._models, self._ranks, [0])
                is_taken, give_up = True, time.monotonic() + _COMMITTED_WITHIN
            time.sleep(next(pause))
        return None

    def found(self, name: str, *, is_new: bool) -> Checkpoint:
        """Return the checkpoint that stands there now.

        Args:
            name: its name.
            is_new: whether this shard has to be in it.

        Raises:
            CheckpointError: it is not: rank 0 has given it up.
        """
        with suppress(GoneError), opened(self._models, name) as directory:
            manifest, length = read_manifest(directory)
            mine = f"{shard_name(self._ranks.rank)}/{MANIFEST}"
            if not is_new or text_of(directory, mine) == self._text:
                return stored_as(self._models.path, name, manifest, length).checkpoint
        raise CheckpointError(
            f"{quoted(os.path.join(self._models.path, name), 300)} is not saved: what rank 0 was "
            "to commit is gone",
            path=os.path.join(self._models.path, name),
        )
