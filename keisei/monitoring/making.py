"""How samplers are made: keisei's own, and those of installed packages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from keisei.monitoring.once import MachineLocks
from keisei.monitoring.readings import Source


@dataclass(frozen=True)
class SamplerInfo:
    """What a sampler is told when it is made.

    Attributes:
        program: the id of the program's process; the sampler runs in another one.
        working_directory: the program's, where relative paths among the options begin.
        locks: says which devices of the machine are this process's to read.
    """

    program: int
    working_directory: str
    locks: MachineLocks

    def holds(self, device: str) -> bool:
        """Return whether a device is to be read here: of several ranks that see it, one reads it.

        Args:
            device: a name of the device that is the same in all ranks.
        """
        return self.locks.holds(device)


# What an entry point of `keisei.resources` names, usually the sampler's class; it is given a
# `SamplerInfo`, and the options that the config has for it.
SamplerFactory = Callable[..., Source]
