"""Evaluation records: a JSON line in `evaluation.log`, their numbers among the metrics."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from keisei import AsyncSessionManager, NotReadyError, SessionEndedError, SessionManager
from keisei.journal.reader import read_run
from tests.conftest import MakeConfig


def no_constant(text: str) -> None:
    """Refuse what JSON does not know, and Python's reader would take."""
    raise ValueError(text)


def records_of(session: Any) -> list[dict[str, Any]]:
    """Return the lines of a session's evaluation log."""
    text = Path(session.eval_log_file_path).read_text(encoding="utf-8")
    return [json.loads(line, parse_constant=no_constant) for line in text.split("\n")[:-1]]


def rows_of(session: Any) -> list[tuple[int | None, dict[str, Any]]]:
    """Return the steps and the values of a session's journal."""
    return [(row.step, row.values) for row in read_run(session.run_artifact_dir).rows()]


async def test_a_record_is_a_line_and_a_row(make_config: MakeConfig) -> None:
    """Both are there when `flush` returns; texts stay out of the metrics, non-finite numbers are
    strings in the line alone."""
    record: dict[str, Any] = {
        "score": 0.5,
        "games": 100,
        "solved": True,
        "frames": 10**400,
        "loss": math.nan,
        "best": math.inf,
        "worst": -math.inf,
        "opponent": "l\u00e9vel\n9 \udc80",
        "note": None,
        "by": {"black": {"wins": 3}, "names": {"a": "b"}, "list": [1, math.inf, {"x": 2}]},
    }
    async with AsyncSessionManager(make_config()) as session:
        session.log_evaluation(record, step=7)
        session.log_metrics({"loss": 1.0}, step=8)
        session.log_evaluation({"only": "texts"})
        await session.flush()
        first, second = records_of(session)
    assert datetime.fromisoformat(first["time"]).tzinfo is not None
    assert first["step"] == 7
    replaced = {"loss": "NaN", "best": "Infinity", "worst": "-Infinity"}
    by = {**record["by"], "list": [1, "Infinity", {"x": 2}]}
    assert first["values"] == {**record, **replaced, "by": by}
    assert (second["step"], second["values"]) == (None, {"only": "texts"})
    (step, values), other = await anyio.to_thread.run_sync(rows_of, session)
    assert step == 7
    assert math.isnan(values.pop("evaluation/loss"))
    assert values == {
        "evaluation/score": 0.5,
        "evaluation/games": 100,
        "evaluation/solved": True,
        "evaluation/frames": 10**400,
        "evaluation/best": math.inf,
        "evaluation/worst": -math.inf,
        "evaluation/by/black/wins": 3,
    }
    assert other == (8, {"loss": 1.0})


def test_numbers_of_numpy_are_numbers(make_config: MakeConfig) -> None:
    """Scalars are; an array is not what JSON can hold."""
    numpy = pytest.importorskip("numpy")
    with SessionManager(make_config()) as session:
        session.log_evaluation({"a": numpy.float32(1.5), "b": numpy.int64(2), "c": numpy.bool_(1)})
        with pytest.raises(TypeError, match="'d'"):
            session.log_evaluation({"d": numpy.zeros(3)})
    assert records_of(session)[0]["values"] == {"a": 1.5, "b": 2, "c": True}
    assert rows_of(session) == [
        (None, {"evaluation/a": 1.5, "evaluation/b": 2, "evaluation/c": True})
    ]


def circle() -> dict[str, Any]:
    """Return a record that contains itself."""
    data: dict[str, Any] = {"a": 1}
    data["again"] = data
    return data


def laughs() -> list[Any]:
    """Return a list that is small in memory, and endless as text."""
    data: list[Any] = ["ha"]
    for _ in range(30):
        data = [data] * 10
    return data


@pytest.mark.parametrize(
    ("record", "key"),
    [
        ({"fine": 1, "bad": object()}, "'bad'"),
        ({"a": {"b": b"bytes"}}, "'a/b'"),
        ({"a": [1, {2}]}, r"'a\[1\]'"),
        ({"a": [{"b": 1j}]}, r"'a\[0\]/b'"),
        ({"a": {3: 1}}, "3.*'a/'"),
        ({"long": 10**5000}, "'long'"),
        (circle(), "again/again"),
        ({"a": laughs()}, r"a\[0\]\[0\]"),
        ({"a": "x" * 2_000_000}, "too large"),
        ({"a": 1, "b": {"c": 1}, "b/c": 2}, "b/c"),
        ([("a", 1)], "mapping"),
    ],
)
def test_what_json_cannot_hold_names_its_key(
    make_config: MakeConfig, record: Any, key: str
) -> None:
    """It is a TypeError at the call, and nothing of the record is kept."""
    with SessionManager(make_config()) as session:
        with pytest.raises(TypeError, match=key):
            session.log_evaluation(record)
        session.log_evaluation({"good": 1})
    assert [line["values"] for line in records_of(session)] == [{"good": 1}]
    assert rows_of(session) == [(None, {"evaluation/good": 1})]


@pytest.mark.parametrize("face", [AsyncSessionManager, SessionManager])
def test_it_needs_directories_and_comes_before_the_end(make_config: MakeConfig, face: Any) -> None:
    """Too early and too late are typed errors."""
    with pytest.raises(NotReadyError, match="setup_directories"):
        face(make_config()).log_evaluation({"a": 1})
    with SessionManager(make_config()) as ended:
        pass
    with pytest.raises(SessionEndedError, match="completed"):
        ended.log_evaluation({"a": 1})
    assert os.path.getsize(ended.eval_log_file_path) == 0


def test_it_is_a_copy_and_holds_no_secret(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is changed after the call is not logged, and what is secret is hidden."""
    monkeypatch.setenv("STORE_PASSWORD", "canary-environment")
    record: dict[str, Any] = {"api_key": "canary-key", "where": "canary-environment", "list": [1]}
    with SessionManager(make_config()) as session:
        session.log_evaluation(record)
        record["list"].append(2)
    text = Path(session.eval_log_file_path).read_text()
    assert "canary" not in text
    assert records_of(session)[0]["values"]["list"] == [1]


def test_a_callers_error_is_the_callers(make_config: MakeConfig) -> None:
    """A step that is no integer is refused before anything is logged."""
    calls: list[Callable[[], object]] = []
    with SessionManager(make_config()) as session:
        calls.append(lambda: session.log_evaluation({"a": 1}, step="7"))  # type: ignore[arg-type]
        for call in calls:
            with pytest.raises(TypeError):
                call()
        assert session.get_session_summary()["logs"] is None
