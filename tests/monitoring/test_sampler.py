"""The sampler: one process for all sessions, felt by none of them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
import pytest

from keisei.monitoring import sampling

Watch = Callable[..., Any]


def _sampler() -> psutil.Process:
    current = sampling._current
    assert current is not None
    assert current.process is not None
    return psutil.Process(current.process.pid)


def _has_rates(sample: Any) -> bool:
    return "cpu" in sample.metrics and "gpu.7.load" in sample.metrics


@pytest.mark.requirement("MON-1")
def test_a_sample_holds_cpu_memory_disk_network_and_all_gpus(driver: Any, watch: Watch) -> None:
    """One sample says what the tree, its allocation, the host, the disk and each GPU do."""
    one = watch()
    _, sample = one.until(lambda sample: _has_rates(sample) and sample.runs)
    names = {
        "cpu", "cpu_cores", "cpu_host", "memory", "memory_bytes", "memory_host", "processes",
        "network.received_bytes_per_s", "network.sent_bytes_per_s",
        "gpu.0.load", "gpu.0.memory", "gpu.0.memory_bytes", "gpu.0.power_watts",
        "gpu.7.temperature_celsius",
    }  # fmt: skip
    assert names <= set(sample.metrics)
    assert sample.metrics["gpu.3.load"] == 87
    assert sample.metrics["gpu.3.power_watts"] == 250
    assert sample.metrics["gpu.3.memory"] == 25
    assert sample.metrics["memory_bytes"] > 1_000_000
    assert set(sample.runs[one.subscriber.key]) == {"disk.free_bytes", "disk.used", "run_bytes"}
    assert one.about["gpus"] == 8
    assert one.about["cpus"] <= one.about["cpus_host"]


def test_the_energy_of_each_gpu_is_what_its_counter_has_grown(driver: Any, watch: Watch) -> None:
    """Joules between two samples are watts times the seconds between them."""
    one = watch()
    begun, first = one.until(lambda sample: "gpu.5" in sample.energy)
    ended, last = one.until(lambda sample: sample.energy["gpu.5"].joules > 250_300)
    joules = last.energy["gpu.5"].joules - first.energy["gpu.5"].joules
    assert joules == pytest.approx(250 * (ended - begun), rel=0.5)


@pytest.mark.requirement("MON-1")
def test_only_the_visible_gpus_are_read(
    driver: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CUDA_VISIBLE_DEVICES decides, and may change while the sampler runs."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-6aaaaaaa-0000,2")
    one = watch()
    _, sample = one.until(lambda sample: "gpu.6.load" in sample.metrics)
    assert {name.split(".")[1] for name in sample.metrics if name.startswith("gpu.")} == {"2", "6"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    one.until(lambda sample: "gpu.1.load" in sample.metrics and "gpu.6.load" not in sample.metrics)
    assert one.about["gpus"] == 1


@pytest.mark.requirement("MON-1")
def test_mig_instances_are_devices_of_their_own(driver: Any, watch: Watch) -> None:
    """A divided GPU is there as its instances, of which nobody knows load and energy."""
    driver.set("mig", "0")
    driver.set("gpus", "2")
    one = watch()
    _, sample = one.until(lambda sample: "gpu.1.load" in sample.metrics)
    assert sample.metrics["gpu.0.mig.1.memory"] == 25
    assert "gpu.0.load" not in sample.metrics
    assert set(sample.energy) == {"gpu.1"}
    assert sample.states["gpu.0.mig.1.energy"][0] == "unmeasured"
    assert one.about["gpus"] == 3


@pytest.mark.requirement("MON-1")
def test_a_driver_that_hangs_is_shown_within_two_intervals(driver: Any, watch: Watch) -> None:
    """The other sources go on meanwhile, and so does the GPU when it answers again."""
    interval = 0.5
    one = watch(interval)
    one.until(_has_rates)
    hung_at = time.monotonic()
    driver.set("hang")
    shown_at, _ = one.until(lambda sample: sample.states.get("gpu", ("",))[0] == "hung")
    print(f"hung shown after {(shown_at - hung_at) / interval:.2f} intervals")
    one.until(lambda sample: "cpu" in sample.metrics and "gpu.0.load" not in sample.metrics)
    driver.unset("hang")
    one.until(lambda sample: sample.states.get("gpu", ("",))[0] == "ok")
    one.until(_has_rates)


def test_a_gpu_that_falls_off_leaves_the_others(driver: Any, watch: Watch) -> None:
    """A lost GPU is said to be lost, and its numbers are missing, no other one's."""
    one = watch()
    one.until(_has_rates)
    driver.set("lost", "3")
    _, sample = one.until(lambda sample: sample.states.get("gpu.3", ("",))[0] == "lost")
    assert "gpu.3.load" not in sample.metrics
    assert "gpu.4.load" in sample.metrics
    driver.unset("lost")
    one.until(lambda sample: "gpu.3.load" in sample.metrics)


