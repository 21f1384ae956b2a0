"""The conformance kit: checks that a tracker keeps to the protocol. The built-in ones pass it."""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import zip_longest
from multiprocessing.connection import Connection
from typing import NamedTuple

from keisei.errors import quoted
from keisei.journal.reader import Event, Row
from keisei.journal.superseding import RESUME
from keisei.journal.writer import Journal
from keisei.run.names import new_session_id
from keisei.run.status import FINAL, check_final
from keisei.trackers.base import Position, Record, RunInfo, Tracker, TrackerRun
from keisei.trackers.media import kinds_of
from keisei.trackers.media_samples import samples

# Per metric: the step and the value of each row, in the order in which the tracker has them.
Series = Mapping[str, Sequence[tuple[int | None, float]]]
ReadSeries = Callable[[RunInfo], Series]
MakeTracker = Callable[[], Tracker]

_TIMEOUT = 60.0  # seconds, for a subprocess or a thread
_BASE_TIME = 1_700_000_000.0
_AT_ONCE = 8


def check_tracker(make: MakeTracker, read: ReadSeries) -> list[str]:
    """Check that a tracker keeps to the protocol; call it in a test of your tracker.

    Each check has runs and directories of its own. One of them kills a subprocess that has started
    the tracker, so ``make`` has to be importable: the tracker's class, or a function of a module.

    Args:
        make: makes the tracker, the same each time.
        read: reads back, with the tracker's own tools, what it has of a run that was started with
            this info: steps and values by metric. Values may be rounded to 32 bits.

    Returns:
        What was checked, a sentence each.

    Raises:
        AssertionError: a check has failed; the message says which, how, and what to look at.
    """
    for check in _CHECKS:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
            try:
                check.run(make, read, _info(os.path.realpath(directory)))
            except Exception as exc:
                what = str(exc) if type(exc) is AssertionError else f"{type(exc).__name__}: {exc}"
                text = f"check_tracker: {check.sentence!r} does not hold: {what}\n{check.advice}"
                raise AssertionError(text) from exc
    return [check.sentence for check in _CHECKS]


