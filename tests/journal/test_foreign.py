"""Journals from somebody else: whatever a right checksum covers, it is damage at most."""

from __future__ import annotations

import json
import math
import os
import random
import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei import AppConfig, SessionManager
from keisei.cli import plot as _plot  # noqa: F401 - registers the command
from keisei.cli import tail as _tail  # noqa: F401 - registers the command
from keisei.cli.program import app
from keisei.journal.follower import Follower, count_after
from keisei.journal.format import (
    HEADER,
    PACKED_SHAPE,
    RECORDS,
    SHAPE,
    dump,
    file_name,
    pack_block,
    pack_json,
    pack_shape,
)
from keisei.journal.reader import Position, read_run
from keisei.journal.superseding import RESUME
from keisei.journal.writer import Journal
from tests.support.storms import some_of

NOW = 1.8e9


def block(marker: bytes, seq: int, count: int, payload: bytes) -> bytes:
    """Return a block with a right checksum."""
    return b"".join(pack_block(marker, seq, count, [payload], len(payload)))


def row(*values: object) -> bytes:
    """Return a row: the id of its shape, the time, its values and the step."""
    return dump(list(values), 2)[1:]


def event(text: str) -> bytes:
    """Return an event, of any text."""
    return struct.pack("<II", 0, len(text)) + text.encode()


def rows(seq: int, *values: bytes) -> bytes:
    """Return a block of records."""
    return block(RECORDS, seq, len(values), b"".join(values))


def good(begin: int, end: int) -> bytes:
    """Return rows with a metric `x`, and its names."""
    numbered = [row(0, NOW + i, i + 0.5, i) for i in range(begin, end)]
    return pack_shape(0, ("x",)) + rows(begin, *numbered)


WRONG: dict[str, bytes] = {
    "a shape whose id is a list": pack_json(SHAPE, {"id": [0], "keys": ["x"]}),
    "a shape whose id is a flag": pack_json(SHAPE, {"id": True, "keys": ["x"]}),
    "a shape without keys": pack_json(SHAPE, {"id": 0}),
    "a shape that is a list": pack_json(SHAPE, [0, ["x"]]),
    "a shape with keys that are numbers": pack_json(SHAPE, {"id": 0, "keys": [1, 2]}),
    "a shape that is deep": block(SHAPE, 0, 0, b"[" * 200_000),
    "a shape that is packed tight": block(
        PACKED_SHAPE, 0, 0, zlib.compress(b'{"id":0,"keys":["%s"]}' % (b"x" * 10_000_000))
    ),
    "a row that is too short": rows(3, dump([0], 2)[1:] + bytes(20)),
    "a row without a step": rows(3, row(0, NOW)),
    "a row with fewer values": rows(3, row(0, NOW, 3)),
    "a row with more values": rows(3, row(0, NOW, 1.0, 2.0, 3)),
    "a row whose time is a flag": rows(3, row(0, True, 1.0, 3)),
    "a row whose time is a number of seconds": rows(3, row(0, 5, 1.0, 3)),
    "a row whose time is none": rows(3, row(0, float("nan"), 1.0, 3)),
    "a row whose time is out of the calendar": rows(3, row(0, 1e300, 1.0, 3)),
    "a row whose step is a float": rows(3, row(0, NOW, 1.0, 3.0)),
    "a row whose step is a flag": rows(3, row(0, NOW, 1.0, True)),
    "a row whose value is nothing": rows(3, row(0, NOW, None, 3)),
    "a row whose shape is a flag": rows(3, row(True, NOW, 1.0, 3)),
    "a row whose shape is a float": rows(3, row(0.0, NOW, 1.0, 3)),
    "a row whose shape is unknown": rows(3, row(7, NOW, 1.0, 3)),
    "a row of another shape that is negative": rows(3, row(-1, NOW, 1.0, 3)),
    "a count of values that is huge": rows(3, b"\xff\xff\xff\xff" + bytes(40)),
    "an integer with digits that are none": rows(
        3, row(0, NOW, 2**80, 3).replace(struct.pack("<i", 6), struct.pack("<i", -(2**31)))
    ),
    "a count of records that is huge": block(RECORDS, 3, 2**32 - 1, row(0, NOW, 1.0, 3)),
    "a number that is huge": block(RECORDS, 2**64 - 1, 1, row(0, NOW, 1.0, 3)),
    "numbers that are far off": rows(10**12, row(0, NOW, None, 3)),
    "no records at all": block(RECORDS, 3, 0, b""),
    "more than the records": block(RECORDS, 3, 1, row(0, NOW, 1.0, 3) + b"more and more"),
    "an event that is no list": rows(3, event('{"time": 1, "name": "e", "data": 2}')),
    "an event of three letters": rows(3, event('             "abc"')),
    "an event whose time is a flag": rows(3, event('[true, "name", null]')),
    "an event whose time is infinite": rows(3, event('[1e999, "name", null]')),
    "an event whose name is a list": rows(3, event(f'[{NOW}, ["name"], null]')),
    "an event that is deep": rows(3, event(f'[{NOW}, "e", {"[" * 900}{"]" * 900}]')),
    "an event that is deeper": rows(3, event("[" * 200_000)),
    "an event of a number that is long": rows(3, event(f'[{NOW}, "e", {"9" * 5000}]')),
    "an event that is no text": rows(3, event("[1.0, 'e', 'x']").replace(b"'", b"\xff")),
    "an event that is cut off": rows(3, struct.pack("<II", 0, 1000) + bytes(16)),
    "a head that is deep": block(HEADER, 0, 0, b"[" * 200_000),
}


