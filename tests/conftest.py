"""Every async test runs on asyncio, uvloop and trio, and no blocking call of keisei's on the loop
goes unseen."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from blockbuster import blockbuster_ctx

from keisei import AppConfig
from tests.support.releases import Outcomes, Releases, Rows, TryRelease

BACKENDS = [
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
    pytest.param(
        ("asyncio", {"use_uvloop": True}),
        id="uvloop",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("uvloop") is None, reason="uvloop has no Windows build"
        ),
    ),
    pytest.param(("trio", {}), id="trio"),
]
# For tests whose time goes by in another process: to keisei, uvloop's tasks are asyncio's.
TWO_BACKENDS = BACKENDS[::2]

MakeConfig = Callable[..., AppConfig]

MEMORY = "/dev/shm"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's own switch.

    Args:
        parser: what knows the options.
    """
    parser.addoption(
        "--measured",
        action="store_true",
        help="record provenance and sample resources in all tests, as sessions do by default; "
        "else only the tests that are about them do, for it costs each session a process",
    )


def pytest_configure() -> None:
    """Put the tests' directories into memory where there is enough: an fsync costs nothing there.

    On a disk that others keep busy too, the suite would mostly wait for it.
    """
    if os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > 2**31:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", MEMORY)


@pytest.fixture(params=BACKENDS)
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """The backend, and its options, of one run of an async test."""
    backend: tuple[str, dict[str, Any]] = request.param
    return backend


@pytest.fixture(autouse=True)
def _no_blocking_calls(request: pytest.FixtureRequest) -> Iterator[None]:
    if request.node.get_closest_marker("browser") is not None:
        yield  # Playwright runs a loop in the test's own thread, which is there to wait
        return
    with blockbuster_ctx(scanned_modules=["keisei"]):
        yield


@pytest.fixture(autouse=True)
def _own_surroundings(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[None]:
    """Keep every test's files, and the user's own settings and login, apart."""
    for name in list(os.environ):
        if name.startswith(("KEISEI_", "MLFLOW_", "WANDB_")) and name not in ("WANDB_SERVICE",):
            monkeypatch.delenv(name)
    # Tests that are about these switch them on.
    measured = "on" if request.config.getoption("--measured") else "off"
    monkeypatch.setenv("KEISEI_PROVENANCE", measured)
    monkeypatch.setenv("KEISEI_RESOURCES", measured)
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    for name in ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"):
        monkeypatch.setenv(name, str(home))
    monkeypatch.setenv("NETRC", str(home / "netrc"))
    monkeypatch.chdir(tmp_path)
    keisei_logger = logging.getLogger("keisei")
    level = keisei_logger.level
    yield
    keisei_logger.setLevel(level)


@pytest.fixture(autouse=True)
def _no_session_goes_on() -> Iterator[None]:
    """Let go of the sessions that a test has not ended: each is watched for as long as it lives."""
    yield
    from keisei.session import ending

    while ending._living:
        ending._living.pop()._watching.stop()


@pytest.fixture
def make_config(tmp_path: Path) -> MakeConfig:
    """Make a config whose runs live in the test's own directory, from dotted overrides.

    Its sessions watch neither their loop nor their phases, unless a test asks for it: what a busy
    machine holds up would be an event in the journals, and at the trackers, that tests compare.
    """
    from keisei import load_config

    def make(**sections: dict[str, Any]) -> AppConfig:
        logging_section = {"log_dir": str(tmp_path / "runs")} | sections.pop("logging", {})
        monitoring = {"lag": False, "phases": False} | sections.pop("monitoring", {})
        known = {"logging": logging_section, "monitoring": monitoring}
        return load_config(overrides={**known, **sections})

    return make


@pytest.fixture(scope="session")
def try_release(tmp_path_factory: pytest.TempPathFactory) -> TryRelease:
    """Run tests with a release of what keisei needs, once, in an environment that pip makes."""
    releases, known = Releases({**os.environ}, tmp_path_factory.mktemp("releases")), {}

    def run(requirement: str, rows: Rows) -> Outcomes:
        if requirement not in known:
            known[requirement] = releases.run(requirement, rows)
        outcomes: Outcomes = known[requirement]
        return outcomes

    return run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for all tests of a module."""
    from tests.support.chromium import launched

    with launched() as chromium:
        yield chromium


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB; the test is skipped where this user may not mount one."""
    import subprocess

    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=0700", "keisei", str(place)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("this user may not mount a small file system")
    yield place
    give_up = time.monotonic() + 10
    while subprocess.run(["umount", str(place)], capture_output=True).returncode:
        assert time.monotonic() < give_up  # another process may be looking at a file there
        time.sleep(0.02)


def pytest_unconfigure() -> None:
    """Keep the warnings of sessions that tests have left open out of the last lines."""
    logging.getLogger("keisei").addHandler(logging.NullHandler())
