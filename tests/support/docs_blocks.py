"""README.md and the pages of docs/, and the blocks of code in them."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def line_of(text: str, block: re.Match[str]) -> int:
    """Return the line of a page that a block begins at, from 1."""
    return text.count("\n", 0, block.start()) + 1


def write_programs(directory: Path) -> list[Path]:
    """Write each Python block to a file that is named after its page and line.

    Returns:
        The files.
    """
    written = []
    for page, text in PAGES.items():
        stem = Path(page).stem.lower().replace("-", "_")
        for block in BLOCK.finditer(text):
            if block[1] == "python":
                path = directory / f"{stem}_{line_of(text, block)}.py"
                path.write_text(block[2], encoding="utf-8")
                written.append(path)
    return written
