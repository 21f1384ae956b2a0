"""The journal's reader: one series from many attempts, and what damage costs."""

from __future__ import annotations

import os
import random
import sys
import threading
from array import array
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei.errors import MissingExtraError
from keisei.journal import decoding
from keisei.journal.format import HEAD_SIZE, PREFIX, file_name
from keisei.journal.reader import AttemptReader, Row, read_run, repair
from keisei.journal.writer import Journal


def write(run: Path, attempt: int, steps: list[int | None], flush_every: int = 7) -> Path:
    """Write an attempt's journal: rows whose values say where they come from."""
    with Journal(str(run), attempt, max_delay=3600) as journal:
        for i, step in enumerate(steps):
            journal.log_metrics({"x": i + 0.5, "attempt": attempt}, step)
            if i % flush_every == flush_every - 1:
                journal.flush(10)
    return Path(journal.path)


def steps_of(rows: list[Row]) -> list[tuple[int, int | None]]:
    """Return attempt and step of rows."""
    return [(row.attempt, row.step) for row in rows]


def test_a_row_is_frozen_and_complete(tmp_path: Path) -> None:
    """It says number, time, step, attempt and values."""
    write(tmp_path, 2, [7])
    (row,) = read_run(tmp_path).rows()
    assert (row.seq, row.step, row.attempt) == (0, 7, 2)
    assert row.values == {"x": 0.5, "attempt": 2}
    assert abs(os.path.getmtime(tmp_path / file_name(2)) - row.time) < 60
    with pytest.raises(AttributeError):
        row.step = 8  # type: ignore[misc]


@pytest.mark.parametrize(
    ("attempts", "merged"),
    [
        ([range(10), range(6, 12)], [(1, range(6)), (2, range(6, 12))]),
        ([range(10), range(10, 12)], [(1, range(10)), (2, range(10, 12))]),
        ([range(5), range(5)], [(2, range(5))]),
        ([range(5), range(2)], [(1, range(2, 5)), (2, range(2))]),
        ([range(10), range(3, 9), [5]], [(1, [0, 1, 2, 9]), (2, [3, 4, 6, 7, 8]), (3, [5])]),
        ([range(6), [1000, *range(3, 6)]], [(1, range(3)), (2, [1000, 3, 4, 5])]),
        ([range(5), [], range(2, 5)], [(1, range(2)), (3, range(2, 5))]),
        ([[0, None, 1, None], [1, None]], [(1, [0, None, None]), (2, [1, None])]),
        ([[None, None], [0]], [(1, [None, None]), (2, [0])]),
    ],
)
def test_attempts_merge_to_an_uninterrupted_run(
    tmp_path: Path, attempts: list[Any], merged: list[tuple[int, Any]]
) -> None:
    """A value that a later attempt logged again is marked, and left out unless asked for."""
    for attempt, steps in enumerate(attempts, 1):
        write(tmp_path, attempt, list(steps))
    reader = read_run(tmp_path)
    expected = [(attempt, step) for attempt, steps in merged for step in steps]
    assert steps_of(list(reader.rows())) == expected
    everything = list(reader.rows(include_superseded=True))
    assert len(everything) == sum(map(len, attempts))
    assert steps_of([row for row in everything if not row.superseded]) == expected
    steps, values = reader.columns("x")
    assert steps == [step for _, step in expected]
    assert values == [row.values["x"] for row in reader.rows()]
    assert len(reader.columns("x", include_superseded=True)[0]) == len(everything)


def test_columns_are_of_the_rows_that_have_the_metric(tmp_path: Path) -> None:
    """Rows of other shapes do not get in the way."""
    with Journal(str(tmp_path), 1) as journal:
        for step in range(100):
            journal.log_metrics({"train/loss": step / 2, "flag": step % 2 == 0}, step)
            if step % 10 == 0:
                journal.log_metrics({"eval/score": step}, step)
                journal.log_event("evaluated", step)
    reader = read_run(tmp_path)
    assert reader.columns("eval/score") == (list(range(0, 100, 10)), list(range(0, 100, 10)))
    assert reader.columns("train/loss") == (list(range(100)), [step / 2 for step in range(100)])
    assert reader.columns("flag")[1] == [True, False] * 50
    assert reader.columns("nothing") == ([], [])
    assert [event.data for event in reader.events()] == list(range(0, 100, 10))


