"""What a restore does on its thread: read, verify, and go on from there, all ranks alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from keisei._io.directories import OpenDirectory
from keisei._log import logger
from keisei.checkpoints import choosing, policy, random_states, retention
from keisei.checkpoints.listing import Stored
from keisei.checkpoints.meeting import Ranks
from keisei.checkpoints.reading import Loaded
from keisei.checkpoints.restore import load
from keisei.checkpoints.shards import Reader
from keisei.checkpoints.values import Restored
from keisei.config.schema import CheckpointsConfig, KeepBest
from keisei.errors import CheckpointError
from keisei.journal.records import Position
from keisei.session.facts import SessionFacts
from keisei.session.permit import Permit
from keisei.session.recorder import Recorder
from keisei.session.saving import FAILED, Saver
from keisei.session.schedule import Schedule
from keisei.session.together import Together

BEFORE_ALL = Position(1, -1)  # in the journal of the first attempt

_Ranking = Callable[[Sequence[Stored]], Sequence[Stored]]


class Restorer:
    """The blocking half of a session's restores; one call at a time is under way.

    Args:
        facts: what is known of the session.
        recorder: what it records with.
        saver: what saves its checkpoints.
        schedule: when it saves by itself.
        together: the other ranks.

    Attributes:
        release: releases the files that were restored last.
    """

    def __init__(
        self,
        facts: SessionFacts[Any],
        recorder: Recorder,
        saver: Saver,
        schedule: Schedule,
        together: Together,
    ) -> None:
        self._facts, self._recorder, self._saver = facts, recorder, saver
        self._schedule, self._together = schedule, together
        self._count = 0
        self.release: Callable[[], None] = lambda: None

    def restore(
        self,
        which: str | int | os.PathLike[str],
        resume: bool | None,
        shard: int | None,
        permit: Permit,
        *,
        alone: bool,
    ) -> Restored | None:
        """Read a checkpoint back, and go on from it where it is the attempt's first.

        The first restore is one of all ranks: rank 0 chooses, and the others read the same.

        Args:
            which: `latest`, `best`, a step, or a checkpoint's path.
            resume: whether the run goes on from it; ``None`` where it is the first.
            shard: whose shard is read; ``None`` for this rank's own.
            permit: whether it may still take effect.
            alone: whether later checkpoints are of earlier attempts, and so are left behind.

        Returns:
            ``None`` where the run has none.

        Raises:
            CheckpointError: none verifies, or it cannot be read.
        """
        keep = self._schedule.policy or self._facts.config.checkpoints
        number, reader = self._together.next_choice(resume), self._together.reader(shard)
        ranks = self._together.ranks(permit, self._schedule.time_left)
        if number is None or ranks is None:
            loaded = self._read(which, keep, reader)
            return self._take(loaded, self._resumes(loaded, resume), permit, alone)
        if ranks.rank > 0:
            loaded, resumes = self._read_chosen(which, number, ranks, reader)
            restored = self._take(loaded, resumes, permit, alone)
        else:
            try:
                loaded = self._read(which, keep, reader)
                resumes = self._resumes(loaded, resume)
                restored = self._take(loaded, resumes, permit, alone)
            except BaseException as exc:
                self._publish(number, choosing.failed(exc))
                raise
            self._publish(number, choosing.choice_of(loaded, resumes=resumes))
        self._together.has_chosen()
        return restored

    def _take(
        self, loaded: Loaded | None, resumes: bool, permit: Permit, alone: bool
    ) -> Restored | None:
        """Go on from what was read, where the run resumes there, and return it."""
        if loaded is None:
            if resumes:
                permit.take()
                self._recorder.resume(BEFORE_ALL)  # it begins from scratch
            return None
        try:
            permit.take()
            if resumes:
                self._go_on_from(loaded, alone=alone)
                random_states.put_back(loaded.random or {})
                self._schedule.go_back(loaded.stored.checkpoint.step)
            self._count += 1
        except BaseException:
            loaded.release()
            raise
        self.release, release = loaded.release, self.release
        release()
        found = loaded.stored.checkpoint
        return Restored(found.step, loaded.state, loaded.directory, found.metrics, found)

    def _resumes(self, loaded: Loaded | None, resume: bool | None) -> bool:
        """Decide whether the run goes on from a checkpoint, or from the beginning."""
        if loaded is None:
            return resume is not False and self._facts.attempt > 1 and self._is_first()
        is_own = self._is_own(loaded)
        if resume and not is_own:
            raise CheckpointError(
                "the checkpoint is another run's, so that this run cannot resume from it: leave "
                "resume out, and it is only read",
                path=loaded.stored.checkpoint.path,
            )
        return is_own and self._is_first() if resume is None else resume

    def _is_first(self) -> bool:
        """Return whether nothing was restored by now, and no row logged."""
        journal = self._recorder.journal
        return self._count == 0 and not (journal is not None and journal.has_rows)

    def _read(
        self, which: str | int | os.PathLike[str], keep: CheckpointsConfig, reader: Reader
    ) -> Loaded | None:
        """Read a checkpoint back, verified; what does not verify is set aside, and noted.

        Args:
            which: `latest`, `best`, a step, or a checkpoint's path.
            keep: the policy, whose metric says which one is the best.
            reader: which rank reads.

        Returns:
            ``None`` where the run has none.

        Raises:
            CheckpointError: none verifies, or it cannot be read.
        """
        by = keep.keep_best
        ranked = None if by is None else partial(_ranked, by=by)
        with self._saver.models() as models:
            loaded = self._loaded(models, which, ranked, reader)
        for fault in [] if loaded is None else loaded.faults:
            self._saver.event(FAILED, {"path": fault.name, "error": fault.problem})
        return loaded

    def _loaded(
        self,
        models: OpenDirectory,
        which: str | int | os.PathLike[str],
        ranked: _Ranking | None,
        reader: Reader,
    ) -> Loaded | None:
        """Load a checkpoint; the newest one from the URL, where none verifies here."""
        run, failure = self._facts.session_id, None
        aside = self._together.leads
        read = partial(load, models, which, run=run, set_aside=aside, ranked=ranked, reader=reader)
        try:
            loaded = read()
        except CheckpointError as exc:
            loaded, failure = None, exc
        if loaded is None and which == "latest" and (mirror := self._saver.mirrored()) is not None:
            name, faults = mirror.fetch(models, run, self._facts.attempt)
            for fault in faults:
                self._saver.event(FAILED, {"path": fault.name, "error": fault.problem})
                logger.warning("run %s: %s: %s", self._facts.run_name, *fault[:2])
            if name is not None:
                logger.info("run %s goes on from %s, fetched", self._facts.run_name, name)
                return read()
        if failure is not None:
            raise failure
        return loaded

    def _read_chosen(
        self, which: str | int | os.PathLike[str], number: int, ranks: Ranks, reader: Reader
    ) -> tuple[Loaded | None, bool]:
        """Read a rank's shard of what rank 0 restores, and return whether the run resumes there.

        Args:
            which: what was asked for.
            number: which common restore it is.
            ranks: which rank this is, and how long it waits.
            reader: the same, to read.

        Raises:
            CheckpointError: rank 0 has failed or does not come, or it cannot be read.
        """
        with self._saver.models() as models:
            choice = choosing.awaited(models, self._facts.attempt, number, ranks)
            return choosing.read_chosen(models, which, choice, reader), choice.resumes

    def _publish(self, number: int, choice: choosing.Choice) -> None:
        """Publish to the other ranks what rank 0 has restored; see `_read_chosen`."""
        with self._saver.models() as models:
            choosing.publish(models, self._facts.attempt, number, choice)

    def _is_own(self, loaded: Loaded) -> bool:
        """Return whether a checkpoint is this run's, and not another's that was named by a path."""
        return bool(loaded.stored.manifest.run == self._facts.session_id)

    def _go_on_from(self, loaded: Loaded, *, alone: bool) -> None:
        """Go on from a checkpoint: what came after it, journal and checkpoints, is superseded.

        Args:
            loaded: the checkpoint.
            alone: whether later checkpoints are of earlier attempts, and so are left behind.
        """
        manifest = loaded.stored.manifest
        if alone and self._together.leads:
            with self._saver.models() as models:
                retention.supersede(models, manifest.number, run=self._facts.session_id)
        at = loaded.position
        position = None if at is None else Position(at.attempt, at.seq)
        self._recorder.resume(position, loaded.stored.checkpoint.step)


def _ranked(stored: Sequence[Stored], by: KeepBest) -> list[Stored]:
    known = {each.checkpoint.path: each for each in stored}
    ranked = policy.ranked([each.checkpoint for each in stored], by)
    return [known[checkpoint.path] for checkpoint in ranked]
