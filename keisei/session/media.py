"""What waits to be encoded and kept: a queue in front of a thread, for one session or member.

A call puts what it has taken into the queue, and returns. The thread encodes it, writes it to the
run's `media/`, and then logs an event that names it: whoever reads the name finds the file.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import anyio

from keisei._io.held import HeldDirectory
from keisei._io.loop import calling_soon, on_loop
from keisei._log import logger
from keisei.config.media import MediaConfig
from keisei.config.schema import JournalConfig
from keisei.errors import JournalError, MediaError, describe, quoted
from keisei.media.store import MediaStore
from keisei.media.values import Taken
from keisei.redaction import clean

LONGEST_WAIT = 10.0  # seconds that a call waits for room, off the loop
_LEAST = 4096  # bytes that a thing counts in the queue
_MOST_SAID = 100  # names whose losses are logged

Log = Callable[[Mapping[str, object]], object]


class _Item(NamedTuple):
    """A thing in the queue, and what its event will say; or whoever waits for those before it."""

    size: int
    taken: Taken | None
    said: dict[str, Any]
    answer: Callable[[], object] = lambda: None


class MediaQueue:
    """The media of one session or member, until they are kept. Thread-safe.

    Attributes:
        started: whether `close` could have to wait.
    """

    def __init__(self) -> None:
        self.started = False
        self._changed = threading.Condition()
        self._items: deque[_Item] = deque()
        self._waiting = 0  # bytes, those of what is at work included
        self._at_work = self._closed = False
        self._logged = self._kept = self._left_out = self._dropped = 0
        self._said: set[str] = set()

    def open(
        self, home: HeldDirectory, config: MediaConfig, journal: JournalConfig, log: Log
    ) -> None:
        """Take media from now on; nothing is begun before the first one.

        Args:
            home: the run's directory.
            config: how much is kept.
            journal: how the journal is written, which is how this is.
            log: logs the event that names what is kept.
        """
        sync = journal.durability == "fsync"
        self._store = MediaStore(home, config.largest_file, config.largest_total, sync=sync)
        self._capacity, self._policy = config.queue, journal.when_full
        self._log = log

    def put(self, taken: Taken, said: dict[str, Any]) -> None:
        """Queue a thing; where the queue is full, do as the policy says. Never waits on a loop.

        Args:
            taken: what the call has taken.
            said: what its event says, besides what is known once it is kept.
        """
        item = _Item(max(_LEAST, taken.size), taken, said)
        with self._changed:
            self._logged += 1
            if self._waiting and self._waiting + item.size > self._capacity:
                self._make_room(item.size)
            if self._closed:
                self._left_out += 1
                return
            self._waiting += item.size
            self._items.append(item)
            self._begin()
            self._changed.notify_all()

    def _make_room(self, size: int) -> None:
        if self._policy == "wait" and not on_loop():
            give_up = time.monotonic() + LONGEST_WAIT
            while self._is_full(size) and (left := give_up - time.monotonic()) > 0:
                self._changed.wait(left)
        before = self._dropped
        requests = deque(item for item in self._items if item.taken is None)
        while self._is_full(size) and len(self._items) > len(requests):
            oldest = next(item for item in self._items if item.taken is not None)
            self._items.remove(oldest)
            self._waiting -= oldest.size
            self._dropped += 1
            if self._policy == "latest":
                size = self._capacity  # all that can be dropped is
        if self._dropped > before:
            self._say("", "the queue of media is full, and the oldest in it are dropped")

    def _is_full(self, size: int) -> bool:
        return not self._closed and self._waiting > 0 and self._waiting + size > self._capacity

    def _begin(self) -> None:
        """Start the thread, at the first thing; where none can be started, the next call tries."""
        if not self.started:
            thread = threading.Thread(target=self._work, name="keisei-media", daemon=True)
            try:
                thread.start()
                self.started = True
            except RuntimeError as exc:
                self._say("", f"no thread can be started for media: {describe(exc)}")

    async def flush(self) -> None:
        """Wait until all that was logged before is kept, or left out."""
        answered = anyio.Event()
        wake = calling_soon(answered.set)
        with self._changed:
            if not self._items and not self._at_work:
                return
            self._items.append(_Item(0, None, {}, wake))
            self._changed.notify_all()
        await answered.wait()

    def close(self, timeout: float) -> None:
        """Keep what is queued, and end; blocks, and logs what was left out.

        Args:
            timeout: the longest wait, in seconds.
        """
        give_up = time.monotonic() + timeout
        with self._changed:
            self._begin_late()
            while (self._items or self._at_work) and (left := give_up - time.monotonic()) > 0:
                self._changed.wait(left)
            was_closed, self._closed = self._closed, True
            lost = [item for item in self._items if item.taken is not None]
            answers = [item.answer for item in self._items]
            self._items.clear()
            self._left_out += len(lost)
            behind = len(lost) + self._at_work
            self._changed.notify_all()
        for answer in answers:
            answer()
        if behind and not was_closed:
            names = quoted(", ".join(str(item.said["name"]) for item in lost[:10]), 300)
            text = "%d media are left out at the end: they were not written after %.1f s (%s)"
            logger.error(text, behind, timeout, names)

    def _begin_late(self) -> None:
        if self._items:
            self._begin()

    def summary(self) -> dict[str, int] | None:
        """Return what has become of the media so far; ``None`` where there were none."""
        with self._changed:
            if not self._logged:
                return None
            known = {
                "logged": self._logged,
                "kept": self._kept,
                "left_out": self._left_out,
                "dropped": self._dropped,
                "bytes": self._store.bytes,
            }
            queued = self._logged - self._kept - self._left_out - self._dropped
            return {**known, "queued": queued}

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._items and not self._closed:
                    self._changed.wait()
                if not self._items:
                    return
                item = self._items.popleft()
                self._at_work = item.taken is not None
            if item.taken is None:
                item.answer()
                continue
            problem = self._keep(item.taken, item.said)
            if problem:
                self._say(item.said["name"], problem)
            size = item.size
            del item  # or its pixels would live until the next one comes
            with self._changed:
                self._at_work = False
                self._waiting -= size
                self._kept += problem is None
                self._left_out += problem is not None
                self._changed.notify_all()

    def _keep(self, taken: Taken, said: dict[str, Any]) -> str | None:
        """Encode and keep a thing, and name it in the journal; return what has gone wrong."""
        try:
            content = taken.encode(self._store.keep)
            kept = self._store.keep(content)
            told = {"kind": content.kind, **clean(said), **kept._asdict(), **content.about}
            self._log(told)
        except (MediaError, JournalError) as exc:
            return str(exc)
        except Exception as exc:  # noqa: BLE001 - an encoder's; the rest is kept all the same
            return describe(exc)
        return None

    def _say(self, name: str, problem: str) -> None:
        """Log that a thing is lost: of each name once."""
        if name not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(name)
            logger.warning("media %s: left out, and counted: %s", quoted(name), problem)
