"""`keisei check`, `baseline` and `compare`, on real runs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import baseline as _baseline  # noqa: F401 - registers the commands
from keisei.cli import check as _check  # noqa: F401
from keisei.cli import compare as _compare  # noqa: F401
from keisei.cli.program import app
from keisei.journal.reader import read_run
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
@pytest.mark.parametrize("columns", [24, 40, 60, 80])
def test_each_verdict_stands_beside_its_metric(
    columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a narrow terminal the numbers go before the names do."""
    monkeypatch.setenv("COLUMNS", str(columns))
    shown = keisei("check", "good", "--target", "loss=0.5", "--lower", "kl", status=0)
    for metric in ("kl", "loss"):
        assert re.search(rf"(?m)^{metric} +(same|undecided)\b", shown), shown
    assert max(map(len, shown.splitlines()[:4])) <= columns


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
    assert found["kind"] == "tagged"
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


def timed(*arguments: str) -> dict[str, Any]:
    """Return the verdicts of a check with times in it, which may be worse on a busy machine."""
    done = CliRunner().invoke(app, ["check", "--json", *arguments])
    assert done.exit_code in (0, 1, 2), done.output
    verdicts: dict[str, Any] = json.loads(done.output)["verdicts"]
    return verdicts


@pytest.mark.requirement("CMP-1")
@pytest.mark.usefixtures("root")
def test_the_time_to_a_target_is_judged() -> None:
    """By steps and by seconds, of a metric that falls or rises to it as its curves begin."""
    against = ("--against", "ok-")
    found = timed("good", "--target", "loss=3", "--margin", "0.2", *against)
    assert found["steps to loss=3"]["outcome"] == "same"
    assert found["steps to loss=3"]["expected"] == pytest.approx(40, abs=1)
    assert "seconds to loss=3" in found
    assert "loss" in found
    slow = timed("bad", "-m", "none", "--target", "loss=1.1", *against)
    assert slow["steps to loss=1.1"]["outcome"] == "worse"
    assert "not reached" in slow["steps to loss=1.1"]["reason"]
    missed = timed("good", "-m", "none", "--target", "loss=0.5", *against)
    assert "8 of 8 comparable runs have not reached it" in missed["steps to loss=0.5"]["reason"]
    nowhere = timed("good", "-m", "none", "--target", "x=1", *against)
    assert nowhere["x=1"]["reason"] == "the run has no value of it"
    assert "loss=0.2" in keisei("check", "good", "--target", "loss", status=2)


@pytest.mark.requirement("CMP-1")
def test_baselines_that_are_named_alone_count(root: Path) -> None:
    """However they have ended; one that is gone is an error, and one that is damaged is said."""
    names = [name for n in range(4) for name in ("--baseline", f"ok-{n}")]
    found = checked("good", *names, "--baseline", "broken")
    assert (found["kind"], len(found["baselines"])) == ("named", 5)
    assert "gone" in keisei("check", "good", "--baseline", "gone", status=2)
    (root / "ok-0" / "metrics.1.journal").unlink()
    (root / "ok-0" / "metrics.1.journal").mkdir()
    found = checked("good", *names, status=2)
    assert found["baselines"] == ["ok-1", "ok-2", "ok-3"]
    assert found["left_out"] == {"ok-0": ["it cannot be read: Is a directory"]}


@pytest.mark.usefixtures("root")
def test_runs_without_a_common_metric_decide_nothing(make_config: MakeConfig) -> None:
    """Each metric is undecided, and a run that has logged nothing has no metric to judge."""
    with SessionManager(make_config(), run_name="elsewise") as session:
        session.log_metrics({"accuracy": 1.0}, step=1)
    with SessionManager(make_config(), run_name="silent"):
        pass
    found = checked("elsewise", status=2)["verdicts"]["accuracy"]
    assert found["reason"] == "no comparable run has a value of it"
    text = keisei("check", "silent", status=2)
    assert "There is no metric to judge" in text


@pytest.mark.requirement("CMP-1")
def test_code_packages_and_machine_are_compared(root: Path) -> None:
    """What differs in them is shown; a run without provenance says `not recorded`."""
    about: dict[str, Any] = {
        "code": {"commit": "a" * 40, "changed": 0, "untracked": 0, "is_dirty": False},
        "packages": {"anyio": "4.0", "numpy": "2.0"},
        "machine": {"host": "one", "processor": "EPYC", "cores": 8, "python": "3.11"},
    }
    other = {
        **about,
        "code": {**about["code"], "changed": 2, "is_dirty": True, "digest": "sha256:0123"},
        "packages": {"anyio": "4.1", "numpy": "2.0"},
    }
    for name, one in (("ok-0", about), ("ok-1", other)):
        (root / name / "provenance.1.json").write_text(json.dumps(one))
    document = json.loads(keisei("compare", "ok-0", "ok-1", "ok-2", "--json"))
    assert document["code"] == {
        "commit": ["a" * 12, f"{'a' * 12} with changes 0123", None],
        "changes": ["0 changed, 0 untracked", "2 changed, 0 untracked", None],
    }
    assert document["packages"] == {"anyio": ["4.0", "4.1", None]}
    assert document["machine"] == {}
    assert document["not_recorded"] == {part: ["ok-2"] for part in ("code", "packages", "machine")}
    assert not [key for key in document["metrics"] if key.startswith("system/")]
    text = keisei("compare", "ok-0", "ok-1", "ok-2")
    lines = [line.split() for line in text.splitlines()]
    assert ["anyio", "4.0", "4.1", "not", "recorded"] in lines
    assert "machine: no difference; not recorded of ok-2" in " ".join(text.split())
    assert "code: not recorded" in keisei("compare", "ok-2", "ok-3")


