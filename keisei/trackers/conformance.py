"""Whether a tracker keeps to the protocol: what its author runs, and the built-in ones pass."""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection

from keisei.errors import quoted
from keisei.journal.reader import Event, Row
from keisei.run.names import new_session_id
from keisei.run.status import FINAL, check_final
from keisei.trackers.base import Position, Record, RunInfo, Tracker, TrackerRun

# Per metric: the step and the value of each row, in the order in which the tracker has them.
Series = Mapping[str, Sequence[tuple[int | None, float]]]
ReadSeries = Callable[[RunInfo], Series]
MakeTracker = Callable[[], Tracker]

_LONGEST_LIFE = 60.0
_BASE_TIME = 1_700_000_000.0


def check_tracker(make: MakeTracker, read: ReadSeries) -> list[str]:
    """Check that a tracker keeps to the protocol; a test calls it.

    Each check has a run and a directory of its own. One of them kills a process that has started
    the tracker, so ``make`` has to be importable: the tracker's class, or a function of a module.

    Args:
        make: makes the tracker, the same each time.
        read: reads back, with the tracker's own tools, what it has of a run that was given this
            info: steps and values by metric. Values may be rounded to 32 bits.

    Returns:
        What was checked, a sentence each.

    Raises:
        AssertionError: the tracker does something else; the message says what.
    """
    checks: dict[str, Callable[[MakeTracker, ReadSeries, RunInfo], None]] = {
        "it has what it was sent, in order": _has_rows_in_order,
        "it bears what is not finite, huge, without a step, or oddly named": _bears_hard_values,
        "it ends with each status, with rows and without": _ends_with_each_status,
        "it takes a record once": _takes_a_record_once,
        "a later attempt adds its rows to the same run": _goes_on_in_the_next_attempt,
        "what it was sent before a kill is there, once": _survives_a_kill,
    }
    for sentence, check in checks.items():
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                check(make, read, _info(os.path.realpath(directory)))
            except Exception as exc:
                raise AssertionError(f"not so: {sentence}: {exc}") from exc
    return list(checks)


