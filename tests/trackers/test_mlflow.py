"""MLflow has each row once, whatever comes between, and nothing of the process's is touched."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei import AsyncSessionManager
from keisei._io import files, locks
from keisei.errors import TrackerError
from keisei.journal.records import Event, Row
from keisei.run.names import new_session_id
from keisei.testing import check_tracker
from keisei.trackers.base import Position, Record, RunInfo
from keisei.trackers.mlflow import store
from keisei.trackers.mlflow.rows import Progress, mlflow_name
from keisei.trackers.mlflow.store import open_store
from keisei.trackers.mlflow.tracker import MlflowTracker
from tests.conftest import MakeConfig
from tests.support.mlflow_server import FAULTS, MlflowServer, mlflow_server

# At its import, MLflow 3.17 maps its tables in a way that SQLAlchemy 2.1 deprecates, and its server
# uses what Starlette does.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:starlette.middleware.wsgi is deprecated"),
]

CONFIG = '{"env": {"seed": 1}, "training": {"lr": 0.1, "layers": [8, 8]}, "note": null}'


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database that all tests here share: making its tables takes 1 s."""
    return f"sqlite:///{(tmp_path_factory.mktemp('mlflow') / 'mlflow.db').as_posix()}"


@pytest.fixture
def server(uri: str) -> Iterator[MlflowServer]:
    """A server of the same database."""
    with mlflow_server(open_store(uri)) as control:
        yield control


@pytest.fixture(autouse=True)
def _database(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)


def info_of(session_id: str | None = None, attempt: int = 1, config: str = CONFIG) -> RunInfo:
    """What a tracker is told of a run."""
    return RunInfo(session_id or new_session_id(), "a-run", attempt, "/runs/a-run", config)


def own_client() -> Any:
    """Return MLflow's own client."""
    import mlflow

    return mlflow.MlflowClient(tracking_uri=os.environ["MLFLOW_TRACKING_URI"])


def native_of(session_id: str) -> Any:
    """Find the session's one run with MLflow's own client."""
    client = own_client()
    experiments = [found.experiment_id for found in client.search_experiments()]
    (native,) = client.search_runs(experiments, f"tags.`keisei.session_id` = '{session_id}'")
    return native


def series_of(info: RunInfo) -> dict[str, list[tuple[int | None, float]]]:
    """Read a run's metrics with MLflow's own client."""
    native, client = native_of(info.session_id), own_client()
    return {
        key: [(it.step, it.value) for it in client.get_metric_history(native.info.run_id, key)]
        for key in native.data.metrics
    }


