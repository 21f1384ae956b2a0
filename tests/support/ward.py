"""Runs in every condition, and `keisei doctor` asked about them in this process."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from keisei import SessionManager
from keisei.cli import doctor as _doctor  # noqa: F401 - registers the command
from keisei.cli.program import app
from tests.conftest import MakeConfig

VICTIM = """
import sys
from keisei import AppConfig, SessionManager
for name in sys.argv[1:]:
    session = SessionManager(AppConfig(), run_name=name)
    session.__enter__()
print("ready", flush=True)
sys.stdin.read()
"""


@dataclass
class Told:
    """What `keisei doctor --json` said."""

    code: int
    document: dict[str, Any]

    @property
    def runs(self) -> dict[str, dict[str, Any]]:
        """Each run by its name."""
        return {run["run"]: run for run in self.document["runs"]}

    @property
    def states(self) -> dict[str, str]:
        """The state of each run."""
        return {name: run["state"] for name, run in self.runs.items()}

    def findings(self, name: str = "r") -> list[tuple[str, str, str]]:
        """What was found of a run: kind, file and weight."""
        found = self.runs[name]["findings"]
        return [(finding["kind"], finding["file"], finding["weight"]) for finding in found]


@dataclass
class Ward:
    """A root with runs in whatever condition."""

    root: Path
    make_config: MakeConfig

    def completed(self, name: str = "r") -> Path:
        """Make a run that has ended."""
        with SessionManager(self.make_config(), run_name=name) as session:
            pass
        return Path(session.run_artifact_dir)

    def killed(self, *names: str) -> Path:
        """Make runs whose process is killed; gives the first one's directory."""
        with subprocess.Popen(
            [sys.executable, "-c", VICTIM, *names],
            env={**os.environ, "KEISEI_LOG_DIR": str(self.root)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as victim:
            assert victim.stdout is not None
            assert victim.stdout.readline() == b"ready\n"
            victim.kill()
        return self.root / names[0]

    def record(self, name: str = "r", **changes: Any) -> dict[str, Any]:
        """Read a run's record, after changing it where there is something to change."""
        path = self.root / name / "session.json"
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if changes:
            record |= changes
            path.write_text(json.dumps(record), encoding="utf-8")
        return record

    def elsewhere(self, name: str = "r", host: str = "node-7", **owner: Any) -> Path:
        """Make a run that runs on another host, as far as its record tells."""
        path = self.completed(name)
        owner = {"host": host, "pid": os.getpid(), "process_start": "x"} | owner
        self.record(name, status="running", ended_at=None, owner=owner)
        return path

    def log(self, name: str = "r") -> list[str]:
        """Give the lines of a run's training log."""
        text = (self.root / name / "training.log").read_text(encoding="utf-8")
        assert text.endswith("\n")
        return text.splitlines()

    def doctor(self, *arguments: str) -> Told:
        """Ask the doctor."""
        done = CliRunner().invoke(app, ["doctor", "--root", str(self.root), "--json", *arguments])
        assert done.exit_code in (0, 1), done.output
        return Told(done.exit_code, json.loads(done.stdout))

    def said(self, *arguments: str) -> tuple[int, str, str]:
        """Ask for words: gives the exit status and what was printed, and said as an error."""
        done = CliRunner().invoke(app, ["doctor", "--root", str(self.root), *arguments])
        return done.exit_code, done.stdout, done.stderr


def snapshot(root: Path) -> dict[str, Any]:
    """Tell everything that a change would change: names, contents, modes and times."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        told = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(told.st_mode) else None
        found[str(path.relative_to(root))] = (content, told.st_mode, told.st_mtime_ns, told.st_ino)
    return found


def contents(root: Path) -> set[bytes]:
    """Give what stands in the files below a directory."""
    return {path.read_bytes() for path in root.rglob("*") if path.is_file()}
