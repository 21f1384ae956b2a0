"""Watch models of PyTorch as `wandb.watch` does: histograms of gradients and parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

BINS = 64


@dataclass(frozen=True)
class Counted:
    """A histogram.

    Attributes:
        counts: how many values there are in each bin.
        edges: the bins' edges, one more than counts.
    """

    counts: list[float]
    edges: list[float]


class Watched:
    """The models that are watched.

    Args:
        keep: called with a name, such as `gradients/layer.weight`, and its histogram.
        fail: called with what a hook has raised: no hook stops a training.
    """

    def __init__(
        self, keep: Callable[[str, Counted], object], fail: Callable[[Exception], object]
    ) -> None:
        self._keep, self._fail = keep, fail
        self._hooks: dict[int, list[Any]] = {}  # by the model's id
        self._numbers = count()

    def watch(self, model: Any, log: str | None, every: int, number: int | None = None) -> None:
        """Watch a model, unless it is watched.

        Args:
            model: a `torch.nn.Module`.
            log: `gradients`, `parameters` or `all`; ``None`` watches nothing.
            every: of how many batches one is looked at.
            number: which model of several it is, from 0; without it, counted here.
        """
        if id(model) in self._hooks:
            return
        following = next(self._numbers)
        number = following if number is None else number
        prefix = f"graph_{number}" if number else ""
        hooks = self._hooks[id(model)] = []
        if log in ("parameters", "all"):
            forward = partial(self._on_forward, _every(every), prefix)
            hooks.append(model.register_forward_hook(forward))
        if log in ("gradients", "all"):
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    on_gradient = partial(self._look, _every(every), f"gradients/{prefix}{name}")
                    hooks.append(parameter.register_hook(on_gradient))

    def unwatch(self, model: Any = None) -> None:
        """Watch a model no longer; without one, none of them."""
        for each in list(self._hooks) if model is None else [id(model)]:
            for hook in self._hooks.pop(each, ()):
                hook.remove()

    def _on_forward(self, due: Iterator[bool], prefix: str, module: Any, *passed: Any) -> None:
        if next(due):
            for name, parameter in module.named_parameters():
                self._look(iter([True]), f"parameters/{prefix}{name}", parameter)

    def _look(self, due: Iterator[bool], name: str, tensor: Any) -> None:
        if not next(due):
            return
        try:
            found = counted(tensor)
            if found is not None:
                self._keep(name, found)
        except Exception as exc:  # noqa: BLE001 - it would leave the training's backward pass
            self._fail(exc)


def _every(number: int) -> Iterator[bool]:
    """Return whether each batch is to be looked at: of so many the last."""
    return (at % max(1, number) == 0 for at in count(1))


def counted(tensor: Any) -> Counted | None:
    """Return the histogram of a tensor's finite values; of a sparse one, those that it holds.

    Args:
        tensor: of PyTorch's, in any shape and on any device.

    Returns:
        ``None`` where no value is finite.
    """
    held = tensor.detach()
    if held.is_sparse:
        held = held.coalesce().values()
    values = held.float().cpu().flatten()
    values = values[values.isfinite()]
    if not values.numel():
        return None
    low, high = values.min().item(), values.max().item()
    if low == high:
        margin = max(abs(low), 1.0) / 2
        return Counted([float(values.numel())], [low - margin, high + margin])
    between = [low + (high - low) * at / BINS for at in range(BINS)]
    return Counted(values.histc(BINS, low, high).tolist(), [*between, high])
