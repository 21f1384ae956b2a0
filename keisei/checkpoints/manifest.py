"""A checkpoint's manifest: what is in it, as the one text that its content can have.

The text is ``{"digest":"blake2b:HEX","manifest":CONTENT}`` and a newline. The digest is over the
bytes of CONTENT, and a reader takes no text but the one that it would have written itself: each
flipped bit is found. Nothing in a manifest is believed beyond that: it may be somebody else's.
"""

from __future__ import annotations

import json
import math
import re
from json.encoder import encode_basestring_ascii as _text
from typing import Annotated, Literal, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from keisei.checkpoints.digests import PLAIN, digest_of
from keisei.checkpoints.layout import MANIFEST
from keisei.errors import CheckpointError, quoted
from keisei.journal.records import Position

FORMAT = 2  # the newest; a checkpoint of one process is of format 1, which knows no ranks
LARGEST = 256 * 1024 * 1024  # bytes of a manifest, and of any other JSON in a checkpoint

_FRAME = re.compile(rb'\{"digest":"(blake2b:[0-9a-f]{32})","manifest":(\{.*\})\}\n', re.DOTALL)
_UNUSABLE = re.compile(r"[\x00-\x1f\x7f\\:]")
_INFINITIES = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}

_Count = Annotated[int, Field(ge=0, lt=2**63)]
LONGEST_NAME = 4096  # characters
_Name = Annotated[str, Field(max_length=LONGEST_NAME)]
Library: TypeAlias = Literal["numpy", "torch", "jax", "bytes", "bytearray"]
_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class FileEntry(NamedTuple):
    """A file of a checkpoint.

    Attributes:
        name: its path below the checkpoint's directory, with ``/`` between the components.
        size: its length, in bytes.
        digest: of its bytes, by the manifest's algorithm, in hexadecimal digits.
    """

    name: _Name
    size: _Count
    digest: _Hex


class ArrayEntry(NamedTuple):
    """An array of a checkpoint; they stand in the order in which the file has their bytes.

    Attributes:
        name: its name in the file: the keys that lead to it, with ``/`` between them.
        dtype: the kind of its items, as text (see `dtypes`).
        shape: its length in each dimension.
        library: what it is of: ``numpy``, ``torch`` or ``jax``; ``bytes`` or ``bytearray`` where
            it is that.
    """

    name: _Name
    dtype: Annotated[str, Field(max_length=65536)]
    shape: Annotated[tuple[_Count, ...], Field(max_length=64, strict=False)]
    library: Library


class Manifest(BaseModel):
    """What a checkpoint holds.

    Attributes:
        format: the version of the format: 1, or 2 where there are several ranks.
        keisei: the version of keisei that has written it.
        run: the run's session id.
        step: the training step; ``None`` for a final model.
        attempt: the attempt that has saved it.
        number: how many commits the run had before, this one counted: it grows from 1.
        created_at: when it was saved, ISO 8601 with offset.
        position: where the journal was when the state was taken, if it was anywhere.
        metrics: the metrics that it was saved with, by name.
        kind: ``state`` for a mapping, ``files`` for what a function has written; ``nothing`` for
            a rank that has no state of its own.
        digest: of what the program has saved, as ``ALGORITHM:HEX``.
        algorithm: of the files' digests.
        files: all files of it, this one apart.
        arrays: the arrays of its state.
        rank: whose shard this is; rank 0's manifest is the checkpoint's.
        world_size: how many ranks have saved the checkpoint.
    """

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    format: _Count = 1
    keisei: Annotated[str, Field(pattern=r"^[0-9A-Za-z.+_-]{1,64}$")]
    run: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,128}$")]
    step: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None
    attempt: _Count
    number: _Count
    created_at: Annotated[str, Field(pattern=r"^[0-9T:.+Z-]{10,40}$")]
    position: Position | None = None
    metrics: dict[_Name, float] = {}
    kind: Literal["state", "files", "nothing"]
    digest: Annotated[str, Field(pattern=r"^(xxh3_128|blake2b):[0-9a-f]{32}$")]
    algorithm: Literal["xxh3_128", "blake2b"]
    files: list[FileEntry]
    arrays: list[ArrayEntry] = []
    rank: _Count = 0
    world_size: Annotated[int, Field(ge=1, lt=2**31)] = 1

    def file(self, name: str) -> FileEntry | None:
        """Return the entry of a file; ``None`` where there is none of that name."""
        return next((entry for entry in self.files if entry.name == name), None)


def encode(manifest: Manifest) -> bytes:
    """Return the text of a manifest, as `parse` takes it.

    Raises:
        CheckpointError: it names a file that may not be in a checkpoint, or is too long to be
            read again.
    """
    if (problem := _wrong_files(manifest)) is not None:
        raise CheckpointError(f"the checkpoint cannot be described: {problem}")
    text = _frame(_content(manifest))
    if len(text) > LARGEST:
        raise CheckpointError(
            f"the checkpoint has too many parts: its manifest would be {len(text):,} bytes, and "
            f"at most {LARGEST:,} are read again; join small arrays into larger ones"
        )
    return text


