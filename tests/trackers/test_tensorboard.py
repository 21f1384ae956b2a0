"""The TensorBoard tracker: each record once, in files that TensorBoard itself shows right."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from tensorboard.backend.event_processing.event_accumulator import (
    STORE_EVERYTHING_SIZE_GUIDANCE,
    EventAccumulator,
)

import keisei
from keisei import AsyncSessionManager
from keisei._io import files
from keisei.errors import MissingExtraError, TrackerError
from keisei.journal.reader import Event, Row
from keisei.journal.superseding import RESUME
from keisei.testing import check_tracker
from keisei.trackers.base import Position, Record, RunInfo, TrackerRun
from keisei.trackers.tensorboard import event_file
from keisei.trackers.tensorboard.events import Batch
from keisei.trackers.tensorboard.tracker import TensorBoardRun, TensorBoardTracker
from tests.conftest import MakeConfig
from tests.support.file_faults import ANY, Call, Fault, FileFaults
from tests.support.session_files import record_of

SESSION = "01J" + "0" * 23
T = TypeVar("T")
Series = dict[str, list[tuple[int | None, float]]]


def info(run: Path, attempt: int = 1, config: str = '{"env": {"seed": 1}}') -> RunInfo:
    """Return what a tracker is told of a run, and make its directory."""
    run.mkdir(exist_ok=True)
    return RunInfo(SESSION, run.name, attempt, str(run), config)


def started(run: Path, attempt: int = 1) -> TensorBoardRun:
    """Start the tracker."""
    return TensorBoardTracker().start(info(run, attempt))


def rows(attempt: int, steps: Sequence[int | None]) -> list[Record]:
    """Return a row for each step, whose value says attempt and step."""
    return [
        Row(seq, 1.7e9 + attempt * 1000 + seq, step, attempt, {"loss": attempt + (step or 0) / 256})
        for seq, step in enumerate(steps)
    ]


def series_of(records: Sequence[Record]) -> list[tuple[int | None, float]]:
    """Return the steps and values of rows."""
    return [(row.step, float(row.values["loss"])) for row in records if isinstance(row, Row)]


def loaded(directory: Path, *, purge: bool = False) -> EventAccumulator:
    """Read event files with TensorBoard's own reader."""
    accumulator = EventAccumulator(
        str(directory),
        size_guidance=STORE_EVERYTHING_SIZE_GUIDANCE,
        purge_orphaned_data=purge,
    )
    return accumulator.Reload()


def scalars(directory: Path, *, purge: bool = False) -> Series:
    """Return steps and values by tag."""
    found = loaded(directory, purge=purge)
    return {t: [(e.step, e.value) for e in found.Scalars(t)] for t in found.Tags()["scalars"]}


def texts(directory: Path) -> dict[str, list[tuple[int, str]]]:
    """Return steps and texts by tag."""
    found = loaded(directory)
    return {
        tag: [(e.step, e.tensor_proto.string_val[0].decode()) for e in found.Tensors(tag)]
        for tag in found.Tags()["tensors"]
        if found.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    }


def read_all(run: RunInfo) -> Series:
    """Read a run of the conformance check's."""
    return scalars(Path(run.directory, "tensorboard"))


def send_rest(run: TrackerRun, records: Sequence[Record]) -> bool:
    """Send what the run has not got, by its own account."""
    held = run.position()
    assert held is not None
    run.send([record for record in records if (record.attempt, record.seq) > held])
    return True


def event_files(run: Path) -> list[Path]:
    """Return a run's event files in the order in which TensorBoard reads them."""
    return sorted((run / "tensorboard").iterdir())


def test_it_keeps_to_the_protocol() -> None:
    """Every check of a tracker passes, with TensorBoard's own reader."""
    assert len(check_tracker(TensorBoardTracker, read_all)) == 9