def _has_rows_in_order(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    records = _records(1, 30)
    run = _started(make, info)
    for start in range(0, len(records), 7):
        run.send(records[start : start + 7])
    run.finish("completed")
    _compare(read(info), records, "after three batches and the end")


def _bears_hard_values(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    values: list[dict[str, float | int | bool]] = [
        {"a": math.nan, "b": 1.0},
        {"a": math.inf, "b": 2.0},
        {"a": -math.inf, "b": True},
        {"a": 1e308, "b": 4},
        {"a": -5e-324, "b": 2**63},
        {"b": 6.0, "deep/er/name": 1.0, "with space": 2.0, "ünï": 3.0, "a\nb": 4.0, "[x](y)": 5.0},
        {},
        {"b": 7.0, "x" * 500: 1.0},
    ]
    rows = [
        Row(seq, _BASE_TIME + seq / 1000, None if seq % 2 else seq, 1, value)
        for seq, value in enumerate(values)
    ]
    run = _started(make, info)
    run.send(rows)
    run.send([Event(len(rows), _BASE_TIME + 1, 1, "odd\nname", {"nested": [1, None, "x" * 5000]})])
    run.send([])
    run.finish("completed")
    got = [value for _, value in read(info).get("b", ())]
    wanted = [float(value["b"]) for value in values if "b" in value]
    same = len(got) == len(wanted) and all(map(_close, got, wanted))
    _require(same, f"rows with odd values or names beside 'b': wanted {wanted} of it, got {got}")


def _ends_with_each_status(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    for number, status in enumerate(sorted(FINAL)):
        directory = os.path.join(info.directory, status)
        os.mkdir(directory)
        run = _started(make, _info(directory))
        if number % 2:
            run.send(_records(1, 3))
        run.finish(check_final(status))


def _takes_a_record_once(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    records = _records(1, 20)
    run = _started(make, info)
    _resume(run, Position(1, -1), records[:12])
    place = run.position()
    _require(place in (None, (1, 11)), f"position() is {place} after (1, 11) was sent")
    _resume(run, Position(1, 5), records)
    run.finish("completed")
    _compare(read(info), records, "after records that came again")


def _goes_on_in_the_next_attempt(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    first, second = _records(1, 10), _records(2, 10, first_step=8)
    for attempt, records in ((1, first), (2, second)):
        run = _started(make, _info(info.directory, info.session_id, attempt))
        _resume(run, Position(attempt, -1), records)
        run.finish("failed" if attempt == 1 else "completed")
    _compare(read(info), [*first, *second], "after two attempts")


def _survives_a_kill(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    first, second = _records(1, 25), _records(2, 5, first_step=25)
    _kill_after_sending(make, info, first[:20])
    again = _info(info.directory, info.session_id, 2)
    run = _started(make, again)
    _resume(run, Position(1, 12), [*first, *second])  # as if the place was not stored for a while
    run.finish("completed")
    _compare(read(again), [*first, *second], "after a kill and a resumption")


def _info(directory: str, session_id: str | None = None, attempt: int = 1) -> RunInfo:
    text = '{"env": {"seed": 1}, "learning_rate": 0.001}'
    return RunInfo(session_id or new_session_id(), "conformance", attempt, directory, text)


def _records(attempt: int, count: int, first_step: int = 0) -> list[Record]:
    """Make rows, and an event here and there."""
    records: list[Record] = []
    for seq in range(count):
        moment = _BASE_TIME + attempt * 1000 + seq / 10
        if seq % 9 == 4:
            records.append(Event(seq, moment, attempt, "checkpoint", {"path": f"{seq}.pt"}))
        else:
            values = {"loss": 1.0 / (seq + 1), "train/reward": float(seq % 5)}
            records.append(Row(seq, moment, first_step + seq, attempt, values))
    return records


def _started(make: MakeTracker, info: RunInfo) -> TrackerRun:
    tracker = make()
    _require(isinstance(tracker.name, str) and tracker.name != "", "a tracker has a name")
    began = time.monotonic()
    run = tracker.start(info)
    took = time.monotonic() - began
    limit = tracker.start_timeout
    _require(took <= limit, f"start took {took:.1f} s, and start_timeout is {limit:g}")
    _require(isinstance(run.run_id, str) and run.run_id != "", "a run has an id")
    _require(run.mode in ("online", "offline"), f"mode is {quoted(run.mode)}")
    for name in ("url", "directory", "upload_as"):
        _require(isinstance(getattr(run, name), str | None), f"{name} is no text")
    return run


def _resume(run: TrackerRun, place: Position, records: Sequence[Record]) -> None:
    """Send what comes after the run's own position, or after a place where it does not tell."""
    after = run.position() or place
    run.send([record for record in records if (record.attempt, record.seq) > after])


def _kill_after_sending(make: MakeTracker, info: RunInfo, records: list[Record]) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=partial(_first_life, make, info, records, theirs))
    child.start()
    theirs.close()
    try:
        said = ours.recv() if ours.poll(_LONGEST_LIFE) else "it hangs"
    except EOFError:
        said = "its process has died"
    finally:
        child.kill()
        child.join()
        ours.close()
    _require(said == "sent", f"the first life of the run: {said}")


def _first_life(
    make: MakeTracker, info: RunInfo, records: list[Record], parent: Connection
) -> None:
    try:
        run = _started(make, info)
        for start in range(0, len(records), 6):
            run.send(records[start : start + 6])
        parent.send("sent")
    except BaseException as exc:
        parent.send(f"{type(exc).__name__}: {exc}")
        raise
    time.sleep(_LONGEST_LIFE)  # until it is killed


def _compare(series: Series, records: Sequence[Record], when: str) -> None:
    rows = [record for record in records if isinstance(record, Row)]
    for key in ("loss", "train/reward"):
        wanted = [(row.step, float(row.values[key])) for row in rows]
        got = list(series.get(key, ()))
        same = len(got) == len(wanted) and all(
            a[0] == b[0] and _close(a[1], b[1]) for a, b in zip(got, wanted, strict=True)
        )
        _require(same, f"{when}: of {quoted(key)} wanted (step, value) {wanted}, got {got}")


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30)


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)
