"""`keisei checkpoints` and `keisei doctor` say how a run's checkpoints are, and touch nothing."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from keisei._io.directories import OpenDirectory
from keisei.checkpoints import pointers
from keisei.cli import checkpoints as _checkpoints  # noqa: F401 - registers the command
from keisei.cli import doctor as _doctor  # noqa: F401
from keisei.cli.program import app
from keisei.redaction import HIDDEN
from tests.conftest import MakeConfig
from tests.support.runs import Runs, snapshot
from tests.support.saved_checkpoints import flip, save
from tests.support.shards import save_all


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """The root where the tests' configs let runs live."""
    return Runs(tmp_path / "runs", make_config)


@pytest.fixture
def run(runs: Runs) -> Path:
    """A run with five checkpoints and a final model, the third of them the best."""
    path = runs.completed("r")
    for step in (10, 20, 30, 40, 50):
        save(path, step, metrics={"score": 100.0 - abs(step - 30.0)})
    save(path, None)
    with OpenDirectory(str(path / "models")) as models:
        pointers.point(models, "best", "checkpoint_30.ckpt")
    return path


def keisei(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [*arguments, "--root", "runs"])


def listed(*arguments: str) -> dict[str, Any]:
    """Return what `keisei checkpoints r --json` prints."""
    found: dict[str, Any] = json.loads(keisei("checkpoints", "r", "--json", *arguments).stdout)
    return found


def policy(run: Path, **section: object) -> None:
    """Write a policy into the config that the run has recorded."""
    path = run / "effective_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["checkpoints"] |= section
    path.write_text(json.dumps(config), encoding="utf-8")


def test_a_line_for_each_with_its_marks_and_metrics(run: Path) -> None:
    """In the order of their commits, then the final model, then what the policy would keep."""
    done = keisei("checkpoints", "r")
    assert done.exit_code == 0
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    steps = [line.partition(" ")[0] for line in lines]
    assert steps == ["step", "10", "20", "30", "40", "50", "final", "The"]
    assert "best, kept score=100" in lines[3]
    assert "latest, kept score=80" in lines[5]
    assert "may go score=80" in lines[1]
    assert lines[-1] == ("The policy of the run's config (the last 3) would keep 3, 2 may go.")


@pytest.mark.requirement("CKPT-9")
def test_json_has_everything(run: Path) -> None:
    """With the digests, and whether each was verified."""
    policy(run, keep_last=1, keep_best={"metric": "score", "mode": "max"}, keep_every=20)
    found = listed()
    assert [one["kept"] for one in found["checkpoints"]] == [False, True, True, True, True]
    assert [one["step"] for one in found["checkpoints"]] == [10, 20, 30, 40, 50]
    assert {one["verified"] for one in found["checkpoints"]} == {None}
    assert [one["name"] for one in found["checkpoints"] if one["best"]] == ["checkpoint_30.ckpt"]
    assert [one["name"] for one in found["checkpoints"] if one["latest"]] == ["checkpoint_50.ckpt"]
    assert found["final_model"]["step"] is None
    assert found["policy"]["keep_every"] == 20
    verified = listed("--verify")["checkpoints"]
    assert {one["verified"] for one in verified} == {True}
    for one in verified:
        manifest = json.loads(Path(one["path"], "manifest.json").read_bytes())["manifest"]
        assert one["digest"] == manifest["digest"]


@pytest.mark.requirement("CKPT-9")
def test_what_does_not_verify_is_said(run: Path) -> None:
    """A flipped bit by `--verify`, a manifest that is none without it; the exit status is 1."""
    flip(run / "models" / "checkpoint_40.ckpt" / "state.json")
    assert keisei("checkpoints", "r").exit_code == 0
    done = keisei("checkpoints", "r", "--verify")
    assert done.exit_code == 1
    assert "problem: checkpoint_40.ckpt: " in done.stdout
    assert [one["verified"] for one in listed("--verify")["checkpoints"]].count(False) == 1
    flip(run / "models" / "checkpoint_20.ckpt" / "manifest.json")
    assert keisei("checkpoints", "r").exit_code == 1
    assert [fault["name"] for fault in listed()["unusable"]] == ["checkpoint_20.ckpt"]


