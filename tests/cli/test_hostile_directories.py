"""A run's directory from somebody else: no command obeys it, leaves it, or shows its bytes."""

from __future__ import annotations

import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from keisei.cli import doctor as _doctor  # noqa: F401 - registers the command
from keisei.cli import plot as _plot  # noqa: F401
from keisei.cli import sync as _sync  # noqa: F401
from keisei.cli import tail as _tail  # noqa: F401
from keisei.cli.program import app
from keisei.redaction import redact
from keisei.run.session_file import TrackerRecord
from keisei.trackers import backfill, trust
from keisei.trackers.cursor import Cursor, store
from keisei.trackers.wandb.backfill import sync_run
from keisei.trackers.wandb.local_runs import LocalRun, attempts_in
from keisei.trackers.wandb.run_file import RunFile
from tests.conftest import MakeConfig
from tests.support.logged_runs import log_with

POSIX = pytest.mark.skipif(os.name == "nt", reason="links, signals and modes of POSIX")


@pytest.fixture
def run(make_config: MakeConfig) -> Path:
    """A run with three rows, whose files a test then replaces."""
    return log_with(make_config)("r", [({"loss": 1.0}, step) for step in range(3)])


@pytest.fixture
def server() -> Any:
    """A server that nobody may connect to."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        yield listening


def keisei(*arguments: str) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(app, [*arguments, "--root", "runs"])


def claim(run: Path, name: str, options: dict[str, object]) -> None:
    """Plant the cursor of a tracker that has got nothing."""
    about = TrackerRecord(state="connecting")
    store(str(run), name, Cursor(options=options, known=about), sync=False)


def reasons(result: Result) -> list[str]:
    """Return why what remains does so."""
    return [found["reason"] for found in json.loads(result.stdout) if found["reason"]]


def connected(server: socket.socket) -> bool:
    """Return whether anybody has connected to the server."""
    try:
        server.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def test_a_server_that_only_the_directory_names_gets_nothing(
    run: Path, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the cursor or in the config; the message names it, and what to do."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "the-users-own-token")
    address = f"http://127.0.0.1:{server.getsockname()[1]}"
    claim(run, "mlflow", {"tracking_uri": address})
    (reason,) = reasons(keisei("sync", "--json"))
    assert address in reason
    assert "--trust" in reason
    os.remove(run / "tracker.mlflow.json")
    record = json.loads((run / "session.json").read_text())
    record["trackers"]["mlflow"] = {"state": "connecting"}
    (run / "session.json").write_text(json.dumps(record))
    config = json.loads((run / "effective_config.json").read_text())
    config["tracking"]["trackers"]["mlflow"] = {"tracking_uri": address}
    (run / "effective_config.json").write_text(json.dumps(config))
    assert address in reasons(keisei("sync", "--json"))[0]
    assert keisei("sync", "--dry-run").exit_code == 1
    assert not connected(server)


def test_a_tracker_that_only_the_directory_names_is_not_loaded(run: Path, tmp_path: Path) -> None:
    """Whatever is installed under that name."""
    claim(run, "somebodys", {})
    claim(run, "tensorboard", {"tracker": "somebodys"})
    found = reasons(keisei("sync", "--json"))
    assert ["load the tracker 'somebodys'" in reason for reason in found] == [True, True]


@pytest.mark.parametrize("climbs", ["outside", "inside/../../../outside", "link"])
def test_a_path_outside_the_run_is_not_written(run: Path, tmp_path: Path, climbs: str) -> None:
    """Given as it is, climbing, or by a link in the run."""
    outside = tmp_path / "outside"
    if climbs == "link":
        (run / "link").symlink_to(outside)
    place = outside if climbs == "outside" else run / climbs
    claim(run, "tensorboard", {"log_dir": str(place)})
    assert "log_dir" in reasons(keisei("sync", "--json"))[0]
    assert not outside.exists()


@pytest.mark.parametrize("name", ["../../outside", "/tmp/outside", "..", "a/b"])
def test_a_run_whose_name_climbs_is_none(run: Path, tmp_path: Path, name: str) -> None:
    """Its session file counts as corrupt, and nothing is written by that name."""
    record = json.loads((run / "session.json").read_text())
    (run / "session.json").write_text(json.dumps(record | {"run_name": name}))
    claim(run, "tensorboard", {"log_dir": str(run / "boards")})
    assert reasons(keisei("sync", "--json")) == ["its session file is corrupt; see `keisei doctor`"]
    assert not (tmp_path / "outside").exists()


def test_what_stays_in_the_run_needs_no_trust(run: Path) -> None:
    """A tracker of keisei's without options, or with a path in the run."""
    claim(run, "tensorboard", {})
    assert reasons(keisei("sync", "--json")) == []
    assert list((run / "tensorboard").iterdir())
    claim(run, "tensorboard", {"log_dir": str(run / "boards")})
    assert reasons(keisei("sync", "--json")) == []
    assert list((run / "boards" / "r").iterdir())


