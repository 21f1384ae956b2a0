"""An HTML file as a test looks at it: its elements, its text, and what it would load."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

_VOID = ("meta", "img", "br", "hr", "link", "input")


class Page(HTMLParser):
    """The elements of a file.

    Args:
        content: the file.

    Attributes:
        elements: name and attributes of each, in order.
        texts: the text of each script and style, by tag.
        text: all other text.
        unclosed: the elements that were not closed.
    """

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self.unclosed: list[str] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.unclosed.append(tag)
        if tag in self.texts:
            self.texts[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed, f"</{tag}> closes nothing"
        assert self.unclosed.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.unclosed and self.unclosed[-1] in self.texts:
            self.texts[self.unclosed[-1]][-1] += data
        else:
            self.text += data

    def all(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """Return the attributes of the elements of a name that have some attributes."""
        wanted = attributes.items()
        return [found for name, found in self.elements if name == tag and wanted <= found.items()]

    @property
    def data(self) -> Any:
        """What the charts are drawn from."""
        return json.loads(self.texts["script"][0])

    @property
    def sections(self) -> list[str | None]:
        """The ids of the sections."""
        return [found.get("id") for found in self.all("section")]