def test_what_is_left_over_and_set_aside_is_listed(run: Path) -> None:
    """By what it is; it does no harm."""
    models = run / "models"
    left = {
        ".checkpoint_60.ckpt.tmp-0123456789abcdef": "staged",
        ".checkpoint_5.ckpt.removing-0123456789abcdef": "removing",
        "checkpoint_60.ckpt.corrupt": "corrupt",
        "checkpoint_70.ckpt.superseded-2": "superseded",
    }
    for name in left:
        (models / name).mkdir()
    done = keisei("checkpoints", "r", "--verify")
    assert done.exit_code == 0
    found = listed()
    for name, kind in left.items():
        assert found[kind] == [name]
        assert name in done.stdout
    assert "left over by a save that was interrupted: .checkpoint_60" in done.stdout


def test_nothing_is_changed(run: Path) -> None:
    """Neither by listing nor by verifying, whatever stands there."""
    (run / "models" / ".checkpoint_60.ckpt.tmp-0123456789abcdef").mkdir()
    flip(run / "models" / "checkpoint_40.ckpt" / "state.json")
    (run / "models" / "checkpoint_20.ckpt" / "manifest.json").unlink()
    before = snapshot(run)
    for arguments in (["checkpoints", "r"], ["checkpoints", "r", "--verify"], ["doctor", "--fix"]):
        keisei(*arguments)
        assert snapshot(run) == before


def test_a_run_without_any_and_a_run_that_is_none(runs: Runs) -> None:
    """The first is well, the second a line on standard error with the exit status 2."""
    path = runs.completed("r")
    done = keisei("checkpoints", "r")
    assert (done.exit_code, done.stdout) == (0, f"There is no checkpoint in {path / 'models'}.\n")
    assert keisei("checkpoints", "nothing").exit_code == 2
    shutil.rmtree(path / "models")
    done = keisei("checkpoints", "r")
    assert done.exit_code == 2
    assert "KEISEI_MODEL_DIR" in done.stderr


