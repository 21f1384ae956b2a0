"""Which runs are baselines by what they were started from: their machines and their code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from keisei.analysis.baselines import Choice, find_baselines
from keisei.analysis.snapshots import code_of, machine_class, subjects
from keisei.store.rows import RunRow

A100 = {"gpus": [{"model": "A100"}] * 8, "processor": "EPYC", "cores": 64}
CODE = {"commit": "0123456789abcdef", "changed": 0, "untracked": 0, "is_dirty": False}
DIRTY = {**CODE, "changed": 1, "is_dirty": True, "digest": "sha256:fedcba9876543210"}


def row(root: Path, name: str, about: dict[str, Any] | None = None, **fields: Any) -> RunRow:
    directory = root / name
    directory.mkdir()
    if about is not None:
        (directory / "provenance.1.json").write_text(json.dumps(about))
    return RunRow(name, str(directory), **{"status": "completed", **fields})


def test_a_machine_of_another_kind_makes_no_baseline(tmp_path: Path) -> None:
    """Both kinds are said; where one is not recorded the machine does not count."""
    new = row(tmp_path, "new", {"machine": A100})
    rows = [
        row(tmp_path, "same", {"machine": {**A100, "host": "other"}}),
        row(tmp_path, "unknown"),
        row(tmp_path, "fewer", {"machine": {**A100, "gpus": A100["gpus"][:4]}}),  # type: ignore[index]
    ]
    found = find_baselines(new, rows, Choice())
    assert [one.name for one in found.chosen] == ["same", "unknown"]
    (reason,) = found.left_out["fewer"]
    assert "8 x A100, 64 cores of EPYC" in reason
    assert "4 x A100" in reason
    assert len(find_baselines(new, rows, Choice(ignore=["machine"])).chosen) == 3


def test_another_code_is_allowed_unless_the_same_is_asked_for(tmp_path: Path) -> None:
    """A check is of what has changed; with `same_code` uncommitted changes count, too."""
    new = row(tmp_path, "new", {"code": DIRTY})
    rows = [
        row(tmp_path, "same", {"code": DIRTY}),
        row(tmp_path, "clean", {"code": CODE}),
        row(tmp_path, "no-git", {"code": {"commit": None, "problem": "there is no git"}}),
    ]
    assert len(find_baselines(new, rows, Choice()).chosen) == 3
    found = find_baselines(new, rows, Choice(same_code=True))
    assert [one.name for one in found.chosen] == ["same"]
    assert found.left_out == {
        "clean": ["the code is '0123456789ab with changes fedcba987654', and was '0123456789ab'"],
        "no-git": ["the code of no-git is not recorded"],
    }


def test_a_run_that_did_not_complete_is_a_baseline_only_if_named(tmp_path: Path) -> None:
    """By its tag, or by name; what is named alone counts, and has to be comparable all the same."""
    states = ["completed", "failed", "died", "running", "lost", "preempted"]
    rows = [row(tmp_path, state, status=state, started=float(n)) for n, state in enumerate(states)]
    new = row(tmp_path, "new")
    found = find_baselines(new, rows, Choice())
    assert [one.name for one in found.chosen] == ["completed"]
    assert found.left_out["running"] == ["it is running"]
    named = find_baselines(new, rows, Choice(named=[rows[1].directory, rows[3].directory]))
    assert ([one.name for one in named.chosen], named.kind) == (["failed", "running"], "named")
    tagged = row(tmp_path, "tagged", status="failed", tags=("baseline",))
    found = find_baselines(new, [*rows, tagged], Choice())
    assert ([one.name for one in found.chosen], found.kind) == (["tagged"], "tagged")
    other = row(tmp_path, "other", config={"lr": 2})
    found = find_baselines(new, [other], Choice(named=[other.directory]))
    assert found.left_out == {"other": ["lr is None, and was 2"]}


def test_what_somebody_has_made_up_is_no_machine_and_no_code() -> None:
    """Whatever stands where a text, a list or a mapping belongs."""
    odd: list[Any] = [None, 3, "x", [], {}, [3, {}], {"model": [1]}]
    for one in odd:
        for other in odd:
            about = {"code": {"changed": one, "commit": other, "is_dirty": one, "digest": other}}
            about |= {"machine": {"gpus": one, "cores": other, "processor": one}, "packages": other}
            subjects(about)
            subjects({"code": one, "machine": other, "packages": one})
    assert machine_class({"machine": {"gpus": "x"}}) is None
    assert code_of({"code": []}) is None
    assert subjects(None) == {}
