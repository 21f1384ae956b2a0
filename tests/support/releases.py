"""Other releases of what keisei needs, each in an environment that pip makes, and tests run there.

All else in such an environment is what the suite itself runs with: pip adds the release, and what
that needs in another version.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
Rows = Mapping[str, Sequence[str]]
"""What pytest is to run for each row: files, folders, or tests in them."""
Outcomes = dict[str, list[str]]
"""For each row and test an empty text where it passed, else why not."""
TryRelease = Callable[[str, Rows], Outcomes]


@dataclass(frozen=True)
class Releases:
    """Environments under `XDG_CACHE_HOME`, which the next run of the tests finds again.

    Attributes:
        environ: the environment variables that pip runs with.
        scratch: a directory for reports.
    """

    environ: Mapping[str, str]
    scratch: Path

    @cached_property
    def _home(self) -> Path:
        cache = self.environ.get("XDG_CACHE_HOME") or Path(self.environ["HOME"], ".cache")
        return Path(cache, "keisei-tests")

    def python(self, requirement: str) -> Path:
        """Return the Python of an environment that has a release; made, or brought up to date.

        Args:
            requirement: as pip takes it: `anyio==4.15`, or `anyio>=4.15` for the newest.
        """
        name = requirement.replace("==", "-").replace(">=", "-from-").rstrip(".*")
        home = self._home / f"{name}-{sys.version_info[0]}.{sys.version_info[1]}"
        python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
        if not python.exists():
            venv.create(home, clear=True, with_pip=False, symlinks=os.name != "nt")
        asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
        rest = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
        Path(packages.strip(), "zz_rest.pth").write_text("\n".join(rest) + "\n")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
        newest = [] if "==" in requirement else ["--upgrade"]
        done = subprocess.run(
            [*pip, *newest, requirement], env=self.environ, capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"pip cannot install {requirement}: {done.stderr[-300:]}")
        return python

    def run(self, requirement: str, rows: Rows) -> Outcomes:
        """Run the tests of all rows with a release, and print a line on how they ended.

        Args:
            requirement: the release.
            rows: the tests.
        """
        python, report = self.python(requirement), self.scratch / "report.xml"
        report.unlink(missing_ok=True)
        nodes = [node for nodes in rows.values() for node in nodes]
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "2"]
        told = subprocess.run(
            [*command, "--dist", "loadgroup", f"--junitxml={report}", *nodes],
            cwd=ROOT,
            env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert report.exists(), told.stdout + told.stderr
        outcomes: Outcomes = {row: [] for row in rows}
        for case in ElementTree.parse(report).iter("testcase"):
            row, known = _row_of(case, rows), f"{case.get('name')}: "
            bad = [child for child in case if child.tag in ("failure", "error")]
            outcomes[row] += [f"{known}{child.get('message')}" for child in bad] or [""]
        project = requirement.partition("=")[0].rstrip(">")
        said = f"from importlib.metadata import version; print(version({project!r}))"
        version = subprocess.run(
            [str(python), "-c", said], capture_output=True, text=True, check=True
        ).stdout.strip()
        marks = (f"{row} {_mark(found)}" for row, found in outcomes.items())
        print(f"\n{project} {version}: {', '.join(marks)}")
        return outcomes


def _row_of(case: ElementTree.Element, rows: Rows) -> str:
    """Return the row of a test: a report has the module, with the class, and the name."""
    module, test = case.get("classname", ""), case.get("name", "").partition("[")[0]
    for row, nodes in rows.items():
        for node in nodes:
            path, _, name = node.partition("::")
            above = path.removesuffix(".py").replace("/", ".")
            if f"{module}.".startswith(f"{above}.") and name in ("", test):
                return row
    raise AssertionError(f"{module}::{test} is of no row")


def _mark(found: list[str]) -> str:
    return "-" if not found else "no" if any(found) else f"ok ({len(found)})"
