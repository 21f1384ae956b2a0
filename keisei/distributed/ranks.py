"""What the ranks of one attempt know of each other: whether they live, and how they all end.

There is one file that says how they end, made by the first rank that has not completed. Each rank
looks for it, in a thread of its own. Rank 0 looks whether the others live, and they whether rank 0
does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import anyio

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei._io.held import HeldDirectory
from keisei._io.offload import patiently
from keisei._log import logger
from keisei.distributed.launchers import Launch
from keisei.distributed.rank import Owned, OwnedRank
from keisei.errors import RankLostError
from keisei.run import find, outcome
from keisei.run.failure import Failure
from keisei.run.layout import RECORD_FILE
from keisei.run.outcome import Outcome
from keisei.run.part_file import part_of_rank
from keisei.run.parts import SILENT_AFTER, FoundPart, parts_of
from keisei.run.session_file import SessionRecord
from keisei.run.status import FINAL, FinalStatus

INTERVAL = 0.5  # seconds between two looks at how the ranks end
SIGN = 10.0  # seconds between two signs of life
ENDING = 10.0  # seconds that ranks have to end, once one of them has ended them all
_SHARE = 0.05  # of the time that a rank spends on looking after the others, at most
_CHECKED = 1.0  # seconds between two of these looks, at least


class Ranks:
    """The other ranks of one attempt, as one rank sees them.

    Args:
        owned: what this rank owns.
        launch: the launch.
        timeout: how long the ranks wait for each other, in seconds.
        lost: called with an error, once, on another thread, where another rank has ended the run.
    """

    def __init__(
        self,
        owned: Owned,
        launch: Launch,
        timeout: float,
        lost: Callable[[RankLostError], object],
    ) -> None:
        self._owned, self._launch, self._timeout, self._lost = owned, launch, timeout, lost
        self._attempt = owned.record.attempt
        self._home: HeldDirectory = owned.home
        self._began = time.monotonic()
        self._over = threading.Event()
        self._outcome: Outcome | None = None
        self._noting = threading.Lock()
        self._is_told = self._is_own = False

    @property
    def ended_by(self) -> str | None:
        """What has ended all ranks, in a sentence; ``None`` where nothing has, as far as known."""
        return None if self._outcome is None else self._outcome.text()

    def start(self) -> None:
        """Look after the others from now on, in a thread of its own."""
        watch = threading.Thread(target=self._watch, name="keisei-ranks", daemon=True)
        with suppress(RuntimeError):  # no thread is left: then at the end alone
            watch.start()

    def stop(self) -> None:
        """Look after the others no longer; a second call changes nothing."""
        self._over.set()

    def _watch(self) -> None:
        next_sign = next_check = time.monotonic()
        while not self._over.wait(INTERVAL) and self._owned.taken_over is None:
            try:
                now = time.monotonic()
                if now >= next_sign:
                    next_sign = now + SIGN
                    self._show_life()
                if self._found() is None and now >= next_check:
                    self._check()
                    took = time.monotonic() - now
                    next_check = now + max(_CHECKED, took / _SHARE)
                self._tell()
            except OSError as exc:
                logger.debug("the other ranks cannot be seen now: %s", exc)

    def _show_life(self) -> None:
        if isinstance(self._owned, OwnedRank):
            self._owned.show_life()
        else:
            with self._home.entered() as directory:
                directory.touch(RECORD_FILE)

    def _found(self) -> Outcome | None:
        """Return how the ranks end, if that is known by now. It blocks."""
        if self._outcome is None:
            with self._entered() as directory:
                self._outcome = outcome.published(directory, self._attempt)
        return self._outcome

    def _tell(self) -> None:
        """Call `lost`, once, where another rank has ended the run."""
        found = self._outcome
        if found is None or self._is_own or self._over.is_set():
            return
        with self._noting:
            first, self._is_told = not self._is_told, True
        if first:
            logger.error("run %s: %s: the run ends", self._owned.record.run_name, found.text())
            self._lost(RankLostError(f"{found.text()}: the run ends", rank=found.rank))

    def _check(self) -> None:
        """Look whether the others live, and publish it where one does not. It blocks."""
        if self._launch.rank:
            self._check_owner()
        else:
            self._note_lost()

    def _check_owner(self) -> bool:
        """Publish how the ranks end where rank 0 is gone; return whether it is. It blocks."""
        assert isinstance(self._owned, OwnedRank)
        if self._owned.look() is not None:
            with self._entered() as directory:
                record = SessionRecord.parsed(directory.read(RECORD_FILE) or b"")
            # A preemption reaches every rank by itself, and leaves each the time to save.
            if record is not None and record.status in FINAL and record.status != "preempted":
                self._outcome = self._outcome or Outcome(
                    rank=0, what=f"has ended the run as {record.status}", failure=record.failure
                )
            return True
        with self._entered() as directory:
            owner = self._owned.rank_0
            state = find.owner_state(owner, directory)
            if state == "elsewhere" and directory.now() - find.last_sign(directory) > SILENT_AFTER:
                state = "died"
        if state == "died" and self._owned.look() is None:  # it has not just recorded its end
            self.publish(Outcome(rank=0, what="has vanished"))
        return state == "died"

    def _check_parts(self) -> Outcome | None:
        """Return how the ranks end where one of them is gone, or has ended without saying so."""
        found = self._parts(SILENT_AFTER)
        if any(part.state == "died" for part in found.values()):
            found = self._parts(SILENT_AFTER)  # one may have ended as it was looked at
        for rank, part in sorted(found.items()):
            record = part.record
            if part.state == "died":
                return Outcome(rank=rank, what="has vanished")
            if part.state in ("failed", "cancelled") and record is not None:
                return _of_end(rank, part.state, record.failure)
        if time.monotonic() - self._began > self._timeout:
            for rank in range(1, self._launch.world_size):
                if rank not in found:
                    return Outcome(rank=rank, what=f"has not come within {self._timeout:g} s")
        return None

    def _parts(self, silent_after: float | None) -> dict[int, FoundPart]:
        with self._entered() as directory:
            found = {part.part: part for part in parts_of(directory, self._attempt)}
            if silent_after is not None and any(p.state == "elsewhere" for p in found.values()):
                seen = parts_of(directory, self._attempt, silent_after=silent_after)
                found = {part.part: part for part in seen}
        ranks = {rank: found.get(part_of_rank(rank)) for rank in range(1, self._launch.world_size)}
        return {rank: part for rank, part in ranks.items() if part is not None}

    def publish(self, own: Outcome) -> Outcome:
        """Publish how the ranks end, unless another one has done so before. It blocks.

        Args:
            own: how they end, as far as this rank knows.

        Returns:
            How they end.
        """
        if self._outcome is None and self._owned.taken_over is None:
            with self._entered() as directory:
                self._outcome = outcome.publish(directory, self._attempt, own)
        return self._outcome or own

    def has_ended(self, status: FinalStatus, failure: Failure | None) -> None:
        """Publish how this rank has ended, where that ends all. It blocks; failures are logged.

        Args:
            status: how it has ended.
            failure: why.
        """
        if status not in ("failed", "cancelled"):
            return
        try:
            # What this rank has failed by may be that another one was gone before.
            if status == "failed" and self._found() is None:
                self._check()
                self._note_lost()
            own = _of_end(self._launch.rank, status, failure)
            self._is_own = self.publish(own) is own
        except OSError as exc:
            logger.warning("the other ranks are not told how this one has ended: %s", exc)

    async def settle(self, status: FinalStatus, failure: Failure | None) -> None:
        """Publish how this rank has ended; rank 0 waits for the ends of the others.

        A cancellation shortens the wait, and goes on after it.

        Args:
            status: how this rank has ended.
            failure: why.
        """
        cancelled: BaseException | None = None
        try:
            await patiently(lambda: files.in_thread(self.has_ended, status, failure), ENDING)
            if self._launch.rank == 0 and status == "completed" and self._outcome is None:
                await self._wait(self._timeout, for_all=False)
        except TimeoutError as exc:
            logger.warning("how the other ranks end is not known: %s", exc)
        except anyio.get_cancelled_exc_class() as exc:
            cancelled = exc
        if self._launch.rank == 0 and (cancelled or self._outcome or status != "completed"):
            try:
                await patiently(lambda: self._wait(ENDING, for_all=True), ENDING + INTERVAL)
            except TimeoutError:
                logger.warning("ranks still run %g s after they were to end", ENDING)
            except anyio.get_cancelled_exc_class() as exc:
                cancelled = exc
        self.stop()
        if cancelled is not None:
            raise cancelled

    def truth(
        self, status: FinalStatus, failure: Failure | None
    ) -> tuple[FinalStatus, Failure | None]:
        """Return how the session ends, and why: as the first rank that has not completed.

        Args:
            status: how this rank has ended.
            failure: why.
        """
        decided = self._outcome
        if decided is None or self._is_own:
            return status, failure
        if status == "preempted" and not self._is_told:
            return status, failure
        return decided.status, decided.reason()

    async def _wait(self, timeout: float, *, for_all: bool) -> None:
        """Wait, as rank 0, until the others have ended.

        Args:
            timeout: the longest wait, in seconds.
            for_all: whether it is known how they end, and only their ends are waited for.
        """
        give_up, pause = time.monotonic() + timeout, 0.01
        while not await files.in_thread(self._are_over, for_all=for_all):
            left = give_up - time.monotonic()
            if left <= 0:
                if not for_all:
                    await files.in_thread(self._note_unended)
                return
            await anyio.sleep(min(pause, left))
            pause = min(pause * 1.5, INTERVAL / 2)

    def _are_over(self, *, for_all: bool) -> bool:
        """Return whether rank 0 has nothing to wait for. It blocks."""
        if not for_all and (self._found() is not None or self._note_lost()):
            return True
        found = self._parts(None if for_all else SILENT_AFTER)
        # One that is still to come would find no run, and wait for it.
        all_came = len(found) == self._launch.world_size - 1
        is_late = for_all and time.monotonic() - self._began > self._timeout
        return (all_came or is_late) and all(_is_over(part) for part in found.values())

    def _note_lost(self) -> bool:
        """Publish that a rank is gone, where one is; return whether one is. It blocks."""
        lost = self._check_parts()
        if lost is not None:
            self.publish(lost)
        return lost is not None

    def _note_unended(self) -> None:
        """Publish that a rank has not ended, although rank 0 has waited for it. It blocks."""
        for rank, part in sorted(self._parts(None).items()):
            if not _is_over(part):
                what = f"still runs {self._timeout:g} s after rank 0 has completed"
                self.publish(Outcome(rank=rank, what=what))
                return
        self._note_lost()

    async def owner_is_over(self) -> None:
        """Wait, as a rank above 0 that has not completed, until rank 0 has recorded the end.

        Launchers kill the other ranks as soon as one has failed.
        """
        if self._outcome is None or not isinstance(self._owned, OwnedRank):
            return

        async def wait() -> None:
            while True:
                if await files.in_thread(self._is_owner_over):
                    return
                await anyio.sleep(INTERVAL / 10)

        with suppress(TimeoutError):
            await patiently(wait, ENDING)

    def _is_owner_over(self) -> bool:
        assert isinstance(self._owned, OwnedRank)
        return self._check_owner()

    @contextmanager
    def _entered(self) -> Iterator[OpenDirectory]:
        with self._home.entered(checked=False) as directory:
            yield directory


def _is_over(part: FoundPart) -> bool:
    return part.state in FINAL or part.state == "died"


def _of_end(rank: int, status: FinalStatus, failure: Failure | None) -> Outcome:
    what = "was cancelled" if status == "cancelled" else "has failed"
    return Outcome(rank=rank, what=what, status=status, failure=failure)
