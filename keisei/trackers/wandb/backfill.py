"""What W&B has not got of the runs under a root, and its upload: each row once.

The SDK sends a run file's rows after those that the server has, whatever they are. So what the
server has of a file is noted in the run's directory before an upload (`wandb/keisei-sync.json`),
and told afterwards from how many rows have come: an interrupted upload goes on where it was.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel

from keisei._io import files, process
from keisei._log import logger
from keisei.errors import describe, quoted
from keisei.run.find import read_file
from keisei.trackers import cursor, trust
from keisei.trackers.wandb import run_file, sdk, upload
from keisei.trackers.wandb.local_runs import Attempt, LocalRun
from keisei.trackers.wandb.mode import NAME
from keisei.trackers.wandb.rewinding import Holding, step_at
from keisei.trackers.wandb.run_file import Rest, RunFile
from keisei.trackers.wandb.shared import PARTS
from keisei.trackers.wandb.upload import OnServer

_STATE = "keisei-sync.json"
ASK_TIMEOUT = 5.0

State = Literal["uploaded", "remaining", "running", "would upload"]


@dataclass(frozen=True)
class Outcome:
    """What became of a run file that W&B has not got in full.

    Attributes:
        run: the run's name.
        id: its id, which it has on W&B.
        file: the run file.
        state: what became of it.
        reason: why it remains, if it does.
        rows: how many of its history rows were uploaded just now, or are not known to have been.
    """

    run: str
    id: str
    file: str
    state: State
    reason: str | None = None
    rows: int = 0


class _Notes(BaseModel):
    """What is known of the server's part of a run's files; each named by its directory."""

    delivered: dict[str, int] = {}
    """How many of a file's first rows the server has."""
    uploading: str | None = None
    """The file whose upload has begun."""
    lines: int = 0
    """The server's row count before that."""
    service: tuple[int, str] | None = None
    """The process that uploads it, and when that started."""
    signature: str | None = None
    """That this user's `keisei sync` has noted the process; no other is ended."""


def remaining(run: LocalRun) -> list[Outcome]:
    """Return what W&B has not got of a run, from local files alone."""
    notes = _load(run)
    holds = Holding(run.directory)
    state: State = "running" if run.alive else "would upload"
    found = []
    for attempt in run.attempts:
        if not attempt.uploaded:
            with suppress(OSError):
                rows = len(
                    run_file.read(attempt.path, holds.of(attempt.path)).steps
                ) - notes.delivered.get(attempt.key, 0)
                found.append(Outcome(run.name, run.id, attempt.path, state, None, max(0, rows)))
    return found


def sync_run(run: LocalRun, timeout: float) -> Iterator[Outcome]:
    """Upload what W&B has not got of a run, attempt by attempt; log in first.

    Args:
        run: the run; nobody may be writing to it.
        timeout: how long each file may take, in seconds.

    Yields:
        What became of each file. Behind one that remains, the later ones remain too.
    """
    todo = [attempt for attempt in run.attempts if not attempt.uploaded]
    failed: str | None = None
    try:
        if os.path.isdir(os.path.join(run.directory, PARTS)) and any(one.online for one in todo):
            raise OSError(
                "several ranks have sent rows of the run (distributed.track: shared), and W&B does "
                "not tell which of this file it has got. All its rows are in the journal; `wandb "
                "sync --include-online` uploads them all, and some perhaps twice"
            )
        with (
            files.OpenDirectory(run.directory) as above,
            files.OpenDirectory(os.path.join(run.directory, "wandb")) as directory,
            cursor.deliverer(above, NAME, timeout),
        ):
            sdk.start_service()
            upload = _Upload(run, directory, time.monotonic() + timeout)
            while todo:
                rows = upload.send(todo[0], timeout)
                attempt = todo.pop(0)
                yield Outcome(run.name, run.id, attempt.path, "uploaded", None, rows)
            _note_end(run.directory)
    except OSError as exc:
        failed = exc.strerror or str(exc)
    except Exception as exc:  # noqa: BLE001 - an odd file stops its run only
        failed = describe(exc)
    for attempt in todo:
        yield Outcome(run.name, run.id, attempt.path, "remaining", failed)
        failed = "an earlier attempt of the run remains"


