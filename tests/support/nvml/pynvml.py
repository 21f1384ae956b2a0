"""A stand-in for NVIDIA's library, with GPUs that a test makes hang, vanish and fall off.

It is found before the real one where this folder is on the program's path. What it does is told by
files of the directory that `KEISEI_TEST_NVML` names, which may come and go: `gpus` (how many),
`mig` (the numbers of divided GPUs), `hang`, `gone`, `lost` (the numbers of GPUs that have fallen
off).
"""

from __future__ import annotations

import os
import time

NVML_TEMPERATURE_GPU = 0
PARTS = 2
WATTS = 250.0
_BEGAN = time.monotonic()
_WHERE = os.environ.get("KEISEI_TEST_NVML", "")


class NVMLError(Exception):
    def __init__(self, value: int) -> None:
        super().__init__(f"NVML error {value}")
        self.value = value


class _Utilization:
    gpu, memory = 87, 40


class _Memory:
    total, free, used = 80 * 2**30, 60 * 2**30, 20 * 2**30


def _told(name: str) -> list[str] | None:
    if not _WHERE:
        return None
    try:
        with open(os.path.join(_WHERE, name)) as file:
            return file.read().split()
    except OSError:
        return None


def _called(handle: str | None = None) -> None:
    while _told("hang") is not None:
        time.sleep(0.01)
    if _told("gone") is not None:
        raise NVMLError(9)
    if handle is not None and handle.split(".")[0] in (_told("lost") or ()):
        raise NVMLError(15)


def nvmlInit() -> None:
    _called()


def nvmlShutdown() -> None:
    return None


def nvmlDeviceGetCount() -> int:
    _called()
    return int((_told("gpus") or ["8"])[0])


def nvmlDeviceGetHandleByIndex(index: int) -> str:
    _called()
    return str(index)


def nvmlDeviceGetUUID(handle: str) -> str:
    _called(handle)
    index, _, part = handle.partition(".")
    return f"MIG-{index}{part}bbbbbb-0000" if part else f"GPU-{index}aaaaaaa-0000"


def nvmlDeviceGetName(handle: str) -> str:
    return "Stand-in 9000"


def nvmlDeviceGetMigMode(handle: str) -> tuple[int, int]:
    _called(handle)
    return (1, 1) if handle in (_told("mig") or ()) else (0, 0)


def nvmlDeviceGetMaxMigDeviceCount(handle: str) -> int:
    return 7


def nvmlDeviceGetMigDeviceHandleByIndex(handle: str, index: int) -> str:
    _called(handle)
    if index >= PARTS:
        raise NVMLError(6)
    return f"{handle}.{index}"


def nvmlDeviceGetUtilizationRates(handle: str) -> _Utilization:
    _called(handle)
    return _Utilization()


def nvmlDeviceGetMemoryInfo(handle: str) -> _Memory:
    _called(handle)
    return _Memory()


def nvmlDeviceGetPowerUsage(handle: str) -> int:
    _called(handle)
    return int(WATTS * 1000)


def nvmlDeviceGetTotalEnergyConsumption(handle: str) -> int:
    _called(handle)
    return int(1000 * WATTS * (1000 + time.monotonic() - _BEGAN))


def nvmlDeviceGetTemperature(handle: str, sensor: int) -> int:
    _called(handle)
    return 61