def test_columns_are_arrays_where_all_numbers_are_alike(tmp_path: Path) -> None:
    """Of floats, or of integers of 64 bits; what is not alike comes back in a list, as it was."""
    logged: dict[str, list[Any]] = {
        "floats": [0.5, 1.5, 2.5],
        "integers": [1, -(2**63), 2**63 - 1],
        "large": [1, 2, 2**63],
        "mixed": [1, 2.0, True],
    }
    with Journal(str(tmp_path), 1) as journal:
        for index in range(3):
            journal.log_metrics({key: numbers[index] for key, numbers in logged.items()}, index)
            journal.flush(10)
        journal.log_metrics({"floats": 3.5})
    reader = read_run(tmp_path)
    for key, numbers in logged.items():
        steps: Any
        values: Any
        steps, values = reader.columns(key)
        if key == "floats":
            numbers.append(3.5)
            assert isinstance(steps, list)
            assert steps == [0, 1, 2, None]
        else:
            assert isinstance(steps, array)
            assert [steps, repr(steps)] == [[0, 1, 2], "[0, 1, 2]"]
        assert isinstance(values, array) == (key in ("floats", "integers"))
        assert [values, repr(values)] == [numbers, repr(numbers)]
        assert values != numbers[:-1]


def test_a_run_without_a_journal_is_empty(tmp_path: Path) -> None:
    """Other files are nobody's journal; a directory that is not there is an error."""
    for name in ("metrics.0.journal", "metrics.1.journal.corrupt", "xmetrics.1.journal"):
        (tmp_path / name).write_text("no journal")
    reader = read_run(tmp_path)
    assert (list(reader.rows()), list(reader.events())) == ([], [])
    assert reader.damage() == (0, 0, 0, 0, 0)
    with pytest.raises(FileNotFoundError):
        read_run(tmp_path / "nowhere")


def test_a_file_torn_at_any_byte_keeps_all_before(tmp_path: Path) -> None:
    """Cut at every byte, it gives the rows of the whole blocks before, and counts the rest."""
    path = write(tmp_path, 1, list(range(10)), flush_every=2)
    data = path.read_bytes()
    ends = []  # where each flush has ended, and how many rows were there
    scanner = decoding.Scanner(lambda offset, size: data[offset : offset + size])
    rows = 0
    for block in scanner.blocks():
        rows += block.records
        ends.append((scanner.position, rows))
    assert rows == 10
    cuts = 0
    for size in range(len(data)):
        path.write_bytes(data[:size])
        whole = max([end for end in ends if end[0] <= size], default=(0, 0))
        reader = read_run(tmp_path)
        assert [row.step for row in reader.rows()] == list(range(whole[1]))
        damage = reader.damage()
        assert (damage.skipped, damage.torn_bytes) == (0, size - whole[0])
        assert repair(path) == size - whole[0]
        assert path.read_bytes() == data[: whole[0]]
        assert repair(path) == 0
        cuts += 1
    print(f"torn at {cuts} places: no whole block lost")


def test_the_end_is_read_without_what_is_before(tmp_path: Path) -> None:
    """From any offset on: the rows of the whole blocks after it, with their names, undamaged."""
    path = write(tmp_path, 1, list(range(40)), flush_every=3)
    data = path.read_bytes()
    scanner = decoding.Scanner(lambda offset, size: data[offset : offset + size])
    starts = [  # of blocks of rows, and the first number in each
        (scanner.position - HEAD_SIZE - len(block.payload), block.seq)
        for block in scanner.blocks()
        if block.records
    ]
    for size in range(0, len(data) + 20, 7):
        first = min((seq for start, seq in starts if start >= len(data) - size), default=40)
        with AttemptReader(str(tmp_path), 1) as reader:
            assert reader.seek_back(size) == (size >= len(data))
            rows = list(reader.rows())
            assert [seq for seq, _, _ in rows] == list(range(first, 40))
            assert {keys for _, keys, _ in rows} <= {("x", "attempt")}
            assert reader.damage().missing == 0
            assert reader.damage().skipped == 0 or not rows


def test_a_flipped_bit_costs_one_block(tmp_path: Path) -> None:
    """Flipped in any byte of the file, it costs the rows of that block at most, and is counted."""
    path = write(tmp_path, 1, list(range(9)), flush_every=3)
    data = path.read_bytes()
    chance = random.Random(7)
    whole = 0
    for offset in range(len(data)):
        flipped = bytearray(data)
        flipped[offset] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        reader = read_run(tmp_path)
        rows = list(reader.rows())
        found = [row.step for row in rows]
        assert found in (list(range(9)), [*range(3), *range(6, 9)], list(range(3, 9)), [*range(6)])
        assert [row.values["x"] for row in reader.rows()] == [
            step + 0.5 for step in found if step is not None
        ]
        damage = reader.damage()
        assert damage.skipped_bytes + damage.torn_bytes > 0
        assert damage.unnamed == 0
        whole += len(found) == 9
    assert 0 < whole < len(data)
    print(f"{len(data)} bit flips: {whole} cost no row, {len(data) - whole} the 3 rows of a block")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda b: b"\xf5KJR" + b), st.data())