def _note_end(directory: str) -> None:
    """Note in the cursor that W&B has been told of the run's end, by its files."""
    with suppress(OSError):
        known = cursor.load(directory, NAME)
        if known.seq >= 0 and known.known.state != "finished":
            ended = known.known.model_copy(update={"state": "finished"})
            cursor.store(directory, NAME, known.model_copy(update={"known": ended}), sync=False)


class _Upload:
    """The upload of one run's files, under the run's lock."""

    def __init__(self, run: LocalRun, directory: files.OpenDirectory, end: float) -> None:
        self._run = run
        self._directory = directory
        self._holds = Holding(run.directory)
        self._sdk = sdk.load_sdk()
        self._read = {
            attempt.key: run_file.read(attempt.path, self._holds.of(attempt.path))
            for attempt in run.attempts
        }
        self._notes = _load(run)
        self._end_earlier_service()
        about = next(reversed(self._read.values()))
        left = max(0.1, min(ASK_TIMEOUT, end - time.monotonic()))
        has = upload.on_server(about.entity, about.project, run.id, left)
        self._account(has)
        self._save()
        self._rewind(has, about, end)

    def send(self, attempt: Attempt, timeout: float) -> int:
        """Upload the rest of a file, and return how many rows that were."""
        end = time.monotonic() + timeout
        key, notes = attempt.key, self._notes
        content = self._read[key]
        if not self._run.trusted and (beyond := _beyond(attempt, content)):
            raise OSError(trust.refusal(beyond))
        if not content.holds_run:
            raise OSError("the file is damaged: it does not say which run it is about")
        has = upload.on_server(
            content.entity, content.project, self._run.id, min(ASK_TIMEOUT, timeout)
        )
        notes.uploading, notes.lines = key, has.lines
        notes.service = upload.service()
        notes.signature = trust.sign(self._run.id, notes.service)
        self._save()
        skip = notes.delivered[key]
        # An offline attempt could not know at which step the one before it had ended; and behind
        # one that was killed online, the next begins at a step that its rest has as well.
        renumber = skip < len(content.steps) and content.steps[skip] <= has.last_step
        # Before 0.31 the SDK does not do that itself.
        shift = has.last_step + 1 - content.steps[skip] if renumber and sdk.lags(self._sdk) else 0
        fresh = renumber and (attempt.online or bool(shift))
        with self._rest(attempt, content, skip, fresh=fresh, shift=shift) as path:
            upload.upload(path, self._run.id, max(0.1, end - time.monotonic()), renumber=renumber)
        with files.OpenDirectory(os.path.dirname(attempt.path)) as directory:
            files.append(directory, f"{os.path.basename(attempt.path)}.synced", b"")
        rows = len(content.steps)
        notes.delivered[key], notes.uploading, notes.service = rows, None, None
        self._save()
        return rows - skip

    def _account(self, has: OnServer) -> None:
        """Bring the notes up to what the server has now."""
        notes, attempts = self._notes, self._run.attempts
        if notes.uploading is not None:
            # Attempts that were made since have sent rows of their own.
            others = sum(
                self._sent(attempt, has)
                for attempt in attempts
                if attempt.key not in notes.delivered
            )
            content = self._read.get(notes.uploading, RunFile())
            sent = notes.delivered.get(notes.uploading, 0) + has.lines - notes.lines - others
            notes.delivered[notes.uploading] = min(max(0, sent), len(content.steps))
            notes.uploading = notes.service = None
        new = [attempt for attempt in attempts if attempt.key not in notes.delivered]
        for attempt in new:
            notes.delivered[attempt.key] = self._sent(attempt, has)

    def _sent(self, attempt: Attempt, has: OnServer) -> int:
        """Return how many of an attempt's rows the server has by its attempts, and no upload."""
        steps = self._read[attempt.key].steps
        if attempt.uploaded:
            return len(steps)
        if not has.lines:
            return 0
        if attempt.online:
            first_missing = self._first_missing(attempt, has)
            return sum(step < first_missing for step in steps)
        # What the attempt before it has sent, and its file has lost with the SDK's service, is the
        # beginning of this one's file.
        at = self._run.attempts.index(attempt)
        before = self._run.attempts[at - 1] if at else None
        if before is None or not before.online or before.uploaded:
            return 0
        known = self._read[before.key].steps
        end = known[-1] + 1 if known else before.starting_step
        lost = 0 if end is None else self._first_missing(before, has) - end
        return min(max(0, lost), len(steps))

    def _first_missing(self, attempt: Attempt, has: OnServer) -> int:
        """Return the step behind the last one that the server had after an online attempt."""
        for other in self._run.attempts[self._run.attempts.index(attempt) + 1 :]:
            if other.online and (started := other.starting_step) is not None:
                return started  # what the server had when that attempt began
        return has.last_step + 1

    def _rest(
        self, attempt: Attempt, content: RunFile, skip: int, *, fresh: bool, shift: int
    ) -> Rest:
        """Return the file to upload: the original, or a copy where that would not do.

        Where it is to be fresh, the step at which the attempt itself stood on the server is left.
        """
        later = self._run.attempts[self._run.attempts.index(attempt) + 1 :]
        ending = next((other.path for other in reversed(later) if other.uploaded), None)
        before: tuple[str, ...] = ()
        if sdk.release_of(self._sdk) < (0, 28):  # it begins the run's log anew with each file
            at = self._run.attempts.index(attempt)
            before = tuple(other.path for other in self._run.attempts[:at])
        copy = bool(skip or content.torn or ending or fresh or content.left_behind or before)
        holds = self._holds.of(attempt.path)
        return Rest(attempt.path, skip, ending, copy, fresh, shift, before, holds)

    def _rewind(self, has: OnServer, about: RunFile, end: float) -> None:
        """Ask W&B to drop what it has got of what the run has left behind."""
        left = [number for row in has.tail if (number := self._holds.superseded(row))]
        if left:
            after = self._holds.cuts.gone_back_to(min(left))
            step = step_at(self._run.directory, after, self._holds.cuts)
            timeout = max(0.1, min(ASK_TIMEOUT, end - time.monotonic()))
            if step is None or not upload.rewind(
                about.entity, about.project, self._run.id, step, timeout
            ):
                text = "W&B cannot drop what run %s has left behind by resuming: it keeps it"
                logger.warning(text, self._run.name)

    def _end_earlier_service(self) -> None:
        """End the process that an upload which was killed has left, lest it sends on."""
        notes = self._notes
        if notes.service and trust.is_signed(notes.signature, self._run.id, notes.service):
            pid, start = notes.service
            if pid > 1 and process.process_start(pid) == start:
                with suppress(OSError):
                    os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
                give_up = time.monotonic() + 2.0
                while process.process_start(pid) == start and time.monotonic() < give_up:
                    time.sleep(0.01)

    def _save(self) -> None:
        files.write_atomic(self._directory, _STATE, self._notes.model_dump_json().encode())


def _beyond(attempt: Attempt, content: RunFile) -> str | None:
    """Return what an upload of the file would do beyond its directory, in words."""
    if content.orders:
        return f"have W&B's SDK do what the run file asks for ({', '.join(sorted(content.orders))})"
    for name in sorted(content.names):
        if os.path.isabs(name) or ".." in re.split(r"[/\\]", name):
            return f"upload {quoted(name, 300)}"
    for above, directories, names in os.walk(os.path.join(os.path.dirname(attempt.path), "files")):
        for path in (os.path.join(above, name) for name in (*directories, *names)):
            if os.path.islink(path):
                return f"upload what a link leads to ({quoted(path, 300)})"
    return None


def _load(run: LocalRun) -> _Notes:
    try:
        with files.OpenDirectory(os.path.join(run.directory, "wandb")) as directory:
            return _Notes.model_validate_json(read_file(directory, _STATE))
    except (OSError, ValueError):
        return _Notes()