def test_the_events_are_those_of_tensorboards_own_helpers(tmp_path: Path) -> None:
    """Texts and hyperparameters are made without them, and are the same to its reader."""
    from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
    from tensorboard.compat.proto.event_pb2 import Event as Proto
    from tensorboard.plugins.hparams.summary_v2 import hparams_pb
    from tensorboard.plugins.text.summary_v2 import text_pb

    batch, path = Batch(), tmp_path / "events.out.tfevents.1"
    batch.add_text(1.5, 3, "note", "*ü*")
    batch.add_hyperparameters(2.5, "trial", '{"a": {"b": 1}}')
    path.write_bytes(batch.data())
    hyper = hparams_pb({"a/b": 1.0}, "trial", 2.5)
    assert [Proto.FromString(data) for data in RawEventFileLoader(str(path)).Load()] == [
        Proto(wall_time=1.5, step=3, summary=text_pb("keisei/note", "*ü*")),
        Proto(wall_time=2.5, step=0, summary=hyper),
    ]


async def test_a_session_records_where_the_files_are(make_config: MakeConfig) -> None:
    """The tracker is offline, has no URL, and names its directory."""
    session = AsyncSessionManager(make_config())
    await session.setup_directories()
    assert await session.setup_remote_logging(TensorBoardTracker()) is True
    await session.finalize_session()
    record = record_of(session)["trackers"]["tensorboard"]
    assert record["directory"] == os.path.join(str(session.run_artifact_dir), "tensorboard")
    assert (record["mode"], record["url"], record["state"]) == ("offline", None, "finished")


def test_tensorboard_shows_the_series_of_an_uninterrupted_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Both of its servers, and its reader: a resumed run has each step once, in the later value."""
    run = tmp_path / "logs" / "my-run"
    run.parent.mkdir()
    resume = Event(0, 1.8e9, 2, RESUME, {"attempt": 1, "seq": 5})
    first, logged = rows(1, [*range(10), None]), rows(2, range(6, 14))
    second = [resume, *(row._replace(seq=row.seq + 1) for row in logged)]
    began = started(run)
    began.send(first)  # and is killed
    resumed = started(run, 2)
    assert resumed.rewind(Position(1, 5))
    checkpoint = Event(9, 1.8e9, 2, "checkpoint", {"path": "8.pt", "p": math.nan})
    send_rest(resumed, [*first[:6], *second, checkpoint])
    resumed.finish("completed")
    wanted = [*series_of(first)[:6], *series_of(second)]
    assert [step for step, _ in wanted] == list(range(14))
    with caplog.at_level(logging.ERROR, "tensorboard"):  # it tells of each purge
        assert scalars(run / "tensorboard", purge=True) == {"loss": wanted}
    served = [sys.executable, "-m", "tests.support.tensorboard_served", str(run.parent), "complet"]
    done = subprocess.run(served, capture_output=True, text=True, timeout=60, cwd=_clone())
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert "python" in shown
    for by, (series, words) in shown.items():
        assert series == {"my-run/tensorboard": {"loss": [list(point) for point in wanted]}}, by
        assert words["keisei/status"] == [[13, "completed"]], by
        assert words["keisei/events/checkpoint"][0][0] == 13, by
        assert words["keisei/config"][-1] == [6, '```json\n{"env": {"seed": 1}}\n```'], by


def _clone() -> str:
    return str(Path(keisei.__file__).parent.parent)


def test_another_axis_hides_nothing(tmp_path: Path) -> None:
    """Where no resume is said, a later attempt's low step leaves the earlier rows alone."""
    run = tmp_path / "r"
    began = started(run)
    began.send(rows(1, range(10)))
    resumed = started(run, 2)
    resumed.send([Row(0, 1.8e9, 3, 2, {"epoch/loss": 0.5})])
    resumed.finish("completed")
    found = scalars(run / "tensorboard", purge=True)
    assert [step for step, _ in found["loss"]] == list(range(10))
    assert found["epoch/loss"] == [(3, 0.5)]


