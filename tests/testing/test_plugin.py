"""The pytest plug-in in users' projects: under each runner of async tests, and what it reports."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.testing.conftest import Project

# The same tests for every runner: `MARK` stands before each async one.
TESTS = """
import os
import time
from datetime import datetime

import pytest

IMPORTS

@pytest.mark.parametrize("number", range(2))
MARK
async def test_a_session_and_its_tracker(number, keisei_session, keisei_tracker, keisei_root):
    async with keisei_session(training={"total_timesteps": 10}) as session:
        assert await session.setup_remote_logging(keisei_tracker)
        session.log_metrics({"loss": 0.5}, step=1)
    assert session.status == "completed"
    assert session.config.training.total_timesteps == 10
    assert session.run_artifact_dir == str(keisei_root / session.run_name)
    (run,) = keisei_tracker.runs
    assert (run.ends, run.records[0].values) == (["completed"], {"loss": 0.5})

@pytest.mark.parametrize("number", range(2))
MARK
async def test_a_clock_that_stands(number, keisei_session, keisei_clock):
    async with keisei_session() as session:
        keisei_clock.advance(60)
    assert session.run_name == "20300101-000000-0000-000000"
    started = datetime.fromisoformat(session.get_session_summary()["started_at"])
    assert (keisei_clock.now - started).total_seconds() == 60

MARK
async def test_a_tracker_that_hangs_and_a_full_disk(keisei_session, keisei_faults):
    hung = keisei_faults.hung_tracker("finish")
    async with keisei_session(tracking={"finish_timeout": 0.1}) as session:
        assert await session.setup_remote_logging(hung)
        with keisei_faults.full_disk():
            session.log_metrics({"loss": 0.5}, step=1)
        await session.flush()
    assert session.status == "completed"

MARK
async def test_a_session_of_a_fixture(opened):
    opened.log_metrics({"loss": 0.5}, step=1)
    await opened.flush()

FIXTURE
async def opened(keisei_session):
    async with keisei_session() as session:
        yield session

def test_the_environment(keisei_root, monkeypatch):
    assert os.environ["KEISEI_RESOURCES"] == "off"
    assert not [name for name in os.environ if name.startswith("WANDB_API")]

@pytest.mark.parametrize("number", range(2))
def test_a_blocking_session(number, keisei_session, keisei_root):
    with keisei_session.blocking(run_name="mine") as session:
        session.log_metrics({"loss": 0.5}, step=1)
    assert session.get_session_summary()["attempt"] == 1
    assert os.listdir(keisei_root) == ["mine"]

def train(root):
    import keisei
    with keisei.SessionManager(keisei.AppConfig(), run_name="killed") as session:
        for step in range(1_000_000):
            session.log_metrics({"loss": 1 / (step + 1)}, step=step)
            session.flush()
            time.sleep(0.001)

def test_a_killed_process(keisei_session, keisei_faults, keisei_root):
    journal = keisei_root / "killed" / "metrics.1.journal"
    keisei_faults.kill(train, str(keisei_root), until=lambda: journal.stat().st_size > 200)
    with keisei_session.blocking(run_name="killed") as session:
        assert session.get_session_summary()["attempt"] == 2
"""
# By runner: what is imported, how an async test and an async fixture are marked, and the options.
LOOP_SCOPE = ["-o", "asyncio_default_fixture_loop_scope=function"]
RUNNERS = {
    "anyio": ("", "@pytest.mark.anyio", "@pytest.fixture", ["-p", "no:asyncio"]),
    "anyio-auto": ("", "", "@pytest.fixture", ["-p", "no:asyncio", "-o", "anyio_mode=auto"]),
    "asyncio-strict": (
        "import pytest_asyncio",
        "@pytest.mark.asyncio",
        "@pytest_asyncio.fixture",
        LOOP_SCOPE,
    ),
    "asyncio-auto": ("", "", "@pytest.fixture", ["-o", "asyncio_mode=auto", *LOOP_SCOPE]),
    "trio": ("", "", "@pytest.fixture", ["-p", "no:asyncio", "-o", "trio_mode=true"]),
    "xdist": (
        "",
        "",
        "@pytest.fixture",
        ["-p", "no:asyncio", "-o", "anyio_mode=auto", "-n", "2", "--dist", "load"],
    ),
}
NEEDED = {"anyio": "anyio", "asyncio": "pytest_asyncio", "trio": "pytest_trio", "xdist": "xdist"}


def runner(name: str) -> object:
    """Return a runner as a parameter, left out where it is not installed."""
    needed = NEEDED[name.partition("-")[0]]
    skip = pytest.mark.skipif(find_spec(needed) is None, reason=f"{needed} is not installed")
    return pytest.param(name, marks=skip)


@pytest.mark.requirement("TEST-1")
@pytest.mark.parametrize("name", [runner(name) for name in RUNNERS])
def test_the_fixtures_serve_every_runner(name: str, project: Project) -> None:
    """Sessions, tracker, faults and clock work under it, and nothing is left or warned of."""
    imports, mark, fixture, options = RUNNERS[name]
    tests = TESTS.replace("IMPORTS", imports).replace("MARK", mark).replace("FIXTURE", fixture)
    if "asyncio" not in name and name != "trio":  # anyio's plug-in runs each on its backends
        tests += '\n@pytest.fixture(params=["asyncio", "trio"])\n'
        tests += "def anyio_backend(request):\n    return request.param\n"
    outcome = project(tests, *options)
    asynchronous = 6
    twice = name in ("anyio", "anyio-auto", "xdist")
    assert outcome.counts == {"passed": 4 + asynchronous * (1 + twice)}, outcome.output


LEAKING = """
import asyncio
import threading

