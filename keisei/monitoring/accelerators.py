"""The source of what accelerators do, over the library of whichever driver there is."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from keisei.monitoring.once import MachineLocks
from keisei.monitoring.readings import Counter, Reading
from keisei.monitoring.visible import Device, chosen_in, visible

LIST_AGAIN = 60.0  # seconds


class DriverGoneError(Exception):
    """The driver, or its library, does not answer any more."""


class DeviceLostError(Exception):
    """A device does not answer any more."""


@dataclass(frozen=True)
class Gauges:
    """What a device says of itself; ``None`` where it does not.

    Attributes:
        load: for how much of the time it was busy, in percent.
        memory_used: how much of its memory is taken, in bytes.
        memory_size: how much it has, in bytes.
        power: what it draws, in watts.
        temperature: how hot it is, in degrees Celsius.
        energy: what it has drawn since the driver was loaded, in joules.
    """

    load: float | None = None
    memory_used: int | None = None
    memory_size: int | None = None
    power: float | None = None
    temperature: float | None = None
    energy: float | None = None


class Driver(Protocol):
    """The library of a driver, behind what all of them can do.

    Attributes:
        variables: what in the environment says which devices a program may use; the first counts.
    """

    variables: tuple[str, ...]

    def open(self) -> bool:
        """Begin; false where there is no such driver on this machine.

        Raises:
            ImportError: its library is not installed.
        """
        ...

    def devices(self) -> list[Device]:
        """Return the devices, instances of divided ones in place of these.

        Raises:
            DriverGoneError: the driver does not answer.
        """
        ...

    def name(self, device: Device) -> str:
        """Return what kind of device it is."""
        ...

    def read(self, device: Device) -> Gauges:
        """Return what a device says now.

        Raises:
            DeviceLostError: it does not answer any more.
            DriverGoneError: the driver does not.
        """
        ...

    def close(self) -> None:
        """Begin anew with the next `open`."""
        ...


class AcceleratorSource:
    """The visible devices of one driver; of what several ranks see, each is one rank's.

    Args:
        name: what the source is called.
        driver: the driver.
        locks: says which devices are this process's to read.

    Attributes:
        environ: the variables of the program that decide what it may use.
    """

    def __init__(self, name: str, driver: Driver, locks: MachineLocks) -> None:
        self.name = name
        self.environ: Mapping[str, str] = {}
        self._driver, self._locks = driver, locks
        self._is_open = False
        self._seen = False  # whether the driver has ever answered
        self._devices: list[Device] = []
        self._listed_at = 0.0
        self._names: dict[str, str] = {}
        self._drawn: dict[str, tuple[float, float, float]] = {}  # when, watts, joules by then

    def read(self) -> Reading | None:
        """Read the devices; ``None`` where this machine has none of this driver's.

        Raises:
            DriverGoneError: the driver has gone.
        """
        try:
            if not self._is_open:
                try:
                    self._is_open = self._driver.open()
                except ImportError as exc:
                    return Reading(unmeasured={self.name: str(exc)})
                self._listed_at = 0.0
            if not self._is_open:
                if self._seen:
                    raise DriverGoneError("the driver has gone")
                return None
            self._seen = True
            return self._read()
        except DriverGoneError:
            self._is_open = False
            self._driver.close()
            raise

    def _read(self) -> Reading:
        now = time.monotonic()
        if not self._listed_at or now >= self._listed_at + LIST_AGAIN:
            self._devices, self._listed_at = self._driver.devices(), now
        reading = Reading()
        chosen = chosen_in(self.environ, self._driver.variables)
        mine = [each for each in visible(self._devices, chosen) if self._locks.holds(each.uuid)]
        shown = []
        for device in mine:
            shown.append(self._about(device))
            try:
                gauges = self._driver.read(device)
            except DeviceLostError as exc:
                reading.problems[device.label] = str(exc)
                continue
            reading.metrics |= _metrics(device.label, gauges)
            if device.part is not None:
                why = "the energy of a MIG instance is not told apart from its GPU's"
                reading.unmeasured[f"{device.label}.energy"] = why
            elif (energy := self._energy(device, gauges, now)) is not None:
                reading.energy[device.label] = Counter(energy)
        reading.about = {"gpus": len(mine), "devices": shown}
        return reading

    def _about(self, device: Device) -> dict[str, Any]:
        if device.uuid not in self._names:
            self._names[device.uuid] = self._driver.name(device)
        return {"label": device.label, "uuid": device.uuid, "name": self._names[device.uuid]}

    def _energy(self, device: Device, gauges: Gauges, now: float) -> float | None:
        """Return the counter of a device's energy, counted here where it has none itself."""
        if gauges.energy is not None or gauges.power is None:
            return gauges.energy
        then, watts, joules = self._drawn.get(device.uuid, (now, gauges.power, 0.0))
        joules += (now - then) * (watts + gauges.power) / 2
        self._drawn[device.uuid] = now, gauges.power, joules
        return joules


def _metrics(label: str, gauges: Gauges) -> dict[str, float]:
    found: dict[str, float | None] = {
        "load": gauges.load,
        "memory_bytes": gauges.memory_used,
        "power_watts": gauges.power,
        "temperature_celsius": gauges.temperature,
    }
    if gauges.memory_used is not None and gauges.memory_size:
        found["memory"] = 100 * gauges.memory_used / gauges.memory_size
    return {f"{label}.{name}": value for name, value in found.items() if value is not None}
