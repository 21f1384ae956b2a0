"""NVIDIA's GPUs, over `nvidia-ml-py`."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from keisei.monitoring.accelerators import DeviceLostError, DriverGoneError, Gauges
from keisei.monitoring.visible import Device

T = TypeVar("T")

# What NVML's calls return, as nvml.h has it.
_UNINITIALIZED, _NO_DRIVER, _NO_LIBRARY, _MISMATCH = 1, 9, 12, 18
_LOST, _RESET_REQUIRED, _UNKNOWN = 15, 16, 999
_GONE = frozenset([_UNINITIALIZED, _NO_DRIVER, _NO_LIBRARY, _MISMATCH])
_DEVICE_GONE = frozenset([_LOST, _RESET_REQUIRED, _UNKNOWN])


class Nvidia:
    """The driver of NVIDIA's GPUs."""

    variables: tuple[str, ...] = ("CUDA_VISIBLE_DEVICES",)

    def __init__(self) -> None:
        self._nvml: Any = None
        self._handles: dict[str, Any] = {}

    def open(self) -> bool:
        """Begin; false where there is no driver.

        Raises:
            ImportError: nvidia-ml-py is not installed.
            DriverGoneError: there is one, and it does not answer.
        """
        import pynvml

        self._nvml = pynvml
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as exc:
            if getattr(exc, "value", None) in (_NO_LIBRARY, _NO_DRIVER):
                return False
            raise DriverGoneError(f"NVIDIA's driver does not answer: {exc}") from exc
        return True

    def devices(self) -> list[Device]:
        """Return the GPUs, by their number, and the MIG instances in place of divided ones."""
        nvml = self._nvml
        found: list[Device] = []
        self._handles.clear()
        for index in range(self._asked(nvml.nvmlDeviceGetCount) or 0):
            handle = self._of_device(nvml.nvmlDeviceGetHandleByIndex, index)
            uuid = self._of_device(nvml.nvmlDeviceGetUUID, handle)
            if handle is None or uuid is None:
                continue
            parts = self._parts(index, handle, _text(uuid))
            if not parts:
                self._handles[_text(uuid)] = handle
                parts = [Device(index, _text(uuid), None, _text(uuid))]
            found += parts
        return found

    def name(self, device: Device) -> str:
        """Return what kind of GPU it is."""
        handle = self._handles.get(device.uuid)
        return _text(self._of_device(self._nvml.nvmlDeviceGetName, handle) or "")

    def read(self, device: Device) -> Gauges:
        """Return what a GPU says now."""
        nvml, handle = self._nvml, self._handles[device.uuid]
        memory = self._asked(nvml.nvmlDeviceGetMemoryInfo, handle)
        gauges = Gauges(
            memory_used=None if memory is None else int(memory.used),
            memory_size=None if memory is None else int(memory.total),
        )
        if device.part is not None:  # of these, an instance knows nothing else
            return gauges
        load = self._asked(nvml.nvmlDeviceGetUtilizationRates, handle)
        power = self._asked(nvml.nvmlDeviceGetPowerUsage, handle)
        energy = self._asked(nvml.nvmlDeviceGetTotalEnergyConsumption, handle)
        sensor = nvml.NVML_TEMPERATURE_GPU
        return Gauges(
            load=None if load is None else float(load.gpu),
            memory_used=gauges.memory_used,
            memory_size=gauges.memory_size,
            power=None if power is None else power / 1000,
            temperature=self._asked(nvml.nvmlDeviceGetTemperature, handle, sensor),
            energy=None if energy is None else energy / 1000,
        )

    def close(self) -> None:
        """Close the library."""
        if self._nvml is not None:
            with suppress(Exception):
                self._nvml.nvmlShutdown()
        self._handles.clear()

    def _parts(self, index: int, handle: Any, uuid: str) -> list[Device]:
        """Return the MIG instances of a GPU; none where it is not divided."""
        nvml = self._nvml
        mode = self._of_device(nvml.nvmlDeviceGetMigMode, handle)
        if not mode or not mode[0]:
            return []
        found = []
        for number in range(self._of_device(nvml.nvmlDeviceGetMaxMigDeviceCount, handle) or 0):
            part = self._of_device(nvml.nvmlDeviceGetMigDeviceHandleByIndex, handle, number)
            own = None if part is None else self._of_device(nvml.nvmlDeviceGetUUID, part)
            if own is not None:
                self._handles[_text(own)] = part
                found.append(Device(index, _text(own), number, uuid))
        return found

    def _of_device(self, call: Callable[..., T], *args: Any) -> T | None:
        """Return what a call says of a device; ``None`` where the device is lost, too."""
        try:
            return self._asked(call, *args)
        except DeviceLostError:
            return None

    def _asked(self, call: Callable[..., T], *args: Any) -> T | None:
        """Return what a call says; ``None`` where this GPU, or this driver, does not say it.

        Raises:
            DriverGoneError: the driver does not answer any more.
            DeviceLostError: the GPU does not.
        """
        try:
            return call(*args)
        except self._nvml.NVMLError as exc:
            code = getattr(exc, "value", None)
            if code in _GONE:
                raise DriverGoneError(f"NVIDIA's driver does not answer: {exc}") from exc
            if code in _DEVICE_GONE:
                raise DeviceLostError(str(exc)) from exc
            return None


def _text(value: str | bytes) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
