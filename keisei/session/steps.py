"""The set-up steps that touch the disk: each in one hop to a thread, or all of them in one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from keisei._io import files
from keisei._log import logger
from keisei._version import __version__
from keisei.config.changes import said
from keisei.config.schema import LoggingConfig
from keisei.distributed.agreement import Meeting
from keisei.distributed.agreement_file import Terms
from keisei.distributed.launchers import Launch
from keisei.distributed.launching import record_of
from keisei.distributed.named import load_named
from keisei.distributed.rank import Owned, OwnedRank
from keisei.distributed.ranks import Ranks
from keisei.errors import ConfigSaveError, DirectorySetupError, KeiseiError, quoted
from keisei.journal.reader import RunJournal
from keisei.run import claim
from keisei.run.find import absolute_path, root_of_runs
from keisei.run.log_lines import resumes_text
from keisei.run.owned import OwnedRun
from keisei.run.parts import OwnedPart
from keisei.run.session_file import SessionRecord
from keisei.run.status import FINAL, Step, check_final
from keisei.session.callbacks import config_text, serialized
from keisei.session.ending import Ending
from keisei.session.facts import SessionFacts
from keisei.session.provenance import origins_text
from keisei.session.recorder import Recorder
from keisei.session.tracking import Tracking
from keisei.trackers.wandb.setup import is_wanted
from keisei.training import utils


class Steps:
    """The set-up steps of one session; the session lets one at a time work.

    Args:
        facts: what is known of the session; the steps change it.
        tracking: its trackers.
        recorder: what it records with; opened by the claim.
        ending: how it ends.

    Attributes:
        entering: whether all steps are being taken, and `sync` comes after them.
    """

    def __init__(
        self, facts: SessionFacts[Any], tracking: Tracking, recorder: Recorder, ending: Ending
    ) -> None:
        self._facts, self._tracking = facts, tracking
        self._recorder, self._ending = recorder, ending
        self.entering = False

    async def claim(self) -> None:
        """Make the run's directories and own them."""
        facts = self._facts
        if facts.has_to_import_launchers:
            facts.have_launchers(await load_named(facts.config.distributed.launchers))
        if (launch := facts.meets) is not None:
            await self._claim_agreed(launch)
            return
        set_up = utils.setup_directories
        if set_up is claim.setup_directories:
            set_up = partial(set_up, sync_later=self.entering, leases=facts.leases)
        with self._setting_up():
            await set_up(facts.config, facts.run_name, facts.session_id, self._claimed)

    async def _claim_agreed(self, launch: Launch) -> None:
        """Claim the run as rank 0, or a part of it as another rank; all come to one run."""
        facts, config = self._facts, self._facts.config
        with self._setting_up():
            terms = Terms(
                facts.chosen_name,
                launch.world_size,
                __version__,
                json.loads(await config_text(facts)),
            )
            roots = await files.in_thread(_roots, config.logging)
            registry = None if facts.shared is None else facts.registry
            meeting = Meeting(launch, roots, terms, registry)
            if launch.rank == 0:
                await files.in_thread(meeting.lead, partial(self._claimed_first, launch))
            else:
                timeout, may_differ = config.distributed.timeout, config.distributed.may_differ
                await meeting.follow(timeout, may_differ, self._claimed_part)

    def _claimed_first(self, launch: Launch, earlier: str | None) -> OwnedRun:
        """Claim the run, as rank 0; on a thread."""
        facts = self._facts
        owned = claim.claim(
            facts.config,
            earlier or facts.run_name,
            facts.session_id,
            sync_later=self.entering,
            leases=facts.leases,
            launch=record_of(launch),
        )
        self._claimed(owned)
        return owned

    def _claimed_part(self, part: OwnedPart, record: SessionRecord) -> None:
        self._claimed(OwnedRank(part, record))

    async def sync(self) -> None:
        """Make what the steps have made survive a loss of power, where that was left for later."""
        self.entering = False
        if self._facts.owned is not None and self._facts.owned.unsynced is not None:
            with self._syncing() as owned:
                await files.in_thread(owned.sync)

    async def save_config(self) -> None:
        """Serialise the config, and write its file."""
        self._facts.config_text = None  # it may have changed since the trackers got it
        text = await config_text(self._facts)
        with self._saving_config() as owned:
            await files.in_thread(lambda: owned.save_config(text, origins_text(self._facts)))

    def seed(self) -> None:
        """Seed the random generators."""
        self._facts.seeded = utils.setup_seeding(self._facts.config)
        self._facts.done.add(Step.SEEDING)

    async def log_start(self) -> None:
        """Append the start line to the training log."""
        with self._logging_start() as owned:
            await files.in_thread(owned.log_start)
        if not self._facts.entered:
            self._ending.entered()

    @property
    def fit_one_hop(self) -> bool:
        """Whether nothing waits between the steps, and the claim is keisei's own."""
        return (
            not self._facts.done
            and not self._facts.has_to_import_launchers
            and self._facts.meets is None
            and self._facts.status not in FINAL
            and not (self._facts.config.tracking.wait and self._tracking.wanted)
            and utils.setup_directories is claim.setup_directories
        )

    async def take_all(self) -> None:
        """Take all steps in their order in one hop, where they fit into one.

        The caller holds a turn (`files.turn`).
        """
        with self._setting_up():
            await files.hop(self._take_all)

    def _take_all(self) -> None:
        facts = self._facts
        name, session_id = facts.run_name, facts.session_id
        leases = facts.leases
        run = claim.claim(facts.config, name, session_id, sync_later=True, leases=leases)
        self._claimed(run)
        self._tracking.begun()
        facts.config_text = serialized(facts)
        with self._saving_config() as owned:
            owned.save_config(facts.config_text, origins_text(facts))
        self.seed()
        with self._logging_start() as owned:
            owned.log_start()
        with self._syncing() as owned:
            owned.sync()

    @contextmanager
    def _syncing(self) -> Iterator[Owned]:
        owned, facts = self._facts.owned, self._facts
        assert owned is not None
        try:
            yield owned
        except OSError as exc:
            failed = quoted(str(exc.filename or owned.paths.run_artifact_dir), 300)
            raise DirectorySetupError(
                f"what run {facts.run_name} begins with may not survive a loss of power: {failed}: "
                f"{exc.strerror or exc}. Free or fix that place, and start again.",
                path=failed,
            ) from claim.shown(exc)

    def _claimed(self, owned: Owned) -> None:
        """Note on the thread that the run is owned; a session that has ended by now ends it."""
        facts = self._facts
        facts.claimed(owned)
        if facts.status in FINAL:
            self._ending.record_end(check_final(facts.status))
        else:
            owned.keep_lease(self._ending.taken_over)
            self._ending.begin()
            self._ending.snapshot.claimed()
            journal, media = facts.config.journal, facts.config.media
            wake = self._tracking.wake
            if isinstance(owned, OwnedRun):
                self._recorder.open(owned.home, facts.attempt, journal, wake, media=media)
                if (track := facts.config.distributed.track) != "none":
                    self._recorder.forward(owned.home, facts.attempt, track)
                if track == "shared" and not is_wanted(facts.config):
                    text = (
                        "distributed.track is shared, and W&B does not track run %s: the rows of "
                        "its other ranks stay in their journals"
                    )
                    logger.warning(text, facts.run_name)
                self._tracking.open_registry()
                if facts.attempt > 1:
                    self._log_resume(owned)
            else:
                part, left = owned.part, owned.left
                self._recorder.open(owned.home, facts.attempt, journal, wake, part, left, media)
            if (launch := facts.shared) is not None:
                timeout = facts.config.distributed.timeout
                facts.ranks = Ranks(owned, launch, timeout, self._ending.lost)
                facts.ranks.start()
            self._ending.usage.claimed()

    def _log_resume(self, owned: OwnedRun) -> None:
        """Log that an earlier run goes on; where that had completed, it may not be meant."""
        facts, step = self._facts, None
        with suppress(OSError):
            step = RunJournal(owned.paths.run_artifact_dir).last_step()
        facts.resumes = resumes_text(facts.attempt, owned.earlier, step)
        if owned.earlier is not None and owned.earlier.status == "completed":
            text = (
                "run %s had completed, and goes on: %s. If this is to be a run of its own, use "
                "another run name, or set logging.if_exists to 'number' (or 'refuse')"
            )
            logger.warning(text, facts.run_name, facts.resumes)
        else:
            logger.info("run %s is resumed: %s", facts.run_name, facts.resumes)
        changed = [change for change in owned.changes if change.verdict == "warn"]
        if changed:
            logger.warning("run %s goes on with another config: %s", facts.run_name, said(changed))

    @contextmanager
    def _setting_up(self) -> Iterator[None]:
        """Turn what stops a claim into its documented error: no thread left, a disk that hangs."""
        try:
            yield
        except (OSError, RuntimeError) as exc:
            if isinstance(exc, KeiseiError) or self._facts.owned is not None:
                raise
            problem = f"cannot set up the directories of run {self._facts.run_name}: {exc}"
            raise DirectorySetupError(problem) from claim.shown(exc)

    @contextmanager
    def _saving_config(self) -> Iterator[Owned]:
        assert self._facts.owned is not None
        try:
            yield self._facts.owned
        except (OSError, RuntimeError) as exc:
            reason = getattr(exc, "strerror", None) or exc
            raise ConfigSaveError(
                f"cannot write {self._config_path()}: {reason}. What stands there is whole; make "
                "it writable, or make room, and call save_effective_config() again."
            ) from claim.shown(exc)
        self._facts.done.add(Step.CONFIG)

    def _config_path(self) -> str:
        assert self._facts.paths is not None
        return quoted(self._facts.paths.config_path, 300)

    @contextmanager
    def _logging_start(self) -> Iterator[Owned]:
        assert self._facts.owned is not None
        try:
            yield self._facts.owned
        except (OSError, RuntimeError) as exc:
            text = "the start of run %s cannot be logged: %s"
            logger.warning(text, self._facts.run_name, exc)
        self._facts.done.add(Step.START)


def _roots(config: LoggingConfig) -> list[str]:
    """Return the directories under which the run may live, the first one first."""
    root = root_of_runs(configured=config.log_dir)
    return [root] if config.fallback_dir is None else [root, absolute_path(config.fallback_dir)]
