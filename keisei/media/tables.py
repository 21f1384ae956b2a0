"""Tables: rows of plain values; what is an image in them is kept as a file of its own."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from keisei.errors import MediaError, quoted
from keisei.media.arrays import is_array
from keisei.media.images import is_pil, take_image
from keisei.media.values import Content, Keep, Taken
from keisei.redaction import clean

MOST_CELLS = 1_000_000
_LONGEST = 1 << 20  # characters of a cell
_LARGEST = 1 << 63


def take_table(rows: object, columns: Sequence[str] | None) -> Taken:
    """Take a table.

    Args:
        rows: sequences of cells, or mappings of columns to cells. A cell is a text, a number, a
            flag, ``None``, or an image: an array of two or three dimensions, or one of PIL's.
        columns: the columns' names; without it, the keys of mappings.

    Raises:
        MediaError: an argument makes no sense; the message names row and column.
    """
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Iterable):
        raise MediaError(f"rows: must be a sequence of rows, not {type(rows).__name__}")
    given = list(rows)
    names = _columns(given, columns)
    if len(given) * len(names) > MOST_CELLS:
        raise MediaError(f"rows: more than {MOST_CELLS:,} cells: use log_file()")
    size, taken = 0, []
    for number, row in enumerate(given):
        if isinstance(row, Mapping):
            if unknown := [key for key in row if key not in names]:
                raise MediaError(f"rows[{number}]: has no such column: {quoted(unknown[0])}")
            cells = [row.get(name) for name in names]
        elif isinstance(row, Sequence) and not isinstance(row, (str, bytes)):
            cells = list(row)
        else:
            raise MediaError(f"rows[{number}]: must be a sequence, not {type(row).__name__}")
        if len(cells) != len(names):
            raise MediaError(f"rows[{number}]: has {len(cells)} cells, and not {len(names)}")
        taken.append([_cell(cell, number, name) for cell, name in zip(cells, names, strict=True)])
        size += sum(cell.size if isinstance(cell, Taken) else 64 for cell in taken[-1])
    return Taken(size, lambda keep: _content(names, taken, keep))


def _columns(rows: list[Any], columns: Sequence[str] | None) -> list[str]:
    if columns is None:
        mappings = [row for row in rows if isinstance(row, Mapping)]
        if not rows or len(mappings) < len(rows):
            raise MediaError("columns: give their names, or rows that are mappings")
        columns = list(dict.fromkeys(key for row in mappings for key in row))
    elif isinstance(columns, str):
        raise MediaError("columns: must be a sequence of names, not a string")
    names = list(columns)
    if not names or not all(isinstance(name, str) for name in names):
        raise MediaError("columns: must be names")
    if len(set(names)) < len(names):
        raise MediaError("columns: a name is there twice")
    return [str.__str__(name) for name in names]


def _cell(cell: Any, number: int, column: str) -> Any:
    """Return a cell as JSON has it, or an image that was taken."""
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(cell, numpy.generic):
        cell = cell.item()
    if cell is None or isinstance(cell, bool):
        return cell
    if isinstance(cell, str):
        if len(cell) > _LONGEST:
            raise MediaError(f"rows[{number}][{quoted(column)}]: a text is too long")
        return str.__str__(cell)
    if isinstance(cell, int):
        return int(cell) if abs(cell) < _LARGEST else str(int(cell))
    if isinstance(cell, float):
        number_ = float(cell)
        if math.isfinite(number_):
            return number_
        return "NaN" if number_ != number_ else "Infinity" if number_ > 0 else "-Infinity"
    if is_pil(cell) or (is_array(cell) and len(cell.shape) >= 2):
        try:
            return take_image(cell)
        except MediaError as exc:
            raise MediaError(f"rows[{number}][{quoted(column)}]: {exc}") from exc
    raise MediaError(
        f"rows[{number}][{quoted(column)}]: {type(cell).__name__} is no text, number, flag, None "
        "or image"
    )


def _content(names: list[str], rows: list[list[Any]], keep: Keep) -> Content:
    kept: list[list[Any]] = []
    for row in rows:
        kept.append([_kept(cell, keep) if isinstance(cell, Taken) else clean(cell) for cell in row])
    data = {"columns": clean(names), "rows": kept}
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"))
    return Content(
        "table", ".json", text.encode(), about={"rows": len(rows), "columns": len(names)}
    )


def _kept(image: Taken, keep: Keep) -> dict[str, Any]:
    """Keep an image, and return what stands for it in its cell."""
    content = image.encode(keep)
    kept = keep(content)
    return {"kind": content.kind, "file": kept.file, **content.about}
