"""Rows as Parquet, by pyarrow, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from types import ModuleType
from typing import IO, Any, Literal

from keisei.errors import MissingExtraError
from keisei.journal.records import as_float
from keisei.reports.exporting import Row

Kind = Literal["text", "whole", "number"]

_CELLS = 1 << 18  # of a group of rows, which is held in memory
_KINDS: dict[str, Kind] = {"attempt": "whole", "rank": "whole", "time": "number", "step": "whole"}


def check_extra() -> ModuleType:
    """Return pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as exc:
        raise MissingExtraError(
            "Parquet needs pyarrow: install it with `pip install 'keisei[parquet]'`, or use "
            "--format csv or jsonl"
        ) from exc
    module: ModuleType = pyarrow
    return module


def write_parquet(
    head: Sequence[str], rows: Iterable[Row], numbers: Sequence[str], file: IO[bytes]
) -> int:
    """Write rows; return how many. A metric's value is a double, as W&B's and pandas' are.

    Args:
        head: the columns' names.
        rows: the rows.
        numbers: the columns that hold metrics' values; those without a kind are texts.
        file: where to; it need not be seekable.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    arrow: Any = check_extra()
    values = frozenset(numbers)
    kinds: list[Kind] = [_KINDS.get(name, "number" if name in values else "text") for name in head]
    types = {"text": arrow.string(), "whole": arrow.int64(), "number": arrow.float64()}
    fields = [arrow.field(name, types[kind]) for name, kind in zip(head, kinds, strict=True)]
    schema, count = arrow.schema(fields), 0
    with arrow.parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in _parts(rows, max(1, _CELLS // len(head))):
            columns = [
                arrow.array([_plain(cell, kind) for cell in cells], types[kind])
                for kind, cells in zip(kinds, zip(*part, strict=True), strict=True)
            ]
            writer.write_table(arrow.Table.from_arrays(columns, schema=schema))
            count += len(part)
    return count


def _parts(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    left = iter(rows)
    while part := list(islice(left, size)):
        yield part


def _plain(cell: object, kind: Kind) -> object:
    if cell is None:
        return None
    if kind == "number":
        return as_float(cell)  # type: ignore[arg-type]
    if kind == "whole":  # a step beyond 64 bits is none that Parquet has
        return cell if -(1 << 63) <= cell < 1 << 63 else None  # type: ignore[operator]
    return cell
