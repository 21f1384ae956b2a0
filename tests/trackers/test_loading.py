"""What is said of a tracker that cannot be imported, and whether it is tried again."""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionManager
from keisei.errors import MissingExtraError
from keisei.trackers.base import RunInfo
from keisei.trackers.loading import make_tracker
from tests.conftest import MakeConfig
from tests.support.session_files import record_of
from tests.support.wandb_program import until

INFO = RunInfo("a-session", "a-run", 1, "/no/such/directory", "{}")

# What has to be imported, and what keisei imports of it.
PACKAGES = [("tensorboard", "tensorboard.compat.proto"), ("trackio", "trackio.utils")]


def forget(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    """Have a package imported again."""
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.parametrize(("package", "inside"), PACKAGES)
def test_an_extra_is_named_only_where_its_package_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, package: str, inside: str
) -> None:
    """What is wrong inside of it is told as it is, and is not hopeless."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf"keisei\[{package}\]"):
        make_tracker(package, {}).start(INFO)
    monkeypatch.undo()
    forget(monkeypatch, package)
    broken = tmp_path / package
    broken.mkdir()
    (broken / "__init__.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        make_tracker(package, {}).start(INFO)
    (broken / "__init__.py").write_text("raise ImportError('a protobuf that does not fit')")
    forget(monkeypatch, package)
    with pytest.raises(ImportError, match="a protobuf that does not fit"):
        make_tracker(package, {}).start(INFO)
    forget(monkeypatch, package)


@pytest.mark.requirement("HOST-1")
def test_a_package_that_can_be_imported_later_is_tried_again(
    make_config: MakeConfig,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """There was no memory, or a network file system was away: what was logged arrives then."""
    broken = tmp_path / "site" / "tensorboard"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text(
        "import sys, os\n"
        f"if not os.path.exists({str(tmp_path / 'well')!r}):\n"
        "    raise ImportError('cannot allocate memory')\n"
        "sys.path.remove(os.path.dirname(os.path.dirname(__file__)))\n"
        "del sys.modules['tensorboard']\n"
        "import tensorboard\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setenv("KEISEI_TEST", "a process of its own")
    with SessionManager(make_config(tracking={"trackers": ["tensorboard"]})) as session:
        (said,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
        assert "cannot allocate memory" in said
        assert "it is tried again" in said
        assert "install" not in said
        session.log_metrics({"x": 1.0}, step=0)
        (tmp_path / "well").touch()
        until(lambda: session.get_session_summary()["trackers"]["tensorboard"]["state"] == "live")
    tracked: dict[str, Any] = record_of(session)["trackers"]["tensorboard"]
    assert (tracked["state"], tracked["behind"]) == ("finished", 0)


@pytest.mark.parametrize("tracker", ["wandb", "trackio"])
def test_that_there_is_no_temporary_directory_is_said_with_why_it_matters(
    monkeypatch: pytest.MonkeyPatch, tracker: str
) -> None:
    """And with the way out; it may be tried again."""
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/no/such/directory"])
    with pytest.raises(OSError, match="no temporary directory can be written.*TMPDIR"):
        make_tracker(tracker, {}).start(INFO)