def test_a_step_is_where_the_rows_before_it_stand(tmp_path: Path) -> None:
    """Without any step rows are counted, over attempts; after one, the last one holds."""
    run = tmp_path / "r"
    began = started(run)
    began.send(rows(1, [None, None]))
    resumed = started(run, 2)
    resumed.send(rows(2, [None, 7, None, -3, None, 2**70]))
    resumed.finish("failed")
    steps = [step for step, _ in scalars(run / "tensorboard")["loss"]]
    assert steps == [0, 1, 2, 7, 7, -3, -3, 2**63 - 1]


def test_values_and_names_of_every_kind(tmp_path: Path) -> None:
    """What 32 bits cannot hold is infinite; no name is lost or mixed up with a text's."""
    values: dict[str, float | int | bool] = {
        "nan": math.nan,
        "huge": 1e308,
        "integer": -(10**400),
        "true": True,
        "": 1.0,
        "keisei/config": 2.0,
        "\ud800": 3.0,
        "a\0b\n": 4.0,
        "../../x": 5.0,
        "<b>ü" * 3000: 6.0,
    }
    began = started(tmp_path / "r")
    began.send([Row(0, 1.7e9, 3, 1, values), Event(1, 1.7e9, 1, "\ud800\n/../e", ["\ud800```\n"])])
    began.finish("completed")
    found = scalars(tmp_path / "r" / "tensorboard")
    assert math.isnan(found.pop("nan")[0][1])
    assert {tag: value for tag, [(_, value)] in found.items()} == {
        "huge": math.inf,
        "integer": -math.inf,
        "true": 1.0,
        "metric/": 1.0,
        "metric/keisei/config": 2.0,
        "\\ud800": 3.0,
        "a\0b\n": 4.0,
        "../../x": 5.0,
        "<b>ü" * 3000: 6.0,
    }
    (shown,) = texts(tmp_path / "r" / "tensorboard")["keisei/events/\\ud800\n/../e"]
    assert shown == (3, '```json\n[\n "\\ud800```\\n"\n]\n```')


def test_texts_show_config_and_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The config is there as text and as hyperparameters; a secret in an event is hidden."""
    monkeypatch.setenv("MY_API_KEY", "canary-canary")
    run, config = tmp_path / "r", '{"lr": 0.1, "n": null, "on": true, "deep": {"tags": ["a"]}}'
    began = TensorBoardTracker().start(info(run, config=config))
    began.send([Event(0, 1.7e9, 1, "note", "canary-canary")])
    began.finish("preempted")
    began.finish("completed")
    found = texts(run / "tensorboard")
    assert found["keisei/config"] == [(0, f"```json\n{config}\n```")]
    assert found["keisei/status"] == [(0, "preempted")]
    assert "canary" not in str(found)
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    tag = "_hparams_/session_start_info"
    data = loaded(run / "tensorboard").SummaryMetadata(tag).plugin_data.content
    hyper = HParamsPluginData.FromString(data).session_start_info.hparams
    assert sorted(hyper) == ["deep/tags", "lr", "on"]
    assert (hyper["lr"].number_value, hyper["deep/tags"].string_value) == (0.1, '["a"]')


def test_the_end_is_the_end(tmp_path: Path) -> None:
    """A second end changes nothing, and nothing can be sent after it."""
    began = started(tmp_path / "r")
    began.finish("completed")
    content = event_files(tmp_path / "r")[0].read_bytes()
    began.finish("failed")
    with pytest.raises(TrackerError, match="has ended"):
        began.send(rows(1, [0]))
    assert event_files(tmp_path / "r")[0].read_bytes() == content


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_last_batch_cut_at_every_byte_is_sent_again(tmp_path: Path, attempt: int) -> None:
    """Whatever is left of it, the next start has each row once, in the same file or a new one."""
    run, records = tmp_path / "r", rows(1, range(5))
    began = started(run)
    began.send(records[:3])
    (path,) = event_files(run)
    whole = path.stat().st_size
    began.send(records[3:])
    content = path.read_bytes()
    for size in [*range(0, whole, 11), *range(whole, len(content) + 1)]:
        shutil.rmtree(run / "tensorboard")
        (run / "tensorboard").mkdir()
        path.write_bytes(content[:size])
        resumed = started(run, attempt)
        if size >= whole:
            assert resumed.position() == ((1, 4) if size == len(content) else (1, 2)), size
        send_rest(resumed, records)
        resumed.finish("completed")
        assert scalars(run / "tensorboard", purge=True)["loss"] == series_of(records), size


def test_only_a_whole_mark_counts(tmp_path: Path) -> None:
    """What reads as one in a row or an event is none, and a damaged one counts as torn."""
    run, forged = tmp_path / "r", "keisei's cursor: [9, 9, 9, 9]"
    began = started(run)
    began.send([Row(0, 1.7e9, 0, 1, {forged: 1.0}), Event(1, 1.7e9, 1, forged, forged)])
    assert started(run).position() == (1, 1)
    began.send([Row(2, 1.7e9, 1, 1, {"loss": 1.0})])
    (path,) = event_files(run)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    resumed = started(run)
    assert resumed.position() == (1, 1)
    assert list(scalars(run / "tensorboard")) == [forged]


FIRST_LIFE = """
import sys, itertools
from keisei.journal.reader import Row
from keisei.trackers.base import RunInfo
from keisei.trackers.tensorboard import TensorBoardTracker
run = TensorBoardTracker().start(RunInfo("01J" + "0" * 23, "r", 1, sys.argv[1], "{}"))
for n in itertools.count():
    run.send([Row(s, 1.7e9, s, 1, {"loss": 1 + s / 256}) for s in range(n * 50, n * 50 + 50)])
    print(n * 50 + 49, flush=True)
