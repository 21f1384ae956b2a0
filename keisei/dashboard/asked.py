"""What a request asks for, checked."""

from __future__ import annotations

import json
from typing import Any

from starlette.requests import Request

from keisei.journal.format import part_of
from keisei.run import labels
from keisei.run.labels import Labels
from keisei.store import columns

MOST_RUNS = 5_000  # of a list


class BadRequestError(ValueError):
    """What was asked for is nothing that can be asked for."""


def list_asked(request: Request) -> tuple[str, str, int, list[str]]:
    """Return the query, the order, the most runs, and the columns that a list is asked for with.

    Raises:
        BadRequestError: a number is none.
        QueryError: a column is none.
    """
    asked = request.query_params
    limit = min(max(1, int(number(request, "limit", 200))), MOST_RUNS)
    extra = [name.strip() for name in asked.get("columns", "").split(",") if name.strip()]
    checked = [columns.check_column(name) for name in extra[:20]]
    order_by = asked.get("sort") or "-started"
    columns.check_column(order_by.removeprefix("-"))
    return asked.get("q", ""), order_by, limit, checked


def changed(asked: dict[str, Any], old: Labels) -> Labels:
    """Return the labels as they are asked for: some tags more, some less, another note.

    Args:
        asked: the body of the request.
        old: the labels that are there.

    Raises:
        BadRequestError: it is nothing that can be asked for.
    """
    new = old
    if "remove" in asked:
        new = labels.untagged(new, texts(asked["remove"], "tags"))
    if "add" in asked:
        new = labels.tagged(new, texts(asked["add"], "tags"))
    if "note" in asked:
        note = asked["note"]
        if not isinstance(note, str | None):
            raise BadRequestError("a note is a text")
        new = labels.noted(new, note)
    return new


def texts(value: object, what: str) -> list[str]:
    """Return a list of texts.

    Args:
        value: what may be one.
        what: what the texts are.

    Raises:
        BadRequestError: it is none.
    """
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise BadRequestError(f"{what} are a list of texts")
    return value


async def content_of(request: Request, most: int, what: str) -> Any:
    """Return the JSON that a request has as its body.

    Args:
        request: the request.
        most: the most bytes.
        what: what it is to hold.

    Raises:
        BadRequestError: it is no JSON, or more than that.
    """
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise BadRequestError(f"that is too much for {what}")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is no JSON") from None


def number(request: Request, name: str, default: float) -> float:
    """Return a number of a request, or the default.

    Raises:
        BadRequestError: it is none.
    """
    found = bound(request, name)
    return default if found is None else found


def bound(request: Request, name: str) -> float | None:
    """Return a number of a request; ``None`` where it has none.

    Raises:
        BadRequestError: it is none.
    """
    text = request.query_params.get(name)
    if not text:
        return None
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not abs(found) < 1e300:
        raise BadRequestError(f"{name} is no number")
    return found


def part(request: Request) -> str | None:
    """Return the part of a run that is asked for; ``None`` for the owner's own.

    Raises:
        BadRequestError: no part can be called so: its name is a piece of a file's.
    """
    name = request.query_params.get("part")
    if not name:
        return None
    if part_of(f"metrics.1.{name}.journal") != (1, name):
        raise BadRequestError("no part of a run can be called so")
    return name