def rows_of(count: int, attempt: int = 1, first: int = 0) -> list[Record]:
    """Make rows, several of them within a millisecond and alike but for their number."""
    moment = 1_700_000_000.0 + attempt * 100
    return [
        Row(seq, moment + seq / 5000, seq // 3, attempt, {"loss": 0.5})
        for seq in range(first, first + count)
    ]


def test_it_keeps_to_the_protocol() -> None:
    """The check for trackers holds on a database, killed and resumed."""
    assert len(check_tracker(MlflowTracker, series_of)) == 9


def test_rows_that_are_alike_are_all_there_and_come_again_without_harm() -> None:
    """Key, step, millisecond and value are the same, the tag of the position is lost: each once."""
    info, records = info_of(), rows_of(400)
    run = MlflowTracker().start(info)
    run.send(records[:100])
    tag = native_of(info.session_id).data.tags["keisei.position"]
    run.send(records[100:300])
    # As after a kill between the metrics and the tag: the database has more than it says.
    own_client().set_tag(run.run_id, "keisei.position", tag)
    again = MlflowTracker().start(info)
    assert again.run_id == run.run_id
    assert again.position() == (1, 99)
    again.send(records[100:180])
    again.send(records[180:])
    again.send(records[350:])
    assert series_of(info)["loss"] == [(row.seq // 3, 0.5) for row in records]


def test_a_lost_position_means_that_all_is_sent_again() -> None:
    """A tag that somebody has damaged counts as nothing held; the rows are still the same ones."""
    info, records = info_of(), rows_of(50)
    run = MlflowTracker().start(info)
    assert run.position() == (1, -1)
    run.send(records)
    own_client().set_tag(run.run_id, "keisei.position", "what")
    again = MlflowTracker().start(info)
    assert again.position() == (1, -1)
    again.send(records)
    assert len(series_of(info)["loss"]) == 50


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.none() | st.integers(-2, 4) | st.just(2**70), st.integers(0, 3000))),
    st.data(),
)
def test_steps_and_times_are_unique_ordered_and_the_same_again(
    logged: list[tuple[int | None, int]], data: st.DataObject
) -> None:
    """They follow from the records, and from the tag between any two of them."""
    rows = [Row(seq, t / 1_000_000, step, 1, {}) for seq, (step, t) in enumerate(logged)]

    def written(rows: list[Row], progress: Progress) -> tuple[list[tuple[int, int]], Progress]:
        found = []
        for row in rows:
            progress, step = progress.after(row)
            found.append((progress.time, step))
        return found, progress

    whole, end = written(rows, Progress())
    assert sorted(set(whole)) == whole  # as MLflow gives them back
    assert all(-(2**63) <= step < 2**63 for _, step in whole)
    cut = data.draw(st.integers(0, len(rows)))
    first, progress = written(rows[:cut], Progress())
    rest, same_end = written(rows[cut:], Progress.parsed(progress.text))
    assert first + rest == whole
    assert same_end == end


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=12) | st.text("_x03A/.:", max_size=12), st.text("_x03A/.:", max_size=12))
def test_names_are_legal_and_distinct(one: str, other: str) -> None:
    """MLflow takes the name of any metric, and no two metrics share one."""
    from mlflow.utils.validation import _validate_metric_name

    for name in (one, other):
        _validate_metric_name(mlflow_name(name))
        assert len(mlflow_name(name)) <= 250
    assert (one == other) == (mlflow_name(one) == mlflow_name(other))


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("train/loss v1.2-a", "train/loss v1.2-a"),
        ("ünï", "ünï"),
        ("a:b", "a_x003A_b"),
        ("a_x003A_b", "a_x005F_x003A_b"),
        ("pos_x", "pos_x"),
        ("a//b", "a_x002F__x002F_b"),
        ("..", "_x002E__x002E_"),
        ("", "_x_"),
        ("x" * 300, f"{'x' * 233}-0d4e2ca9e9cbced7"),
    ],
)
def test_a_name_that_mlflow_refuses_is_escaped(name: str, shown: str) -> None:
    """What it takes stays as it is."""
    assert mlflow_name(name) == shown


def test_values_are_what_the_database_can_hold() -> None:
    """Infinity is the largest float there, NaN is NaN, and integers and flags are floats."""
    info = info_of()
    values = [math.inf, -math.inf, 10**400, 2**53 + 1, True]
    run = MlflowTracker().start(info)
    run.send([Row(seq, 1.7e9 + seq, None, 1, {"v": value}) for seq, value in enumerate(values)])
    run.send([Row(5, 1.7e9 + 5, 7, 1, {"n": math.nan}), Row(6, 1.7e9 + 6, None, 1, {"v": 1.0})])
    largest = sys.float_info.max
    got = series_of(info)
    assert [value for _, value in got["v"]] == [largest, -largest, largest, 2.0**53, 1.0, 1.0]
    assert [step for step, _ in got["v"]] == [0, 1, 2, 3, 4, 7]
    assert math.isnan(got["n"][0][1])


def test_large_rows_and_batches_stay_within_the_limits_of_a_request() -> None:
    """A row of 1,200 metrics with names of 250 characters goes in several requests, once."""
    info = info_of()
    wide: dict[str, float | int | bool] = {f"{n:04}{'é' * 246}": float(n) for n in range(1200)}
    run = MlflowTracker().start(info)
    requests: list[int] = []
    log_batch = run.store.log_batch

    class Store:
        """Notes the size of each request."""

        def log_batch(self, run_id: str, metrics: Any, params: Any, tags: Any) -> None:
            said = [(it.key, it.value, it.timestamp, it.step) for it in metrics]
            requests.append(len(json.dumps(said)))
            log_batch(run_id, metrics, params, tags)

    run.store = Store()
    run.send([Row(0, 1.7e9, 0, 1, wide), *rows_of(2, first=1)])
    assert max(requests) < 1_000_000
    assert len(requests) > 1
    assert len(native_of(info.session_id).data.metrics) == 1201
    history = own_client().get_metric_history(run.run_id, mlflow_name(list(wide)[700]))
    assert [point.value for point in history] == [700.0]


