"""`keisei report`: a run in one file, and several against each other."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import labels as _labels  # noqa: F401 - registers the commands
from keisei.cli import report as _report  # noqa: F401
from keisei.cli.program import app
from keisei.session import provenance
from tests.conftest import MakeConfig
from tests.support.logged_runs import Log, line, log_with
from tests.support.pages import Page

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>"
TURNED = "\N{RIGHT-TO-LEFT OVERRIDE}gnp\x1b[31m"


@pytest.fixture
def log(make_config: MakeConfig) -> Log:
    """A function that makes a run."""
    return log_with(make_config)


def keisei(*arguments: str, status: int = 0) -> str:
    """Run a command in this process, and return what it printed."""
    done = CliRunner().invoke(app, [arguments[0], "--root", "runs", *arguments[1:]])
    assert done.exit_code == status, done.output
    return done.output if status else done.stdout


def page(*arguments: str) -> Page:
    """Write a report, and return what is in it."""
    keisei("report", *arguments, "-o", "report.html")
    return Page(Path("report.html").read_text(encoding="utf-8"))


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.requirement("LOOK-2")
def test_a_report_holds_the_whole_run(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Charts, config with origins, environment, log, media, cost, lag, checkpoints and verdict."""
    monkeypatch.setenv("KEISEI_PROVENANCE", "on")
    monkeypatch.setattr(provenance, "PATIENCE", 30.0)
    monkeypatch.setattr(provenance, "GRACE", 30.0)
    for seed, name in enumerate(["a", "b", "c", "d"]):
        with SessionManager(make_config(), run_name=name) as session:
            for step in range(50):
                session.log_metrics({"loss": 1 / (step + 1) + seed / 1000}, step)
        keisei("tag", name, "baseline")
    with SessionManager(make_config(monitoring={"lag": True}), run_name="e") as session:
        for step in range(50):
            session.log_metrics({"loss": 3.0}, step)
        session.log_text("sample", "there was a cat")
        session.log_image("board", bytes_of_a_png(), caption="a square")
        session.log_histogram("weights", [1.0, 2.0, 2.0])
        session.log_table("answers", [{"question": "why?", "answer": "because"}])
        session.log_cost(1.25, "evaluation API")
        session.log_event("usage.lag", LAG)
        session.save_checkpoint({"x": 1}, 50, metrics={"loss": 3.0})
    found = page("e")
    assert found.unclosed == []
    expected = ["verdict", "charts", "metrics", "lag", "cost", "media", "config", "origin"]
    named = [name for name in found.sections if name not in ("time", "resources")]
    assert named == [*expected, "checkpoints", "log"]
    for said in ("worse", "there was a cat", "evaluation API", "a square", "why?", "because"):
        assert said in found.text
    assert "checkpoint_50" in found.text
    assert "session ended: run e" in found.text
    assert "argument run_name" in found.text  # where the name in the config came from
    assert "test_report.py" in found.text or "pytest" in found.text  # the command
    assert "hold_it" in found.text  # what held the loop
    (image,) = found.all("img")
    assert str(image["src"]).startswith("data:image/png;base64,")
    assert found.data["metrics"] == ["loss"]


LAG = {
    "stalls": 1,
    "seconds": 0.5,
    "longest_s": 0.5,
    "left_out": 0,
    "functions": [
        {
            "function": "hold_it",
            "file": "a.py",
            "line": 3,
            "count": 1,
            "seconds": 0.5,
            "longest_s": 0.5,
            "causes": {"code": 1},
        }
    ],
}


def bytes_of_a_png() -> bytes:
    """Return a PNG of one pixel."""
    text = (
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5E"
    )
    return base64.b64decode(f"{text}rkJggg==")


@pytest.mark.requirement("LOOK-2")
def test_the_file_allows_its_own_script_and_style_and_nothing_else(log: Log) -> None:
    """The policy has the hashes of what is inline; nothing names an address; it is its owner's."""
    log("first", line(range(10)))
    found = page("first")
    (policy,) = found.all("meta", **{"http-equiv": "Content-Security-Policy"})
    said = dict(part.strip().split(" ", 1) for part in str(policy["content"]).split(";"))
    hashes = {kind: hash_of(found.texts[kind][-1]) for kind in ("script", "style")}
    assert said == {
        "default-src": "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "img-src": "data:",
        "media-src": "data:",
        "script-src": hashes["script"],
        "style-src": hashes["style"],
    }
    assert len(found.texts["script"]) == 2
    assert not re.search(r"^\s*(import|export)\b", found.texts["script"][1], re.M)
    for _, attributes in found.elements:
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    if sys.platform != "win32":
        assert stat.S_IMODE(os.stat("report.html").st_mode) == 0o600
    assert sorted(os.listdir()) == ["home", "report.html", "runs"]  # and nothing on the way there


