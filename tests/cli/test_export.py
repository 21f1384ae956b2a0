"""`keisei export`: what runs have logged, as CSV, Parquet and JSON lines."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import stat
import sys
import tracemalloc
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import export as _export  # noqa: F401 - registers the command
from keisei.cli.program import app
from tests.conftest import MakeConfig
from tests.support.logged_runs import Log, line, log_with


@pytest.fixture
def log(make_config: MakeConfig) -> Log:
    """A function that makes a run."""
    return log_with(make_config)


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keisei(*arguments: str, status: int = 0) -> str:
    """Run the command in this process, and return what it printed."""
    done = CliRunner().invoke(app, ["export", "--root", "runs", *arguments])
    assert done.exit_code == status, done.output
    return done.output if status else done.stdout_bytes.decode()


def table(text: str) -> list[dict[str, str]]:
    """Return the lines of a CSV."""
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_a_line_for_each_value(log: Log) -> None:
    """Long CSV has the fixed columns, the metric and its value, without what was superseded."""
    log("first", line(range(4)), [({"loss": -1.0, "flag": True}, 2), ({"n": 7}, None)])
    found = table(keisei("first"))
    assert [(one["metric"], one["value"], one["step"], one["attempt"]) for one in found] == [
        ("loss", "0.0", "0", "1"),
        ("loss", "1.0", "1", "1"),
        ("loss", "3.0", "3", "1"),
        ("loss", "-1.0", "2", "2"),
        ("flag", "True", "2", "2"),
        ("n", "7", "", "2"),
    ]
    assert {(one["run"], one["rank"], one["part"]) for one in found} == {("first", "0", "")}
    assert float(found[0]["time"]) > 1.7e9


def test_a_column_for_each_metric(log: Log) -> None:
    """Wide CSV has a line for each row; metrics of several runs share their columns."""
    log("a", [({"x": 1.0, "step": 5.0}, 1), ({"y": math.nan}, 2)])
    log("b", [({"y": math.inf, "z": 2**40}, 3)])
    found = table(keisei("a", "b", "--wide"))
    assert list(found[0]) == [*"run attempt rank part time step x".split(), "metric/step", "y", "z"]
    assert [(one["run"], one["x"], one["metric/step"], one["y"], one["z"]) for one in found] == [
        ("a", "1.0", "5.0", "", ""),
        ("a", "", "", "nan", ""),
        ("b", "", "", "inf", str(2**40)),
    ]


def test_json_lines_hold_a_row_each(log: Log) -> None:
    """Its metrics are an object of their own; what is no number is text."""
    log("first", [({"x": 1.5, "odd": math.nan}, 1), ({"x": 2}, None)])
    found = [json.loads(one) for one in keisei("first", "-f", "jsonl").splitlines()]
    assert [one["metrics"] for one in found] == [{"x": 1.5, "odd": "NaN"}, {"x": 2}]
    assert [one["step"] for one in found] == [1, None]
    assert found[0].keys() == {"run", "attempt", "rank", "part", "time", "step", "metrics"}


def test_parquet_is_read_back(log: Log) -> None:
    """Long and wide, to a file and to the standard output, with types."""
    pq = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    log("first", [({"x": 1, "flag": True}, 1), ({"y": 2**70}, None), ({"x": math.nan}, 3)])
    said = json.loads(keisei("first", "-o", "rows.parquet", "--json"))
    assert (said["format"], said["rows"]) == ("parquet", 4)
    assert said["bytes"] == os.stat("rows.parquet").st_size
    found = pq.read_table("rows.parquet")
    assert found.column("metric").to_pylist() == ["x", "flag", "y", "x"]
    assert found.column("value").to_pylist()[:3] == [1.0, 1.0, 2.0**70]
    assert found.column("step").to_pylist() == [1, 1, None, 3]
    done = CliRunner().invoke(
        app, ["export", "--root", "runs", "first", "--wide", "--format", "parquet"]
    )
    wide = pq.read_table(io.BytesIO(done.stdout_bytes))
    assert wide.column_names[-3:] == ["x", "flag", "y"]
    assert wide.num_rows == 3


def test_without_pyarrow_the_error_names_the_extra(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written, and the way out is said."""
    log("first", line(range(2)))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert "keisei[parquet]" in keisei("first", "-o", "rows.parquet", status=2)
    assert not os.path.lexists("rows.parquet")


