"""The site of the documentation: it builds without a warning, and names everything public."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keisei
from tests.support.docs_blocks import ROOT

REFERENCE = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs" / "reference").glob("*.md"))
)


def test_the_reference_names_every_public_name_once() -> None:
    """Those of the front door; a new one is not forgotten."""
    named = re.findall(r"^::: keisei\.(\w+)$", REFERENCE, re.MULTILINE)
    assert sorted(named) == sorted(keisei.__all__)


@pytest.mark.packaging
@pytest.mark.xdist_group("packaging")
def test_the_site_builds_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    """A link, an anchor, a page outside the contents or a docstring that is amiss is an error."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", f"{ROOT}/.mkdocs.yml"]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [*command, "-d", str(tmp_path / "site")], env=environ, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    sessions = (tmp_path / "site" / "reference" / "sessions.html").read_text(encoding="utf-8")
    assert 'id="keisei.AsyncSessionManager.log_metrics"' in sessions
    for page in (tmp_path / "site").rglob("*.html"):
        found = re.findall(r'(?:src|href)="(https?://[^"]+)"', page.read_text(encoding="utf-8"))
        fetched = [one for one in found if re.search(r"fonts|\.(css|js)$", one)]
        assert fetched == []