import pytest

go_on = threading.Event()
kept = []

@pytest.fixture(scope="module", autouse=True)
def at_the_end():
    yield
    go_on.set()
    for file in kept:
        file.close()

@pytest.fixture
def anyio_backend():
    return "asyncio"

async def wait_for_ever():
    await asyncio.Event().wait()

async def leak_task():
    kept_task = asyncio.create_task(wait_for_ever(), name="poller")

@pytest.mark.anyio
async def test_task(keisei_root):
    await leak_task()

def leak_thread():
    threading.Thread(target=go_on.wait, name="sleeper").start()

def test_thread(keisei_root):
    leak_thread()

def test_descriptor(keisei_root):
    kept.append(open(keisei_root / "mine.txt", "w"))

def test_session(keisei_session):
    keisei_session.blocking(run_name="forgotten").setup_directories()

@pytest.mark.anyio
async def test_async_session(keisei_session):
    await keisei_session(run_name="left-open").setup_directories()

class Hanging:
    name, start_timeout = "mine", 0.1
    def start(self, run):
        go_on.wait()

def test_tracker(keisei_session):
    with keisei_session.blocking(tracking={"finish_timeout": 0.1}) as session:
        session.setup_remote_logging(Hanging())

@pytest.mark.keisei_leaks("threads")
def test_allowed(keisei_root):
    leak_thread()

@pytest.mark.keisei_leaks
@pytest.mark.anyio
async def test_all_allowed(keisei_root):
    await leak_task()
    leak_thread()

@pytest.mark.keisei_leaks("descriptors")
def test_another_kind_is_allowed(keisei_root):
    leak_thread()

def test_elsewhere():
    leak_thread()

@pytest.mark.xfail
def test_failing(keisei_root):
    leak_thread()
    assert False

def test_what_ends_soon(keisei_root):
    threading.Timer(0.05, int).start()
"""


@pytest.mark.requirement("TEST-1")
def test_what_a_test_leaves_behind_is_reported(project: Project) -> None:
    """Tasks, threads, descriptors and sessions are errors of that test, and of no other one."""
    outcome = project(LEAKING, "-p", "no:asyncio", "-rA")
    errors = [
        line.partition(" - ")[0].rpartition("::")[2]
        for line in outcome.output.splitlines()
        if line.startswith("ERROR test_it")
    ]
    assert errors == [
        *("test_task", "test_thread", "test_descriptor", "test_session", "test_async_session"),
        *("test_tracker", "test_another_kind_is_allowed"),
    ], outcome.output
    assert outcome.counts["passed"] == 11
    for told in (
        "- task 'poller' still runs wait_for_ever (",
        "- thread 'sleeper' still runs",
        "/runs/mine.txt",
        "- the session of run 'forgotten' has not ended: use it in a `with` block",
        "- the session of run 'left-open' has not ended",
        "- thread 'keisei-mine' still runs (",
        ", in start)",
    ):
        assert told in outcome.output


WANDB = """
import pytest

@pytest.fixture
def anyio_backend():
    return "asyncio"

@pytest.mark.parametrize("number", range(2))
@pytest.mark.anyio
async def test_wandb(number, keisei_session, keisei_wandb_server):
    async with keisei_session(logging={"wandb_enabled": True}) as session:
        assert await session.setup_wandb()
        session.log_metrics({"loss": number}, step=1)
    run = keisei_wandb_server.runs[session.session_id]
    assert [row["loss"] for row in run.history] == [number]
    assert run.state == "finished"

def test_wandb_finds_no_login(keisei_session):
    with keisei_session.blocking(logging={"wandb_enabled": True}) as session:
        session.setup_wandb()
    assert session.get_session_summary()["wandb_url"] is None
"""


@pytest.mark.requirement("TEST-1")
def test_a_session_tracks_with_a_wandb_server_on_loopback(project: Project) -> None:
    """W&B's own SDK sends to the test's server, each test to its own, and never elsewhere."""
    outcome = project(WANDB, "-p", "no:asyncio")
    assert outcome.counts == {"passed": 3}, outcome.output


@pytest.mark.requirement("TEST-1")
def test_the_plugin_costs_nothing_where_it_is_not_named(project: Project) -> None:
    """A pytest process that does not name it imports no module of keisei."""
    tests = """
    import sys

    def test_nothing():
        assert [name for name in sys.modules if name.partition(".")[0] == "keisei"] == []
    """
    assert project(tests, "-p", "no:asyncio", conftest="").counts == {"passed": 1}


@pytest.mark.requirement("TEST-1")
def test_the_plugin_alone_imports_no_server() -> None:
    """What only some tests need, the server and the faults, is imported by its fixture."""
    code = "import sys, keisei.pytest_plugin\n"
    code += "print([m for m in ('http.server', 'keisei.testing.faults') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.requirement("TEST-1")
def test_the_pages_tests_pass(project: Project) -> None:
    """What docs/testing.md shows is a conftest and tests, and they pass as they stand."""
    page = (Path(__file__).parents[2] / "docs" / "testing.md").read_text(encoding="utf-8")
    conftest, *tests = re.findall(r"^```python\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    backend = '\nimport pytest\n@pytest.fixture\ndef anyio_backend():\n    return "asyncio"\n'
    outcome = project(
        "\n".join([*tests, backend]), "-p", "no:asyncio", "-o", "anyio_mode=auto", conftest=conftest
    )
    assert outcome.counts == {"passed": 8}, outcome.output