def hash_of(inline: str) -> str:
    """Return the source that a policy names an inline text by."""
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def test_what_a_run_says_is_text(make_config: MakeConfig) -> None:
    """Markup, terminal escapes and marks that turn the writing round come through nowhere."""
    with SessionManager(make_config(), run_name="evil") as session:
        evil = HOSTILE + TURNED
        session.log_metrics({evil: 1.0}, 1)
        session.log_event(evil, {evil: evil})
        session.log_text("text", f"{evil}\n{'x' * 100_000}")
        session.log_table(evil[:20], [{HOSTILE: evil}])
        with open(session.log_file_path, "a", encoding="utf-8") as log:
            log.write(f"{evil}\n")
        session.log_cost(1, evil)
        session.log_file("drawing", b"<svg onload=alert(1) xmlns='http://www.w3.org/2000/svg'/>")
    keisei("tag", "evil", "<b>tag</b>")
    keisei("note", "evil", HOSTILE)
    found = page("evil")
    content = Path("report.html").read_text(encoding="utf-8")
    assert "\x1b" not in content
    assert TURNED[0] not in content
    assert not found.all("img")
    assert len(found.all("script")) == 2
    assert found.all("svg", onload="alert(1)") == []
    assert "<b>tag</b>" in found.text
    assert HOSTILE in found.text
    assert r"\u202egnp\x1b[31m" in found.text
    assert found.data["metrics"] == [evil]
    keisei("report", "evil", "evil", "--md", "-o", "report.md")
    text = Path("report.md").read_text(encoding="utf-8")
    assert "\x1b" not in text
    assert TURNED[0] not in text
    assert not re.search(r"^[^`]*<", re.sub(r"(`+).*?\1", "", text), re.M)


def test_secrets_are_hidden(make_config: MakeConfig) -> None:
    """What was logged and noted with a secret in it shows that one was there."""
    with SessionManager(make_config(), run_name="first") as session:
        session.log_event("login", {"password": "hunter2hunter2"})
        with open(session.log_file_path, "a", encoding="utf-8") as log:
            log.write("api_key=sk-abcdefghijklmnopqrstuvwxyz123456\n")
        session.log_metrics({"loss": 1.0}, 1)
    page("first")
    content = Path("report.html").read_text(encoding="utf-8")
    assert "hunter2hunter2" not in content
    assert "sk-abcdefghijklmnop" not in content


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_run_that_died_is_shown_until_then(tmp_path: Path) -> None:
    """What it had logged is there, and that nobody has said its end."""
    program = """
import os, signal, sys, keisei
config = keisei.load_config(overrides={"logging": {"log_dir": sys.argv[1]}})
with keisei.SessionManager(config, run_name="r") as session:
    for step in range(100):
        session.log_metrics({"loss": 1 / (step + 1)}, step)
    session.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""
    environ = {**os.environ, "KEISEI_PROVENANCE": "off"}
    command = [sys.executable, "-c", program, str(tmp_path / "runs")]
    assert subprocess.run(command, env=environ).returncode < 0
    found = page("r")
    assert "died" in found.text
    assert "Its process died without an end" in found.text
    assert found.data["lines"][0]["count"] == 100


def test_a_run_without_rows_and_one_with_odd_numbers(log: Log) -> None:
    """Nothing to draw is said; what is not finite is not drawn, and counted."""
    log("empty", [])
    assert "No metrics were logged." in page("empty").text
    odd = [({"x": value}, step) for step, value in enumerate([1.0, math.nan, math.inf, 1e300])]
    log("odd", [*odd, ({"big": -1e-300}, 4), ({"big": 2**70}, 5)])
    found = page("odd")
    x, big = found.data["lines"]
    assert (x["ys"], x["left_out"], x["count"]) == ([1, None, 1e300], 2, 4)
    assert big["ys"] == [-1e-300, 1.18059e21]
    assert "4 (2 not finite)" in found.text


def test_rows_without_steps_are_drawn_by_time(log: Log) -> None:
    """There is no step to draw by, and the times are there."""
    log("first", [({"x": float(i)}, None) for i in range(5)])
    (found,) = page("first").data["lines"]
    assert "step" not in found
    assert found["time"] == 0


def test_what_a_resume_has_left_behind_is_not_drawn(log: Log) -> None:
    """The later attempt's values count, over steps and over time."""
    log("first", line(range(10)), [({"loss": -float(i)}, i) for i in range(5, 12)])
    data = page("first").data
    (found,) = data["lines"]
    assert data["xs"][found["step"]] == [*range(12)]
    assert found["ys"] == [0, 1, 2, 3, 4, *(-i for i in range(5, 12))]
    times = data["xs"][found["time"]]
    assert times == sorted(times)