"""


def test_a_killed_writer_has_lost_nothing_that_was_sent(tmp_path: Path) -> None:
    """What `send` has returned for is there after SIGKILL; the rest is there once when resent."""
    run = Path(info(tmp_path / "r").directory)
    command = [sys.executable, "-c", FIRST_LIFE, str(run)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_clone()) as child:
        assert child.stdout is not None
        for _ in range(30):
            told = int(child.stdout.readline())
        child.kill()
        told = max([told, *map(int, child.stdout.read().splitlines()[:-1])])
    resumed = started(run, 2)
    held = resumed.position()
    assert held.attempt == 1
    assert held.seq >= told
    records = rows(1, range(held.seq + 100))
    send_rest(resumed, records)
    assert scalars(run / "tensorboard")["loss"] == series_of(records)


class Disk(FileFaults):
    """A disk that fails in the tracker's calls, too."""

    def ftruncate(self, fd: int, size: int) -> None:
        """Cut a file."""
        self._by_fd("ftruncate", fd, lambda: os.ftruncate(fd, size))


@contextlib.contextmanager
def failing(fault: Fault | None) -> Iterator[list[Call]]:
    """Yield a failing disk's calls; it fails inside the block."""
    disk = Disk(fault)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "os", disk)
        patch.setattr(event_file, "os", disk)
        yield disk.calls


def attempted(call: Callable[[], T]) -> T | None:
    """Call until it succeeds, as a worker does; ``None`` where it does not."""
    for _ in range(4):
        with contextlib.suppress(OSError):
            return call()
    return None


def lived(run: Path, records: Sequence[Record]) -> bool:
    """Live the second attempt of a run on a disk that may fail; return whether all was sent."""
    resumed = attempted(lambda: started(run, 2))
    if resumed is None:
        return False
    sent = all(
        attempted(partial(send_rest, resumed, records[:end]))
        for end in range(len(records) - 6, len(records) + 1, 2)
    )
    with contextlib.suppress(OSError):
        resumed.finish("failed")
    return sent


