"""What is made of samples: peaks, means, energy, and the sum over attempts and ranks."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from keisei.monitoring.once import MachineLocks
from keisei.monitoring.rapl import RaplSource
from keisei.monitoring.readings import Counter, Reading, Sample, grown, line_of, sample_in
from keisei.monitoring.resources import Totals, changes, folded, is_record_due, pace


@pytest.mark.parametrize(
    ("before", "now", "joules"),
    [
        (Counter(10, 100), Counter(12, 100), 2),
        (Counter(99, 100), Counter(3, 100), 4),
        (Counter(500), Counter(20), 20),
        (Counter(5), Counter(5), 0),
    ],
)
def test_a_counter_of_energy_may_run_over_or_be_reset(
    before: Counter, now: Counter, joules: float
) -> None:
    """RAPL's runs over where it says; a driver's begins with 0 when it is loaded anew."""
    assert grown(before, now) == joules


def test_a_sample_crosses_the_pipe_as_it_is() -> None:
    """What is no finite number is left out; a torn or foreign line is no sample."""
    sample = Sample()
    reading = Reading({"cpu": 12.34567, "bad": math.nan}, {"gpu.0": Counter(5.0)})
    reading.runs = {"1": {"run_bytes": 7.0}}
    reading.problems = {"gpu.1": "lost"}
    sample.add("gpu", reading)
    assert sample_in(line_of(sample)) == Sample(
        {"cpu": 12.346},
        {"gpu.0": Counter(5.0)},
        {"gpu": ("ok", ""), "gpu.1": ("lost", "lost")},
        {},
        {"1": {"run_bytes": 7.0}},
    )
    for line in (b"", b"[1,2]", b"{}", b"[[],[],[],[],[]]", line_of(sample)[:-9], b"\xff\x00"):
        assert sample_in(line) is None


def test_changes_are_those_into_trouble_and_out_of_it() -> None:
    """What is absent from the start is none; a lost part is well when it is lost no more."""
    known = {"gpu": ("ok", ""), "disk": ("hung", "x"), "gpu.3": ("lost", "y")}
    states = {"gpu": ("ok", ""), "disk": ("ok", ""), "amd": ("absent", ""), "host": ("failed", "z")}
    found = changes(known, Sample(states=states))
    assert sorted(change[:2] for change in found) == [
        ("disk", "ok"), ("gpu.3", "ok"), ("host", "failed"),
    ]  # fmt: skip
    assert changes(known, Sample(states={"host": ("ok", "")})) == []
    assert changes({}, Sample(states={"energy": ("unmeasured", "root")})) == []


def test_a_young_session_gets_samples_often() -> None:
    """Each second in the first minute, then each interval; a shorter interval stays."""
    assert [pace(age, 15) for age in (0, 59, 60)] == [1, 1, 15]
    assert pace(0, 0.2) == 0.2
    assert [is_record_due(age, None) for age in (9, 10)] == [False, True]
    assert [is_record_due(age, 10) for age in (69, 70)] == [False, True]


@pytest.mark.requirement("MON-1")
def test_peaks_means_and_energy_of_a_session() -> None:
    """A mean weighs each sample by its time; of a free disk the peak is the lowest value."""
    totals = Totals("host")
    about = {"cpus": 2, "gpus": 1, "devices": [{"label": "gpu.0"}]}
    totals.add({"cpu": 10, "disk.free_bytes": 5, "gpu.0.load": 0}, {}, 1.0, about)
    drawn = {"gpu.0": 30.0, "cpu": 12.5}
    totals.add({"cpu": 40, "disk.free_bytes": 3, "gpu.0.load": 80}, drawn, 3.0, about)
    totals.states = {"gpu": ("hung", "it does not answer"), "amd": ("absent", "")}
    record = totals.record()
    assert record["peaks"] == {"cpu": 40, "disk.free_bytes": 3, "gpu.0.load": 80}
    assert record["means"] == {"cpu": 32.5, "gpu.0.load": 60.0}
    assert (record["energy_j"], record["energy"]) == (42.5, {"cpu": 12.5, "gpu.0": 30.0})
    assert (record["gpus"], record["nodes"], record["limits"]) == (1, 1, {"cpus": 2})
    assert record["states"] == {"gpu": "hung: it does not answer"}
    assert (record["samples"], record["seconds"]) == (2, 4.0)


def test_energy_that_nothing_measures_is_none() -> None:
    """It is not 0 joules."""
    totals = Totals("host")
    totals.add({"cpu": 1.0}, {}, 1.0, {})
    assert totals.record()["energy_j"] is None
    assert totals.record()["gpus"] is None


def test_a_run_is_the_sum_of_the_last_records_of_its_attempts_and_ranks() -> None:
    """Energy adds up, peaks are the highest, GPUs and nodes are those of one attempt."""

    def record(host: str, gpus: int, energy: float, peak: float) -> dict[str, object]:
        return {
            "host": host, "gpus": gpus, "seconds": 10, "samples": 10, "energy_j": energy,
            "energy": {"gpu.0": energy}, "peaks": {"cpu": peak}, "means": {"cpu": peak / 2},
        }  # fmt: skip

    run = folded(
        [
            (1, "", record("a", 8, 5.0, 50)),
            (1, "", record("a", 8, 100.0, 60)),  # the later one of its attempt
            (2, "", record("a", 8, 200.0, 40)),
            (2, "rank1", record("b", 8, 300.0, 90)),
            (2, "rank2", record("b", 0, 0.0, 10)),
            (3, "", "nonsense"),
        ]
    )
    assert run is not None
    assert (run["energy_j"], run["energy"]) == (600.0, {"gpu.0": 600.0})
    assert (run["gpus"], run["nodes"], run["seconds"]) == (16, 2, 40)
    assert (run["peaks"], run["means"]) == ({"cpu": 90}, {"cpu": 25.0})
    assert folded([(1, "", None)]) is None


def test_a_journal_of_nonsense_is_folded_without_an_error() -> None:
    """A run's directory may come from anybody."""
    data = {
        "seconds": "x",
        "energy_j": math.inf,
        "gpus": True,
        "means": 3,
        "peaks": {"cpu": [1], "memory": 10**400},
        "energy": {"gpu": math.nan},
        "limits": None,
        "states": [1],
        "host": {},
    }
    run = folded([(1, "", data)])
    assert run is not None
    assert (run["peaks"], run["energy_j"], run["gpus"]) == ({}, None, None)