def read_all(run: Path) -> tuple[list[int], Any]:
    """Read a run in every way that there is, and return the steps of `x` and the damage."""
    reader = read_run(run)
    holds = [r.step for r in reader.rows() if "x" in r.values]
    assert holds == list(reader.columns("x")[0])
    everything = reader.rows(include_superseded=True)  # a resume is nothing wrong
    seen = [r.step for r in everything if "x" in r.values and r.step is not None]
    json.dumps([e._asdict() for e in reader.events()])
    list(reader.follow(poll=0, stop=lambda: True))
    follower = Follower(str(run), Position(1, -1), 9)
    while follower.read(1000):
        pass
    follower.close()
    count_after(str(run), Position(1, 0), 9)
    return seen, reader.damage()


def shown(run: Path) -> Iterator[str]:
    """Yield what the commands print."""
    for arguments in (
        ["tail", str(run), "--metrics", "--no-follow"],
        ["tail", str(run), "--no-follow", "--json", "-n", "100"],
        ["plot", str(run), "x"],
        ["plot", str(run), "--x", "time"],
    ):
        done = CliRunner().invoke(app, arguments)
        assert done.exception is None or isinstance(done.exception, SystemExit), arguments
        assert "Traceback" not in done.output
        yield done.stdout
        if "--json" in arguments:
            for line in done.stdout.splitlines():
                json.loads(line)


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[bytes], Path]:
    """Makes a run whose journal has these bytes."""
    root = str(tmp_path_factory.mktemp("runs"))
    with SessionManager(AppConfig.model_validate({"logging": {"log_dir": root}})) as session:
        pass
    run = Path(session.run_artifact_dir)

    def make(data: bytes) -> Path:
        (run / file_name(1)).write_bytes(data)
        return run

    return make


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_record_is_damage(make_run: Callable[[bytes], Path], what: str) -> None:
    """It is counted, and what is before and behind it is read by every reader."""
    run = make_run(good(0, 3) + WRONG[what] + good(4, 7))
    steps, damage = read_all(run)
    assert steps == [0, 1, 2, 4, 5, 6]
    assert any(damage) or what == "a head that is deep"
    tailed, objects, drawn, *_ = shown(run)
    assert "step 6" in tailed
    assert '"step":6' in objects
    assert "by step" in drawn


@pytest.mark.storm
@pytest.mark.parametrize("seed", some_of(range(1, 60)))
def test_any_record_may_be_wrong(make_run: Callable[[bytes], Path], seed: int) -> None:
    """Longer than the next one."""
    _sweep(make_run, seed, rounds=200)


def test_some_records_may_be_wrong(make_run: Callable[[bytes], Path]) -> None:
    """Blocks with bytes, numbers and JSON that are anything never raise, and hide no good row."""
    _sweep(make_run, 0, rounds=400)


def _sweep(make_run: Callable[[bytes], Path], seed: int, rounds: int) -> None:
    chance = random.Random(seed)
    for number in range(rounds):
        wrong = b"".join(_anything(chance) for _ in range(chance.randrange(1, 6)))
        run = make_run(good(0, 3) + wrong + good(500_000, 500_003))
        steps, _ = read_all(run)
        assert {0, 1, 2} <= set(steps), (seed, number)
        assert {500_000, 500_001, 500_002} <= set(steps), (seed, number)
        if number % 20 == 0:
            list(shown(run))


