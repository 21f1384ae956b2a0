"""What a program runs on: the machine, its GPUs' driver, the container, Python, the command line.

Files are read, and nothing is run: a driver that hangs cannot be asked.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from contextlib import suppress
from glob import glob
from typing import Any

from keisei._io.process import host_name
from keisei.redaction import clean

# Variables that decide how a training runs; the rest of an environment is nobody's business.
_TELLING = re.compile(
    r"(CUDA|CUBLAS|CUDNN|NCCL|OMP|MKL|OPENBLAS|KMP|TORCH|PYTORCH|XLA|JAX|TF|HIP|ROCR|HSA|KEISEI"
    r"|SLURM|PBS|LSB|OMPI|PMI|MASTER|RAY|ACCELERATE|TRANSFORMERS)_\w+"
    r"|PYTHON\w*|(LOCAL_)?RANK|(LOCAL_)?WORLD_SIZE|VIRTUAL_ENV|CONDA_(PREFIX|DEFAULT_ENV)|LD_PRELOAD"
    r"|LD_LIBRARY_PATH|MALLOC_\w+"
)
_MOST, _LONGEST = 300, 2_000
_CONTAINERS = [
    ("/.dockerenv", "docker"),
    ("/run/.containerenv", "podman"),
    ("/.singularity.d", "apptainer"),
]


def machine() -> dict[str, Any]:
    """Return what the program runs on, as plain data without secrets; blocks."""
    return clean(
        {
            "host": host_name(),
            "system": platform.platform(),
            "processor": _processor(),
            "cores": os.cpu_count(),
            "usable_cores": _usable_cores(),
            "memory_bytes": _memory(),
            "python": platform.python_version(),
            "implementation": platform.python_implementation(),
            "executable": sys.executable,
            "driver": _driver(),
            "gpus": _gpus(),
            "container": _container(),
            "frameworks": _frameworks(),
        }
    )


def command() -> dict[str, Any]:
    """Return how the program was started, as plain data without secrets; blocks."""
    environ = {
        name: value[:_LONGEST]
        for name, value in sorted(os.environ.items())
        if _TELLING.fullmatch(name)
    }
    directory = None
    with suppress(OSError):
        directory = os.getcwd()
    given = [word[:_LONGEST] for word in sys.orig_argv[:_MOST]]
    return clean(
        {
            "arguments": given,
            "arguments_left_out": max(0, len(sys.orig_argv) - _MOST),
            "directory": directory,
            "environment": dict(list(environ.items())[:_MOST]),
        }
    )


def _text(path: str) -> str | None:
    with suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
        return file.read(1 << 16)
    return None


def _processor() -> str | None:
    found = re.search(r"^model name\s*:\s*(.+)$", _text("/proc/cpuinfo") or "", re.MULTILINE)
    return found[1] if found else platform.processor() or None


def _usable_cores() -> int | None:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else None


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _driver() -> str | None:
    nvidia = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", _text("/proc/driver/nvidia/version") or "")
    if nvidia:
        return f"nvidia {nvidia[1]}"
    amd = (_text("/sys/module/amdgpu/version") or "").strip()
    return f"amdgpu {amd}" if amd else None


def _gpus() -> list[dict[str, str]]:
    found = []
    for path in sorted(glob("/proc/driver/nvidia/gpus/*/information"))[:64]:
        lines = dict(re.findall(r"^([^:\n]+):\s*(.*)$", _text(path) or "", re.MULTILINE))
        found.append({"model": lines.get("Model", ""), "uuid": lines.get("GPU UUID", "")})
    return found


def _container() -> str | None:
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return "kubernetes"
    for path, name in _CONTAINERS:
        if os.path.exists(path):
            return name
    found = re.search(r"docker|kubepods|libpod|lxc|containerd", _text("/proc/1/cgroup") or "")
    return found[0] if found else None


def _frameworks() -> dict[str, str]:
    """Return what the frameworks that the program has imported were built for."""
    found = {}
    torch = sys.modules.get("torch")
    for name in ("cuda", "hip"):
        version = getattr(getattr(torch, "version", None), name, None)
        if version:
            found[f"torch.{name}"] = str(version)
    return found
