"""What a failing disk does to a session: the order of its calls, and every error at every call."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.faulty_lives import (
    WAYS,
    Sweep,
    contents,
    damaged,
    descriptors,
    fsync_again,
    live,
    torn_json,
    unkept,
    untyped,
)
from tests.support.file_faults import ANY, Call, Fault, FileFaults, fast_place

pytestmark = pytest.mark.skipif(os.name == "nt", reason="counts on directory descriptors")

ERRNOS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES]


def faults_for(calls: list[Call], errnos: list[int]) -> Iterator[Fault]:
    """Yield every fault for a life of those calls: kind, errno, number, once or for ever."""
    counts = Counter(call.kind for call in calls)
    for kind, count in counts.items():
        errors = [*errnos, errno.EMFILE] if kind == "open" else errnos
        for error, number, forever in itertools.product(errors, range(1, count + 1), (False, True)):
            yield Fault(kind, number, error, forever)
    for number, error in itertools.product(range(1, counts["write"] + 1), errnos):
        yield Fault("write", number, error, forever=True, short=True)
    for number in range(1, len(calls) + 1):
        yield Fault(ANY, number, errno.EIO, forever=True)


@pytest.mark.requirement("DIR-4", "CFG-4", "LOG-2", "FIN-1")
def test_every_error_at_every_call(tmp_path: Path) -> None:
    """An error, at whatever call, is typed or logged, and leaves a run that goes on after it."""
    inject_all(tmp_path, {False: [errno.ENOSPC, errno.EIO], True: [errno.EIO]})


@pytest.mark.storm
def test_every_kind_of_error_at_every_call(tmp_path: Path) -> None:
    """The same with each errno on new runs, and on runs that are resumed."""
    inject_all(tmp_path, {False: ERRNOS, True: ERRNOS})


def inject_all(tmp_path: Path, lives: dict[bool, list[int]]) -> None:
    """Inject every fault with these errnos into new lives, and into resumed ones."""
    with fast_place(tmp_path) as place:
        sweep = Sweep(place)
        for resumed, errnos in lives.items():
            ways = itertools.cycle(WAYS)
            traces = {way: sweep.trace(resumed=resumed, way=way) for way in dict.fromkeys(WAYS)}
            counts = {
                way: Counter([call.kind for call in calls]) + Counter({ANY: len(calls)})
                for way, calls in traces.items()
            }
            for fault in faults_for(traces[WAYS[0]], errnos):
                # Who enters makes fewer calls than who takes the steps one by one.
                way = next(way for way in ways if fault.number <= counts[way][fault.kind])
                sweep.suffer(fault, way, resumed=resumed)
    print(f"injected errors: {sweep.injected}, violations: {len(sweep.violations)}")
    assert sweep.injected > 300
    assert not sweep.violations, "\n".join(sweep.violations[:20])


def calls_for(calls: list[Call], name: str) -> list[Call]:
    """Return the calls of the last atomic write of a file: from the first on its temporary one.

    Without those that look whether the run is still this owner's.
    """
    calls = [call for call in calls if os.path.basename(call.path) != "session.json"]
    last = max(i for i, call in enumerate(calls) if call.target.endswith(f"/{name}"))
    opened = max(i for i in range(last) if calls[i].kind == "open")
    return calls[opened : last + 2]


@pytest.mark.requirement("DIR-7", "CFG-3")
@pytest.mark.parametrize("resumed", [False, True])
def test_a_whole_file_is_written_in_the_order_that_survives_a_power_loss(
    tmp_path: Path, resumed: bool
) -> None:
    """Temporary file, all bytes, fsync, close, rename, fsync of the directory: nothing between."""
    sweep = Sweep(tmp_path)
    calls = sweep.trace(resumed=resumed)
    run = str(sweep.run)
    names = ["session.json", "effective_config.json"]
    names += ["effective_config.attempt-1.json"] if resumed else []
    for name in names:
        steps = calls_for(calls, name)
        opened, *writes, synced, closed, renamed, directory = steps
        temporary = opened.path
        assert temporary.startswith(f"{run}/.")
        assert temporary.endswith(".tmp")
        assert [(s.kind, s.path) for s in steps if s not in writes] == [
            ("open", temporary),
            ("fsync", temporary),
            ("close", temporary),
            ("rename", temporary),
            ("fsync", run),
        ]
        assert {(w.kind, w.path, w.fd) for w in writes} == {("write", temporary, opened.fd)}
        assert sum(w.size for w in writes) == (sweep.run / name).stat().st_size
        assert opened.flags & os.O_EXCL
        assert opened.flags & os.O_NOFOLLOW
        assert opened.mode == 0o600
        assert opened.dir_fd is not None
        assert opened.dir_fd == renamed.dir_fd == directory.fd
        assert opened.fd == synced.fd == closed.fd
        assert renamed.target == os.path.join(run, name)
    # session.json is written twice, at the start and at the end, and each file but once more.
    renames = Counter(os.path.basename(call.target) for call in calls if call.kind == "rename")
    assert renames == Counter(names) + Counter(["session.json"])
    written = {call.path for call in calls if call.kind == "write"}
    whole = {call.path for call in calls if call.kind == "rename"}
    assert written == whole | {os.path.join(run, "training.log")}


@pytest.mark.requirement("DIR-1")
def test_a_new_directory_is_synced_into_its_parent(tmp_path: Path) -> None:
    """After each mkdir, before anything else is made or written, comes an fsync of the parent."""
    sweep = Sweep(tmp_path)
    calls = [c for c in sweep.trace(resumed=False) if c.kind in ("mkdir", "fsync", "write")]
    made = [i for i, call in enumerate(calls) if call.kind == "mkdir" and not call.errno]
    assert [calls[i].path for i in made] == [
        str(path) for path in (*sweep.run.parents[1::-1], sweep.run, sweep.run / "models")
    ]
    for i in made[:-1]:  # `models` is synced with the session file, which follows
        following = calls[i + 1]
        assert (following.kind, following.path) == ("fsync", os.path.dirname(calls[i].path))


@pytest.mark.parametrize(("resumed", "tracked"), [(False, False), (True, False), (False, True)])
def test_who_enters_waits_for_few_fsyncs(tmp_path: Path, resumed: bool, tracked: bool) -> None:
    """One for each file, then all directories and the log at once: none of them twice."""
    sweep = Sweep(tmp_path)
    sweep.config.tracking.trackers = {"tensorboard": {}} if tracked else {}
    calls = sweep.trace(resumed=resumed, way=WAYS[1])
    synced = [os.path.relpath(call.path, sweep.run) for call in calls if call.kind == "fsync"]
    files = [".effective_config.attempt-1.json.tmp"] if resumed else []
    trackers = [".session.json.tmp"] if tracked else []  # what is known of them
    files = [".session.json.tmp", *trackers, *files, ".effective_config.json.tmp"]
    above = [] if resumed else ["../../..", "../..", ".."]
    entered = len(files) + len(above) + 2
    assert synced[: len(files)] == files
    assert sorted(synced[len(files) : entered]) == sorted([*above, ".", "training.log"])
    end = [".session.json.tmp", ".", "training.log", *[".session.json.tmp", "."] * tracked]
    assert synced[entered:] == end
    last = [number for number, call in enumerate(calls) if call.kind in ("mkdir", "rename")]
    last = last[: -2 if tracked else -1]  # but for those of the end
    assert [call.kind for call in calls[: last[-1]]].count("fsync") == len(files)


@pytest.mark.parametrize("resumed", [False, True])
def test_a_failed_fsync_is_reported_and_never_tried_again(tmp_path: Path, resumed: bool) -> None:
    """Its descriptor is closed, its temporary file is gone, and nothing is renamed from it."""
    with fast_place(tmp_path) as place:
        sweep = Sweep(place)
        calls = [c for c in sweep.trace(resumed=resumed) if c.kind == "fsync"]
        temporary = [n for n, c in enumerate(calls, 1) if c.path.endswith(".tmp")]
        assert len(temporary) == 4 if resumed else 3
        for number in temporary:
            config = sweep.put(resumed=resumed)
            faults = FileFaults(Fault("fsync", number, errno.EIO))
            outcome = live(config, faults)
            (failed,) = faults.injected
            after = faults.calls[faults.calls.index(failed) + 1 :]
            assert [c.kind for c in after[:2]] == ["close", "unlink"]
            assert (after[0].fd, after[1].path) == (failed.fd, failed.path)
            assert not after[1].errno
            assert not [c for c in after if c.kind == "rename" and c.path == failed.path]
            assert not fsync_again(faults.calls)
            assert outcome.raised or outcome.logged


@pytest.mark.requirement("DIR-4", "CFG-4", "FIN-1")
def test_a_disk_that_fills_up_in_the_middle(tiny_disk: Path) -> None:
    """At each amount of free space a resumed run keeps what it had, and goes on once there is
    room."""
    sweep = Sweep(tiny_disk)
    failed = 0
    for pages in range(6):
        config = sweep.put(resumed=True)
        before = contents(sweep.run)
        with contextlib.suppress(OSError), open(tiny_disk / "filler", "wb", 0) as filler:
            while filler.write(b"x" * 4096):
                pass
        filled = (tiny_disk / "filler").stat().st_size
        os.truncate(tiny_disk / "filler", filled - pages * 4096)
        faults, open_before = FileFaults(), descriptors()
        outcome = live(config, faults)
        failed += bool(outcome.raised or outcome.logged)
        assert [*untyped(outcome, tiny_disk, errno.ENOSPC)] == []
        assert [*torn_json(sweep.run), *damaged(sweep.run, before, faults.calls)] == []
        assert [*unkept(sweep.run, config, outcome)] == []
        assert not list(sweep.run.glob(".*.tmp"))
        assert descriptors() == open_before
        (tiny_disk / "filler").unlink()
        after = live(config, None)
        assert not after.raised, (pages, after.raised)
        assert not after.logged
    assert failed > 1
    assert failed < pages


@pytest.mark.requirement("DIR-4")
def test_a_directory_in_the_place_of_a_file_is_typed_and_leaves_nothing_open(
    tmp_path: Path,
) -> None:
    """A directory called session.json or effective_config.json is an error that names it."""
    sweep = Sweep(tmp_path)
    for name, step in [
        ("session.json", "setup_directories"),
        ("effective_config.json", "save_effective_config"),
    ]:
        config = sweep.put(resumed=True)
        (sweep.run / name).unlink()
        (sweep.run / name).mkdir()
        open_before = descriptors()
        outcome = live(config, None)
        assert [*outcome.raised] == [step]
        assert [*untyped(outcome, tmp_path, errno.EISDIR)] == []
        assert descriptors() == open_before


@pytest.mark.requirement("DIR-1")
def test_a_directory_that_was_not_synced_is_synced_by_the_next_start(tmp_path: Path) -> None:
    """The sync of a parent that failed is not forgotten because the directory now exists."""
    with fast_place(tmp_path) as place:
        sweep = Sweep(place)
        for number in range(1, 4):
            config = sweep.put(resumed=False)
            faults, again = FileFaults(Fault("fsync", number, errno.EIO)), FileFaults()
            assert [*live(config, faults).raised] == ["setup_directories"]
            (failed,) = faults.injected
            assert not live(config, again).raised
            synced = [c.path for c in again.calls if c.kind == "fsync" and not c.errno]
            assert failed.path in synced, failed.path
