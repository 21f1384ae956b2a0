"""A state as JSON: nested at will, with the types of its keys and values kept.

JSON's own types stand for themselves. Everything else is an object with the key ``$``, which says
what it is: ``{"$":"tuple","v":[1,2]}``. A mapping whose keys are not all plain strings is one of
these, too: ``{"$":"dict","v":[KEY,VALUE,...]}``. What this file does not know (arrays, and scalars
of numpy) it passes to a function.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from json.encoder import encode_basestring_ascii as _quoted_json
from typing import Any, TypeAlias

from keisei.checkpoints.refusals import Refused, why_not
from keisei.errors import CheckpointError, describe, quoted

DEEPEST = 200  # levels of a state; each takes a frame or two of the interpreter's thousand
LONG = 1 << 16  # bytes: longer ones are kept beside the JSON, as an array is
_MOST = 50_000_000  # pieces of text, so that a small state that repeats itself cannot be endless

Path: TypeAlias = list[object]
# Returns the JSON of a value that JSON and this file do not know, or `None` if it is refused.
Encode: TypeAlias = Callable[[object, Path], str | None]
# Returns the value that such an object stands for, or `None` where it cannot be one.
Decode: TypeAlias = Callable[[str, dict[str, Any]], object]


def encode(state: Mapping[Any, Any], foreign: Encode) -> list[str]:
    """Return a state as pieces of JSON, all of them ASCII.

    Args:
        state: the state; it may change as soon as this returns.
        foreign: is asked for each array, each scalar of numpy, and long bytes.

    Raises:
        CheckpointError: something in it cannot be kept; the message has the keys that lead there.
    """
    writer = _Writer(foreign)
    try:
        writer.write(state)
    except RecursionError:
        raise writer.error("it is nested too deeply here") from None
    return writer.text


def decode(text: bytes, foreign: Decode) -> Any:
    """Return the state that a text of `encode` stands for.

    Args:
        text: its pieces, joined; it may be anybody's, and is only ever read as data.
        foreign: is asked for each object that this file does not know, with its kind.

    Raises:
        CheckpointError: it is no such text (``corrupt`` is set).
    """
    try:
        return _Reader(foreign).value(json.loads(text, parse_constant=_refuse), 0)
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError) as exc:
        problem = quoted(str(exc))[1:-1] or type(exc).__name__
        raise CheckpointError(
            f"the checkpoint's state cannot be read: {problem}", corrupt=True
        ) from None


def path_text(path: Iterable[object]) -> str:
    """Return the keys that lead to a value as they would be written in Python."""
    return "state" + "".join(f"[{_key_text(key)}]" for key in path)


def _key_text(key: object) -> str:
    return quoted(key, 60) if isinstance(key, str | bytes) else quoted(key, 60).strip("'\"")


class _Writer:
    """Walks a state and writes it; `path` has the keys that lead to where it is."""

    def __init__(self, foreign: Encode) -> None:
        self.text: list[str] = []
        self.path: Path = []
        self._foreign = foreign
        self._open: set[int] = set()

    def error(self, problem: str) -> CheckpointError:
        return CheckpointError(f"{path_text(self.path[:12])} cannot be saved: {problem}")

    def write(self, value: object) -> None:
        kind = type(value)
        if (simple := _simple(value, kind)) is not None:
            self.text.append(simple)
        elif kind is list:
            self._within(value, self._list)
        elif kind is tuple:
            self.text.append('{"$":"tuple","v":')
            self._within(value, self._list)
            self.text.append("}")
        elif isinstance(value, Mapping):
            self._within(value, self._mapping)
        else:
            self._write_foreign(value)

    def _write_foreign(self, value: object) -> None:
        if (text := self._asked(value)) is None:
            if type(value) not in (bytes, bytearray):
                raise self.error(why_not(value))
            text = _bytes(value)
        self.text.append(text)

    def _asked(self, value: object) -> str | None:
        try:
            return self._foreign(value, self.path)
        except Refused as exc:
            raise self.error(str(exc)) from exc.__cause__

    def _within(self, value: Any, write: Callable[[Any], None]) -> None:
        if id(value) in self._open:
            raise self.error("it contains itself; save what it stands for instead")
        if len(self._open) >= DEEPEST:
            raise self.error(f"it is nested deeper than {DEEPEST} levels")
        if len(self.text) > _MOST:
            raise self.error("it has too many values; keep long lists of numbers as arrays")
        self._open.add(id(value))
        write(value)
        self._open.discard(id(value))

    def _list(self, values: list[object] | tuple[object, ...]) -> None:
        text, path = self.text, self.path
        mark = "["
        path.append(0)
        for index, value in enumerate(values):
            text.append(mark)
            path[-1] = index
            self.write(value)
            mark = ","
        path.pop()
        text.append("[]" if mark == "[" else "]")

    def _mapping(self, value: Mapping[Any, Any]) -> None:
        items = self._items(value)
        ordered = type(value) is OrderedDict
        if not ordered and all(_is_plain(key) for key, _ in items):
            self._object(items)
            return
        self.text.append('{"$":"ordered"' if ordered else '{"$":"dict"')
        if (metadata := getattr(value, "_metadata", None) if ordered else None) is not None:
            self.text.append(',"m":')  # the versions of a state_dict of torch
            self.write(metadata)
        self.text.append(',"v":')
        self._pairs(items)
        self.text.append("}")

    def _items(self, value: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
        try:
            return list(value.items())
        except Exception as exc:  # of a mapping of the program's own, or one that changes just now
            raise self.error(f"its items cannot be read: {describe(exc)}") from exc

    def _object(self, items: list[tuple[Any, Any]]) -> None:
        text, path = self.text, self.path
        mark = "{"
        path.append(None)
        for key, value in items:
            text.append(mark)
            text.append(_quoted_json(key))
            text.append(":")
            path[-1] = key
            self.write(value)
            mark = ","
        path.pop()
        text.append("{}" if mark == "{" else "}")

    def _pairs(self, items: list[tuple[Any, Any]]) -> None:
        text, path = self.text, self.path
        mark = "["
        path.append(None)
        for key, value in items:
            text.append(mark)
            path[-1] = key
            self._key(key)
            text.append(",")
            self.write(value)
            mark = ","
        path.pop()
        text.append("[]" if mark == "[" else "]")

    def _key(self, key: object) -> None:
        """Write a key: what can be one and comes back equal, arrays apart."""
        kind = type(key)
        if (simple := _simple(key, kind)) is not None:
            self.text.append(simple)
        elif kind is bytes:
            self.text.append(_bytes(key))
        elif kind is tuple:
            self.text.append('{"$":"tuple","v":[')
            for index, part in enumerate(key):  # type: ignore[arg-type, var-annotated]
                self.text.append("," if index else "")
                self._key(part)
            self.text.append("]}")
        elif (text := self._asked(key)) is not None and text.startswith(SCALAR):
            self.text.append(text)
        else:
            raise self.error(f"its key is {why_not(key)}")


SCALAR = '{"$":"scalar"'  # how the JSON of a scalar of numpy begins, which may be a key


def _is_plain(key: object) -> bool:
    return type(key) is str and key != "$" and (key.isascii() or _is_text(key))


def _is_text(value: str) -> bool:
    """Return whether a string has no lone surrogates, which two by two JSON would join."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _simple(value: Any, kind: type) -> str | None:
    """Return the JSON of a value of the simplest kinds; ``None`` for all others."""
    if kind is str:
        if value.isascii() or _is_text(value):
            return _quoted_json(value)
        return _tagged("str", _base64(value.encode("utf-8", "surrogatepass")))
    if kind is float:
        return repr(value) if math.isfinite(value) else _tagged("float", _float_bits(value))
    if kind is int:
        return repr(value) if -(2**63) <= value < 2**64 else _tagged("int", f"{value:x}")
    if value is None:
        return "null"
    if kind is bool:
        return "true" if value else "false"
    if kind is complex:
        return _tagged("complex", _float_bits(value.real) + _float_bits(value.imag))
    return None


