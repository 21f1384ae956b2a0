"""Samplers of installed packages: read beside keisei's own, each session's own, felt by nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from keisei.monitoring.plugged import Losses, usable
from keisei.monitoring.readings import Counter, Reading, Sample, under, without
from keisei.testing import check_sampler
from tests.support.plugins import install

SOURCE = """
import os, sys, time
from keisei import AppConfig  # the front door, which the sampler does without otherwise
from keisei.monitoring.readings import Counter, Reading

class Meter:
    name = "meter"
    def __init__(self, info, watts=1.0, does=""):
        self.watts, self.does, self.program = watts, does, info.program
        if does == "exit":
            sys.exit(3)
    def read(self):
        if self.does == "hang":
            time.sleep(600)
        if self.does == "die":
            os._exit(5)
        if self.does == "odd":
            return {"watts": 1}
        return Reading({"watts": self.watts}, {"energy": Counter(5.0)})
"""


@pytest.fixture(autouse=True)
def _meters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    where = tmp_path / "packages"
    points = {"meter": "a_meter:Meter", "second": "a_meter:Meter", "broken": "no_such_meter:It"}
    install(where, "meters", {"keisei.resources": points})
    (where / "a_meter.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(where))


@pytest.fixture
def named(watch: Any) -> Callable[..., Any]:
    """Watch with samplers of packages."""

    def begin(**samplers: Mapping[str, Any]) -> Any:
        return watch(samplers=samplers)

    return begin


def test_what_is_read_has_the_samplers_name_and_goes_to_who_names_it(
    driver: Any, named: Callable[..., Any]
) -> None:
    """Beside what keisei reads itself; another session of the program gets none of it."""
    first, other = named(meter={"watts": 3.5}), named()
    _, sample = first.until(lambda sample: "meter.watts" in sample.metrics)
    assert sample.metrics["meter.watts"] == 3.5
    assert "meter.energy" in sample.energy
    assert sample.states["meter"][0] == "ok"
    _, sample = first.until(lambda sample: "cpu_host" in sample.metrics)
    for _ in range(3):
        _, sample = other.until(lambda sample: bool(sample.metrics))
        assert not [name for name in (*sample.metrics, *sample.states) if "meter" in name]


@pytest.mark.parametrize(
    ("does", "state", "problem"),
    [
        ("exit", "failed", "SystemExit: 3"),
        ("odd", "failed", "read() has returned a dict, and no Reading"),
        ("hang", "hung", "it does not answer"),
    ],
)
def test_one_that_is_broken_is_shown_and_the_others_go_on(
    driver: Any, named: Callable[..., Any], does: str, state: str, problem: str
) -> None:
    """Whatever it does, keisei's own and those of the same package are read."""
    one = named(meter={"does": does}, second={"watts": 2.0}, broken={})
    _, sample = one.until(lambda sample: sample.states.get("meter", ("",))[0] == state)
    assert problem in sample.states["meter"][1]
    one.until(lambda sample: "second.watts" in sample.metrics and "cpu_host" in sample.metrics)


def test_one_that_ends_the_process_is_left_out_after_the_third_time() -> None:
    """Its like go with it; a process that lives long, or reads none, counts not."""
    losses = Losses()
    for at in (0.0, 1.0):
        losses.begun(at)
        assert losses.left_of({"a": {}}) == {"a": {}}
        assert losses.lost(at + 0.5) == {}
    losses.begun(10.0)
    assert losses.left_of({}) == {}
    assert losses.lost(10.5) == {}
    losses.begun(20.0)
    losses.left_of({"a": {}})
    assert losses.lost(200.0) == {}
    losses.begun(300.0)
    losses.left_of({"a": {}})
    assert losses.lost(301.0)["a"][0] == "failed"
    losses.begun(302.0)
    assert losses.left_of({"a": {}, "b": {}}) == {"b": {}}


def test_a_process_that_one_ends_is_replaced_and_at_last_goes_on_without_it(
    driver: Any, named: Callable[..., Any]
) -> None:
    """keisei's own are read again, and the state says why the other is not."""
    one = named(meter={"does": "die"})
    _, sample = one.until(lambda sample: sample.states.get("meter", ("",))[0] == "failed")
    assert "it is read no more" in sample.states["meter"][1]
    one.until(lambda sample: "cpu_host" in sample.metrics)


def test_names_that_cannot_be_used_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Those of keisei's own, those with other characters; options of an earlier session count."""
    samplers: dict[str, dict[str, Any]] = {"gpu": {}, "a.b": {}, "meter": {"watts": 1}}
    with caplog.at_level(logging.WARNING, "keisei"):
        left = usable(samplers, [{"meter": {"watts": 2}}])
    assert left == {"meter": {"watts": 1}}
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "monitoring.samplers"
    ] * 3
    assert "'gpu' is one of keisei's own samplers" in caplog.text
    assert "'a.b' is no sampler's name" in caplog.text
    assert "meter is read with the options of an earlier session" in caplog.text


@pytest.mark.parametrize(
    "reading",
    [
        {"a": 1.0},
        Reading({"a": "x"}),  # type: ignore[dict-item]
        Reading({"a\nb": 1.0}),
        Reading({"": 1.0}),
        Reading({str(number): 1.0 for number in range(1001)}),
        Reading(energy={"a": 1.0}),  # type: ignore[dict-item]
        Reading(energy={"a": Counter(float("nan"))}),
    ],
)
def test_what_is_no_reading_is_refused(reading: Any) -> None:
    """It would be taken for a row."""
    with pytest.raises((TypeError, ValueError), match=r"read\(\) has returned"):
        under("meter", reading)


def test_a_session_gets_nothing_of_samplers_that_it_does_not_name() -> None:
    """Neither numbers, nor energy, nor states; a name that only begins alike is another one."""
    sample = Sample(
        {"a.x": 1.0, "ab.x": 2.0, "cpu": 3.0},
        {"a.e": Counter(1.0)},
        {"a": ("ok", ""), "a.part": ("lost", ""), "host": ("ok", "")},
    )
    kept, drawn, about = without({"a"}, sample, {"a.e": 1.0, "gpu.0": 2.0}, {"a.n": 1, "gpus": 2})
    assert kept.metrics == {"ab.x": 2.0, "cpu": 3.0}
    assert (kept.energy, kept.states) == ({}, {"host": ("ok", "")})
    assert (drawn, about) == ({"gpu.0": 2.0}, {"gpus": 2})


class Good:
    """A sampler."""

    name = "good"

    def __init__(self, info: object, step: float = 1.0, size: float = 0.0) -> None:
        self.joules, self.step, self.size = 10.0, step, size

    def read(self) -> Reading:
        """Read it."""
        self.joules += self.step
        return Reading({"watts": 1.0}, {"e": Counter(self.joules, self.size)})


class Empty(Good):
    """Reads nothing at all."""

    def read(self) -> Reading:
        """Read nothing."""
        return Reading()


def test_the_kit_passes_a_good_one_and_tells_what_is_wrong_with_others() -> None:
    """A counter that goes back, one that reads nothing, one that cannot be made."""
    assert len(check_sampler(Good)) == 5
    assert check_sampler(Good, step=-1.0, size=100.0)
    with pytest.raises(AssertionError, match="its counter 'sampler.e' goes back"):
        check_sampler(Good, step=-1.0)
    with pytest.raises(AssertionError, match="it reads no number"):
        check_sampler(Empty)
    with pytest.raises(AssertionError, match="its making fails: TypeError"):
        check_sampler(Good, nothing=1)
