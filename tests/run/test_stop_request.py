"""The request that ends a run from elsewhere, as several processes write it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from keisei._io.directories import OpenDirectory
from keisei.run.stop_request import StopRequest, read_request, write_request


def test_many_write_it_at_once(tmp_path: Path) -> None:
    """None of them fails, and whoever reads meanwhile finds a whole one."""

    def write(number: int) -> set[str]:
        found = set()
        with OpenDirectory(str(tmp_path)) as directory:
            for _ in range(50):
                request = StopRequest(
                    session_id="a",
                    attempt=1,
                    status="preempted",
                    source=f"rank {number}",
                    asked_at="now",
                )
                write_request(directory, request)
                read = read_request(directory)
                assert read is not None
                found.add(read.source)
        return found

    with ThreadPoolExecutor(4) as pool:
        found = set().union(*pool.map(write, range(4)))
    assert found <= {f"rank {number}" for number in range(4)}
    assert [path.name for path in tmp_path.glob("*stop*")] == ["stop.json"]
