"""What is seen of the threads while a loop does not answer: where they stand, and who computes."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from types import CodeType, FrameType

from keisei.monitoring.stalls import Frame, blamed, is_library, waits

_DEEPEST = 40  # frames
_MOST_THREADS = 64  # whose CPU time is looked at
_SELDOM = 1.0  # seconds between two looks at their CPU time
_HOLDS = 0.3  # the share of a stall that who has held the GIL has computed, where it computes
# Where a thread stands that holds nobody up.
_WAITING = frozenset(
    "_wait_for_tstate_lock accept acquire get get_events join poll recv recv_into run_forever "
    "select wait".split()
)


class Looks:
    """What is seen of the threads, by looks at them.

    Args:
        loop: the loop's thread.
        unseen: the code of a function that is passed over where it is in a stack.

    Attributes:
        watchdog: the thread that is passed over.
        collector: where the collector of garbage came, if it took long.
        under: the id of the frame that has called the loop's own calls.
    """

    def __init__(self, loop: int, unseen: CodeType) -> None:
        self._loop, self._unseen = loop, unseen
        self.watchdog = self.under = 0
        self.collector: Frame | None = None
        self.stacks: Counter[Frame] = Counter()
        self._others: dict[int, Counter[Frame]] = {}
        self._moved: set[int] = set()
        self._idle: tuple[CodeType, CodeType] | None = None  # where the loop waits, and who called
        self._stood: dict[int, tuple[int, int]] = {}  # where threads stood when all was well
        self._computed: dict[int, float] = {}  # by then, too
        self._read = 0.0

    def is_idle(self, in_c: bool, computes: bool) -> bool:
        """Return whether the loop stands where it waits for something to do.

        Args:
            in_c: whether it shows no frame of its own.
            computes: whether its thread computes, which tells one that shows none.
        """
        frame = sys._current_frames().get(self._loop)
        if in_c:
            return id(frame) == self.under and not computes
        if frame is None or frame.f_back is None:
            return False
        codes = frame.f_code, frame.f_back.f_code
        if codes != self._idle and waits(frame):
            self._idle = codes
        return codes == self._idle

    def all_is_well(self, now: float) -> None:
        """Note where the threads stand while the loop answers, and forget what was seen before.

        Args:
            now: the time by the monotonic clock.
        """
        self.collector = None
        self.stacks.clear()
        self._others.clear()
        self._moved.clear()
        frames = sys._current_frames()
        self._stood = {t: (id(f), f.f_lasti) for t, f in frames.items()}
        if now - self._read >= _SELDOM and len(frames) <= _MOST_THREADS:
            self._read, self._computed = now, _computed()

    def look_at_collector(self, frame: FrameType) -> None:
        """Note where the collector of garbage came, on the thread that it ran on.

        Args:
            frame: where the thread stands.
        """
        self.collector = blamed(self._stack(frame))

    def look(self) -> None:
        """Look at the stacks of the threads; thread-safe, and it does not let the GIL go."""
        for thread, frame in sys._current_frames().items():
            if thread == self.watchdog:
                continue
            found = blamed(self._stack(frame))
            if found is None:
                continue
            if thread == self._loop:
                self.stacks[found] += 1
            elif not (is_library(found.file) or frame.f_code.co_name in _WAITING):
                self._others.setdefault(thread, Counter())[found] += 1
                if self._stood.get(thread) != (id(frame), frame.f_lasti):
                    self._moved.add(thread)

    def of_loop(self) -> Frame | None:
        """Return where the loop's thread was seen most often."""
        return _most(dict(self.stacks))

    def of_holder(self, seconds: float) -> Frame | None:
        """Return where the thread stood that has held the GIL; ``None`` where it was not seen.

        One that has computed for long is known by that; of others, one that has moved.

        Args:
            seconds: for how long it was held.
        """
        others = {thread: dict(seen) for thread, seen in list(self._others.items())}
        if len(others) > 1:
            after = _computed() if self._computed else {}
            used = {t: after[t] - self._computed.get(t, 0.0) for t in after if t in others}
            busiest = max(used, key=used.__getitem__, default=None)
            if busiest is not None and used[busiest] >= _HOLDS * seconds:
                return _most(others[busiest])
            others = {thread: seen for thread, seen in others.items() if thread in self._moved}
        return _most({frame: count for seen in others.values() for frame, count in seen.items()})

    def _stack(self, frame: FrameType | None) -> list[Frame]:
        """Return a thread's stack, the innermost frame first."""
        stack: list[Frame] = []
        while frame is not None and len(stack) < _DEEPEST:
            code = frame.f_code
            if code is not self._unseen:
                stack.append(Frame(code.co_filename, frame.f_lineno, code.co_qualname))
            frame = frame.f_back
        return stack


def _computed() -> dict[int, float]:
    """Return how much each thread has computed by now, in seconds, where the system says it."""
    found = {}
    for thread in threading.enumerate():
        try:
            with open(f"/proc/self/task/{thread.native_id}/schedstat", "rb", 0) as file:
                found[thread.ident or 0] = int(file.read(100).split()[0]) / 1e9
        except (OSError, ValueError, IndexError):
            continue
    return found


def _most(seen: dict[Frame, int]) -> Frame | None:
    return max(seen, key=seen.__getitem__, default=None)
