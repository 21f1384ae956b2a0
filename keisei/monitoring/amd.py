"""AMD's GPUs, over `amdsmi`, which comes with ROCm."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from keisei.monitoring.accelerators import DriverGoneError, Gauges
from keisei.monitoring.visible import Device


class Amd:
    """The driver of AMD's GPUs."""

    variables: tuple[str, ...] = (
        "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES",
        "CUDA_VISIBLE_DEVICES",
    )

    def __init__(self) -> None:
        self._smi: Any = None
        self._handles: dict[str, Any] = {}

    def open(self) -> bool:
        """Begin; false where there is no library or no driver."""
        try:
            import amdsmi
        except Exception:  # noqa: BLE001 - it raises what its own library's loader does
            return False
        self._smi = amdsmi
        try:
            amdsmi.amdsmi_init()
        except Exception:  # noqa: BLE001 - as above
            return False
        return True

    def devices(self) -> list[Device]:
        """Return the GPUs, by their number."""
        try:
            handles = list(self._smi.amdsmi_get_processor_handles())
        except Exception as exc:
            raise DriverGoneError(f"AMD's driver does not answer: {exc}") from exc
        found = []
        self._handles.clear()
        for index, handle in enumerate(handles):
            uuid = str(self._asked("amdsmi_get_gpu_device_uuid", handle) or f"amd-{index}")
            self._handles[uuid] = handle
            found.append(Device(index, uuid, None, uuid))
        return found

    def name(self, device: Device) -> str:
        """Return what kind of GPU it is."""
        found = self._asked("amdsmi_get_gpu_asic_info", self._handles[device.uuid])
        return str(_of(found, "market_name") or "")

    def read(self, device: Device) -> Gauges:
        """Return what a GPU says now."""
        handle, smi = self._handles[device.uuid], self._smi
        kinds = getattr(smi, "AmdSmiMemoryType", None)
        vram = getattr(kinds, "VRAM", None)
        power = self._asked("amdsmi_get_power_info", handle)
        sensors, gauges = (
            getattr(smi, name, None)
            for name in ("AmdSmiTemperatureType", "AmdSmiTemperatureMetric")
        )
        sensor, now = getattr(sensors, "HOTSPOT", None), getattr(gauges, "CURRENT", None)
        energy = self._asked("amdsmi_get_energy_count", handle)
        counted = _number(_of(energy, "energy_accumulator", "power"))
        unit = _number(_of(energy, "counter_resolution"))  # microjoules
        used = _number(self._asked("amdsmi_get_gpu_memory_usage", handle, vram))
        size = _number(self._asked("amdsmi_get_gpu_memory_total", handle, vram))
        return Gauges(
            load=_number(_of(self._asked("amdsmi_get_gpu_activity", handle), "gfx_activity")),
            memory_used=None if used is None else int(used),
            memory_size=None if size is None else int(size),
            power=_number(_of(power, "current_socket_power", "average_socket_power")),
            temperature=_number(self._asked("amdsmi_get_temp_metric", handle, sensor, now)),
            energy=None if counted is None or unit is None else counted * unit / 1e6,
        )

    def close(self) -> None:
        """Close the library."""
        if self._smi is not None:
            with suppress(Exception):
                self._smi.amdsmi_shut_down()
        self._handles.clear()

    def _asked(self, name: str, *args: Any) -> Any:
        """Return what a call says; ``None`` where this library or this GPU does not say it."""
        call: Callable[..., Any] | None = getattr(self._smi, name, None)
        if call is None:
            return None
        try:
            return call(*args)
        except Exception:  # noqa: BLE001 - one gauge less
            return None


def _of(found: object, *names: str) -> object:
    """Return the first of some fields that is a number or a text."""
    if isinstance(found, dict):
        for name in names:
            if found.get(name) not in (None, "N/A"):
                return found[name]
    return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