@pytest.mark.skipif(os.name == "nt", reason="the failing disk knows POSIX calls only")
def test_whatever_call_fails_each_row_is_there_once(tmp_path: Path) -> None:
    """Once: the next try has it. For ever, which is as a kill there: the next attempt has it."""
    first = tmp_path / "first"
    records = [*rows(1, range(6)), *rows(2, range(6, 12))]
    began = started(first)
    began.send(records[:4])
    with (first / "tensorboard" / event_files(first)[0].name).open("ab") as file:
        file.write(b"torn by a kill")
    shutil.copytree(first, tmp_path / "traced")
    with failing(None) as calls:
        assert lived(tmp_path / "traced", records)
    writes = sum(call.kind == "write" for call in calls)
    assert writes == 6
    faults = [
        Fault(ANY, number, errno.ENOSPC, forever=forever)
        for number in range(1, len(calls) + 1)
        for forever in (False, True)
    ] + [
        Fault("write", number, errno.EIO, forever=forever, short=True)
        for number in range(1, writes + 1)
        for forever in (False, True)
    ]
    for number, fault in enumerate(faults):
        run = tmp_path / str(number)
        shutil.copytree(first, run)
        with failing(fault) as calls:
            sent = lived(run, records)
        assert sent or fault.forever, fault
        if sent:
            assert scalars(run / "tensorboard")["loss"] == series_of(records), fault
        resumed = started(run, 3)
        send_rest(resumed, [*records, *rows(3, [12])])
        assert scalars(run / "tensorboard")["loss"][:12] == series_of(records), fault
        assert len(scalars(run / "tensorboard")["loss"]) == 13, fault
        resumed.finish("completed")


def test_a_full_disk_that_has_room_again(tiny_disk: Path) -> None:
    """`send` raises, the position stays, and what is sent again is there once."""
    run = tiny_disk / "r"
    began = started(run)
    try:
        began.send(rows(1, range(3)))
        ballast = tiny_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass
        records = rows(1, range(500))
        with pytest.raises(OSError, match=r"events\.out"):
            send_rest(began, records)
        assert began.position() == (1, 2)
        ballast.unlink()
        send_rest(began, records)
    finally:
        began.finish("completed")  # what is open could not be unmounted
    assert scalars(run / "tensorboard")["loss"] == series_of(records)


@pytest.mark.skipif(os.name == "nt", reason="the failing disk knows POSIX calls only")
def test_the_end_stands_behind_what_counts(tmp_path: Path) -> None:
    """What a failed write has left is cut before it; and the end itself stays there."""
    run = tmp_path / "r"
    with failing(Fault("write", 3, errno.ENOSPC, short=True)):
        began = started(run)
        began.send(rows(1, range(3)))
        with pytest.raises(OSError, match="No space"):
            began.send(rows(1, range(200))[3:])
        began.finish("failed")
    (path,) = event_files(run)
    content = path.read_bytes()
    assert started(run).position() == (1, 2)
    assert path.read_bytes() == content
    assert texts(run / "tensorboard")["keisei/status"] == [(2, "failed")]
    assert scalars(run / "tensorboard")["loss"] == series_of(rows(1, range(3)))


@pytest.mark.skipif(os.name == "nt", reason="links take a privilege there, modes mean little")
def test_no_link_leads_out_and_modes_are_private(tmp_path: Path) -> None:
    """A link where the directory or a file should be is an error, and nothing is behind it."""
    run, outside = tmp_path / "r", tmp_path / "outside"
    began = started(run)
    (path,) = event_files(run)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    began.finish("completed")
    outside.mkdir()
    (outside / "file").write_bytes(b"")
    path.unlink()
    path.symlink_to(outside / "file")
    with pytest.raises(OSError, match="events"):
        started(run)
    shutil.rmtree(run / "tensorboard")
    (run / "tensorboard").symlink_to(outside)
    with pytest.raises(OSError, match="tensorboard"):
        started(run)
    assert [(p.name, p.stat().st_size) for p in outside.iterdir()] == [("file", 0)]