def test_garbage_anywhere_costs_no_good_block(garbage: bytes, data: st.DataObject) -> None:
    """Any bytes between two blocks are skipped; none of it raises."""
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        run = Path(place)
        path = write(run, 1, list(range(6)), flush_every=2)
        good = path.read_bytes()
        starts = [i for i in range(len(good)) if good[i : i + 3] == PREFIX] + [len(good)]
        cut = data.draw(st.sampled_from(starts))
        path.write_bytes(good[:cut] + garbage + good[cut:])
        reader = read_run(run)
        assert [row.step for row in reader.rows()] == list(range(6))
        damage = reader.damage()
        assert damage.skipped_bytes + damage.torn_bytes == len(garbage)
        assert (damage.missing, damage.unnamed) == (0, 0)


def test_a_large_file_is_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks that lie across the pieces are found, and damage longer than a piece is skipped."""
    path = write(tmp_path, 1, list(range(500)), flush_every=50)
    for chunk in (1, 30, 1000):
        monkeypatch.setattr(decoding, "CHUNK", chunk)
        assert [row.step for row in read_run(tmp_path).rows()] == list(range(500))
    data = path.read_bytes()
    middle = data.index(PREFIX, len(data) // 2)
    path.write_bytes(data[:middle] + b"\xf5K" * 5000 + data[middle:])
    assert [row.step for row in read_run(tmp_path).rows()] == list(range(500))
    assert read_run(tmp_path).damage()[:3] == (1, 10_000, 0)


def test_following_gives_each_row_once(tmp_path: Path) -> None:
    """Rows of a live run come while it is written, from a torn state too, and from new attempts."""
    reader = read_run(tmp_path)
    stop = threading.Event()
    follower = reader.follow(poll=0.001, stop=stop.is_set)
    first = Journal(str(tmp_path), 1, max_delay=3600)
    found = []
    for step in range(20):
        first.log_metrics({"x": 0.5}, step)
        first.flush(10)
        found.append(next(follower))
    first.close()
    (tmp_path / "other").mkdir()
    data = write(tmp_path / "other", 2, [20, 21]).read_bytes()
    live = tmp_path / file_name(2)
    writer = threading.Thread(target=_drip, args=(live, data))
    writer.start()
    found += [next(follower), next(follower)]
    writer.join()
    stop.set()
    assert list(follower) == []
    assert steps_of(found) == [(1, step) for step in range(20)] + [(2, 20), (2, 21)]


def _drip(path: Path, data: bytes) -> None:
    with path.open("ab", buffering=0) as file:
        for i in range(len(data)):
            file.write(data[i : i + 1])


def test_following_goes_on_behind_damage(tmp_path: Path) -> None:
    """A damaged block does not hold up those that are written after it."""
    path = write(tmp_path, 1, list(range(6)), flush_every=2)
    data = bytearray(path.read_bytes())
    middle = data.rindex(PREFIX, 0, data.rindex(PREFIX))
    data[middle + 40] ^= 1
    path.write_bytes(data[: middle + 60])
    stops = iter([False, True])
    grown: list[int | None] = []
    for row in read_run(tmp_path).follow(poll=0, stop=lambda: _append_then(path, data, stops)):
        grown.append(row.step)
    assert grown == [0, 1, 4, 5]


def _append_then(path: Path, data: bytearray, stops: Any) -> bool:
    last = bool(next(stops))
    if last:
        path.write_bytes(data)
    return last


def test_a_frame_has_a_row_for_each_row(tmp_path: Path) -> None:
    """Its columns are what each row has, and the metrics; what a row lacks is missing."""
    with Journal(str(tmp_path), 1) as journal:
        journal.log_metrics({"loss": 1.0}, 5)
        journal.log_metrics({"reward": 2})
    frame = read_run(tmp_path).frame()
    assert list(frame.columns) == ["seq", "time", "step", "attempt", "loss", "reward"]
    assert frame["step"].tolist()[0] == 5
    assert frame["step"].isna().tolist() == [False, True]
    assert frame["loss"].isna().tolist() == [False, True]
    assert frame["reward"].tolist()[1] == 2


def test_a_frame_without_pandas_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says what to install."""
    monkeypatch.setitem(sys.modules, "pandas", None)  # as if it were not installed
    with pytest.raises(MissingExtraError, match=r"keisei\[frames\]"):
        read_run(tmp_path).frame()


def test_a_link_in_a_journals_place_is_not_read(tmp_path: Path) -> None:
    """What is read is the run's own file."""
    run = tmp_path / "run"
    run.mkdir()
    path = write(tmp_path, 1, [1])
    os.symlink(path, run / file_name(1))
    with pytest.raises(OSError, match="symbolic links"):
        list(read_run(run).rows())
    with pytest.raises(OSError, match="symbolic links"):
        repair(run / file_name(1))
