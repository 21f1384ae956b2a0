"""`keisei doctor --plugins` lists what is plugged in, and what of it cannot be loaded, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from keisei.cli import program
from tests.support.plugins import install

program.register("doctor")

MODULES = {
    "dp_good": "def make(): ...\nclass Finds:\n    def find(self, environ, pid): ...",
    "dp_raises": "raise RuntimeError('no such card\\nat all')",
    "dp_exits": "import sys\nsys.exit(3)",
    "dp_kills": "import os\nos._exit(7)",
    "dp_needs": "import a_package_that_is_not_there",
    "dp_hangs": "import time\ntime.sleep(600)",
    "dp_prints": "print('noise')\ndef make(): ...",
}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, source in MODULES.items():
        (tmp_path / f"{name}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def run(*options: str) -> tuple[int, Any]:
    done = CliRunner().invoke(program.app, ["doctor", "--plugins", "--json", *options])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, json.loads(done.stdout)


def test_it_lists_each_with_its_package_and_what_is_wrong_with_it(path: Path) -> None:
    """Good ones are ok; each that is broken has its error in one line, and hides no other."""
    install(
        path,
        "several-things",
        {
            "keisei.trackers": {"good": "dp_good:make", "raises": "dp_raises:make"},
            "keisei.launchers": {"finds": "dp_good:Finds", "lacks": "dp_good:make"},
            "keisei.config_sources": {"exits": "dp_exits:make", "needs": "dp_needs:make"},
            "keisei.resources": {
                "absent": "dp_good:nothing",
                "kills": "dp_kills:make",
                "prints": "dp_prints:make",
            },
            "console_scripts": {"other": "dp_good:make"},
        },
        "2.5",
    )
    status, found = run()
    by_name = {each["name"]: each for each in found["plugins"]}
    assert {name: each["state"] for name, each in by_name.items()} == {
        "good": "ok",
        "raises": "failed",
        "finds": "ok",
        "lacks": "failed",
        "exits": "failed",
        "needs": "failed",
        "absent": "failed",
        "kills": "failed",
        "prints": "ok",
    }
    assert {(each["package"], each["version"]) for each in by_name.values()} == {
        ("several-things", "2.5")
    }
    problems = {
        "raises": "RuntimeError: no such card",
        "lacks": "it has no method find",
        "exits": "SystemExit: 3",
        "needs": "No module named 'a_package_that_is_not_there'",
        "absent": "has no attribute 'nothing'",
        "kills": "it ends the process that loads it (status 7)",
    }
    for name, problem in problems.items():
        assert problem in by_name[name]["problem"]
        assert "\n" not in by_name[name]["problem"]
    assert (status, found["need_attention"]) == (1, 6)
    assert "wandb" in found["own"]["keisei.trackers"]


def test_one_that_hangs_at_its_import_is_given_up(path: Path) -> None:
    """After the timeout it is shown as hung, and its process is ended."""
    install(path, "slow", {"keisei.trackers": {"hangs": "dp_hangs:make"}})
    status, found = run("--timeout", "2")
    assert [(each["name"], each["state"]) for each in found["plugins"]] == [("hangs", "hung")]
    assert (status, found["plugins"][0]["problem"]) == (1, "it has not loaded after 2 s")


def test_names_that_are_taken_are_told(path: Path) -> None:
    """By keisei, by another package; and a package that cannot be read is no plug-in's fault."""
    own = {"keisei.trackers": {"wandb": "dp_good:make"}, "keisei.launchers": {"slurm": "dp_good:x"}}
    install(path, "usurper", own)
    install(path, "one", {"keisei.trackers": {"twice": "dp_good:make"}}, "1.1")
    install(path, "other", {"keisei.trackers": {"twice": "dp_good:make"}}, "1.2")
    about = install(path, "damaged", {"keisei.trackers": {"lost": "dp_good:make"}})
    (about / "entry_points.txt").write_bytes(b"[keisei.trackers]\n\xff = a:b\n")
    status, found = run()
    states = {(each["package"], each["name"]): each["state"] for each in found["plugins"]}
    assert states == {
        ("usurper", "wandb"): "hidden",
        ("usurper", "slurm"): "hidden",
        ("one", "twice"): "ambiguous",
        ("other", "twice"): "ambiguous",
    }
    problems = {each["package"]: each["problem"] for each in found["plugins"]}
    assert problems["other"] == "one 1.1 offers the name, too: uninstall all but one"
    assert [each["package"] for each in found["unreadable"]] == ["damaged"]
    assert status == 1


def test_without_any_it_says_so(path: Path) -> None:
    """Nothing that is installed is nothing to attend to; a good one is a line."""
    done = CliRunner().invoke(program.app, ["doctor", "--plugins"])
    assert (done.exit_code, done.stdout) == (
        0,
        "0 plug-ins are installed; nothing needs attention\n",
    )
    install(path, "good", {"keisei.resources": {"fine": "dp_good:make"}})
    done = CliRunner().invoke(program.app, ["doctor", "--plugins"])
    assert done.exit_code == 0
    first, last = done.stdout.splitlines()
    assert first.split() == ["sampler", "fine", "good", "1.0", "ok"]
    assert last == "1 plug-in is installed; nothing needs attention"