def test_metrics_are_chosen_by_name_or_pattern(log: Log) -> None:
    """Those of the machine are there where they are named; a name that is none is an error."""
    log("first", [({"a/x": 1, "a/y": 2, "b": 3}, 1), ({"system/cpu": 50.0}, None)])
    assert [one["metric"] for one in table(keisei("first"))] == ["a/x", "a/y", "b"]
    assert [one["metric"] for one in table(keisei("first", "-m", "a/*"))] == ["a/x", "a/y"]
    assert [one["metric"] for one in table(keisei("first", "-m", "system/*"))] == ["system/cpu"]
    assert "system/cpu" not in keisei("first", "--wide")
    assert "there is no metric 'c'" in keisei("first", "-m", "c", status=2)


def test_members_are_there_with_their_part(make_config: MakeConfig) -> None:
    """What members have logged comes after the owner's rows, and names them."""
    from keisei import SessionMember

    with SessionManager(make_config(), run_name="first") as session:
        session.log_metrics({"x": 1}, 1)
        with SessionMember(session.handle(), role="rollout") as member:
            member.log_metrics({"x": 2}, 1)
    found = table(keisei("first"))
    assert [(one["rank"], one["part"], one["value"]) for one in found] == [
        ("0", "", "1"),
        ("", "rollout", "2"),
    ]


def test_events_are_lines_too(make_config: MakeConfig) -> None:
    """As CSV with their data as JSON, and as JSON lines; secrets are hidden."""
    with SessionManager(make_config(), run_name="first") as session:
        session.log_event("promoted", {"elo": 1500, "password": "hunter2hunter2"})
    (one,) = [one for one in table(keisei("first", "-e")) if one["name"] == "promoted"]
    assert json.loads(one["data"])["elo"] == 1500
    assert "hunter2" not in one["data"]
    lines = map(json.loads, keisei("first", "-e", "-f", "jsonl").splitlines())
    assert [one["data"]["elo"] for one in lines if one["name"] == "promoted"] == [1500]
    assert "leave --metric out" in keisei("first", "-e", "-m", "x", status=2)


def test_a_file_is_whole_or_not_there(log: Log) -> None:
    """It is its owner's; where it cannot be written nothing is left, and an old one stays."""
    log("first", line(range(3)))
    assert keisei("first", "-o", "rows.csv") == "3 rows written to 'rows.csv'\n"
    if sys.platform != "win32":
        assert stat.S_IMODE(os.stat("rows.csv").st_mode) == 0o600
    before = Path("rows.csv").read_bytes()
    assert "there is no metric" in keisei("first", "-m", "c", "-o", "rows.csv", status=2)
    assert Path("rows.csv").read_bytes() == before
    assert "is a directory" in keisei("first", "-o", "runs", status=2)
    assert "nowhere" in keisei("first", "-o", "nowhere/rows.csv", status=2)
    assert sorted(os.listdir()) == ["home", "rows.csv", "runs"]


def test_names_come_through_as_they_are(log: Log) -> None:
    """Quotes, newlines and commas are one cell of a CSV."""
    name = 'a,"b"\nc </script>'
    log("first", [({name: 1.0}, 1)])
    assert [one["metric"] for one in table(keisei("first"))] == [name]


def test_memory_does_not_grow_with_the_run(log: Log) -> None:
    """Of ten times as many rows no more is held at once."""
    peaks = []
    for count in (20_000, 100_000):
        log(f"r{count}", line(range(count)))
        tracemalloc.start()
        try:
            keisei(f"r{count}", "-o", "rows.csv")
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] < 2 * peaks[0]
