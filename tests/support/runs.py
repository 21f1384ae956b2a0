"""A root with runs in every state, and `keisei doctor` run on it in this process."""

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
class Report:
    """What `keisei doctor --json` printed."""

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
class Runs:
    """A root with runs in whatever state."""

    root: Path
    make_config: MakeConfig

    def completed(self, name: str = "r") -> Path:
        """Make a run that has ended."""
        with SessionManager(self.make_config(), run_name=name) as session:
            pass
        return Path(session.run_artifact_dir)

    def killed(self, *names: str) -> Path:
        """Make runs whose process is killed; return the first one's directory."""
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
        """Return what a run's session file holds, after changing it where changes are given."""
        path = self.root / name / "session.json"
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if changes:
            record |= changes
            path.write_text(json.dumps(record), encoding="utf-8")
        return record

    def elsewhere(self, name: str = "r", host: str = "node-7", **owner: Any) -> Path:
        """Make a run that runs on another host, as far as its session file tells."""
        path = self.completed(name)
        owner = {"host": host, "pid": os.getpid(), "process_start": "x"} | owner
        self.record(name, status="running", ended_at=None, owner=owner)
        return path

    def log(self, name: str = "r") -> list[str]:
        """Return the lines of a run's training log."""
        text = (self.root / name / "training.log").read_text(encoding="utf-8")
        assert text.endswith("\n")
        return text.splitlines()

    def doctor(self, *arguments: str) -> Report:
        """Run `keisei doctor --json`."""
        done = CliRunner().invoke(app, ["doctor", "--root", str(self.root), "--json", *arguments])
        assert done.exit_code in (0, 1), done.output
        return Report(done.exit_code, json.loads(done.stdout))

    def doctor_text(self, *arguments: str) -> tuple[int, str, str]:
        """Run `keisei doctor`; return the exit status, stdout and stderr."""
        done = CliRunner().invoke(app, ["doctor", "--root", str(self.root), *arguments])
        return done.exit_code, done.stdout, done.stderr


def snapshot(root: Path) -> dict[str, Any]:
    """Return everything that a change would change: names, contents, modes and times."""
    found: dict[str, Any] = {}
    for path in sorted(root.rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(info.st_mode) else None
        found[str(path.relative_to(root))] = (content, info.st_mode, info.st_mtime_ns, info.st_ino)
    return found


def contents(root: Path) -> set[bytes]:
    """Return the contents of the files below a directory."""
    return {path.read_bytes() for path in root.rglob("*") if path.is_file()}
