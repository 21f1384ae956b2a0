"""`keisei show` says what a run has used of its machines in a few rows."""

from __future__ import annotations

from keisei.cli.show_resources import of_all_gpus


def test_all_gpus_are_one_row() -> None:
    """The highest of their peaks and the mean of their means; the host's and zeros are left out."""
    peaks = {
        "gpu.0.power_watts": 250.0,
        "gpu.1.power_watts": 300.0,
        "gpu.1.mig.2.memory": 7.0,
        "cpu": 90.0,
        "cpu_host": 99.0,
        "disk.free_bytes": 1e9,
        "network.sent_bytes_per_s": 0.0,
    }
    means = {"gpu.0.power_watts": 200.0, "gpu.1.power_watts": 100.0, "cpu": 45.0}
    assert of_all_gpus(peaks, means) == {
        "cpu": (90.0, 45.0),
        "gpu.1.mig.2.memory": (7.0, None),
        "gpu.*.power_watts": (300.0, 150.0),
    }
