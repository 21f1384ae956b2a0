"""`keisei check`, `baseline` and `compare`, on real runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import baseline as _baseline  # noqa: F401 - registers the commands
from keisei.cli import check as _check  # noqa: F401
from keisei.cli import compare as _compare  # noqa: F401
from keisei.cli.program import app
from tests.conftest import MakeConfig

END = [1.0, 1.004, 0.996, 1.002, 0.998, 1.003, 0.997, 1.001]


@pytest.fixture
def root(tmp_path: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with eight equal runs, one that is worse, one of another config, one that failed."""
    monkeypatch.setenv("KEISEI_LOG_DIR", str(tmp_path / "runs"))

    def live(name: str, seed: int, end: float, total: int = 1000) -> None:
        config = make_config(env={"seed": seed}, training={"total_timesteps": total})
        with SessionManager(config, run_name=name) as session:
            for step in range(100):
                loss = 5 - 4 * min(1.0, step / 80)
                session.log_metrics({"loss": loss * end, "kl": 0.1, "system/cpu": end}, step=step)
            if name == "broken":
                raise RuntimeError(name)

    for seed, end in enumerate(END):
        live(f"ok-{seed}", seed, end)
    live("bad", 20, 1.2)
    live("good", 21, 1.0)
    live("other", 22, 1.0, total=2000)
    with pytest.raises(RuntimeError):
        live("broken", 23, 1.0)
    return tmp_path / "runs"


def keisei(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    return done.output


def checked(*arguments: str, status: int = 0) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(keisei("check", "--json", *arguments, status=status))
    return document


@pytest.mark.usefixtures("root")
def test_a_run_is_held_against_those_that_are_comparable() -> None:
    """They are found by themselves; who is left out, and why, is said."""
    against = ("--against", "not name:bad")
    found = checked("good", *against)
    assert found["verdicts"]["loss"]["outcome"] == "same"
    assert found["baselines"] == [f"ok-{n}" for n in range(8)]
    assert found["left_out"]["other"] == ["training.total_timesteps is 1000, and was 2000"]
    assert found["left_out"]["broken"] == ["it is failed"]
    assert found["not_judged"] == ["kl"]
    worse = checked("bad", "--against", "not name:good", status=1)
    assert worse["verdicts"]["loss"]["outcome"] == "worse"
    assert worse["verdicts"]["loss"]["difference"] == pytest.approx(-0.2, abs=0.01)
    text = keisei("check", "bad", "--against", "not name:good", status=1)
    for part in ("loss", "worse", "-20", "against 8 comparable runs", "--higher or --lower: kl"):
        assert part in text


@pytest.mark.usefixtures("root")
def test_tagged_baselines_go_before_others() -> None:
    """Where comparable runs have the tag, they alone count; too few of them decide nothing."""
    keisei("baseline", "set", "ok-1", "ok-2")
    assert keisei("baseline", "ls").split() == ["ok-1", "ok-2"]
    found = checked("bad", status=2)
    assert found["tagged"]
    assert found["baselines"] == ["ok-1", "ok-2"]
    assert "too few" in found["verdicts"]["loss"]["reason"]
    keisei("baseline", "unset", "ok-1", "ok-2")
    assert keisei("baseline", "ls") == ""
    assert keisei("baseline", "set", "nowhere", status=2)


@pytest.mark.usefixtures("root")
def test_several_runs_are_checked_together() -> None:
    """Where they differ in their seeds alone; else the difference is the error."""
    assert checked("ok-6", "ok-7", "--against", "ok-")["verdicts"]["loss"]["runs"] == 2
    text = keisei("check", "ok-6", "other", status=2)
    assert "total_timesteps" in text
    assert "--ignore" in text
    both = checked("ok-6", "other", "--ignore", "training.*", "--against", "ok-")
    assert both["verdicts"]["loss"]["outcome"] == "same"


@pytest.mark.usefixtures("root")
def test_what_is_judged_is_chosen() -> None:
    """By name or pattern, with the direction that is said; what has none is undecided."""
    found = checked("good", "-m", "k*", "--lower", "kl", "--against", "ok-")
    assert list(found["verdicts"]) == ["kl"]
    assert found["verdicts"]["kl"]["outcome"] == "same"
    cpu = checked("bad", "-m", "system/cpu", "--against", "ok-", status=2)["verdicts"]
    assert "which way" in cpu["system/cpu"]["reason"]
    assert keisei("check", "good", "--against", "statsu:x", status=2)
    assert keisei("check", "nowhere", status=2)


@pytest.mark.usefixtures("root")
def test_what_differs_between_runs_is_shown() -> None:
    """How they stand, their config and their metrics; what is equal in the config is not."""
    document = json.loads(keisei("compare", "ok-0", "other", "broken", "--json"))
    assert document["runs"] == ["ok-0", "other", "broken"]
    assert document["run"]["status"] == ["completed", "completed", "failed"]
    assert document["config"] == {
        "env.seed": [0, 22, 23],
        "training.total_timesteps": [1000, 2000, 1000],
    }
    assert document["metrics"]["kl"] == [0.1, 0.1, 0.1]
    lines = [line.split() for line in keisei("compare", "ok-0", "other").splitlines()]
    assert ["training.total_timesteps", "1000", "2000"] in lines
    assert ["status", "completed", "completed"] in lines
    assert "two runs" in keisei("compare", "ok-0", status=2)