def _tagged(kind: str, text: str) -> str:
    return f'{{"$":"{kind}","v":"{text}"}}'


def _bytes(value: Any) -> str:
    return _tagged(type(value).__name__, _base64(value))


def _base64(value: bytes) -> str:
    return base64.b64encode(value).decode()


def _float_bits(value: float) -> str:
    return struct.pack(">d", value).hex()


def _float_of(text: str) -> float:
    if len(text) != 16:
        raise ValueError("a float of another length")
    (value,) = struct.unpack(">d", bytes.fromhex(text))
    return float(value)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


class _Reader:
    """Builds a state again; each method raises what a wrong text makes it raise."""

    def __init__(self, foreign: Decode) -> None:
        self._foreign = foreign

    def value(self, node: Any, depth: int) -> Any:
        if depth > 2 * DEEPEST:
            raise ValueError("it is nested too deeply")
        if type(node) is list:
            return [self.value(part, depth + 1) for part in node]
        if type(node) is not dict:
            return node
        if "$" not in node:
            return {key: self.value(part, depth + 1) for key, part in node.items()}
        return self._tagged(node, depth)

    def _tagged(self, node: dict[str, Any], depth: int) -> Any:
        kind = node["$"]
        if kind in ("dict", "ordered"):
            return self._mapping(node, depth)
        content = node["v"]
        if kind == "tuple":
            return tuple(self.value(part, depth + 1) for part in _checked(content, list))
        if kind in _TEXTS:
            return _TEXTS[kind](_checked(content, str))
        found = self._foreign(_checked(kind, str), node)
        if found is None:
            raise ValueError(f"there is no kind of value {kind!r}")
        return found

    def _mapping(self, node: dict[str, Any], depth: int) -> dict[Hashable, Any]:
        parts = _checked(node["v"], list)
        made: dict[Hashable, Any] = OrderedDict() if node["$"] == "ordered" else {}
        for key, value in zip(parts[::2], parts[1::2], strict=True):
            made[self.value(key, depth + 1)] = self.value(value, depth + 1)
        if 2 * len(made) != len(parts):
            raise ValueError("a key stands there twice")
        if "m" in node and node["$"] == "ordered":
            made._metadata = self.value(node["m"], depth + 1)  # type: ignore[attr-defined]
        return made


def _checked(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} expected")
    return value


def _int_of(text: str) -> int:
    return int(text, 16)


def _complex_of(text: str) -> complex:
    return complex(_float_of(text[:16]), _float_of(text[16:]))


def _bytes_of(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except binascii.Error as exc:
        raise ValueError(str(exc)) from None


_TEXTS: dict[Any, Callable[[str], object]] = {
    "bytearray": lambda text: bytearray(_bytes_of(text)),
    "bytes": _bytes_of,
    "complex": _complex_of,
    "float": _float_of,
    "int": _int_of,
    "str": lambda text: _bytes_of(text).decode("utf-8", "surrogatepass"),
}