def test_models_elsewhere_are_found_where_the_user_says(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By an option or the variable; the run's own files may be anybody's, and do not say it."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.move(str(run / "models"), elsewhere / "r")
    record = json.loads((run / "session.json").read_text(encoding="utf-8"))
    record["paths"]["model_dir"] = str(elsewhere / "r")
    (run / "session.json").write_text(json.dumps(record), encoding="utf-8")
    assert keisei("checkpoints", "r").exit_code == 2
    assert len(listed("--models", str(elsewhere / "r"))["checkpoints"]) == 5
    monkeypatch.setenv("KEISEI_MODEL_DIR", str(elsewhere))
    assert len(listed()["checkpoints"]) == 5


@pytest.mark.requirement("CKPT-9")
def test_doctor_verifies(run: Path, runs: Runs) -> None:
    """What cannot be restored needs attention; what is left over is a hint."""
    (run / "models" / ".checkpoint_60.ckpt.tmp-0123456789abcdef").mkdir()
    assert runs.doctor().findings() == [
        ("checkpoint", "models/.checkpoint_60.ckpt.tmp-0123456789abcdef", "hint")
    ]
    flip(run / "models" / "checkpoint_40.ckpt" / "state.json")
    report = runs.doctor()
    assert report.code == 1
    assert ("checkpoint", "models/checkpoint_40.ckpt", "problem") in report.findings()


def test_doctor_reads_no_more_than_it_may(
    run: Path, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of large ones the newest is verified, and the others are counted."""
    monkeypatch.setattr("keisei.cli.doctor._VERIFIED", 10)
    flip(run / "models" / "checkpoint_10.ckpt" / "state.json")
    (finding,) = runs.doctor().runs["r"]["findings"]
    assert finding["weight"] == "hint"
    assert finding["text"].startswith("5 checkpoints are too many bytes")


@pytest.mark.skipif(os.name == "nt", reason="links and FIFOs of POSIX")
def test_a_hostile_directory_is_read_and_not_obeyed(run: Path, tmp_path: Path) -> None:
    """Links lead nowhere, FIFOs hold nobody up, control characters and secrets are not shown."""
    secret = "sk-ant-api03-" + "a1B2c3D4" * 8
    models = run / "models"
    outside = tmp_path / "outside"
    shutil.copytree(models / "checkpoint_50.ckpt", outside / "checkpoint_60.ckpt")
    (models / "checkpoint_60.ckpt").symlink_to(outside / "checkpoint_60.ckpt")
    (models / "checkpoint_40.ckpt" / "state.json").unlink()
    (models / "checkpoint_40.ckpt" / "state.json").symlink_to("/etc/passwd")
    (models / "checkpoint_30.ckpt" / "state.json").unlink()
    os.mkfifo(models / "checkpoint_30.ckpt" / "state.json")
    (models / "checkpoint_20.ckpt" / "manifest.json").unlink()
    os.mkfifo(models / "checkpoint_20.ckpt" / "manifest.json")
    save(run, 55, metrics={f"\x1b[2J {secret}": 1.0})
    (models / "latest").unlink()
    (models / "latest").symlink_to("../../../outside/checkpoint_60.ckpt")
    (models / "checkpoint_70.ckpt.corrupt\x1b[31m").mkdir()
    policy(run, keep_best={"metric": f"\x1b[2J {secret}", "mode": "max"})
    before = snapshot(tmp_path)
    for arguments in (["checkpoints", "r", "--verify"], ["doctor"], ["checkpoints", "r"]):
        done = keisei(*arguments)
        assert done.exit_code == 1, done.output
        assert "\x1b" not in done.output
        assert secret not in done.output
        assert "root:" not in done.output
    assert HIDDEN in keisei("checkpoints", "r").output
    found = json.loads(keisei("checkpoints", "r", "--verify", "--json").stdout)
    good = [one["step"] for one in found["checkpoints"] if one["verified"]]
    assert good == [10, 50, 55]
    assert [one["name"] for one in found["checkpoints"] if one["latest"]] == []
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "config", ["", "[]", "{}", '{"checkpoints": {"keep_last": -1}}', "[" * 9999]
)
def test_a_config_that_cannot_be_read_is_no_policy(run: Path, config: str) -> None:
    """The checkpoints are listed all the same; an older keisei's has no such section."""
    (run / "effective_config.json").write_text(config, encoding="utf-8")
    done = keisei("checkpoints", "r")
    assert done.exit_code == 0
    assert ("is not known" in done.stdout) == (config != "{}")


@pytest.mark.requirement("RANK-7")
def test_checkpoints_of_several_ranks(run: Path) -> None:
    """They are listed with the number of ranks, and every shard is verified, by doctor too."""
    session_id = json.loads((run / "session.json").read_text(encoding="utf-8"))["session_id"]
    saved = save_all(str(run / "models"), 60, run=session_id)
    assert not [got for got in saved.values() if isinstance(got, BaseException)]
    shown = keisei("checkpoints", "r", "--verify")
    assert shown.exit_code == 0
    assert "ranks" in shown.stdout.splitlines()[0]
    assert [one["world_size"] for one in listed()["checkpoints"]] == [1, 1, 1, 1, 1, 3]
    flip(run / "models" / "checkpoint_60.ckpt" / "rank1" / "state.json")
    assert keisei("checkpoints", "r").exit_code == 0
    verified = keisei("checkpoints", "r", "--verify")
    assert verified.exit_code == 1
    assert "rank1/state.json" in verified.stdout
    assert "rank1/state.json" in keisei("doctor", "r").stdout