def _rapl(where: Path, name: str, kind: str, **files: str) -> None:
    (where / name).mkdir()
    for field, text in {"name": kind, "max_energy_range_uj": "262143328850", **files}.items():
        (where / name / field).write_text(f"{text}\n")


def test_rapl_counts_packages_and_their_memory_once(tmp_path: Path) -> None:
    """Parts of a package, and what holds the packages, would count twice."""
    _rapl(tmp_path, "intel-rapl:0", "package-0", energy_uj="5000000")
    _rapl(tmp_path, "intel-rapl:0:0", "core", energy_uj="3000000")
    _rapl(tmp_path, "intel-rapl:0:1", "dram", energy_uj="1000000")
    _rapl(tmp_path, "intel-rapl:1", "psys", energy_uj="9000000")
    (tmp_path / "dtpm").mkdir()
    reading = RaplSource(MachineLocks("", 0), str(tmp_path)).read()
    assert {name: counter.joules for name, counter in reading.energy.items()} == {
        "cpu.package-0.0": 5.0, "cpu.dram.0:1": 1.0,
    }  # fmt: skip


def test_rapl_that_cannot_be_read_is_said_not_to_be_measured(tmp_path: Path) -> None:
    """A counter that gives no number is no failure, nor are no counters: why is said."""
    _rapl(tmp_path, "intel-rapl:0", "package-0", energy_uj="garbage")
    source = RaplSource(MachineLocks("", 0), str(tmp_path))
    reading = source.read()
    assert not reading.energy
    assert "RAPL" in reading.unmeasured["cpu.energy"]
    for name in ("none", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        reading = RaplSource(MachineLocks("", 0), str(tmp_path / name)).read()
        assert not reading.energy
        assert reading.unmeasured == {"cpu.energy": "this machine shows no counters of RAPL"}