def test_the_config_the_events_and_the_end_can_be_seen() -> None:
    """Params are the flat config, tags show the last event of each name and the true status."""
    info = info_of()
    run = MlflowTracker(tags={"team:a": "x"}).start(info)
    events = [Event(n, 1.7e9 + n, 1, "checkpoint", {"path": f"{n}.pt"}) for n in range(3)]
    run.send(events)
    assert run.position() == (1, 2)
    run.finish("preempted")
    native = native_of(info.session_id)
    assert native.info.run_name == "a-run"
    assert native.info.status == "KILLED"
    assert native.info.end_time >= native.info.start_time
    assert native.data.params == {
        "env.seed": "1",
        "training.lr": "0.1",
        "training.layers": "[8, 8]",
        "note": "null",
    }
    tags = native.data.tags
    assert tags["keisei.status"] == "preempted"
    assert tags["team_x003A_a"] == "x"
    assert json.loads(tags["keisei.event.checkpoint"])["data"] == {"path": "2.pt"}
    assert (run.url, run.mode, run.run_id) == (None, "online", native.info.run_id)


@pytest.mark.parametrize(
    ("status", "shown"), [("completed", "FINISHED"), ("failed", "FAILED"), ("cancelled", "KILLED")]
)
def test_a_resumed_run_with_another_config_goes_on(status: Any, shown: str) -> None:
    """What MLflow does not let change stays, what has changed is a tag, and the run lives again."""
    info = info_of()
    MlflowTracker().start(info).finish(status)
    assert native_of(info.session_id).info.status == shown
    other = CONFIG.replace("0.1", "0.2").replace('"note"', '"more"')
    MlflowTracker().start(info_of(info.session_id, 2, other))
    native = native_of(info.session_id)
    assert native.info.status == "RUNNING"
    assert native.data.tags["keisei.attempt"] == "2"
    assert native.data.params["training.lr"] == "0.1"
    assert native.data.params["more"] == "null"
    assert json.loads(native.data.tags["keisei.changed_config.2"]) == {"training.lr": "0.2"}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_that_fails_has_each_row_once(
    server: MlflowServer, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """After an error in the middle, what comes after the position completes the run."""
    info, records = info_of(), rows_of(2500)
    with monkeypatch.context() as patch:
        if fault == "a hang":
            patch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
        run = MlflowTracker(server.url).start(info)
    run.send(records[:10])
    server.faults += ["", fault]
    began = time.monotonic()
    with pytest.raises(RuntimeError, match="MLflow"):
        run.send(records[10:])
    assert time.monotonic() - began < 60  # MLflow's own client goes on for minutes
    server.released.set()
    after = run.position()
    assert after in ((1, 909), (1, 1809))
    run.send([record for record in records if (record.attempt, record.seq) > after])
    assert run.position() == (1, 2499)
    run.finish("completed")
    assert series_of(info)["loss"] == [(row.seq // 3, 0.5) for row in records]
    native = native_of(info.session_id)
    page = f"{server.url}/#/experiments/{native.info.experiment_id}/runs/{run.run_id}"
    assert (run.url, native.info.status) == (page, "FINISHED")


def test_a_credential_in_the_address_is_sent_and_never_shown(server: MlflowServer) -> None:
    """No error, url, repr or tag has it."""
    uri = server.url.replace("://", "://someone:canary-of-the-uri@")
    info = info_of()
    run = MlflowTracker(uri).start(info)
    assert any(server.authorizations)
    assert (run.url or "").startswith(f"{server.url}/#/experiments/")
    server.faults += ["a cut"]
    with pytest.raises(RuntimeError) as caught:
        run.send(rows_of(3))
    away = uri[: uri.rindex(":")] + ":9"
    with pytest.raises(RuntimeError) as unreachable:
        MlflowTracker(away).start(info)
    native = native_of(info.session_id)
    errors = [traceback.format_exception(it.value) for it in (caught, unreachable)]
    assert "canary" not in repr([run.url, repr(run), errors, native.data.tags])


def test_two_sessions_at_the_same_time_have_a_run_each() -> None:
    """Their rows do not mix, also where both make the experiment."""
    infos = [info_of() for _ in range(4)]

    def live(info: RunInfo) -> None:
        run = MlflowTracker(experiment="made-by-all").start(info)
        for start in range(0, 60, 20):
            run.send(rows_of(20, first=start))
        run.finish("completed")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(live, infos))
    for info in infos:
        assert series_of(info)["loss"] == [(seq // 3, 0.5) for seq in range(60)]
    assert len({native_of(info.session_id).info.experiment_id for info in infos}) == 1


def test_a_relative_database_is_that_of_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each start's, although MLflow keeps its stores by their address."""
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        MlflowTracker("sqlite:///runs.db").start(info_of()).send(rows_of(3))
    for name in ("one", "other"):
        with closing(sqlite3.connect(tmp_path / name / "runs.db")) as database:
            assert database.execute("SELECT count(*) FROM metrics").fetchall() == [(3,)]


@pytest.mark.parametrize("address", ["mlruns", "file:///tmp/mlruns"])
def test_a_directory_of_files_is_refused(address: str) -> None:
    """It would have a row twice that is sent twice; the error says what to set."""
    with pytest.raises(TrackerError, match="set tracking_uri or MLFLOW_TRACKING_URI"):
        MlflowTracker(address).start(info_of())


def test_a_deleted_experiment_is_said() -> None:
    """A retry would not help, and so it is the kind of error that is not retried."""
    client = own_client()
    client.delete_experiment(client.create_experiment("gone"))
    with pytest.raises(TrackerError, match="deleted"):
        MlflowTracker(experiment="gone").start(info_of())


def test_one_start_at_a_time_makes_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While another process does so, a start waits: longer than a session waits for a start."""
    assert MlflowTracker.start_timeout < store.LONGEST_CREATION
    monkeypatch.setattr(store, "LONGEST_CREATION", 0.05)
    root = os.path.realpath(tmp_path)
    with (
        files.OpenDirectory(root) as directory,
        locks.locked(directory, "new.db.lock"),
        pytest.raises(RuntimeError, match="holds its lock"),
    ):
        MlflowTracker(f"sqlite:///{Path(root).as_posix()}/new.db").start(info_of())
    assert not (tmp_path / "new.db").exists()


def test_a_start_goes_on_once_another_one_has_made_the_tables(tmp_path: Path) -> None:
    """It has waited for the lock, and needs no second try."""
    root = os.path.realpath(tmp_path)
    with ThreadPoolExecutor() as pool:
        with files.OpenDirectory(root) as directory, locks.locked(directory, "new.db.lock"):
            start = MlflowTracker(f"sqlite:///{Path(root).as_posix()}/new.db").start
            started = pool.submit(start, info_of())
            with pytest.raises(TimeoutError):
                started.result(0.1)
        assert started.result(60).run_id


@pytest.mark.parametrize("before", [None, b""])
def test_a_new_database_is_the_one_that_mlflow_makes(tmp_path: Path, before: bytes | None) -> None:
    """Tables, columns, version are the same; nothing is left beside it, a torn one is no harm."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    if before is None:
        (tmp_path / "ours.db.new").write_bytes(b"torn by a kill")
    else:  # as tempfile makes one
        (tmp_path / "ours.db").write_bytes(before)
    open_store(f"sqlite:///{(tmp_path / 'ours.db').as_posix()}")
    SqlAlchemyStore(f"sqlite:///{(tmp_path / 'theirs.db').as_posix()}", str(tmp_path / "artifacts"))

    columns = """SELECT it.type, it.name, it.tbl_name, col.name, col.type, col."notnull", col.pk
        FROM sqlite_master AS it LEFT JOIN pragma_table_info(it.name) AS col ORDER BY 1, 2, 4"""

    def made(name: str) -> list[tuple[str, ...]]:
        with closing(sqlite3.connect(tmp_path / name)) as database:
            version = database.execute("SELECT version_num FROM alembic_version").fetchall()
            return version + database.execute(columns).fetchall()

    assert made("ours.db") == made("theirs.db")
    assert sorted(it.name for it in tmp_path.glob("*.db*")) == [
        "ours.db",
        "ours.db.lock",
        "theirs.db",
    ]


BESIDE = """
import json, sys, time
from pathlib import Path
import mlflow
import keisei

uri, root = sys.argv[1:]
config = keisei.AppConfig.model_validate({
    "logging": {"log_dir": root},
    "tracking": {"trackers": {"mlflow": {"tracking_uri": uri}}},
})
with keisei.SessionManager(config) as session:
    for step in range(300):
        session.log_metrics({"loss": 1.0}, step=step)
    run_id = session.get_session_summary()["trackers"]["mlflow"]["run_id"]
    mlflow.set_tracking_uri(uri)
    with mlflow.start_run(run_id=run_id):
        mlflow.log_text("a note", "notes/a.txt")
        mlflow.set_tag("mine", "yes")
    mlflow.MlflowClient().log_text(run_id, "another", "notes/b.txt")
    for step in range(300, 600):
        session.log_metrics({"loss": 1.0}, step=step)
print(run_id)
"""


def test_a_program_uses_mlflow_itself_on_the_same_run(uri: str, tmp_path: Path) -> None:
    """By the run's id in the summary: what it logs is beside the rows, and the end is keisei's."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BESIDE, uri, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    run_id = done.stdout.split()[-1]
    client = own_client()
    native = client.get_run(run_id)
    assert (native.info.status, native.data.tags["mine"]) == ("FINISHED", "yes")
    assert [it.path for it in client.list_artifacts(run_id, "notes")] == [
        "notes/a.txt",
        "notes/b.txt",
    ]
    steps = [it.step for it in client.get_metric_history(run_id, "loss")]
    assert steps == list(range(600))


def test_nothing_of_the_process_is_touched(monkeypatch: pytest.MonkeyPatch, uri: str) -> None:
    """No active run, no tracking URI, no variable, no thread."""
    import mlflow

    environ, threads = dict(os.environ), set(threading.enumerate())
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    default = mlflow.get_tracking_uri()
    run = MlflowTracker(uri).start(info_of())
    run.send(rows_of(5))
    run.finish("completed")
    assert mlflow.get_tracking_uri() == default
    assert mlflow.active_run() is None
    assert os.environ | {"MLFLOW_TRACKING_URI": uri} == environ
    assert set(threading.enumerate()) <= threads


async def test_a_session_tracks_with_it(make_config: MakeConfig, uri: str) -> None:
    """Rows that were logged before its start are there, too."""
    session = AsyncSessionManager(make_config())
    await session.setup_directories()
    session.log_metrics({"loss": 1.0}, step=0)
    assert await session.setup_remote_logging(MlflowTracker(uri)) is True
    session.log_metrics({"loss": 0.5}, step=1)
    await session.finalize_session("completed")
    native = native_of(session.session_id)
    assert (native.info.run_name, native.info.status) == (session.run_name, "FINISHED")
    info = info_of(session.session_id)
    assert series_of(info)["loss"] == [(0, 1.0), (1, 0.5)]


def test_without_mlflow_the_extra_is_named() -> None:
    """The module itself imports nothing of it."""
    program = """
import sys
sys.modules["mlflow"] = None
from keisei.errors import MissingExtraError
from keisei.trackers.base import RunInfo
from keisei.trackers.mlflow.tracker import MlflowTracker
try:
    MlflowTracker().start(RunInfo("id", "name", 1, "/runs/name", "{}"))
except MissingExtraError as exc:
    print(exc)
"""
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert "keisei[mlflow]" in said.stdout, said.stderr


def test_the_process_ends_while_the_server_hangs(server: MlflowServer) -> None:
    """A request on its way holds nobody: neither the interpreter nor MLflow waits for it."""
    program = f"""
import sys, threading
from keisei.journal.reader import Row
from keisei.trackers.base import RunInfo
from keisei.trackers.mlflow.tracker import MlflowTracker
run = MlflowTracker("{server.url}").start(RunInfo("{new_session_id()}", "n", 1, "/runs/n", "{{}}"))
print("started", flush=True)
sys.stdin.readline()
threading.Thread(target=run.send, args=([Row(0, 1.7e9, 0, 1, {{"a": 1.0}})],), daemon=True).start()
sys.stdin.readline()
"""
    environ = {key: value for key, value in os.environ.items() if key != "PYTEST_CURRENT_TEST"}
    environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = "300"
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        server.faults.append("a hang")
        process.stdin.write("send\n")
        process.stdin.flush()
        assert server.hanging.wait(60)
        process.stdin.write("end\n")
        process.stdin.flush()
        assert process.wait(60) == 0  # the request itself would take minutes


@pytest.mark.requirement("CKPT-7")
@pytest.mark.parametrize("place", ["database", "server"])
def test_a_resumed_run_goes_on_in_a_run_with_what_holds(
    server: MlflowServer, uri: str, place: str
) -> None:
    """The same name, params and tags; the other is deleted at the end, unless it has artifacts."""
    tracker = MlflowTracker(uri if place == "database" else server.url, tags={"team": "x"})
    info = info_of()
    run = tracker.start(info)
    run.send([*rows_of(20), Event(20, 1.8e9, 1, "checkpoint", {"path": "1.pt"})])
    run.finish("preempted")
    client, first = own_client(), run.run_id
    client.set_tag(first, "mlflow.note.content", "mine")
    run = tracker.start(info_of(info.session_id, 2))
    assert run.rewind(Position(1, 25))
    assert run.run_id == first
    assert run.rewind(Position(1, 9))
    assert (run.run_id != first, run.position()) == (True, (1, -1))
    assert run.rewind(Position(1, 9))
    second = run.run_id
    assert run.url is None or run.url.endswith(second)
    holds = [*rows_of(10), *rows_of(20, attempt=2)]
    run.send(holds)
    assert series_of(info)["loss"] == [(row.seq // 3, 0.5) for row in holds]
    client.log_text(second, "a file", "file.txt")  # to a run that will be replaced itself
    assert run.rewind(Position(2, 4))
    holds = holds[:15]
    run.send(holds)
    run.finish("completed")
    assert series_of(info)["loss"] == [(row.seq // 3, 0.5) for row in holds]
    native = native_of(info.session_id)
    assert native.info.run_name == "a-run"
    assert native.data.params["training.lr"] == "0.1"
    assert (native.data.tags["team"], native.data.tags["mlflow.note.content"]) == ("x", "mine")
    assert "keisei.event.checkpoint" not in native.data.tags
    stages = [client.get_run(run_id).info.lifecycle_stage for run_id in (first, second)]
    assert stages == ["deleted", "active"]
    assert client.get_run(second).info.run_name == "a-run (replaced)"


@pytest.mark.parametrize("name", ["create_run", "log_batch", "update_run_info", "delete_tag"])
def test_a_replacing_that_was_interrupted_goes_on(name: str) -> None:
    """Whichever request failed or lost its answer, there is one run in the end, with what holds."""
    for answered in (False, True):
        info = info_of()
        run = MlflowTracker().start(info)
        run.send(rows_of(20))
        real = getattr(run.store, name)

        def faulty(*args: Any, real: Any = real, answered: bool = answered) -> Any:
            if answered:
                real(*args)
            raise ConnectionError("away")

        setattr(run.store, name, faulty)
        try:
            with pytest.raises(RuntimeError, match="away"):
                run.rewind(Position(1, 9))
        finally:
            delattr(run.store, name)
        if not answered:
            assert run.rewind(Position(1, 9))
        else:
            run = MlflowTracker().start(info_of(info.session_id, 2))
            assert run.rewind(Position(1, 9))
        run.send(rows_of(10))
        run.finish("completed")
        assert series_of(info)["loss"] == [(row.seq // 3, 0.5) for row in rows_of(10)]
