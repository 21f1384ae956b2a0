"""The samplers of installed packages, by the names that configs have: `keisei.resources`."""

from __future__ import annotations

import re
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any, cast

from keisei._io.plugins import Kind, check_name, load
from keisei._log import logger
from keisei.errors import KeiseiError, quoted
from keisei.monitoring.making import SamplerFactory, SamplerInfo
from keisei.monitoring.readings import Reading, Source, under

Options = Mapping[str, Mapping[str, Any]]

# The names of keisei's own sources, and what else the rows and states of theirs begin with.
_OWN = "amd apple cpu disk energy gpu host memory network processes sampler"
SAMPLER = Kind(
    "keisei.resources",
    "sampler",
    dict.fromkeys(_OWN.split(), "keisei.monitoring.sampler:OWN"),
    KeiseiError,
)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_front_door = threading.Lock()
_SOON = 60.0  # seconds; a sampler that ends within them may have been ended by a package's
_MOST_LOSSES = 3


class Plugged:
    """A sampler of an installed package, which is imported, made and read on the thread that asks.

    Args:
        name: its name.
        options: what the config has for it.
        info: about the program.
    """

    def __init__(self, name: str, options: Mapping[str, Any], info: SamplerInfo) -> None:
        self.name, self._options, self._info = name, options, info
        self._source: Source | None = None

    def read(self) -> Reading | None:
        """Read it, under its name; ``None`` where there is nothing of its kind on this machine.

        Raises:
            Exception: it cannot be imported, made or read now.
        """
        if self._source is None:
            _make_keisei_whole()
            make = cast(SamplerFactory, load(SAMPLER, self.name))
            self._source = make(self._info, **self._options)
        reading = self._source.read()
        return None if reading is None else under(self.name, reading)


def options_of(sessions: Iterable[Options]) -> dict[str, Mapping[str, Any]]:
    """Return the samplers that sessions name, with their options: the first session's count.

    Args:
        sessions: what each session names.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for samplers in sessions:
        for name, options in samplers.items():
            found.setdefault(name, options)
    return found


def usable(samplers: Options, others: Iterable[Options]) -> Options:
    """Return the samplers whose names can be used; of the others, a warning says why.

    Args:
        samplers: what a session names, with the options.
        others: what earlier sessions of the program name.
    """
    earlier, found = options_of(others), dict(samplers)
    for name, options in samplers.items():
        try:
            check_name(SAMPLER, name)
            if not _NAME.fullmatch(name):
                raise KeiseiError(f"{quoted(name)} is no sampler's name: letters, digits, _, -")
        except KeiseiError as exc:
            del found[name]
            logger.warning("monitoring.samplers: %s", exc)
        if earlier.get(name, options) != options:
            text = "monitoring.samplers: %s is read with the options of an earlier session"
            logger.warning(text, name)
    return found


class Losses:
    """Counts how often the sampler has ended early while it read samplers of packages.

    One of these may end the process as it likes; then the others, and keisei's own, go on without
    them.
    """

    def __init__(self) -> None:
        self._count = 0
        self._began = 0.0
        self._read: set[str] = set()
        self._left_out: set[str] = set()

    def begun(self, now: float) -> None:
        """Note that a sampler has been started.

        Args:
            now: the time by the monotonic clock.
        """
        self._began, self._read = now, set()

    def left_of(self, samplers: dict[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
        """Return of the samplers that are wanted those that are still read.

        Args:
            samplers: those that are wanted.
        """
        left = {name: each for name, each in samplers.items() if name not in self._left_out}
        self._read |= left.keys()
        return left

    def lost(self, now: float) -> dict[str, tuple[str, str]]:
        """Note that the sampler has ended; return which of the packages' are read no more, and why.

        Args:
            now: the time by the monotonic clock.
        """
        if not self._read or now - self._began > _SOON:
            return {}
        self._count += 1
        if self._count < _MOST_LOSSES:
            return {}
        why = f"the process has ended {self._count} times while it was read: it is read no more"
        self._left_out |= self._read
        self._count = 0
        return dict.fromkeys(self._read, ("failed", why))


def _make_keisei_whole() -> None:
    """Import the front door, which the sampler does without, for what packages import of it."""
    keisei = sys.modules["keisei"]
    with _front_door:  # each sampler comes on a thread of its own
        if not hasattr(keisei, "SessionManager") and (spec := keisei.__spec__) is not None:
            assert spec.loader is not None
            spec.loader.exec_module(keisei)