@pytest.mark.requirement("CMP-1")
@pytest.mark.usefixtures("root")
def test_runs_to_compare_are_found_by_a_query() -> None:
    """Beside those that are named, each once; and too many are refused."""
    found = json.loads(keisei("compare", "bad", "--find", "ok-", "--json"))
    assert found["runs"] == ["bad", *(f"ok-{n}" for n in range(8))]
    found = json.loads(keisei("compare", "--find", "status:failed or name:bad", "--json"))
    assert found["runs"] == ["bad", "broken"]
    assert found["run"]["failure"][0] is None
    assert "RuntimeError" in found["run"]["failure"][1]
    assert "two runs" in keisei("compare", "--find", "name:nowhere", status=2)
    assert "two runs" in keisei("compare", status=2)


@pytest.mark.requirement("CMP-1")
@pytest.mark.usefixtures("root")
def test_the_time_to_a_target_is_compared() -> None:
    """In steps and seconds, and a run that has not reached it has none."""
    found = json.loads(keisei("compare", "ok-0", "bad", "-t", "loss=1.1", "-t", "x=0", "--json"))
    times = found["time_to_target"]
    assert times["steps to loss=1.1"] == [78, None]
    assert times["seconds to loss=1.1"][1] is None
    assert times["steps to x=0"] == [None, None]
    assert ["steps", "to", "loss=1.1", "78", "-"] in [
        line.split() for line in keisei("compare", "ok-0", "bad", "-t", "loss=1.1").splitlines()
    ]


@pytest.mark.requirement("CMP-1")
def test_a_run_that_goes_on_is_followed(
    root: Path, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Up to the step that it has reached; a verdict is said once two looks have come to it."""
    config = make_config(training={"total_timesteps": 1000})
    session = SessionManager(config, run_name="live")
    steps = iter(range(100))
    looks = []

    def train(seconds: float) -> None:
        """Go on as the others do up to step 59, and ten times as high from then on."""
        looks.append(seconds)
        for step in (next(steps, None) for _ in range(20)):
            if step is not None:
                high = 10 if step >= 60 else 1
                session.log_metrics({"loss": high * (5 - 4 * min(1.0, step / 80))}, step=step)
        session.flush()
        if len(looks) == 6:
            session.finalize_session("failed")

    monkeypatch.setattr("keisei.cli.check.sleep", train)
    with session:
        train(0.0)
        looks.clear()
        lines = keisei(
            *("check", "live", "--follow", "--record", "--every", "5"),
            *("--json", "--against", "ok-"),
            status=1,
        )
    *said, final = [json.loads(line) for line in lines.splitlines()]
    assert [(one["metric"], one["outcome"]) for one in said] == [
        ("loss", "same"),
        ("loss", "worse"),
    ]
    assert final["verdicts"]["loss"]["outcome"] == "worse"
    assert looks == [5.0] * 6
    events = [one for one in read_run(root / "live").of("check").events() if one.name == "verdict"]
    data = [one.data for one in events if isinstance(one.data, dict)]
    assert [(one["metric"], one["outcome"]) for one in data] == [
        ("loss", "same"),
        ("loss", "worse"),
    ]
    assert "--follow" in keisei("check", "live", "--record", status=2)


@pytest.mark.requirement("CMP-1")
def test_what_runs_have_cost_is_compared(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By currency, over all attempts and the energy too; what has no price is no 0."""
    monkeypatch.setenv("KEISEI_LOG_DIR", str(tmp_path / "runs"))
    for amount in ("2.40", "0.10"):
        with SessionManager(make_config(), run_name="dear") as session:
            session.log_cost(amount, "people")
            session.log_cost(3, "rent", "EUR")
            session._recorder.note("usage.resources", {"energy_j": 1_800_000.0})
    with SessionManager(make_config(), run_name="unknown") as session:
        session.log_tokens("nobody-knows-it", 10, 1)
    with SessionManager(make_config(), run_name="free"):
        pass
    document = json.loads(keisei("compare", "dear", "unknown", "free", "--json"))
    assert document["run"]["cost"] == [{"EUR": "6", "USD": "2.5"}, {"unpriced": 1}, None]
    assert document["run"]["energy_kwh"] == [1.0, None, None]
    lines = [line.split() for line in keisei("compare", "dear", "unknown", "free").splitlines()]
    assert ["cost", *"6.00 EUR, 2.50 USD 1 unpriced -".split()] in lines
    assert ["energy_kwh", "1", "-", "-"] in lines


def test_a_narrow_terminal_cuts_no_verdict(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In 80 columns no metric and no verdict is folded, and why it is so stands below them."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = CliRunner().invoke(app, ["check", "bad"])
    head, row, *below = shown.output.splitlines()
    assert head.split() == ["metric", "verdict", "value", "noise", "band", "difference"]
    assert row.split()[:2] == ["loss", "worse"]
    assert any(line.strip().startswith("worse") and line.endswith(": loss") for line in below)
    assert all(len(line) <= 80 for line in shown.output.splitlines())
