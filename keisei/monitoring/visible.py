"""Which devices of a machine a program may use, as CUDA and ROCm decide it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Device:
    """A device as its driver lists it.

    Attributes:
        index: its number on the machine.
        uuid: what tells it from all others.
        part: which MIG instance of it this is; ``None`` for a whole device.
        parent: the device that a MIG instance is of; for a whole one its own UUID.
    """

    index: int
    uuid: str
    part: int | None = None
    parent: str = ""

    @property
    def label(self) -> str:
        """What it is called in the names of metrics."""
        return f"gpu.{self.index}" if self.part is None else f"gpu.{self.index}.mig.{self.part}"


def visible(devices: Sequence[Device], chosen: str | None) -> list[Device]:
    """Return the devices that a program may use, in the order in which it knows them.

    Args:
        devices: all, in the driver's order; a GPU that is divided is there as its instances.
        chosen: what `CUDA_VISIBLE_DEVICES` (for ROCm `HIP_VISIBLE_DEVICES` or
            `ROCR_VISIBLE_DEVICES`) says: numbers, UUIDs or their beginnings, those of MIG
            instances, too. ``None`` where it is not set: then all are. What comes after an entry
            that names no device does not count.
    """
    if chosen is None:
        return list(devices)
    found: list[Device] = []
    for entry in chosen.split(","):
        named = _named(devices, entry.strip())
        if not named:
            break
        found += [device for device in named if device not in found]
    return found


def chosen_in(environ: Mapping[str, str], names: Sequence[str]) -> str | None:
    """Return what the first variable of some that is set says; ``None`` where none is."""
    return next((environ[name] for name in names if name in environ), None)


def _named(devices: Sequence[Device], entry: str) -> list[Device]:
    if entry.isascii() and entry.isdigit():
        return [device for device in devices if device.index == int(entry)]
    if not entry.startswith(("GPU-", "MIG-")):
        return []
    if entry.startswith("MIG-GPU-") and "/" in entry:  # of old drivers: the parent, and two numbers
        return [device for device in devices if device.uuid == entry]
    found = [device for device in devices if device.uuid.startswith(entry)]
    if not found:
        found = [device for device in devices if device.parent.startswith(entry)]
    whole = {device.parent or device.uuid for device in found}
    is_one = len(found) == 1 or (len(whole) == 1 and entry.startswith("GPU-"))
    return found if is_one else []  # one that fits several is no name
