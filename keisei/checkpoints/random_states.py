"""The states of the random generators of Python, numpy and torch: taken, and put back."""

from __future__ import annotations

import random
import sys
from array import array
from collections.abc import Callable
from typing import Any

from keisei._log import logger
from keisei.errors import describe


def take() -> dict[str, Any]:
    """Return the states of the process's own generators, of those libraries that are imported.

    They are Python's `random`, numpy's `numpy.random` (a `Generator` that the program has made is
    part of the program's state), torch's on the CPU, and on each CUDA device in use.
    """
    states: dict[str, Any] = {"random": random.getstate()}
    if (numpy := _imported("numpy")) is not None:
        state = numpy.random.get_state(legacy=False)
        inner = dict(state["state"])
        if "key" in inner:
            inner["key"] = inner["key"].tolist()
        states["numpy"] = {**state, "state": inner}
    if (torch := _imported("torch")) is not None:
        states["torch"] = _bytes(torch.get_rng_state())
        if torch.cuda.is_initialized():
            states["cuda"] = [_bytes(state) for state in torch.cuda.get_rng_state_all()]
    return states


def put_back(states: dict[str, Any]) -> tuple[str, ...]:
    """Set the generators to states that `take` has returned, and return the names of those set.

    Args:
        states: the states. What is not imported here is left out; what does not fit (another
            version of a library, say) is left as it is, with a warning.
    """
    done = []
    for name, put in _PUT.items():
        library = _imported("torch" if name == "cuda" else name)
        if name not in states or library is None:
            continue
        try:
            put(library, states[name])
        except Exception as exc:  # noqa: BLE001 - whatever a library says of such a state
            logger.warning(
                "the random state of %s cannot be set to the checkpoint's, and stays as it is: %s",
                name,
                describe(exc),
            )
        else:
            done.append(name)
    return tuple(done)


def _put_numpy(numpy: Any, state: dict[str, Any]) -> None:
    inner = dict(state["state"])
    if "key" in inner:
        key = array("I", inner["key"])  # numpy 1.26 would take a number that does not fit
        inner["key"] = numpy.array(key, dtype=numpy.uint32)
    numpy.random.set_state({**state, "state": inner})


def _put_cuda(torch: Any, states: list[bytes]) -> None:
    for device, state in enumerate(states[: torch.cuda.device_count()]):
        torch.cuda.set_rng_state(_tensor(torch, state), device)


_PUT: dict[str, Callable[[Any, Any], None]] = {
    "random": lambda module, state: module.setstate(state),
    "numpy": _put_numpy,
    "torch": lambda torch, state: torch.set_rng_state(_tensor(torch, state)),
    "cuda": _put_cuda,
}


def _imported(module: str) -> Any:
    """Return a module if the program has imported it as far as its generators."""
    found = sys.modules.get(module)
    needed = {"numpy": "random", "torch": "get_rng_state"}.get(module)
    return found if needed is None or hasattr(found, needed) else None


def _bytes(state: Any) -> bytes:
    return bytes(state.tolist())


def _tensor(torch: Any, state: bytes) -> Any:
    return torch.tensor(list(state), dtype=torch.uint8)
