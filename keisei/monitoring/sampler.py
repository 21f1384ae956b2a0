"""The sampler: a process beside the program that reads what it uses, and writes it as lines.

It imports nothing of the rest of keisei. It ends when its program does, or asks it to; it ignores
what is typed at the program's terminal.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import IO, Any

from keisei.monitoring.accelerators import AcceleratorSource
from keisei.monitoring.amd import Amd
from keisei.monitoring.asking import Asked
from keisei.monitoring.host import DiskSource, HostSource
from keisei.monitoring.nvidia import Nvidia
from keisei.monitoring.once import MachineLocks
from keisei.monitoring.rapl import RaplSource
from keisei.monitoring.readings import Reading, Sample, Source, line_of

_LOOK = 1.0  # seconds between two looks whether the program lives
_NICENESS = 10
_IGNORED = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGBREAK", "SIGPIPE")


class Sampler:
    """Reads all sources each `pace` seconds.

    Args:
        requests: what the program asks for, as lines of JSON.
        output: the descriptor that lines are written to; a write to it may not block.
        program: the id of the program's process.
    """

    def __init__(self, requests: IO[bytes], output: int, program: int) -> None:
        self._requests, self._output, self._program = requests, output, program
        self._pace = self._interval = 1.0
        self._changed = threading.Event()
        self._gone = False
        self._unwritten = b""
        self._about: dict[str, Any] = {}
        self._asked: list[Asked] = []
        self._disk = DiskSource()
        self._gpus: list[AcceleratorSource] = []

    def run(self) -> None:
        """Sample until the program is gone."""
        first = self._requests.readline()
        if not first:
            return
        request = json.loads(first)
        locks = MachineLocks(request["launch"], request["local_rank"])
        self._gpus = [AcceleratorSource("gpu", Nvidia(), locks)]
        if _has_amd():
            self._gpus.append(AcceleratorSource("amd", Amd(), locks))
        sources: list[Source] = [
            HostSource(self._program),
            self._disk,
            *self._gpus,
            RaplSource(locks),
        ]
        if sys.platform == "darwin":
            sources.append(AppleSource())
        self._take(request)
        self._asked = [Asked(source) for source in sources]
        threading.Thread(target=self._take_requests, name="keisei-requests", daemon=True).start()
        gc.freeze()
        while self._lives():
            began = time.monotonic()
            self._write(self._sample(began))
            while (left := began + self._pace - time.monotonic()) > 0 and self._lives():
                if self._changed.wait(min(left, _LOOK)):
                    self._changed.clear()

    def _lives(self) -> bool:
        return not self._gone and os.getppid() == self._program

    def _sample(self, began: float) -> Sample:
        for asked in self._asked:
            asked.ask(began)
        patience = self._interval / 2
        for asked in self._asked:
            asked.wait(began + min(patience, self._pace / 2))
        sample = Sample()
        for asked in self._asked:
            asked.collect(sample, patience)
        if sample.states.get("gpu") == ("absent", ""):
            sample.about.setdefault("gpus", 0)
        changed = {k: value for k, value in sample.about.items() if self._about.get(k) != value}
        self._about |= changed
        sample.about = changed
        return sample

    def _write(self, sample: Sample) -> None:
        """Write a sample; where nobody reads, it is dropped."""
        is_dropped = bool(self._unwritten)
        data = self._unwritten or line_of(sample)
        try:
            self._unwritten = data[os.write(self._output, data) :]
        except BlockingIOError:
            is_dropped = True
        except OSError:  # the program is gone
            self._gone = True
        if is_dropped:
            self._about.clear()  # to be said again

    def _take_requests(self) -> None:
        with suppress(OSError, ValueError, TypeError, KeyError):
            for line in self._requests:
                self._take(json.loads(line))
                self._changed.set()
        os._exit(0)  # whatever a library is still doing

    def _take(self, request: Mapping[str, Any]) -> None:
        self._pace, self._interval = request["pace"], request["interval"]
        directories = dict(self._disk.directories)
        for key in request["remove"]:
            directories.pop(key, None)
        self._disk.directories = directories | request["add"]
        for source in self._gpus:
            source.environ = request["environ"]


class AppleSource:
    """Says of Apple's machines what cannot be read without root."""

    name = "apple"

    def read(self) -> Reading:
        """Return what is not measured."""
        why = "Apple's powermetrics needs root"
        return Reading(unmeasured={"gpu.load": why, "energy": why})


def _has_amd() -> bool:
    from importlib.util import find_spec

    return find_spec("amdsmi") is not None


def begin() -> None:
    """Be the sampler, over the pipes that the program has connected to it; never returns."""
    boot = sys.modules["__main__"]
    boot.keisei_host_process = True  # type: ignore[attr-defined]
    for name in _IGNORED:
        if (number := getattr(signal, name, None)) is not None:
            signal.signal(number, signal.SIG_IGN)
    if hasattr(os, "nice"):
        with suppress(OSError):
            os.nice(_NICENESS)
    output = boot.news.fileno()
    if os.name != "nt":
        os.set_blocking(output, False)
    try:
        Sampler(boot.requests, output, os.getppid()).run()
    finally:
        os._exit(0)