def test_a_driver_that_vanishes_is_said_once_and_may_come_back(
    driver: Any, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """The source has failed, one warning says so, and it is read again when it can be."""
    one = watch(0.1)
    one.until(_has_rates)
    driver.set("gone")
    one.until(lambda sample: sample.states.get("gpu", ("",))[0] == "failed")
    one.until(lambda sample: sample.states.get("gpu", ("",))[0] == "failed")
    driver.unset("gone")
    one.until(_has_rates)
    said = [record for record in caplog.records if "gpu is failed" in record.message]
    assert len(said) == 1


def test_a_sampler_that_is_killed_is_replaced(driver: Any, watch: Watch) -> None:
    """The program says so, and goes on with another one after a pause."""
    one = watch()
    one.until(_has_rates)
    first = _sampler()
    first.kill()
    one.until(lambda sample: sample.states.get("sampler", ("",))[0] == "failed")
    one.until(_has_rates)
    assert _sampler().pid != first.pid


@pytest.mark.requirement("MON-1")
def test_a_sampler_that_hangs_is_replaced(
    driver: Any, watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that is stopped answers no more: it is said to hang, and is killed."""
    monkeypatch.setattr(sampling, "_LATE", 0.5)
    one = watch()
    one.until(_has_rates)
    first = _sampler()
    first.suspend()
    one.until(lambda sample: sample.states.get("sampler", ("",))[0] == "hung")
    one.until(_has_rates)
    assert not first.is_running()


def test_sessions_share_one_sampler_which_ends_with_the_last(driver: Any, watch: Watch) -> None:
    """A second session gets the same process's samples; without any, there is none."""
    one, other = watch(), watch()
    one.until(_has_rates)
    other.until(_has_rates)
    process = _sampler()
    sampling.unsubscribe(one.subscriber)
    other.until(_has_rates)
    assert process.is_running()
    sampling.unsubscribe(other.subscriber)
    give_up = time.monotonic() + 10
    while process.is_running():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_of_two_ranks_each_gpu_is_one_ranks(
    driver: Any, watch: Watch, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that holds the GPUs' locks reads them alone, until it ends."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:  # the other rank: its locks are its process's
        with suppress(BaseException):
            from keisei.monitoring.once import MachineLocks

            locks = MachineLocks("launch", 0, str(tmp_path / f"keisei-{os.getuid()}"))
            for number in range(4):
                assert locks.holds(f"GPU-{number}aaaaaaa-0000")
            os.write(writing, b"!")
            signal.pause()
        os._exit(0)
    try:
        assert os.read(reading, 1) == b"!"
        one = watch(launch="launch")
        _, sample = one.until(lambda sample: "gpu.4.load" in sample.metrics)
        assert "gpu.3.load" not in sample.metrics
        assert one.about["gpus"] == 4
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)
    one.until(lambda sample: "gpu.3.load" in sample.metrics)


def test_keiseis_own_processes_are_left_out(driver: Any, watch: Watch) -> None:
    """The sampler is the program's child, and none of its processes here."""
    one = watch()
    _, sample = one.until(_has_rates)
    children = psutil.Process().children(recursive=True)
    own = [each for each in children if "KEISEI_HOST_PROCESS" in " ".join(each.cmdline())]
    assert _sampler() in own
    assert sample.metrics["processes"] == 1 + len(children) - len(own)