def _keeps_rows_in_order(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    records = _records(1, 30)
    run = _start(make(), info)
    for start in range(0, len(records), 7):
        run.send(records[start : start + 7])
    run.finish("completed")
    _compare(read(info), records, "after three batches and the end")


def _takes_odd_values(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
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
    run = _start(make(), info)
    run.send(rows)
    run.send([Event(len(rows), _BASE_TIME + 1, 1, "odd\nname", {"nested": [1, None, "x" * 5000]})])
    run.send([])
    run.finish("completed")
    wanted = [(0, float(value["b"])) for value in values if "b" in value]
    got = [(0, value) for _, value in read(info).get("b", ())]
    _compare_points("b", wanted, got, "beside odd values and names (steps are not compared)")


def _ends_with_each_status(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    for number, status in enumerate(sorted(FINAL)):
        directory = os.path.join(info.directory, status)
        os.mkdir(directory)
        run = _start(make(), _info(directory))
        if number % 2:
            run.send(_records(1, 3))
        run.finish(check_final(status))


def _takes_a_record_once(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    records = _records(1, 20)
    run = _start(make(), info)
    _resume(run, Position(1, -1), records[:12])
    position = run.position()
    _require(position in (None, (1, 11)), f"position() is {position} after (1, 11) was sent")
    _resume(run, Position(1, 5), records)
    run.finish("completed")
    _compare(read(info), records, "after records that were sent again")


def _goes_on_in_the_next_attempt(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    first, second = _records(1, 10), _records(2, 10, first_step=8)
    for attempt, records in ((1, first), (2, second)):
        run = _start(make(), info if attempt == 1 else _next_attempt(info))
        _resume(run, Position(attempt, -1), records)
        run.finish("failed" if attempt == 1 else "completed")
    _compare(read(info), [*first, *second], "after two attempts")


def _keeps_runs_apart(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    tracker = make()
    infos = [_info(os.path.join(info.directory, str(number))) for number in range(_AT_ONCE)]
    sent = [_records(1, 24, scale=number + 1.0) for number in range(_AT_ONCE)]
    errors: list[str] = []
    all_there = threading.Barrier(_AT_ONCE, timeout=_TIMEOUT)

    def live(number: int) -> None:
        try:
            os.mkdir(infos[number].directory)
            run = _start(tracker, infos[number], timed=False)
            for start in range(0, 24, 8):
                all_there.wait()
                run.send(sent[number][start : start + 8])
            run.finish("completed" if number % 2 else "failed")
        except Exception as exc:  # noqa: BLE001 - foreign code, on a thread
            errors.append(f"run {number} raised {type(exc).__name__}: {exc}")
            all_there.abort()

    threads = [
        threading.Thread(target=live, args=(number,), daemon=True) for number in range(_AT_ONCE)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(_TIMEOUT)
        _require(not thread.is_alive(), "a run hangs while others are sent to")
    _require(not errors, "; ".join(errors))
    for number, records in enumerate(sent):
        _compare(read(infos[number]), records, f"run {number} of {_AT_ONCE} at once")


def _survives_a_kill(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    first, second = _records(1, 25), _records(2, 5, first_step=25)
    _send_and_kill(make, info, first[:20])
    # As if keisei's own cursor was not written for a while before the kill.
    run = _start(make(), info)
    _resume(run, Position(1, 12), first[:23])
    run.finish("failed")
    again = _next_attempt(info)
    run = _start(make(), again)
    _resume(run, Position(1, 22), [*first, *second])
    run.finish("completed")
    _compare(read(again), [*first, *second], "after a kill and two resumptions")


def _goes_back_if_it_can(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    after = Position(1, 7)
    first = _records(1, 25)
    resume = Event(0, _BASE_TIME + 1999, 2, RESUME, after._asdict())
    second = [resume, *(one._replace(seq=one.seq + 1) for one in _records(2, 10, first_step=8))]
    _write_journal(info, first)
    run = _start(make(), info)
    for start in range(0, 25, 5):
        run.send(first[start : start + 5])
    run.finish("preempted")
    again = _next_attempt(info)
    _write_journal(again, second)
    run = _start(make(), again)
    rewind = getattr(run, "rewind", None)
    if rewind is None or not rewind(after):
        _resume(run, Position(1, 24), second)
        run.finish("completed")
        _compare(read(again), [*first, *second], "after a rewind() that has dropped nothing")
        return
    still = [one for one in first if one.seq <= after.seq or isinstance(one, Event)]
    _resume(run, after, [*still, *second])
    run.finish("completed")
    _compare(read(again), [*still, *second], "after rewind(), which has said that it drops rows")


def _takes_media(make: MakeTracker, read: ReadSeries, info: RunInfo) -> None:
    run = _start(make(), info)
    media = samples(info.directory, kinds_of(run), 4, _BASE_TIME + 1000.35)
    first, rows = _records(1, 4), _records(1, 8 + len(media))[-4:]
    run.send([*first, *media[:3]])
    run.send([*media[3:], *rows])
    position = run.position()
    _require(
        position in (None, (1, rows[-1].seq)), f"position() is {position} behind media and rows"
    )
    run.finish("completed")
    _compare(read(info), [*first, *rows], "with media among the rows")


def _write_journal(info: RunInfo, records: Sequence[Record]) -> None:
    with Journal(info.directory, info.attempt) as journal:
        for record in records:
            if isinstance(record, Row):
                journal.log_metrics(record.values, record.step)
            elif isinstance(record, Event):
                journal.log_event(record.name, record.data)


class _Check(NamedTuple):
    sentence: str
    run: Callable[[MakeTracker, ReadSeries, RunInfo], None]
    advice: str


_CHECKS = [
    _Check(
        "it keeps what it was sent, in order",
        _keeps_rows_in_order,
        "send() gets rows and events as they were logged; keep each row's step and values. What "
        "`read` returns has to be the run's own: look for it by info.session_id.",
    ),
    _Check(
        "it takes values that are not finite or huge, rows without a step, and odd names",
        _takes_odd_values,
        "An error of send() stops the run's tracking: write such a value, name or event in another "
        "way, or leave it out, but keep the other values of the row.",
    ),
    _Check(
        "it ends with each status, with rows and without",
        _ends_with_each_status,
        f"finish() is called with one of {', '.join(sorted(FINAL))}, also where nothing was sent.",
    ),
    _Check(
        "it takes a record once that is sent again",
        _takes_a_record_once,
        "After an error keisei sends again what comes after position(). Return there the attempt "
        "and seq of the last record that you have; or return None, and recognise a record by its "
        "attempt and seq.",
    ),
    _Check(
        "the next attempt adds its rows to the same run",
        _goes_on_in_the_next_attempt,
        "info.session_id is the same for all attempts of a run: start() resumes the run that it "
        "has started before. Records of two attempts may have the same step and seq.",
    ),
    _Check(
        "it drops the rows behind a checkpoint that the run goes on from, or says that it cannot",
        _goes_back_if_it_can,
        "rewind(after) drops the rows behind a position and returns True, or leaves all as it is "
        "and returns False. Then position() is where the next records go on: those that still "
        "hold are sent from there, or from `after` on where position() is None.",
    ),
    _Check(
        "it takes media of the kinds that it shows, damaged ones too, among the rows",
        _takes_media,
        "A run that names kinds in `media` gets such Media in send(). One that it cannot show it "
        "counts in `media_left_out`: an error of send() would stop the run's tracking.",
    ),
    _Check(
        f"{_AT_ONCE} runs at once in one process do not mix",
        _keeps_runs_apart,
        "One host process tracks the runs of all sessions, each on a thread of its own: keep a "
        "run's state in the object that start() returns, and none in globals, in the SDK's "
        "'current run' or in the environment; use locks where the SDK is not thread-safe.",
    ),
    _Check(
        "what it was sent before a kill is there, once",
        _survives_a_kill,
        "When send() returns, its records have to survive SIGKILL: no buffer of this process may "
        "hold them. start() may find what the killed process left, in the same attempt and in a "
        "later one.",
    ),
]


def _info(directory: str, session_id: str | None = None, attempt: int = 1) -> RunInfo:
    text = '{"env": {"seed": 1}, "learning_rate": 0.001}'
    return RunInfo(session_id or new_session_id(), "conformance", attempt, directory, text)


def _next_attempt(info: RunInfo) -> RunInfo:
    return _info(info.directory, info.session_id, info.attempt + 1)


def _records(attempt: int, count: int, first_step: int = 0, scale: float = 1.0) -> list[Record]:
    """Return rows, and an event here and there."""
    records: list[Record] = []
    for seq in range(count):
        moment = _BASE_TIME + attempt * 1000 + seq / 10
        if seq % 9 == 4:
            records.append(Event(seq, moment, attempt, "checkpoint", {"path": f"{seq}.pt"}))
        else:
            values = {"loss": scale / (seq + 1), "train/reward": scale * (seq % 5)}
            records.append(Row(seq, moment, first_step + seq, attempt, values))
    return records


def _start(tracker: Tracker, info: RunInfo, *, timed: bool = True) -> TrackerRun:
    name = getattr(tracker, "name", None)
    _require(isinstance(name, str) and name != "", f"the tracker's name is {name!r}: give it one")
    began = time.monotonic()
    run = tracker.start(info)
    took = time.monotonic() - began
    limit = tracker.start_timeout
    _require(
        took <= limit or not timed, f"start() took {took:.1f} s, and its start_timeout is {limit:g}"
    )
    _require(
        isinstance(getattr(run, "run_id", None), str) and run.run_id != "",
        "the run that start() returns has no run_id: a text that the tracker knows it by",
    )
    _require(
        run.mode in ("online", "offline"),
        f"the run's mode is {quoted(run.mode)}, and has to be 'online' or 'offline'",
    )
    for name in ("url", "directory", "upload_as"):
        value = getattr(run, name)
        _require(isinstance(value, str | None), f"the run's {name} is {value!r}: text or None")
    return run


def _resume(run: TrackerRun, cursor: Position, records: Sequence[Record]) -> None:
    """Send what comes after the run's own position, or after the cursor where it has none."""
    after = run.position() or cursor
    run.send([record for record in records if (record.attempt, record.seq) > after])


def _send_and_kill(make: MakeTracker, info: RunInfo, records: list[Record]) -> None:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    child = context.Process(target=partial(_live_until_killed, make, info, records, theirs))
    child.start()
    theirs.close()
    try:
        outcome = ours.recv() if ours.poll(_TIMEOUT) else "it hangs"
    except EOFError:
        outcome = "it has died"
    finally:
        child.kill()
        child.join()
        ours.close()
    _require(outcome == "sent", f"a subprocess that starts it and sends to it: {outcome}")


def _live_until_killed(
    make: MakeTracker, info: RunInfo, records: list[Record], parent: Connection
) -> None:
    try:
        run = _start(make(), info)
        for start in range(0, len(records), 6):
            run.send(records[start : start + 6])
        parent.send("sent")
    except BaseException as exc:
        parent.send(f"{type(exc).__name__}: {exc}")
        raise
    time.sleep(_TIMEOUT)


def _compare(series: Series, records: Sequence[Record], when: str) -> None:
    rows = [record for record in records if isinstance(record, Row)]
    for key in ("loss", "train/reward"):
        wanted = [(row.step, float(row.values[key])) for row in rows]
        _compare_points(key, wanted, list(series.get(key, ())), when)


def _compare_points(
    key: str,
    wanted: Sequence[tuple[int | None, float]],
    got: Sequence[tuple[int | None, float]],
    when: str,
) -> None:
    for number, (want, have) in enumerate(zip_longest(wanted, got)):
        if want is None or have is None or want[0] != have[0] or not _close(want[1], have[1]):
            raise AssertionError(
                f"{when}: of {quoted(key)} it has {len(got)} rows and was sent {len(wanted)}; "
                f"number {number} is (step, value) {have} instead of {want}"
            )


def _close(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-30)


def _require(kept: bool, otherwise: str) -> None:
    if not kept:
        raise AssertionError(otherwise)
