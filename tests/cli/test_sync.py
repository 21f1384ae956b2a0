"""`keisei sync` for every tracker: what the journal has beyond it is sent, each row once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from keisei.journal.reader import read_run
from tests.support.line_tracker import lines_of
from tests.support.third_party import install

pytestmark = pytest.mark.skipif(os.name == "nt", reason="kills processes as POSIX does")

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from keisei import SessionManager, load_config
config = load_config(overrides={
    "tracking": {
        "trackers": {"lines": {sys.argv[1]: True} if sys.argv[1] != "well" else {}},
        "finish_timeout": 0.5,
        "linger": 0.5,
    },
})
with SessionManager(config, run_name="r") as session:
    for step in range(500):
        session.log_metrics({"loss": 1 / (step + 1)}, step=step)
    session.log_event("checkpoint", {"step": step})
    session.flush()
    print("flushed", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Install the third party's tracker, and keep the runs in the test's directory."""
    path = os.pathsep.join([install(tmp_path / "site"), str(ROOT)])
    return {**os.environ, "PYTHONPATH": path, "KEISEI_LOG_DIR": str(tmp_path / "runs")}


def run(environ: dict[str, str], home: Path, how: str, end: str) -> None:
    """Run the program, and end or kill it once its rows are durable."""
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, how],
        env=environ,
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == "flushed\n"
    if end == "killed":
        process.kill()
    process.communicate("\n", timeout=90)


def sync(environ: dict[str, str], home: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Run `keisei sync --json`; return its status and what it says."""
    command = [sys.executable, "-c", "from keisei.cli import main; main()", "sync", "--json"]
    done = subprocess.run(
        [*command, *options], env=environ, cwd=home, capture_output=True, text=True, timeout=60
    )
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("end", ["killed", "ended"])
def test_what_a_tracker_has_missed_is_sent_once(
    environ: dict[str, str], tmp_path: Path, end: str
) -> None:
    """A tracker that was away for a whole run gets it later, as the journal has it."""
    run(environ, tmp_path, "refuses", end)
    directory = str(tmp_path / "runs" / "r")
    assert lines_of(directory) == []
    status, said = sync(environ, tmp_path, "--dry-run")
    assert (status, said[0]["state"], said[0]["rows"]) == (1, "would upload", 501)
    status, said = sync(environ, tmp_path)
    assert (status, said[0]["state"]) == (1, "remaining")
    assert "the server is away" in said[0]["reason"]
    (tmp_path / "well").touch()
    status, said = sync(environ, tmp_path)
    assert (status, said[0]["state"], said[0]["rows"]) == (0, "uploaded", 501)
    assert sync(environ, tmp_path) == (0, [])
    assert [(line[0], line[1]) for line in lines_of(directory)] == [(1, n) for n in range(501)]


def test_a_tracker_that_never_came_gets_the_whole_run(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """One whose start had failed all the time is known to have missed everything."""
    run(environ, tmp_path, "away", "ended")
    status, said = sync(environ, tmp_path)
    assert (status, said[0]["state"], said[0]["rows"]) == (1, "remaining", 501)
    (tmp_path / "well").touch()
    status, said = sync(environ, tmp_path)
    assert (status, said[0]["state"], said[0]["rows"]) == (0, "uploaded", 501)
    held = [(line[0], line[1]) for line in lines_of(str(tmp_path / "runs" / "r"))]
    assert held == [(1, n) for n in range(501)]


def test_a_killed_runs_tracker_is_told_of_its_end(environ: dict[str, str], tmp_path: Path) -> None:
    """One that had got all, or almost, when the process was killed has it all, once."""
    run(environ, tmp_path, "well", "killed")
    assert sync(environ, tmp_path)[0] == 0
    directory = str(tmp_path / "runs" / "r")
    held = [(line[0], line[1]) for line in lines_of(directory)]
    assert held == [(1, n) for n in range(501)]
    assert len(list(read_run(directory).rows())) == 500
    assert sync(environ, tmp_path) == (0, [])


def test_one_odd_run_does_not_keep_the_others_from_being_sent(
    environ: dict[str, str], tmp_path: Path
) -> None:
    """It is listed with what is wrong with it; a directory of another program's is passed over."""
    run(environ, tmp_path, "refuses", "ended")
    (tmp_path / "well").touch()
    runs = tmp_path / "runs"
    for name, file in {"corrupt": "session.json", "deep": "effective_config.json"}.items():
        shutil.copytree(runs / "r", runs / name)
        (runs / name / file).write_text("[" * 100_000)
    shutil.copytree(runs / "r", runs / "odd")
    (runs / "odd" / "wandb").write_text("")
    (runs / "others" / "models").mkdir(parents=True)
    status, said = sync(environ, tmp_path)
    assert status == 1
    assert {(told["run"], told["state"]) for told in said} == {
        ("corrupt", "remaining"),
        ("deep", "remaining"),
        ("odd", "remaining"),
        ("odd", "uploaded"),
        ("r", "uploaded"),
    }
    (corrupt,) = (told for told in said if told["run"] == "corrupt")
    assert corrupt["reason"] == "its session file is corrupt; see `keisei doctor`"


@pytest.mark.parametrize("ending", [".json", ".lock"])
@pytest.mark.parametrize("oddity", ["fifo", "link", "directory", "endless"])
def test_what_stands_in_the_place_of_a_trackers_file_holds_no_sync(
    environ: dict[str, str], tmp_path: Path, ending: str, oddity: str
) -> None:
    """It is said at once: nothing is waited for that cannot pass, nor read without an end."""
    run(environ, tmp_path, "refuses", "ended")
    (tmp_path / "well").touch()
    directory = tmp_path / "runs" / "odd"  # a copy: a host process may still write to the run
    shutil.copytree(directory.with_name("r"), directory)
    shutil.rmtree(directory.with_name("r"))
    (file,) = directory.glob(f"tracker.*{ending}")
    file.unlink()
    if oddity == "fifo":
        os.mkfifo(file)
    elif oddity == "link":
        file.symlink_to("/dev/zero")
    elif oddity == "directory":
        file.mkdir()
    else:
        file.touch()
        os.truncate(file, 1 << 40)
    status, said = sync(environ, tmp_path)
    if oddity == "endless" and ending == ".lock":
        assert (status, said[0]["state"]) == (0, "uploaded")
    else:
        assert (status, said[0]["state"]) == (1, "remaining")
