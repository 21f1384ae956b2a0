"""What a save does on its thread: commit, keep, point, and note it in the journal."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from keisei._io.directories import OpenDirectory, make_directory
from keisei._log import logger
from keisei.checkpoints import forecast, pointers, policy, retention
from keisei.checkpoints.commit import commit
from keisei.checkpoints.content import Content, Facts
from keisei.checkpoints.layout import BEST
from keisei.checkpoints.listing import found
from keisei.checkpoints.mirror import Mirror
from keisei.checkpoints.values import Checkpoint
from keisei.config.schema import CheckpointsConfig
from keisei.errors import CheckpointError, JournalError, TakenOverError, describe, quoted
from keisei.journal.records import Position, as_float
from keisei.journal.values import Number, Unread
from keisei.session.facts import SessionFacts
from keisei.session.permit import Permit
from keisei.session.recorder import Recorder
from keisei.session.schedule import END_TIMEOUT
from keisei.session.together import Together

SAVED, FAILED = "checkpoint", "checkpoint_failed"  # the events
FLUSH_TIMEOUT = 10.0  # seconds that a commit waits for the journal


class Taken(NamedTuple):
    """What is to be saved, as it was at the call.

    Attributes:
        step: the training step; ``None`` for the final model.
        content: the packed state, or the program's function that writes files; ``None``, on a
            rank above 0, for nothing.
        is_copy: whether the program cannot change it any more.
        metrics: the metrics that it is saved with.
        position: how far the journal was; ``None`` where the step decides.
        random: the random states.
        automatic: whether the program has not asked for this one.
        saves: which save of this step it is in the session, from 1.
    """

    step: int | None
    content: Content
    is_copy: bool
    metrics: Mapping[str, Number | Unread]
    position: Position | None
    random: Mapping[str, object]
    automatic: bool = False
    saves: int = 1

    @property
    def name(self) -> str:
        """What it is, for a message."""
        return "the final model" if self.step is None else f"the checkpoint of step {self.step}"


class Saved(NamedTuple):
    """What a save has come to.

    Attributes:
        checkpoint: the checkpoint.
        is_new: whether it was committed now, and did not stand there before.
        seconds: how long it took.
        best: the best one of the policy's metric by now, if there is one.
    """

    checkpoint: Checkpoint
    is_new: bool
    seconds: float
    best: Checkpoint | None


class Saver:
    """The blocking half of a session's checkpoints; one call at a time is under way.

    Args:
        facts: what is known of the session.
        recorder: what it records with.
        together: the other ranks.

    Attributes:
        mirror: the copies of the checkpoints at a URL, once they are needed; ``None`` where the
            config names none.
    """

    def __init__(self, facts: SessionFacts[Any], recorder: Recorder, together: Together) -> None:
        self._facts, self._recorder, self._together = facts, recorder, together
        self._has_forecast = False
        self.mirror: Mirror | None = None

    def save(
        self,
        taken: Taken,
        permit: Permit,
        keep: CheckpointsConfig | None,
        time_left: float = END_TIMEOUT,
    ) -> Saved:
        """Commit a checkpoint, then remove what the policy does not keep.

        Of several ranks each saves its shard, and rank 0 does the rest.

        Args:
            taken: what is to be saved.
            permit: whether it may still appear.
            keep: the policy, where one is set.
            time_left: how long it may wait for other ranks, in seconds.

        Raises:
            CheckpointError: it cannot be written, or the step exists with other content.
            TakenOverError: another owner has taken the run over.
        """
        begun, facts = time.monotonic(), self._facts
        leads, ranks = self._together.leads, self._together.ranks(permit, time_left, taken.saves)
        keep = keep if leads else None
        is_new = False

        def publish() -> None:
            nonlocal is_new
            self._flush()
            self._check()
            if leads:  # another rank's is withdrawn where it is given up later
                permit.take()
            is_new = True

        manifest = Facts(
            run=facts.session_id,
            step=taken.step,
            attempt=facts.attempt,
            position=taken.position,
            metrics={name: _read(value) for name, value in taken.metrics.items()},
            random=taken.random,
        )
        with self.models() as models:
            if keep is not None:
                self._forecast(models, keep, getattr(taken.content, "nbytes", None))
            try:
                checkpoint = commit(
                    models, taken.content, manifest, before_rename=publish, ranks=ranks
                )
            except CheckpointError as exc:
                self._check()  # a takeover removes what is being saved
                checkpoint = self._standing(models, taken, exc)
            seconds = time.monotonic() - begun
            if is_new and leads:
                self._log(SAVED, checkpoint, seconds)
            best = None
            if keep is not None:
                self._forecast(models, keep, checkpoint.size)
                best = self._keep(models, keep, checkpoint if is_new else None)
        if (mirror := self.mirrored()) is not None:
            mirror.follow(keep)
        return Saved(checkpoint, is_new, seconds, best)

    def failed(self, step: int | None, exc: BaseException) -> None:
        """Note in the journal that a save or a restore has failed."""
        self.event(FAILED, {"step": step, "error": describe(exc)})

    def mirrored(self) -> Mirror | None:
        """Return the copies at the URL that the config names."""
        url, paths = self._facts.config.checkpoints.remote, self._facts.paths
        if not self._together.leads:  # one copy is enough
            return None
        if self.mirror is None and url is not None and paths is not None:
            self.mirror = Mirror(url, self._facts.run_name, paths.model_dir)
        return self.mirror

    def _standing(self, models: OpenDirectory, taken: Taken, exc: CheckpointError) -> Checkpoint:
        """Return the checkpoint of this step that stands there, where nobody has asked for ours."""
        if taken.automatic:
            for stored in found(models, self._facts.session_id).checkpoints:
                if stored.checkpoint.step == taken.step:
                    logger.warning("run %s: %s", self._facts.run_name, exc)
                    return stored.checkpoint
        raise exc

    def _check(self) -> None:
        """Check that the run is still this session's.

        Raises:
            TakenOverError: another owner has taken it over.
        """
        try:
            if self._facts.owned is not None:
                self._facts.owned.check()
        except TakenOverError:
            raise
        except OSError:
            pass  # the directory cannot be opened: the commit says why

    def _keep(
        self, models: OpenDirectory, keep: CheckpointsConfig, new: Checkpoint | None
    ) -> Checkpoint | None:
        """Point `best`, and remove what is not kept; a failure is a warning: the save is whole."""
        best = None
        try:
            there = found(models, self._facts.session_id)
            every = [stored.checkpoint for stored in there.checkpoints]
            if keep.keep_best is not None:
                best = policy.best(every, keep.keep_best)
                pointers.point(models, BEST, best and os.path.basename(best.path))
            stay = policy.kept(keep, every)
            gone = [s.name for s in there.checkpoints if s.checkpoint.path not in stay]
            newest = None if new is None else os.path.basename(new.path)
            retention.remove(models, [*gone, *there.superseded], newest=newest)
        except (CheckpointError, OSError) as exc:
            text = "older checkpoints of run %s cannot be removed: %s"
            logger.warning(text, self._facts.run_name, describe(exc))
        return best

    def _forecast(self, models: OpenDirectory, keep: CheckpointsConfig, size: int | None) -> None:
        """Warn, once, where the disk has too little space for what the policy keeps."""
        if self._has_forecast or size is None:
            return
        self._has_forecast = True
        with suppress(CheckpointError, OSError):
            present = len(found(models, self._facts.session_id).checkpoints)
            free, kept = forecast.free_bytes(models), policy.most_kept(keep)
            if text := forecast.warning(size, free, present=present, kept=kept):
                logger.warning("run %s: %s", self._facts.run_name, text)

    @contextmanager
    def models(self) -> Iterator[OpenDirectory]:
        """Open the models directory, made again if it has gone."""
        assert self._facts.paths is not None
        self._check()
        path = self._facts.paths.model_dir
        try:
            make_directory(path)
            directory = OpenDirectory(path)
        except OSError as exc:
            reason = exc.strerror or exc
            problem = f"the models directory {quoted(path, 300)} cannot be opened: {reason}"
            raise CheckpointError(problem, path=path) from exc
        if (owned := self._facts.owned) is not None:
            directory.guard, directory.mark = self._check, owned.home.mark
        with directory:
            yield directory

    def _flush(self) -> None:
        """See that the journal and the evaluation log hold what the checkpoint knows of."""
        self._recorder.logs.wait(FLUSH_TIMEOUT)
        journal = self._recorder.journal
        if journal is None:
            return
        try:
            journal.flush(FLUSH_TIMEOUT)
        except (JournalError, TimeoutError) as exc:
            text = "a checkpoint of run %s knows more than its journal: %s"
            logger.warning(text, self._facts.run_name, exc)

    def _log(self, name: str, checkpoint: Checkpoint, seconds: float) -> None:
        said = {
            "path": checkpoint.path,
            "step": checkpoint.step,
            "size": checkpoint.size,
            "digest": checkpoint.digest,
            "seconds": round(seconds, 3),
        }
        self.event(name, said)

    def event(self, name: str, data: Mapping[str, object]) -> None:
        """Log an event, where the journal still takes one."""
        with suppress(JournalError):  # the session has ended meanwhile
            if (journal := self._recorder.first()) is not None:
                journal.log_event(name, data)


def _read(value: Number | Unread) -> float:
    """Return a metric's value; one that cannot be read is NaN."""
    try:
        return as_float(value.read() if isinstance(value, Unread) else value)
    except Exception:  # noqa: BLE001 - another library's
        return math.nan
