"""The same promises with each minor release of W&B's SDK: twelve rows, each some of the tests.

Each release, the newest patch of its minor, is in an environment that pip makes once, under
`XDG_CACHE_HOME`; all else in it is what these tests run with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from collections.abc import Callable
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = [pytest.mark.versions, pytest.mark.xdist_group("wandb-versions")]
ROOT = Path(__file__).parents[3]
RELEASES = ["==0.27.*", "==0.28.*", "==0.29.*", "==0.30.*", ">=0.31"]
HERE = "tests/trackers/wandb"
ROWS = {
    "start": "test_rows.py::test_a_row_has_its_values_time_and_step",
    "offline": "test_offline.py::test_an_offline_run_holds_config_rows_and_exit_code",
    "online": "test_server.py::test_a_server_that_is_well_gets_the_whole_run",
    "media": "test_rows.py::test_wandbs_tracker_keeps_to_the_protocol",
    "resume": "test_resumed.py::test_a_run_that_was_killed_and_resumed",
    "dark": "test_server.py::test_a_backlog_does_not_lengthen_the_end",
    "finish": "test_offline.py::test_the_exit_code_tells_how_the_run_ended",
    "exit": "test_server.py::test_a_run_that_was_never_ended_is_ended_by_its_host_process",
    "kill": "test_rows.py::test_each_record_is_held_once_whatever_is_killed",
    "sync": ("test_rows.py::test_another_process_gives_the_rest_and_sync_gives_all_to_the_server"),
    "in process": "test_server.py::test_a_run_that_was_never_ended_does_not_hold_the_process",
    "doctor": "test_private.py::test_doctor_says_what_the_installed_sdk_lacks",
}
Outcomes = dict[str, list[str]]


def made(release: str) -> Path:
    """Make an environment with a release of the SDK, where there is none; its Python."""
    above = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "keisei-tests"
    home = above / f"wandb-{release.strip('=>*.')}-{sys.version_info[0]}.{sys.version_info[1]}"
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not (home / "made").exists():
        venv.create(home, clear=True, with_pip=False, symlinks=os.name != "nt")
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
        done = subprocess.run([*pip, f"wandb{release}"], capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"pip cannot install wandb{release}: {done.stderr[-300:]}")
        command = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
        packages = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        rest = [str(ROOT), *(path for path in sys.path if "site-packages" in path)]
        Path(packages.strip(), "zz_rest.pth").write_text("\n".join(rest) + "\n")
        (home / "made").touch()
    return python


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcomes]:
    """Run all rows with a release, once."""

    @cache
    def lived(release: str) -> Outcomes:
        python, report = made(release), tmp_path_factory.mktemp("rows") / "report.xml"
        command = [str(python), "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]
        nodes = [f"{HERE}/{node}" for node in ROWS.values()]
        environ = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        told = subprocess.run(
            [*command, f"--junitxml={report}", *nodes],
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=1200,
        )
        assert report.exists(), told.stdout + told.stderr
        outcomes: Outcomes = {row: [] for row in ROWS}
        for case in ElementTree.parse(report).iter("testcase"):
            name = case.get("name", "").partition("[")[0]
            (row,) = (row for row, node in ROWS.items() if node.endswith(f"::{name}"))
            bad = [child for child in case if child.tag in ("failure", "error")]
            outcomes[row] += [f"{case.get('name')}: {each.get('message')}" for each in bad] or [""]
        version = [str(python), "-c", "import wandb; print(wandb.__version__)"]
        known = subprocess.run(version, capture_output=True, text=True, check=True).stdout.strip()
        print(f"\nwandb {known}: ", end="")
        marks = ("-" if not found else "no" if any(found) else "ok" for found in outcomes.values())
        print(", ".join(f"{row} {mark}" for row, mark in zip(outcomes, marks, strict=True)))
        return outcomes

    return lived


@pytest.mark.requirement("WB-10")
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_keeps_the_promises(
    lived: Callable[[str], Outcomes], release: str, row: str
) -> None:
    """Each row of each release; the table is printed with `-s`."""
    found = lived(release)[row]
    assert found, "no test of the row was run"
    assert not any(found), "\n".join(found)
