"""The journal's file: that of earlier versions, its size, and what does not hold up the loop."""

from __future__ import annotations

import base64
import json
import os
import random
import zlib
from pathlib import Path
from typing import Any

import pytest

from keisei.journal import format
from keisei.journal.attempt import AttemptReader
from keisei.journal.decoding import Block, Scanner
from keisei.journal.format import PACKED_SHAPE, RECORDS, SHAPES
from keisei.journal.reader import read_run
from keisei.journal.writer import Journal
from tests.support.journal import Disk, series

VERSION_1 = base64.b64decode(
    "9UtKSGojrTkzAAAAAAAAAAAAAAAAAAAAeyJ2ZXJzaW9uIjoxLCJhdHRlbXB0IjoxLCJ0aW1lIjoxNzk1NjgyNjc1"
    "LjMxNDg4NTF99UtKS0Tv8GAcAAAAAAAAAAAAAAAAAAAAeyJpZCI6MCwia2V5cyI6WyJsb3NzIiwibiJdffVLSlJe"
    "nrnXiwAAAAMAAAAAAAAAAAAAAAUAAABpAAAAAGcFH9Rc/MHaQWcAAAAAAADgP2kDAAAAaQEAAAAAAAAAMwAAAFsx"
    "Nzk1NjgyNjc1LjMxNDY3MzIsImNoZWNrcG9pbnQiLHsicGF0aCI6Im1vZGVscyJ9XQUAAABpAAAAAGcJJdRc/MHa"
    "QWcAAAAAAADQP2wDAAAAAAAAAAAEaQIAAAD1S0pLRO/wYBwAAAAAAAAAAAAAAAAAAAB7ImlkIjowLCJrZXlzIjpb"
    "Imxvc3MiLCJuIl199UtKS/cSm+kWAAAAAAAAAAAAAAAAAAAAeyJpZCI6MSwia2V5cyI6WyJvayJdffVLSlLk1HU1"
    "FAAAAAEAAAADAAAAAAAAAAQAAABpAQAAAGfjLNRc/MHaQVRO9UtKS/cSm+kWAAAAAAAAAAAAAAAAAAAAeyJpZCI6"
    "MSwia2V5cyI6WyJvayJdfQ=="
)


def blocks_of(run: Path) -> list[Block]:
    """Return the blocks of a run's first journal."""
    data = (run / "metrics.1.journal").read_bytes()
    return list(Scanner(lambda offset, size: data[offset : offset + size]).blocks())


def test_a_journal_of_version_1_is_read(tmp_path: Path) -> None:
    """Rows, values of all kinds, and events are what was logged then."""
    (tmp_path / "metrics.1.journal").write_bytes(VERSION_1)
    reader = read_run(tmp_path)
    assert [(row.seq, row.step, row.values) for row in reader.rows()] == [
        (0, 1, {"loss": 0.5, "n": 3}),
        (2, 2, {"loss": 0.25, "n": 2**40}),
        (3, None, {"ok": True}),
    ]
    (event,) = reader.events()
    assert (event.seq, event.name, event.data) == (1, "checkpoint", {"path": "models"})
    assert reader.damage() == (0, 0, 0, 0, 0)


def test_the_names_of_several_rows_are_there_twice(tmp_path: Path) -> None:
    """Of a shape that one row has they are there once; and again as soon as a second one has it."""
    with Journal(str(tmp_path), 1, max_delay=3600) as journal:
        for metrics in ({"a": 1.0}, {"b": 1.0}, {"a": 2.0}, {"a": 3.0}):
            journal.log_metrics(metrics)
            journal.flush(10)
        journal.log_metrics({"c": 1.0})
        journal.log_metrics({"c": 2.0})
    names = [json.loads(b.payload)["keys"] for b in blocks_of(tmp_path) if b.marker in SHAPES]
    assert names == [["a"], ["b"], ["a"], ["c"], ["c"]]
    assert blocks_of(tmp_path)[-1].marker in SHAPES


def test_rows_with_names_of_their_own_take_little(tmp_path: Path) -> None:
    """5,000 metrics under new names in each row take under 60 KB a row, and are read exactly."""
    logged = []
    with Journal(str(tmp_path), 1, max_delay=3600) as journal:
        for row in range(60):
            logged.append({f"run{row}/layer/{i}/weight": random.random() for i in range(5000)})
            journal.log_metrics(logged[-1], row)
            journal.flush(10)
    size = os.path.getsize(journal.path) / 60
    print(f"bytes per row of 5,000 metrics with names of their own: {size:,.0f}")
    assert size < 60_000
    assert {b.marker for b in blocks_of(tmp_path)} >= {PACKED_SHAPE, RECORDS}
    assert [row.values for row in read_run(tmp_path).rows()] == logged
    with AttemptReader(str(tmp_path), 1) as reader:  # as `keisei tail` reads, from the end
        reader.seek_back(200_000)
        assert [dict(zip(keys, raw[1:-1], strict=True)) for _, keys, raw in reader.rows()] == (
            logged[-3:]
        )


def test_a_bit_in_packed_names_costs_their_one_row(tmp_path: Path) -> None:
    """The row is counted as one without names, and all others are read."""
    with Journal(str(tmp_path), 1, max_delay=3600) as journal:
        for row in range(3):
            journal.log_metrics({f"row {row} {'metric' * 9} {i}": 1.0 for i in range(99)}, row)
    path = tmp_path / "metrics.1.journal"
    data = bytearray(path.read_bytes())
    data[data.index(PACKED_SHAPE, data.index(PACKED_SHAPE) + 1) + 60] ^= 4
    path.write_bytes(data)
    reader = read_run(tmp_path)
    assert [row.step for row in reader.rows()] == [0, 2]
    assert reader.damage().unnamed == 1