def parse(text: bytes, path: str | None = None) -> Manifest:
    """Return what a manifest's text says.

    Args:
        text: all bytes of the file.
        path: the checkpoint's directory, for the errors.

    Raises:
        CheckpointError: it is not whole (``corrupt`` is set), or of a newer format.
    """
    frame = _FRAME.fullmatch(text) if len(text) <= LARGEST else None
    if frame is None:
        raise _corrupt("it is no manifest", path)
    digest, content = frame[1].decode(), frame[2]
    if digest_of(PLAIN, content) != digest:
        raise _corrupt("its digest does not fit its content", path)
    try:
        fields = json.loads(content, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise _corrupt("it is no JSON", path) from None
    version = fields.get("format")
    if type(version) is int and version > FORMAT:
        raise CheckpointError(
            f"the checkpoint was saved by a newer keisei (format {quoted(version)}, and this one "
            f"reads up to {FORMAT}): upgrade keisei to read it",
            path=path,
        )
    try:
        manifest = Manifest.model_validate(fields | {"metrics": _numbers(fields.get("metrics"))})
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        at = ".".join(str(part) for part in error["loc"])
        raise _corrupt(f"{quoted(at)}: {error['msg']}", path) from None
    if (problem := _wrong_files(manifest)) is not None:
        raise _corrupt(problem, path)
    if _content(manifest) != content:
        raise _corrupt("it is not the text that its content has", path)
    return manifest


def content_digest(files: list[FileEntry], arrays: list[ArrayEntry], algorithm: str) -> str:
    """Return one digest of what the program has saved, as ``ALGORITHM:HEX``.

    Equal states have equal digests: neither the step nor the time is part of it.

    Args:
        files: the files of the program's state, without those of the random states.
        arrays: the arrays in them.
        algorithm: of the digest, and of the files'.
    """
    ordered = sorted(files, key=lambda file: file.name)
    return digest_of(algorithm, _object({"arrays": _arrays(arrays), "files": _files(ordered)}))


def wrong_name(name: str) -> str | None:
    """Return why a path cannot name a file in a checkpoint; ``None`` where it can."""
    parts = name.split("/")
    if len(name) > 4096 or any(len(part.encode(errors="replace")) > 255 for part in parts):
        return "too long a name"
    if any(part in ("", ".", "..") for part in parts):
        return "a name that leads elsewhere"
    if _UNUSABLE.search(name):
        return "a name with a character that not every system can have"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "a name that is no text"
    return None


def _wrong_files(manifest: Manifest) -> str | None:
    """Return what is wrong with the names of a manifest's files and arrays, if anything is."""
    for what, entries in (("file", manifest.files), ("array", manifest.arrays)):
        if len({entry.name for entry in entries}) != len(entries):
            return f"two {what}s have one name"
    for file in manifest.files:
        if file.name == MANIFEST:
            return "it names itself as one of the files"
        if (problem := wrong_name(file.name)) is not None:
            return f"{quoted(file.name)} is {problem}"
    return None


def _content(manifest: Manifest) -> bytes:
    """Return the canonical text of all fields."""
    apart = {"arrays", "files", "position"}
    ranks = {"rank", "world_size"} if manifest.format == 1 else set()
    fields = manifest.model_dump(exclude=apart | ranks)
    fields["position"] = manifest.position and manifest.position._asdict()
    fields["metrics"] = {
        name: value if math.isfinite(value) else str(value)
        for name, value in manifest.metrics.items()
    }
    texts = {name: _compact(value) for name, value in fields.items()}
    texts["arrays"] = _arrays(manifest.arrays)
    texts["files"] = _files(manifest.files)
    return _object(texts)


# By hand, one entry at a time: json.dumps would hold the GIL for a hundred thousand of them.
def _arrays(entries: list[ArrayEntry]) -> str:
    parts = [
        f'{{"dtype":{_text(dtype)},"library":{_text(library)},"name":{_text(name)},'
        f'"shape":[{",".join(map(str, shape))}]}}'
        for name, dtype, shape, library in entries
    ]
    return f"[{','.join(parts)}]"


def _files(entries: list[FileEntry]) -> str:
    parts = [
        f'{{"digest":{_text(digest)},"name":{_text(name)},"size":{size}}}'
        for name, size, digest in entries
    ]
    return f"[{','.join(parts)}]"


def _object(texts: dict[str, str]) -> bytes:
    """Return the texts of values as one object, in the order of their names."""
    parts = [f"{_text(name)}:{texts[name]}" for name in sorted(texts)]
    return f"{{{','.join(parts)}}}".encode("ascii")


def _numbers(metrics: object) -> object:
    """Return metrics with the numbers that JSON does not have."""
    if not isinstance(metrics, dict):
        return metrics
    return {
        name: _INFINITIES.get(value, value) if isinstance(value, str) else value
        for name, value in metrics.items()
    }


def _compact(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def _frame(content: bytes) -> bytes:
    return b'{"digest":"%s","manifest":%s}\n' % (digest_of(PLAIN, content).encode(), content)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _corrupt(problem: str, path: str | None) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint's manifest does not verify: {problem}", path=path, corrupt=True
    )