def test_what_the_user_says_is_done(run: Path, tmp_path: Path) -> None:
    """By a flag, once; it is remembered with the very options, and with no others."""
    claim(run, "tensorboard", {"log_dir": str(tmp_path / "outside")})
    assert keisei("sync").exit_code == 1
    assert keisei("sync", "--trust").exit_code == 0
    assert (tmp_path / "outside" / "r").is_dir()
    known = json.loads((run / "tracker.tensorboard.json").read_text())
    known |= {"seq": 0, "known": {"state": "broken"}}
    (run / "tracker.tensorboard.json").write_text(json.dumps(known))
    assert keisei("sync").exit_code == 0
    known |= {"options": {"log_dir": str(tmp_path / "elsewhere")}}
    (run / "tracker.tensorboard.json").write_text(json.dumps(known))
    assert keisei("sync").exit_code == 1
    assert not (tmp_path / "elsewhere").exists()


def test_a_database_counts_as_in_the_run_where_nothing_else_can_be_meant(tmp_path: Path) -> None:
    """Its address has no query, no escape and no relative part."""
    run = str(tmp_path)
    for rest in ("m.db", "below/m.db"):
        assert trust.reach("mlflow", {"tracking_uri": f"sqlite:///{run}/{rest}"}, run) is None
    for uri in (
        f"sqlite:///{run}/m.db?uri=true",
        f"sqlite:///{run}/%2e%2e/m.db",
        f"sqlite:///{run}/../m.db",
        f"sqlite:///{run}-other/m.db",
        f"sqlite:///file:{run}/m.db",
        f"sqlite+pysqlite:///{run}/m.db",
        f"file://{run}/m",
        "sqlite:///m.db",
        "https://tracking.example",
        ["https://tracking.example"],
    ):
        assert trust.reach("mlflow", {"tracking_uri": uri}, run) is not None


def test_the_environment_names_a_server_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then a directory that names the same one says nothing new."""
    options = {"tracking_uri": "https://tracking.example"}
    assert trust.reach("mlflow", options, "/runs/r") is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://tracking.example")
    assert trust.reach("mlflow", options, "/runs/r") is None


def test_a_hidden_password_is_taken_from_the_environment_or_asked_for(
    run: Path, server: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run's directory does not hold it; a server without it would only say that it is wrong."""
    place = f"127.0.0.1:{server.getsockname()[1]}"
    options: dict[str, object] = {"tracking_uri": f"http://me:{'pass' * 4}@{place}"}
    claim(run, "mlflow", redact(options))
    (reason,) = reasons(keisei("sync", "--json", "--trust"))
    assert "the secret in its option 'tracking_uri' is not kept" in reason
    assert "MLFLOW_TRACKING_URI" in reason
    assert not connected(server)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(options["tracking_uri"]))
    (behind,) = backfill.find_behind(str(run))
    assert behind.beyond is None
    assert backfill._options(behind, "{}") == options


@POSIX
def test_the_key_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is made once, for nobody else to read; another user's signature counts for nothing."""
    signature = trust.sign("a", {"b": [1.5, None]})
    assert signature == trust.sign("a", {"b": [1.5, None]})
    assert trust.is_signed(signature, "a", {"b": [1.5, None]})
    for other in (None, 1, "", "é", signature and signature[:-1]):
        assert not trust.is_signed(other, "a", {"b": [1.5, None]})
    (key,) = tmp_path.glob("**/signing-key")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    monkeypatch.setenv("KEISEI_CONFIG_DIR", str(tmp_path / "other"))
    assert not trust.is_signed(signature, "a", {"b": [1.5, None]})
    assert not (tmp_path / "other").exists()


def test_processes_that_need_the_key_at_once_make_one(tmp_path: Path) -> None:
    """Whatever they signed is known afterwards."""
    program = "from keisei.trackers.trust import sign; print(sign(1))"
    started = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    signatures = {process.communicate()[0].strip() for process in started}
    assert len(signatures) == 1
    assert trust.is_signed(signatures.pop(), 1)


def test_without_a_config_directory_nothing_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing fails."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("KEISEI_CONFIG_DIR", str(tmp_path / "file" / "below"))
    assert trust.sign("a") is None
    assert not trust.is_signed(None, "a")


