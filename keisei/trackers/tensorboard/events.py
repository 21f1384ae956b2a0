"""TensorBoard's events: its protocol buffers, and nothing else of it.

Its helpers for texts and hyperparameters import numpy and most of TensorBoard: 0.15 s and 25 MB
that two dozen lines are not worth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from keisei._io.switching import yield_gil
from keisei.journal.records import Value, as_float
from keisei.trackers.loading import need_package
from keisei.trackers.tensorboard.event_file import framed

_OURS = "keisei/"
# Its checksums are made in Python. Without a pause after so many bytes each of the program's other
# threads would wait 5 ms for the GIL, where the tracker runs in the program; so it is 0.7 ms.
_LONGEST_UNBROKEN = 4096
_KINDS = {bool: "bool_value", float: "number_value", str: "string_value"}


def import_protos() -> None:
    """Import what the events are made of.

    Raises:
        MissingExtraError: TensorBoard is not installed.
        ImportError: it cannot be imported; it may be tried again.
    """
    need_package("tensorboard", "tensorboard")
    import tensorboard.compat.proto.event_pb2
    import tensorboard.plugins.hparams.plugin_data_pb2  # noqa: F401


def session_log_of(data: bytes) -> str:
    """Return the message of a session log; empty for any other event."""
    from tensorboard.compat.proto.event_pb2 import Event

    return str(Event.FromString(data).session_log.msg)


class Batch:
    """Events to be written together."""

    def __init__(self) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._event: Any = Event
        self._data = bytearray()
        self._pause_at = _LONGEST_UNBROKEN

    def add(self, moment: float, step: int, **what: Any) -> None:
        """Add an event.

        Args:
            moment: its time, in seconds since the epoch.
            step: its step.
            what: its one other field.
        """
        self._put(self._event(wall_time=moment, step=step, **what))

    def add_values(self, moment: float, step: int, values: dict[str, Value]) -> None:
        """Add numbers by their names."""
        event = self._event(wall_time=moment, step=step)
        add = event.summary.value.add
        for key, value in values.items():
            add(tag=_tag(key), simple_value=as_float(value))
        self._put(event)

    def add_text(self, moment: float, step: int, name: str, text: str) -> None:
        """Add a text, which may be Markdown."""
        tensor = {"dtype": "DT_STRING", "tensor_shape": {}, "string_val": [_utf8(text).encode()]}
        self._add_tensor(moment, step, _utf8(_OURS + name), "text", b"", tensor)

    def add_hyperparameters(self, moment: float, trial: str, config_text: str) -> None:
        """Add the values of a config, by their paths, as hyperparameters.

        Args:
            moment: when the trial began, in seconds since the epoch.
            trial: its id.
            config_text: the config as JSON.
        """
        from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

        data = HParamsPluginData()
        data.session_start_info.group_name = trial
        data.session_start_info.start_time_secs = moment
        for path, value in _flat("", json.loads(config_text)):
            setattr(data.session_start_info.hparams[path], _KINDS[type(value)], value)
        tensor = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": 0}]}}
        tag, content = "_hparams_/session_start_info", data.SerializeToString()
        self._add_tensor(moment, 0, tag, "hparams", content, tensor)

    def data(self) -> bytes:
        """Return all events in the format of an event file."""
        return bytes(self._data)

    def _add_tensor(
        self, moment: float, step: int, tag: str, plugin: str, content: bytes, tensor: Any
    ) -> None:
        metadata = {"plugin_data": {"plugin_name": plugin, "content": content}}
        self.add(
            moment, step, summary={"value": [{"tag": tag, "metadata": metadata, "tensor": tensor}]}
        )

    def _put(self, event: Any) -> None:
        self._data += framed(event.SerializeToString())
        if len(self._data) > self._pause_at:
            self._pause_at = len(self._data) + _LONGEST_UNBROKEN
            yield_gil()


@lru_cache(maxsize=4096)
def _tag(key: str) -> str:
    """Return a metric's name as TensorBoard can have it, apart from the names of texts."""
    tag = _utf8(key)
    return f"metric/{tag}" if not tag or tag.startswith(_OURS) else tag


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _flat(path: str, value: Any) -> Iterator[tuple[str, str | float | bool]]:
    """Yield a config's values by their paths: lists as JSON, and no nulls."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(f"{path}/{key}" if path else key, inner)
    elif isinstance(value, bool):
        yield _utf8(path), value
    elif isinstance(value, int | float):
        yield _utf8(path), as_float(value)
    elif value is not None:
        yield _utf8(path), _utf8(value if isinstance(value, str) else json.dumps(value))