def test_a_log_dir_of_its_own(tmp_path: Path) -> None:
    """It is made; a run of the same name but another session has a directory of its own there."""
    log_dir = tmp_path / "made" / "logs"
    chosen = TensorBoardTracker(log_dir=log_dir)
    run = chosen.start(info(tmp_path / "r"))
    assert run.directory == os.path.realpath(log_dir / "r")
    assert not (tmp_path / "r" / "tensorboard").exists()
    run.send(rows(1, range(5)))
    other = chosen.start(replace(info(tmp_path / "r"), session_id="01K" + "0" * 23))
    assert other.position() == Position(1, -1)
    other.send(rows(1, [1, 2]))
    assert len(scalars(log_dir / "r", purge=True)["loss"]) == 5
    assert other.directory is not None
    assert len(scalars(Path(other.directory), purge=True)["loss"]) == 2


def test_a_missing_package_names_the_extra() -> None:
    """Without TensorBoard the module imports, and a start says what to install."""
    code = """
import sys
sys.modules["tensorboard"] = None
from keisei.trackers.tensorboard import TensorBoardTracker
from keisei.trackers.base import RunInfo
try:
    TensorBoardTracker().start(RunInfo("id", "name", 1, ".", "{}"))
except ImportError as exc:
    print(type(exc).__name__, exc)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith(MissingExtraError.__name__), done.stderr
    assert "pip install 'keisei[tensorboard]'" in done.stdout


def test_little_is_imported(tmp_path: Path) -> None:
    """The module imports nothing of TensorBoard, and a whole run neither numpy nor its plug-ins."""
    code = """
import sys
from keisei.journal.reader import Row
from keisei.trackers.base import RunInfo
from keisei.trackers.tensorboard import TensorBoardTracker
print("tensorboard" in sys.modules)
run = TensorBoardTracker().start(RunInfo("id", "name", 1, sys.argv[1], "{}"))
run.send([Row(0, 1.7e9, 0, 1, {"a": 1.0})])
run.finish("completed")
print("tensorboard" in sys.modules, "numpy" in sys.modules, "tensorboard.summary" in sys.modules)
"""
    command = [sys.executable, "-c", code, os.path.realpath(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "False\nTrue False False\n", done.stderr


@pytest.mark.parametrize("at_once", [False, True])
def test_runs_of_one_name_in_a_shared_directory_both_stay(
    make_config: MakeConfig, tmp_path: Path, at_once: bool
) -> None:
    """The second one's directory has its id behind the name; each resumes in its own."""
    boards = tmp_path / "boards"
    options = {"tracker": "tensorboard", "log_dir": str(boards)}

    def session(root: str, last: int) -> Any:
        config = make_config(
            logging={"log_dir": str(tmp_path / root)}, tracking={"trackers": {"boards": options}}
        )
        opened = keisei.SessionManager(config, run_name="r")
        opened.__enter__()
        opened.log_metrics({"x": float(last)}, step=last)
        return opened

    for step in (1, 2):
        opened = []
        for number, root in enumerate(["one", "two"]):
            opened.append(session(root, step + 10 * number))
            if not at_once:
                opened.pop().__exit__(None, None, None)
        for each in opened:
            each.__exit__(None, None, None)
    steps = {}
    for directory in sorted(boards.iterdir()):
        found = EventAccumulator(str(directory), STORE_EVERYTHING_SIZE_GUIDANCE)
        found.Reload()
        steps[directory.name] = [it.step for it in found.Scalars("x")]
    first, second = sorted(boards.iterdir())
    assert (first.name, second.name[:2]) == ("r", "r-")
    assert sorted(steps.values()) == [[1, 2], [11, 12]]


def test_a_directory_of_another_program_is_left_to_it(tmp_path: Path) -> None:
    """Its event files stay alone in it."""
    theirs = tmp_path / "boards" / "r"
    theirs.mkdir(parents=True)
    (theirs / "events.out.tfevents.1700000000.host.1.0").write_bytes(b"")
    run = TensorBoardTracker(tmp_path / "boards").start(info(tmp_path / "r"))
    assert run.directory == str(tmp_path / "boards" / f"r-{SESSION}")
    assert len(list(theirs.iterdir())) == 1
