"""The sampler: a process beside the program that reads what it uses, and writes it as lines.

It imports little of the rest of keisei. It ends when its program does, or asks it to; it ignores
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
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import IO, Any

from keisei.monitoring.accelerators import AcceleratorSource
from keisei.monitoring.amd import Amd
from keisei.monitoring.asking import Asked
from keisei.monitoring.host import DiskSource, HostSource
from keisei.monitoring.making import SamplerInfo
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
        self._directories: dict[str, str] = {}
        self._environ: Mapping[str, str] = {}
        self._own: list[Source] = []
        self._samplers: Mapping[str, Mapping[str, Any]] = {}
        self._plugged: dict[str, Asked] = {}

    def run(self) -> None:
        """Sample until the program is gone."""
        first = self._requests.readline()
        if not first:
            return
        request = json.loads(first)
        locks = MachineLocks(request["launch"], request["local_rank"])
        self._info = SamplerInfo(self._program, request["where"], locks)
        self._own = [each for make in OWN.values() if (each := make(self._info)) is not None]
        self._take(request)
        self._asked = [Asked(source) for source in self._own]
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
        asked = [*self._asked, *self._plug_in()]
        for each in asked:
            each.ask(began)
        patience = self._interval / 2
        for each in asked:
            each.wait(began + min(patience, self._pace / 2))
        sample = Sample()
        for each in asked:
            each.collect(sample, patience)
        if sample.states.get("gpu") == ("absent", ""):
            sample.about.setdefault("gpus", 0)
        changed = {k: value for k, value in sample.about.items() if self._about.get(k) != value}
        self._about |= changed
        sample.about = changed
        return sample

    def _plug_in(self) -> list[Asked]:
        """Return the samplers of installed packages that are wanted by now."""
        if not (wanted := self._samplers):
            return []
        from keisei.monitoring.plugged import Plugged  # 26 ms and 1.6 MB that others save

        before = self._plugged
        self._plugged = {
            name: before.get(name) or Asked(Plugged(name, options, self._info))
            for name, options in wanted.items()
        }
        return list(self._plugged.values())

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
        directories = dict(self._directories)
        for key in request["remove"]:
            directories.pop(key, None)
        self._directories = directories | request["add"]
        self._samplers = request["samplers"]
        for source in self._own:
            if isinstance(source, DiskSource):
                source.directories = self._directories
            elif isinstance(source, AcceleratorSource):
                source.environ = request["environ"]


class AppleSource:
    """Says of Apple's machines what cannot be read without root."""

    name = "apple"

    def read(self) -> Reading:
        """Return what is not measured."""
        why = "Apple's powermetrics needs root"
        return Reading(unmeasured={"gpu.load": why, "energy": why})


def _amd(info: SamplerInfo) -> Source | None:
    from importlib.util import find_spec

    return AcceleratorSource("amd", Amd(), info.locks) if find_spec("amdsmi") else None


# keisei's own samplers, made as those of packages are; none where there is nothing of their kind.
OWN: dict[str, Callable[[SamplerInfo], Source | None]] = {
    "host": lambda info: HostSource(info.program),
    "disk": lambda info: DiskSource(),
    "gpu": lambda info: AcceleratorSource("gpu", Nvidia(), info.locks),
    "amd": _amd,
    "energy": lambda info: RaplSource(info.locks),
    "apple": lambda info: AppleSource() if sys.platform == "darwin" else None,
}


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
