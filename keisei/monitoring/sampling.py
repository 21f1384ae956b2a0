"""The program's side of the sampler: one process for all sessions, read by the shared threads.

The process is started a second after the first session has begun: what is over by then needs none.
It ends with the last session. One that hangs or dies is replaced, with backoff.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import pickle
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any, cast

from keisei._io.backoff import Backoff
from keisei._io.forks import after_in_child
from keisei._io.shared_threads import SharedThreads, join_threads
from keisei._io.spawn import GREETING, GREETING_TIMEOUT, found_out, kill, program, spawn, why_not
from keisei._log import logger
from keisei.errors import describe, quoted
from keisei.monitoring.pipe import Pipe
from keisei.monitoring.plugged import Losses, options_of, usable
from keisei.monitoring.readings import Counter, Sample, grown, sample_in, without
from keisei.monitoring.resources import TROUBLES, changes, pace

YOUNGEST = 1.0  # seconds that a session lives before anything is sampled for it
VARIABLES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")
_BEGINS = "keisei.monitoring.sampler"
_START_TIMEOUT = 30.0  # seconds until its first line
_LATE = 5.0  # seconds that a line may be late, beside one more interval
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_LOOKS, _SHORTEST_LOOK = 4, 0.05  # for each sample, so that news is not old; and seconds

Take = Callable[[Sample, Mapping[str, float], Mapping[str, Any]], object]


@dataclass(eq=False)
class Subscriber:
    """A session that gets samples.

    Attributes:
        directory: its run's directory.
        interval: how often it wants a sample once it is not young any more, in seconds.
        take: called with each sample, on a shared thread: the sample, what was drawn since the
            last one in joules, and limits and devices.
        samplers: the samplers of installed packages that it gets, with their options.
        key: what the sampler calls its directory.
        began: when it began, by the monotonic clock.
    """

    directory: str
    interval: float
    take: Take
    samplers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    key: str = ""
    began: float = field(default_factory=time.monotonic)


class Sampling:
    """Keeps the sampler, and hands its samples to the sessions, as a member of the shared threads.

    Args:
        launch: what this process and its ranks on this machine have in common; empty without any.
        local_rank: which of them it is.

    Attributes:
        over: whether it has been served for the last time.
        process: the sampler, while there is one.
        is_impossible: whether there can be none.
    """

    def __init__(self, launch: str, local_rank: int) -> None:
        self.over = False
        self.process: subprocess.Popen[bytes] | None = None
        self.threads: SharedThreads | None = None
        self.subscribers: dict[str, Subscriber] = {}
        self._launch, self._local_rank = launch, local_rank
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        self.is_impossible = False
        self._start_at = 0.0
        self._where = os.sep
        self._heard_at = 0.0
        self._has_greeted = self._has_spoken = False
        self._pipe: Pipe | None = None
        self._received = self._unsent = b""
        self._told: dict[str, Any] = {}
        self._about: dict[str, Any] = {}
        self._counters: dict[str, Counter] = {}
        self._states: dict[str, tuple[str, str]] = {}
        self._said: set[tuple[str, str]] = set()
        self._plugged: set[str] = set()  # the samplers of packages that any session has named
        self._losses = Losses()

    def serve(self) -> float | None:
        """Read what the sampler has written, and see that it is well."""
        with _lock:
            subscribers = list(self.subscribers.values())
            self.over = not subscribers
        if self.over:
            self._end()
            return None
        try:
            return self._serve(subscribers, time.monotonic())
        except Exception as exc:  # noqa: BLE001 - whatever it is, the training goes on
            self._lose(subscribers, "failed", describe(exc))
            return YOUNGEST

    def left(self) -> None:
        """Do nothing: there is nothing to be told."""

    def forget(self) -> None:
        """Close what a forked child has inherited; the process is its parent's."""
        if self.process is not None:
            for pipe in (self.process.stdin, self.process.stdout):
                with suppress(OSError, AttributeError):
                    os.close(cast(IO[bytes], pipe).fileno())

    def _serve(self, subscribers: list[Subscriber], now: float) -> float | None:
        if self.is_impossible:
            return None
        if self.process is None:
            start_at = max(self._start_at, min(s.began for s in subscribers) + YOUNGEST)
            if now < start_at:
                return min(start_at - now, YOUNGEST)
            if (reason := _impossible()) is not None:
                self.is_impossible = True
                _say_once(reason, is_wanted=any(s.samplers for s in subscribers))
                return None
            self._start(now)
        each = min(pace(now - s.began, s.interval) for s in subscribers)
        is_open = self._read(subscribers, now)
        limit = 2 * float(self._told.get("pace", each)) + _LATE
        if not is_open:
            self._lose(subscribers, "failed", self._last_words())
        elif not self._has_greeted and now - self._heard_at > GREETING_TIMEOUT:
            self._lose(subscribers, "failed", self._is_foreign())
        elif now - self._heard_at > (limit if self._has_spoken else _START_TIMEOUT):
            self._lose(subscribers, "hung", "its process does not answer")
        else:
            self._tell(subscribers, each)
        return max(_SHORTEST_LOOK, each / _LOOKS)

    def _last_words(self) -> str:
        """Return why the sampler has ended."""
        assert self.process is not None
        with suppress(subprocess.TimeoutExpired):  # its output may have ended before it
            self.process.wait(1.0)
        if not self._has_greeted and (self.process.returncode or 0) >= 0:
            return self._is_foreign()  # it was not killed, which would say nothing of it
        with suppress(Exception):
            if isinstance(words := pickle.loads(self._received), str):
                return f"its process cannot begin ({quoted(words, 300)[1:-1]})"
        return f"its process has ended (status {self.process.returncode})"

    def _is_foreign(self) -> str:
        """Note that what was started is no sampler, and return that."""
        problem = "what it starts is no process of keisei's"
        found_out(program(), problem)
        return problem

    def _start(self, now: float) -> None:
        """Start the sampler."""
        try:
            self._where = os.getcwd()
        except OSError:
            self._where = os.sep
        self._received = self._unsent = b""
        self._has_greeted = self._has_spoken = False
        self._told, self._heard_at = {}, now
        self._losses.begun(now)
        self.process = spawn(program(), dict(os.environ), self._where, _BEGINS, is_whole=False)
        self._pipe = Pipe(self.process)

    def _read(self, subscribers: list[Subscriber], now: float) -> bool:
        """Hand out what has been written; returns whether the sampler still runs."""
        assert self._pipe is not None
        data, is_open = self._pipe.read()
        if data:
            self._heard_at = now  # a program that was stopped reads first, and then looks
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            if not self._has_greeted:
                self._has_greeted = line + b"\n" == GREETING
                if not self._has_greeted:
                    return False
                continue
            sample = sample_in(line)
            if sample is None:
                continue
            if not self._has_spoken:
                self._has_spoken = True
                self._change(subscribers, Sample(states={"sampler": ("ok", "")}))
            self._backoff.reset()
            self._hand_out(subscribers, sample)
        return is_open

    def _hand_out(self, subscribers: list[Subscriber], sample: Sample) -> None:
        drawn = {}
        for name, counter in sample.energy.items():
            if (before := self._counters.get(name)) is not None:
                drawn[name] = grown(before, counter)
            self._counters[name] = counter
        if sample.about:
            self._about = {**self._about, **sample.about}
        self._deliver(subscribers, sample, drawn)

    def _change(self, subscribers: list[Subscriber], sample: Sample) -> None:
        """Hand out a sample that says only how a source is."""
        self._deliver(subscribers, sample, {})

    def _deliver(
        self, subscribers: list[Subscriber], sample: Sample, drawn: Mapping[str, float]
    ) -> None:
        """Hand each session what is read of the machine, and of the samplers that it names."""
        self._say(sample)
        for subscriber in subscribers:
            others = self._plugged - subscriber.samplers.keys()
            subscriber.take(*without(others, sample, drawn, self._about))

    def _say(self, sample: Sample) -> None:
        """Log what is wrong with a source, once for each."""
        for change in changes(self._states, sample):
            said = (change.source, change.state)
            if change.state in TROUBLES and said not in self._said:
                self._said.add(said)
                text = "resources: %s is %s (%s): it is not measured, and the training goes on"
                logger.warning(text, *change)
        self._states |= sample.states

    def _lose(self, subscribers: list[Subscriber], state: str, problem: str) -> None:
        """End a sampler that is not well; another one is started after a pause."""
        self._end()
        now = time.monotonic()
        self._start_at = now + self._backoff.next()
        shown = "hung" if state == "hung" else "failed"
        states = {"sampler": (shown, problem)}
        self._change(subscribers, Sample(states=states | self._losses.lost(now)))

    def _tell(self, subscribers: list[Subscriber], each: float) -> None:
        """Write to the sampler what has changed of what it is to read."""
        assert self._pipe is not None
        directories = {s.key: s.directory for s in subscribers}
        samplers = self._losses.left_of(options_of(s.samplers for s in subscribers))
        self._plugged |= samplers.keys()
        environ = {name: os.environ[name] for name in VARIABLES if name in os.environ}
        wanted = {
            "pace": each,
            "interval": min(s.interval for s in subscribers),
            "environ": environ,
            "directories": directories,
            "samplers": samplers,
            "where": self._where,
        }
        if wanted != self._told:
            before = self._told.get("directories", {})
            request = {
                **wanted,
                "directories": None,
                "add": {key: path for key, path in directories.items() if key not in before},
                "remove": [key for key in before if key not in directories],
                "launch": self._launch,
                "local_rank": self._local_rank,
            }
            self._unsent += json.dumps(request, default=str).encode() + b"\n"
            self._told = wanted
        if self._unsent:
            self._unsent = self._unsent[self._pipe.write(self._unsent) :]

    def _end(self) -> None:
        """End the sampler. It is not waited for long: it may hang in its driver."""
        process, self.process, self._pipe = self.process, None, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                cast(IO[bytes], pipe).close()
        kill(process)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.5)