def test_of_twelve_thousand_metrics_some_are_drawn_and_all_are_listed(log: Log) -> None:
    """The first hundred are drawn, the others named; those that are asked for come instead."""
    names = [f"group/m{i}" for i in range(12_000)]
    log("wide", [({name: float(i) for name in names}, i) for i in range(2)])
    found = page("wide")
    assert found.data["metrics"] == names[:100]
    assert len(found.all("li")) == 11_900
    assert os.stat("report.html").st_size < 2_000_000
    assert page("wide", "-m", "group/m11*99").data["metrics"] == [
        name for name in names if re.fullmatch("group/m11.*99", name)
    ]
    assert "there is no metric 'nothing'" in keisei("report", "wide", "-m", "nothing", status=2)


def test_spikes_stay_and_the_file_stays_small(log: Log) -> None:
    """Of many rows the least and the greatest of each column are drawn."""
    rows = [({"a": math.sin(i), "b": 1e6 + (i == 7_777)}, i) for i in range(30_000)]
    log("long", rows)
    a, b = page("long").data["lines"]
    assert max(b["ys"]) == 1_000_001
    assert len(a["ys"]) <= 4 * 1_500 + 4
    assert a["step"] == b["step"]  # the xs of both stand there once
    assert os.stat("report.html").st_size < 400_000


def test_several_runs_are_held_against_each_other(make_config: MakeConfig) -> None:
    """They lie over each other, what differs is a table, and each one's own is folded below."""
    for seed in (1, 2):
        with SessionManager(make_config(env={"seed": seed}), run_name=f"r{seed}") as session:
            session.log_metrics({"loss": 1.0 / seed}, 1)
            session.log_cost(seed, "evaluation API")
    found = page("r1", "r2", "r1")
    assert found.data["runs"] == ["r1", "r2"]
    assert [one["run"] for one in found.data["lines"]] == ["r1", "r2"]
    assert "comparison" in found.sections
    assert "env.seed" in found.text
    assert "2.00 USD" in found.text
    ids = [one for _, attributes in found.elements if (one := attributes.get("id"))]
    assert len(ids) == len(set(ids))
    keisei("report", "r1", "r2", "--md", "-o", "-")
    assert "| env.seed | 1 | 2 |" in keisei("report", "r1", "r2", "--md", "-o", "-")


def test_markdown_says_it_in_short(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """State, metrics and values that are no defaults, as tables that no name breaks."""
    monkeypatch.setenv("KEISEI_PROVENANCE", "on")
    log("first", [({"loss|x": 1.0, "a`b": 2.0}, 1)])
    text = keisei("report", "first", "--md", "-o", "-")
    assert text.startswith("## Run first: completed\n")
    assert "| `loss\\|x` | 1 | 1 | 1 | 1 |" in text
    assert "| ``a`b`` | 2 | 2 | 2 | 1 |" in text
    assert "| logging.run_name | first | argument run_name |" in text


def test_the_file_is_whole_or_not_there(log: Log) -> None:
    """Where it cannot be written nothing is left; what was written is said as JSON, too."""
    log("first", line(range(3)))
    assert "is a directory" in keisei("report", "first", "-o", "runs", status=2)
    assert "No such file" in keisei("report", "first", "-o", "nowhere/report.html", status=2)
    assert "nothing" in keisei("report", "nothing", status=2)
    said = json.loads(keisei("report", "first", "--json"))
    assert said["file"] == str(Path("first.html").absolute())
    assert said["bytes"] == os.stat("first.html").st_size
    assert said["runs"] == ["first"]
    assert keisei("report", "first", "-o", "-").startswith("<!doctype html>")


def test_a_baseline_is_named_or_asked_for(log: Log) -> None:
    """Verdicts come where somebody names a baseline, and not where nobody has."""
    for name in ("a", "b", "c"):
        log(name, line(range(5)))
    assert "verdict" not in page("a").sections
    assert "a against 1 named run" in page("a", "-b", "b").text
    assert "a against 1 comparable run" in page("a", "--against", "b").text


def test_a_baseline_that_is_not_comparable_is_said_with_its_reason(make_config: MakeConfig) -> None:
    """There is no verdict against a run of another config."""
    for name, steps in (("a", 100), ("b", 200)):
        config = make_config(training={"total_timesteps": steps})
        with SessionManager(config, run_name=name) as session:
            session.log_metrics({"loss": 1.0}, 1)
    text = page("a", "-b", "b").text
    assert "no baseline is comparable (b: training.total_timesteps is 100, and was 200" in text


def test_a_run_with_phases_says_where_its_time_went(make_config: MakeConfig) -> None:
    """Also one of which nothing else was measured: its goodput stands over its phases."""
    session = SessionManager(make_config(monitoring={"phases": True}), run_name="r")
    with session, session.phase("evaluation"):
        session.log_metrics({"loss": 1.0}, 1)
    keisei("report", "r")
    text = Path("r.html").read_text()
    assert "Where the time went" in text
    assert re.search(r"Goodput \d+\.\d%", text)