@pytest.mark.parametrize(
    "payload",
    [
        zlib.compress(b"[" + bytes(1 << 27)),
        zlib.compress(b"[1, 2]"),
        zlib.compress(b'{"id": 1}'),
        zlib.compress(b"[" * 100_000),
        b"not compressed",
    ],
)
def test_packed_names_that_make_no_sense_are_damage(
    tmp_path: Path, payload: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a foreign file holds under a right checksum costs neither memory nor the rest."""
    monkeypatch.setattr(format, "LARGEST", 1 << 20)
    (tmp_path / "metrics.1.journal").write_bytes(
        b"".join(format.pack_block(PACKED_SHAPE, 0, 0, [payload], len(payload))) + VERSION_1
    )
    reader = read_run(tmp_path)
    assert len(list(reader.rows())) == 3
    assert reader.damage().skipped == 1


def test_a_large_event_is_between_its_neighbours(tmp_path: Path, monkeypatch: Any) -> None:
    """It is written in pieces, by several calls that may write less, and read as it was logged."""
    data = {"text": "x" * 3_000_000, "list": list(range(1000))}
    real = os.write
    monkeypatch.setattr("keisei.journal.file.os.write", lambda fd, piece: real(fd, piece[:100_000]))
    with Journal(str(tmp_path), 1, max_delay=3600) as journal:
        journal.log_metrics({"x": 1.0})
        journal.log_event("large", data)
        journal.log_event("small", [1])
        journal.log_metrics({"x": 2.0})
    reader = read_run(tmp_path)
    assert [(e.seq, e.name, e.data) for e in reader.events()] == [
        (1, "large", data),
        (2, "small", [1]),
    ]
    assert [row.seq for row in reader.rows()] == [0, 3]
    assert journal.counters.bytes == os.path.getsize(journal.path)
    assert reader.damage() == (0, 0, 0, 0, 0)


def test_rows_are_read_without_decoding_events(tmp_path: Path) -> None:
    """A row comes even from behind an event that is no JSON, which costs the events their block."""
    with Journal(str(tmp_path), 1, max_delay=3600) as journal:
        journal.log_event("large", ["[" * 50])
        journal.log_metrics({"x": 1.0})
    (block,) = (block for block in blocks_of(tmp_path) if block.marker == RECORDS)
    broken = block.payload.replace(b'"large"', b"'large'")
    good, bad = (
        b"".join(format.pack_block(RECORDS, block.seq, 2, [payload], len(payload)))
        for payload in (block.payload, broken)
    )
    path = tmp_path / "metrics.1.journal"
    path.write_bytes(path.read_bytes().replace(good, bad))
    assert series(str(tmp_path)) == [1.0]
    assert list(read_run(tmp_path).events()) == []


def test_pieces_are_written_again_after_a_failed_fsync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a large event is, through a new descriptor, and it is read once."""
    disk = Disk(monkeypatch)
    journal = Journal(str(tmp_path), 1, durability="fsync", max_delay=3600)
    disk.refuse["fsync"] = 1
    journal.log_event("large", "x" * 1_000_000)
    with pytest.raises(Exception, match="No space left"):
        journal.flush(10)
    journal.flush(10)
    journal.close()
    assert [len(str(event.data)) for event in read_run(tmp_path).events()] == [1_000_000]


def test_many_names_take_little_memory(tmp_path: Path) -> None:
    """The names that a writer and a reader remember are bounded, whatever the rows have."""
    with Journal(str(tmp_path), 1) as journal:
        for row in range(100):
            journal.log_metrics({f"run{row}/{i}": 1.0 for i in range(5000)})
        assert sum(map(len, journal._shapes)) <= 1 << 18
    with AttemptReader(str(tmp_path), 1) as reader:
        assert sum(1 for _ in reader.rows()) == 100
        assert sum(map(len, reader._names.values())) <= 1 << 18


def test_the_names_are_there_again_in_a_long_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind one row of each shape in every few MiB: the end is read with what is near it."""
    monkeypatch.setattr("keisei.journal.file._NAMES_EVERY", 4_000)
    monkeypatch.setattr("keisei.journal.attempt._NEAR", 10_000)
    monkeypatch.setattr("keisei.journal.attempt.CHUNK", 0)
    with Journal(str(tmp_path), 1, max_delay=3600) as journal:
        for step in range(2000):
            journal.log_metrics({"often": 1.0}, step)
            if step % 100 == 0:
                journal.log_metrics({"seldom": 1.0}, step)
            if step % 20 == 0:
                journal.flush(10)
    names = [json.loads(b.payload)["keys"] for b in blocks_of(tmp_path) if b.marker in SHAPES]
    assert len(names) < os.path.getsize(journal.path) / 4_000 * 2 + 4
    assert names[-1] == ["often"]
    path = tmp_path / "metrics.1.journal"
    data = path.read_bytes()
    path.write_bytes(bytes(20_000) + data[20_000:])  # the first ones are lost
    read = 0

    def counting(fd: int, size: int) -> bytes:
        nonlocal read
        found = os_read(fd, size)
        read += len(found)
        return found

    os_read = os.read
    monkeypatch.setattr("keisei.journal.attempt.os.read", counting)
    monkeypatch.setattr("keisei.journal.decoding.CHUNK", 4_096)
    with AttemptReader(str(tmp_path), 1) as reader:
        reader.seek_back(4_000)
        assert {keys for _, keys, _ in reader.rows()} >= {("often",)}
        assert read < 50_000 < len(data)
        reader.seek_back(20_000)
        assert {keys for _, keys, _ in reader.rows()} == {("often",), ("seldom",)}
        assert reader.damage().unnamed == 0