def _anything(chance: random.Random) -> bytes:
    """Return a block with a right checksum, and something in it that may be wrong."""

    def value() -> Any:
        numbers = [0, 1, -1, 2**31, -(2**70), NOW, 1.5, math.nan, math.inf, True, None]
        return chance.choice(numbers)

    def data(depth: int = 0) -> Any:
        kinds: list[Any] = [value(), "x", "\ud800", "\x1b[31m", RESUME, "9" * 50]
        if depth < 4:
            kinds += [[data(depth + 1) for _ in range(chance.randrange(3))]]
            kinds += [{str(data(4)): data(depth + 1), "step": value(), "seq": value()}]
        return chance.choice(kinds)

    kind = chance.choice([HEADER, SHAPE, PACKED_SHAPE, RECORDS, RECORDS, RECORDS])
    if kind == RECORDS:
        records = []
        for _ in range(chance.randrange(4)):
            if chance.random() < 0.3:
                said = [NOW, RESUME, data()] if chance.random() < 0.5 else data()
                records.append(event(json.dumps(said)))
            else:
                values = [value() for _ in range(chance.randrange(4))]
                first = [0, NOW] if chance.random() < 0.7 else [value(), value()]
                records.append(row(*first, *values))
        payload = b"".join(records)
    else:
        keys = chance.choice([["x"], ["x", "y"], [], data()])
        payload = json.dumps(chance.choice([{"id": value(), "keys": keys}, data()])).encode()
        payload = zlib.compress(payload) if kind == PACKED_SHAPE else payload
        records = []
    if chance.random() < 0.3:
        mutable = bytearray(payload)
        for _ in range(min(len(mutable), chance.randrange(1, 4))):
            mutable[chance.randrange(len(mutable))] = chance.randrange(256)
        payload = bytes(mutable)
    seq = chance.choice([3, 3 + chance.randrange(1000), chance.randrange(2**20, 2**64)])
    count = chance.choice([len(records), len(records), chance.randrange(2**32)])
    return block(kind, seq, count, payload)


def test_small_files_keep_nobody_busy(make_run: Callable[[bytes], Path]) -> None:
    """Time is bounded by the size, whatever a file claims: large blocks, resumes, steps, names."""
    claims = struct.pack("<4sIIIQ", RECORDS, 0, 1 << 19, 1, 0) * 40_000  # each as large as half
    resumes = [event(json.dumps([NOW, RESUME, {"step": 0}])) for _ in range(4_000)]
    places = [event(json.dumps([NOW, RESUME, {"attempt": 1, "seq": 2 * i}])) for i in range(20_000)]
    for wrong in (claims, rows(3, *resumes), rows(3, *places)):
        began = time.process_time()
        run = make_run(good(0, 3) + wrong + good(100_000, 100_003))
        assert read_all(run)[0][-3:] == [100_000, 100_001, 100_002]
        assert time.process_time() - began < 60


def test_steps_in_any_order_are_found_at_once(make_run: Callable[[bytes], Path]) -> None:
    """A later attempt whose steps are in no order takes no longer than one with ordered steps."""
    steps = list(range(20_000))
    random.Random(1).shuffle(steps)
    run = make_run(good(0, 20_000))
    data = pack_shape(0, ("x",)) + rows(0, *[row(0, NOW, -1.0, step) for step in steps])
    (run / file_name(2)).write_bytes(data)
    began = time.process_time()
    try:
        assert set(read_run(run).columns("x")[1]) == {-1.0}
    finally:
        (run / file_name(2)).unlink()
    assert time.process_time() - began < 20


def test_a_hole_takes_neither_memory_nor_time(tmp_path: Path) -> None:
    """A stretch of 400 MB of nothing is skipped once, holding little of it."""
    path = tmp_path / file_name(1)
    path.write_bytes(good(0, 3))
    size = path.stat().st_size
    os.truncate(path, size + 400_000_000)
    with path.open("ab") as file:
        file.write(good(3, 6))
    tracemalloc.start()
    try:
        began = time.process_time()
        run = read_run(tmp_path)
        assert list(run.columns("x")[0]) == list(range(6))
        assert run.damage()[:3] == (1, 400_000_000, 0)
        print(f"a hole of 400 MB, four times: {time.process_time() - began:.2f} s")
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("kind", [b"H", b"K", b"N", b"R"])
def test_damage_that_is_full_of_markers_hides_nothing(tmp_path: Path, kind: bytes) -> None:
    """Behind a stretch in which a block seems to begin everywhere, what follows is read."""
    path = tmp_path / file_name(1)
    with Journal(str(tmp_path), 1) as journal:
        journal.log_metrics({"a": 1.0}, 1)
        journal.flush(60)
        size = path.stat().st_size
        journal.log_metrics({"a": 2.0}, 2)
    whole = path.read_bytes()
    for cut in range(4):
        path.write_bytes(whole[:size] + (b"\xf5KJ" + kind) * 5000 + b"\xf5KJR"[:cut] + whole[size:])
        assert [row.step for row in read_run(tmp_path).rows()] == [1, 2]