@POSIX
@pytest.mark.parametrize("pid", [-1, 0, 1, None], ids=str)
def test_no_process_is_ended_that_the_directory_names(
    run: Path, monkeypatch: pytest.MonkeyPatch, pid: int | None
) -> None:
    """Be it everybody's, or one that lives and whose start the directory knows."""
    killed: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *which: killed.append(which))
    monkeypatch.setattr(os, "killpg", lambda *which: killed.append(which))
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as living:
        from keisei._io.process import process_start

        wanted = living.pid if pid is None else pid
        (run / "wandb" / "offline-run-20260101_000000-r").mkdir(parents=True)
        (run / "wandb" / "offline-run-20260101_000000-r" / "run-r.wandb").write_bytes(b"x" * 9)
        said = {"service": [wanted, process_start(wanted)], "delivered": {"a": 1}}
        (run / "wandb" / "keisei-sync.json").write_text(json.dumps(said))
        found = LocalRun("r", "r", str(run), False, tuple(attempts_in(str(run))))
        (outcome,) = sync_run(found, 1.0)
        assert outcome.state == "remaining"
        assert living.poll() is None
        living.communicate(b"\n")
    assert killed == []


@POSIX
@pytest.mark.parametrize(
    "place",
    [
        "wandb",
        "wandb/offline-run-20260101_000000-r",
        "wandb/offline-run-20260101_000000-r/run-r.wandb",
        "wandb/offline-run-20260101_000000-r/run-r.wandb.syncstate",
        "wandb/offline-run-20260101_000000-r/.rest-run-r.wandb",
    ],
)
def test_a_link_among_the_files_of_wandb_is_not_followed(
    run: Path, tmp_path: Path, place: str
) -> None:
    """The SDK would write where it leads."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (run / place).parent.mkdir(parents=True, exist_ok=True)
    (run / place).symlink_to(outside)
    (reason,) = reasons(keisei("sync", "--json"))
    assert "link" in reason or "Not a directory" in reason
    assert list(outside.iterdir()) == []


@POSIX
def test_a_run_file_that_names_files_is_not_uploaded(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outside its directory, by name, by a link, or by a record that makes the SDK read others."""
    from keisei.trackers.wandb.backfill import _beyond

    place = run / "wandb" / "offline-run-20260101_000000-r"
    (place / "files").mkdir(parents=True)
    (place / "run-r.wandb").write_bytes(b"x" * 9)
    (attempt,) = attempts_in(str(run))
    assert _beyond(attempt, RunFile(names={"media/a.png", "wandb-summary.json"})) is None
    for name in ("../../../secret", "/etc/passwd", "media\\..\\..\\x"):
        assert _beyond(attempt, RunFile(names={name})) is not None
    for order in ("artifact", "tbrecord", "request", "None"):
        assert _beyond(attempt, RunFile(orders={order})) is not None
    (place / "files" / "key").symlink_to("/etc/passwd")
    assert _beyond(attempt, RunFile()) is not None


def test_the_settings_of_a_run_are_not_the_users(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B's SDK takes those of the working directory: nobody stands in a run that is synced."""
    monkeypatch.chdir(run)
    assert CliRunner().invoke(app, ["sync", ".", "--dry-run"]).exit_code == 0
    assert os.getcwd() == str(run.parent)


@pytest.mark.parametrize(
    "text",
    [
        '{"options": {"a": %s}}' % ("[" * 5000 + "]" * 5000),
        '{"options": [], "attempt": "x"}',
        '{"attempt": 1e999, "seq": -9}',
        '{"signature": 7, "options": {"log_dir": 5}}',
        "\x00\x1b[31m",
    ],
    ids=["deep", "types", "numbers", "signature", "bytes"],
)
def test_an_odd_cursor_is_said_and_the_other_runs_are_sent(
    run: Path, make_config: MakeConfig, text: str
) -> None:
    """Whatever it holds: no traceback, and no effect."""
    other = log_with(make_config)("s", [({"loss": 1.0}, 1)])
    claim(other, "tensorboard", {})
    (run / "tracker.tensorboard.json").write_text(text)
    result = keisei("sync", "--json")
    assert isinstance(result.exception, SystemExit)
    states = {found["run"]: found["state"] for found in json.loads(result.stdout)}
    assert states["s"] == "uploaded"
    assert isinstance(keisei("doctor").exception, SystemExit | None)


@pytest.mark.parametrize("command", ["sync", "doctor", "tail", "plot"])
def test_no_control_character_is_shown(run: Path, command: str) -> None:
    """From names, values, log lines, problems and metrics that a directory holds."""
    escape = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202e"
    record = json.loads((run / "session.json").read_text())
    record["owner"]["host"] = escape
    record["trackers"] = {escape: {"state": "broken", "problem": escape, "directory": escape}}
    (run / "session.json").write_text(json.dumps(record))
    with (run / "training.log").open("a") as log:
        log.write(f"{escape}\n")
    claim(run, f"x{escape}", {escape: escape})
    arguments = [] if command in ("sync", "doctor") else ["r"]
    shown = keisei(command, *arguments, *(["--no-follow"] if command == "tail" else []))
    for character in ("\x1b", "\x07", "\x9b", "\u202e"):
        assert character not in shown.stdout
        assert character not in shown.stderr
