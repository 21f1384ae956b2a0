"""The trash: a run is moved there whole, never while its owner lives, and comes back."""

from __future__ import annotations

from pathlib import Path

import pytest

from keisei import SessionInUseError, SessionManager
from keisei.run import trash
from keisei.run.find import find_runs
from tests.conftest import MakeConfig
from tests.support.runs import Runs


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """The root where the tests' configs let runs live."""
    return Runs(tmp_path / "runs", make_config)


def names(root: Path) -> list[str]:
    return [run.name for run in find_runs(str(root))]


def test_a_run_goes_to_the_trash_and_comes_back(runs: Runs) -> None:
    """A removed run is in no list, and stands where it was after it is restored."""
    path = runs.completed("walker")
    (path / "models" / "m.pt").write_bytes(b"weights")
    kept = Path(trash.remove(str(path)))
    assert names(runs.root) == []
    assert not path.exists()
    assert trash.removed(str(runs.root)) == [kept.name]
    assert trash.restore(str(runs.root), "walker") == str(path)
    assert names(runs.root) == ["walker"]
    assert (path / "models" / "m.pt").read_bytes() == b"weights"


def test_of_one_name_the_last_removed_comes_back_first(runs: Runs) -> None:
    """Each removal is kept; a name means the last, and each has a name of its own."""
    kept = []
    for number in range(3):
        path = runs.completed("walker")
        (path / "number").write_text(str(number))
        kept.append(Path(trash.remove(str(path))).name)
    assert trash.removed(str(runs.root)) == sorted(kept)
    path = Path(trash.restore(str(runs.root), "walker"))
    assert (path / "number").read_text() == "2"
    with pytest.raises(SessionInUseError, match=kept[1]):
        trash.restore(str(runs.root), "walker")
    trash.remove(str(path))
    assert (Path(trash.restore(str(runs.root), kept[0])) / "number").read_text() == "0"


def test_a_live_run_is_refused(runs: Runs) -> None:
    """A run whose owner lives, or cannot be seen, stays where it is."""
    session = SessionManager(runs.make_config(), run_name="living")
    with session, pytest.raises(SessionInUseError, match="living"):
        trash.remove(session.run_artifact_dir)
    far = runs.elsewhere("far", host="node-7")
    with pytest.raises(SessionInUseError, match="node-7"):
        trash.remove(str(far))
    assert names(runs.root) == ["far", "living"]
    trash.remove(str(far), gone=["node-7"])
    assert names(runs.root) == ["living"]


def test_a_run_that_was_killed_goes_to_the_trash(runs: Runs) -> None:
    """An owner that is known to be dead keeps no run."""
    trash.remove(str(runs.killed("dead")))
    assert names(runs.root) == []


@pytest.mark.parametrize("wanted", ["", "..", "walker/../x", "x~1", "nothing"])
def test_what_is_not_in_the_trash_is_an_error(runs: Runs, wanted: str) -> None:
    """A name that leads nowhere is an error that says what is there; nothing is moved."""
    kept = Path(trash.remove(str(runs.completed("walker")))).name
    with pytest.raises(FileNotFoundError, match=kept):
        trash.restore(str(runs.root), wanted)


def test_what_is_no_run_stays(tmp_path: Path) -> None:
    """A directory of another program is not moved."""
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="no run"):
        trash.remove(str(tmp_path / "data"))
    assert (tmp_path / "data").is_dir()


def test_a_start_that_waited_for_a_removal_makes_the_run_anew(runs: Runs) -> None:
    """A name is free as soon as its run is in the trash."""
    trash.remove(str(runs.completed("walker")))
    with SessionManager(runs.make_config(), run_name="walker") as session:
        assert session.get_session_summary()["attempt"] == 1
    assert names(runs.root) == ["walker"]