_lock = threading.RLock()  # re-entrant: a signal may end a session
_current: Sampling | None = None
_keys = iter(range(1, 1 << 62))
_inherited: list[Sampling] = []
_reasons = set[str]()


def subscribe(subscriber: Subscriber, launch: str, local_rank: int) -> None:
    """Hand samples to a session from now on; not for a loop: it may start a thread.

    Args:
        subscriber: the session.
        launch: what this process and its ranks on this machine have in common; empty without any.
        local_rank: which of them it is.

    Raises:
        RuntimeError: no thread can be started.
    """
    global _current
    with _lock:
        subscriber.key = str(next(_keys))
        is_new = _current is None or _current.over
        if _current is None or _current.over:
            sampling = Sampling(launch, local_rank)
            sampling.threads = join_threads(sampling)
            _current = sampling
        if subscriber.samplers:
            others = (each.samplers for each in _current.subscribers.values())
            subscriber.samplers = usable(subscriber.samplers, others)
        _current.subscribers[subscriber.key] = subscriber
        threads = _current.threads
        assert threads is not None
        if is_new or _current.process is not None:  # else it looks within a second in any case
            threads.call(_current, YOUNGEST)


def unsubscribe(subscriber: Subscriber) -> None:
    """Hand a session no more samples; never waits.

    Where no sampler has been started, nothing is woken: what is left ends within a second.
    """
    with _lock:
        sampling = _current
        if sampling is None or sampling.subscribers.pop(subscriber.key, None) is None:
            return
        is_asleep = sampling.process is None and not sampling.is_impossible
        if not sampling.subscribers and sampling.threads is not None and not is_asleep:
            sampling.threads.call(sampling, 0.0)


def _impossible() -> str | None:
    """Return why there can be no sampler."""
    if importlib.util.find_spec("psutil") is None:
        return "it needs psutil: install it with `pip install 'keisei[monitoring]'`"
    return why_not()


def _say_once(reason: str, *, is_wanted: bool) -> None:
    if reason not in _reasons:
        _reasons.add(reason)
        level = logging.WARNING if is_wanted else logging.DEBUG
        logger.log(level, "what runs use of this machine is not measured: %s", reason)


def _after_fork() -> None:
    global _lock, _current
    _lock = threading.RLock()
    if _current is not None:
        _inherited.append(_current)
        _current.forget()
    _current = None


after_in_child(_after_fork)
