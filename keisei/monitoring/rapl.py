"""The energy of CPUs and their memory, as Linux's powercap tells it."""

from __future__ import annotations

import os
import re

from keisei.monitoring.once import MachineLocks
from keisei.monitoring.readings import Counter, Reading

WHERE = "/sys/class/powercap"
NO_COUNTERS = "this machine shows no counters of RAPL"
_PACKAGE = re.compile(r"(?:intel|amd)-rapl:\d+")
_DOMAIN = re.compile(r"(?:intel|amd)-rapl:\d+:\d+")


class RaplSource:
    """The counters of the processors' packages, and of memory that is counted apart.

    They count for the whole machine, whoever uses it.

    Args:
        locks: says which of the machine's ranks reads them.
        where: the directory of the counters.
    """

    name = "energy"

    def __init__(self, locks: MachineLocks, where: str = WHERE) -> None:
        self._locks, self._where = locks, where

    def read(self) -> Reading:
        """Read them; where there are none, that is said."""
        try:
            names = sorted(os.listdir(self._where))
        except OSError:
            return Reading(unmeasured={"cpu.energy": NO_COUNTERS})
        reading, found = Reading(), False
        for name in names:
            if not _PACKAGE.fullmatch(name) and not _DOMAIN.fullmatch(name):
                continue
            try:
                kind = self._text(name, "name")
                if _DOMAIN.fullmatch(name) and kind != "dram":
                    continue  # a part of its package
                if kind == "psys":
                    continue  # the packages are parts of it
                found = True
                if not self._locks.holds("cpu energy"):
                    continue
                counted = float(self._text(name, "energy_uj")) / 1e6
                size = float(self._text(name, "max_energy_range_uj")) / 1e6
            except PermissionError:
                reading.unmeasured["cpu.energy"] = "RAPL's counters may be read by root alone"
                continue
            except (OSError, ValueError) as exc:
                reading.unmeasured["cpu.energy"] = f"RAPL does not answer: {type(exc).__name__}"
                continue
            reading.energy[f"cpu.{kind}.{name.split(':', 1)[1]}"] = Counter(counted, size)
        if not found:
            reading.unmeasured.setdefault("cpu.energy", NO_COUNTERS)
        return reading

    def _text(self, name: str, field: str) -> str:
        with open(os.path.join(self._where, name, field), encoding="ascii") as file:
            return file.read(64).strip()
