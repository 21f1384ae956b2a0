"""A run as a rank above 0 has it: the run is rank 0's, and one part of it this rank's own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from keisei._io import files
from keisei.errors import RunEndedError, TakenOverError
from keisei.run.failure import Failure
from keisei.run.joined import again
from keisei.run.layout import EVALUATION_LOG, MODELS, TRAINING_LOG, RunPaths, log_file
from keisei.run.log_lines import end_line, start_line
from keisei.run.owned import OwnedRun, now
from keisei.run.parts import OwnedPart
from keisei.run.session_file import SessionRecord
from keisei.run.status import FinalStatus


class OwnedRank:
    """A part of a run that this process owns as a rank above 0: it has `OwnedRun`'s methods.

    What is rank 0's alone, such as the config's file and the session file, is left to that.

    Args:
        part: the rank's part, claimed.
        record: what the session file says.

    Attributes:
        rank_0: the process that owns the run.
        part: what the part is called.
        left: what an earlier process of this rank has left of its journal in this attempt.
        paths: the run's paths; the logs are the part's own.
        record: the run's record, of which owner and start are this rank's own.
        home: the run's directory.
        earlier: always ``None``: what was before is rank 0's to log.
        torn_lines: always 0.
        fallback_reason: always ``None``.
        recorded: whether the end of the part is recorded.
        unsynced: always ``None``.
        taken_over: the error that another owner has taken the run over, once that is known.
        on_taken_over: called with it, once, on the thread that has noticed it.
    """

    def __init__(self, part: OwnedPart, record: SessionRecord) -> None:
        self._part, self._run, self.rank_0 = part, part.run, record.owner
        self.part, self.left, self.home = part.part, part.left, part.run.home
        own = {"owner": part.record.owner, "started_at": part.record.started_at}
        self.record = record.model_copy(update={**own, "trackers": {}})
        directory = self.home.path
        self.paths = RunPaths(
            run_artifact_dir=directory,
            model_dir=record.paths.get("model_dir") or f"{directory}/{MODELS}",
            log_file_path=f"{directory}/{log_file(TRAINING_LOG, self.part)}",
            eval_log_file_path=f"{directory}/{log_file(EVALUATION_LOG, self.part)}",
        )
        self.earlier: SessionRecord | None = None
        self.torn_lines = 0
        self.fallback_reason: str | None = None
        self.recorded = False
        self.unsynced: list[str] | None = None
        self.taken_over: TakenOverError | None = None
        self.on_taken_over: Callable[[TakenOverError], object] = lambda error: None
        self._line_written = False
        self._writing = threading.Lock()
        self._run.on_over(self._over)

    def keep_lease(self, on_lost: Callable[[TakenOverError], object]) -> None:
        """Leave the lease to rank 0.

        Args:
            on_lost: called, once, with the error that another owner has taken the run over.
        """
        self.on_taken_over = on_lost

    def save_config(self, text: str, origins: str) -> None:
        """Leave the config's files to rank 0.

        Args:
            text: the config's text.
            origins: where its values came from, as text.
        """

    def log_start(self) -> None:
        """Append the start line to the part's training log.

        Raises:
            OSError: it cannot be written.
        """
        record = self.record
        line = start_line(now(), record.run_name, record.session_id, record.attempt)
        self._append(line)

    def sync(self) -> None:
        """Do nothing: what this rank has made is synced."""

    def update(self, **changes: object) -> None:
        """Leave the session file to rank 0.

        Args:
            changes: the fields of `SessionRecord` that would change.
        """

    def end(self, final: FinalStatus, duration_s: float, failure: Failure | None = None) -> None:
        """Append the end line to the part's training log, then record how it ended.

        In this order, for the owner may end the run as soon as it sees the record, and nothing is
        appended after that.

        Args:
            final: how it ended.
            duration_s: how long it took, in seconds.
            failure: why, where an error or a signal ended it.

        Raises:
            OSError: one of them cannot be written; the other was tried all the same.
        """
        with self._writing:
            line = end_line(now(), self.record.run_name, final, duration_s, failure)
            try:
                if not self._line_written:
                    with suppress(RunEndedError, TakenOverError):  # then that says how it ended
                        self._append(line)
                    self._line_written = True
            finally:
                self._part.end(final, failure)
                self.recorded = True

    def release(self) -> None:
        """Write the part no longer; a second call changes nothing."""
        self._run.forget(self._over)
        self._part.release()

    def show_life(self) -> None:
        """Show that the process lives, to those who cannot see it.

        Raises:
            OSError: the file of the part's state cannot be touched.
        """
        self._part.show_life()

    def look(self) -> RunEndedError | TakenOverError | None:
        """Look at the session file, and return why nothing more may be written. It blocks."""
        return self._run.look()

    def check(self) -> None:
        """Check that the run goes on.

        Raises:
            TakenOverError: it goes on as a later attempt.
            RunEndedError: it has ended.
        """
        if (over := self._run.look()) is not None:
            raise again(over)

    def _append(self, line: str) -> None:
        with self.home.entered() as directory:
            files.append(directory, log_file(TRAINING_LOG, self.part), f"{line}\n".encode())

    def _over(self, error: RunEndedError | TakenOverError) -> None:
        if isinstance(error, TakenOverError):
            self.taken_over = error
            self.on_taken_over(error)


Owned = OwnedRun | OwnedRank
