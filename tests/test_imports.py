"""Importing keisei imports what a session needs, nothing heavy, and nothing later on a loop."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
# What only a few programs need, or what belongs to a tracker's process.
UNWANTED = [
    "difflib", "http", "importlib.metadata", "matplotlib", "mlflow", "multiprocessing", "numpy",
    "pandas", "rich", "ssl", "tensorboard", "tomllib", "torch", "trackio", "typer",
    "urllib.request", "wandb", "yaml",
]  # fmt: skip


def printed(*command: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    return done.stdout.splitlines()[-1]


@pytest.mark.requirement("FACE-5")
def test_importing_keisei_imports_no_heavy_library() -> None:
    """Neither the front door nor what users import beside it brings wandb, numpy or torch."""
    code = (
        "import sys\n"
        "from keisei import *\n"
        "import keisei.testing, keisei.trackers.wandb.tracker, keisei.utils.utils\n"
        "print([m for m in ('wandb', 'numpy', 'torch') if m in sys.modules])"
    )
    assert printed("-c", code) == "[]"


def test_what_only_some_tests_need_of_the_testing_helpers_is_imported_when_used() -> None:
    """The loopback W&B server, and the HTTP server under it, are imported by its first use."""
    code = (
        "import sys, keisei.testing\n"
        "before = [m for m in ('http.server', 'keisei.testing.wandb_server') if m in sys.modules]\n"
        "keisei.testing.WandbServer\n"
        "print(before, 'http.server' in sys.modules)"
    )
    assert printed("-c", code) == "[] True"


def test_the_front_door_imports_what_a_session_needs_and_no_more() -> None:
    """It brings no tracker, no HTTP client and no parser that nobody asked for."""
    code = (
        "import sys, anyio, aiofiles, pydantic\n"
        "class Model(pydantic.BaseModel): pass\n"
        "before = set(sys.modules)\n"
        "import keisei\n"
        "keisei.AppConfig()\n"
        "print(sorted(set(sys.modules) - before))"
    )
    new = printed("-c", code)
    assert "'keisei.session.async_session'" in new
    assert [name for name in UNWANTED if f"'{name}'" in new] == []
    assert "keisei.trackers.wandb.tracker" not in new


@pytest.mark.parametrize(
    ("face", "first"),
    [
        *[(loop, first) for loop in ("asyncio", "uvloop", "trio") for first in ("block", "steps")],
        *[(face, "named") for face in ("asyncio", "trio", "blocking")],
    ],
)
def test_a_session_imports_nothing_on_a_loop(face: str, first: str, tmp_path: Path) -> None:
    """Whatever a program's first sessions do, no module is imported where a loop runs."""
    for library in {face, "tensorboard" if first == "named" else face} - {"blocking"}:
        pytest.importorskip(library)
    found = json.loads(printed("-m", "tests.support.first_session", face, first, str(tmp_path)))
    assert found["on_a_loop"] == []
    assert set(found["new"]) <= set(found["elsewhere"])
    assert "anyio._backends" in found["elsewhere"], "the watch sees what is imported elsewhere"
