"""HTML that is safe by how it is made: whatever is no `Markup` is put into it as text."""

from __future__ import annotations

import html
from collections.abc import Iterable

from keisei._text import one_line

Child = object  # Markup, a list of children, `None` or `False` for nothing, or a value as text
_VOID = frozenset(["br", "img", "meta", "hr"])


class Markup(str):
    """HTML as it stands."""

    __slots__ = ()


def text(value: object) -> Markup:
    """Return a value as text of one line: what cannot be seen stands there as its number.

    So no terminal escape, no mark that turns the writing round, and no tag comes through.
    """
    return Markup(html.escape(one_line(value)))


def joined(children: Iterable[Child]) -> Markup:
    """Return children one after the other; lists are flattened, and nothing is left out."""
    parts = []
    for child in children:
        if child is None or child is False:
            continue
        if isinstance(child, Markup):
            parts.append(str(child))
        elif isinstance(child, list | tuple):
            parts.append(str(joined(child)))
        else:
            parts.append(str(text(child)))
    return Markup("".join(parts))


def el(tag: str, *children: Child, **attributes: object) -> Markup:
    """Return an element.

    Args:
        tag: its name; it comes from the program alone.
        children: what is in it.
        attributes: its attributes; `_` in a name is `-`, at the end nothing (`class_`). ``None``
            and ``False`` leave one out, ``True`` leaves it empty.
    """
    parts = [tag]
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        name = key.rstrip("_").replace("_", "-")
        parts.append(name if value is True else f'{name}="{text(value)}"')
    opening = f"<{' '.join(parts)}>"
    return Markup(opening if tag in _VOID else f"{opening}{joined(children)}</{tag}>")


def table(
    head: Iterable[Child],
    rows: Iterable[Iterable[Child]],
    *,
    numbers: Iterable[int] = (),
    caption: str = "",
) -> Markup:
    """Return a table whose rows begin with their head, in a box of its own that scrolls.

    Args:
        head: the columns' heads.
        rows: the cells of each row.
        numbers: the columns that hold numbers.
        caption: what the table is, for who hears it.
    """
    right = frozenset(numbers)

    def side(at: int) -> str | None:
        return "num" if at in right else None

    heads = [el("th", cell, scope="col", class_=side(at)) for at, cell in enumerate(head)]
    body = [
        el(
            "tr",
            [
                el("td", cell, class_=side(at)) if at else el("th", cell, scope="row")
                for at, cell in enumerate(row)
            ],
        )
        for row in rows
    ]
    named = el("caption", caption, class_="hidden") if caption else None
    inner = el("table", named, el("thead", el("tr", heads)), el("tbody", body), class_="plain")
    return el(
        "div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption or None
    )
