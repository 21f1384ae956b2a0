"""The same promises with each minor release of W&B's SDK: rows of tests.

Of each release there is the newest patch of its minor; of the oldest, the oldest that pip may take
too.
"""

from __future__ import annotations

import pytest

from tests.support.lowest_versions import PYPROJECT, lowest_versions
from tests.support.releases import TryRelease

pytestmark = [pytest.mark.versions, pytest.mark.xdist_group("versions")]
HERE = "tests/trackers/wandb"
LOWEST = lowest_versions(PYPROJECT.read_text(encoding="utf-8"))["wandb"]
RELEASES = {
    "lowest": f"wandb=={LOWEST}",
    "0.28": "wandb==0.28.*",
    "0.29": "wandb==0.29.*",
    "0.30": "wandb==0.30.*",
    "0.31": "wandb==0.31.*",
    "newest": "wandb>=0.31",
}
SHARING = ("0.31", "newest")
ROWS = {
    "start": ["test_rows.py::test_a_row_has_its_values_time_and_step"],
    "offline": ["test_offline.py::test_an_offline_run_holds_config_rows_and_exit_code"],
    "online": ["test_server.py::test_a_server_that_is_well_gets_the_whole_run"],
    "media": ["test_rows.py::test_wandbs_tracker_keeps_to_the_protocol"],
    "resume": ["test_resumed.py::test_a_run_that_was_killed_and_resumed"],
    "dark": ["test_server.py::test_a_backlog_does_not_lengthen_the_end"],
    "finish": ["test_offline.py::test_the_exit_code_tells_how_the_run_ended"],
    "exit": ["test_server.py::test_a_run_that_was_never_ended_is_ended_by_its_host_process"],
    "kill": ["test_rows.py::test_each_record_is_held_once_whatever_is_killed"],
    "sync": ["test_rows.py::test_another_process_gives_the_rest_and_sync_gives_all_to_the_server"],
    "in process": ["test_server.py::test_a_run_that_was_never_ended_does_not_hold_the_process"],
    "doctor": ["test_private.py::test_doctor_says_what_the_installed_sdk_lacks"],
    "shared": ["test_shared.py"],
    "private": ["test_private.py::test_without_a_private_name_a_run_is_tracked_and_ended"],
}
NODES = {row: [f"{HERE}/{node}" for node in nodes] for row, nodes in ROWS.items()}


@pytest.mark.requirement("WB-10")
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_keeps_the_promises(try_release: TryRelease, release: str, row: str) -> None:
    """Each row of each release; the table is printed with `-s`."""
    rows = NODES if release in SHARING else {k: v for k, v in NODES.items() if k != "shared"}
    if row not in rows:
        pytest.skip("before 0.31 a run is not shared")
    found = try_release(RELEASES[release], rows)[row]
    assert found, "no test of the row was run"
    assert not any(found), "\n".join(found)
