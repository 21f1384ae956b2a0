"""No secret is in what is recorded: planted in code, environment, packages and command line."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.dirty_trees import git, repository

# Each in another shape, or in another place.
SECRETS = {
    "removed": 'password = "planted-removed-4f5g6h"',
    "added": 'api_key = "planted-added-9s8d7f6g5h4j3k2l"',
    "context": 'client_secret: "planted-context-aa11bb22"',
    "header": "curl -H 'Authorization: Bearer planted.header.3e4r5t6y7u8i' https://x",
    "url": "postgresql://me:planted-url-77aa@db/x",
    "aws": "AKIAPLANTED12345ABCD",
    "github": "ghp_PLANTEDplanted0123456789abcdefABCDEF",
    "openai": "sk-proj-PLANTEDplanted0123456789abcdefghij",
    "known": "planted-known-value-5150",
    "staged": "DB_PASSWORD=planted-staged-1q2w3e",
}
KEY = "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----\n"

PROGRAM = """
import sys
from keisei import SessionManager, load_config

config = load_config(overrides={"logging.log_dir": sys.argv[1]})
with SessionManager(config, run_name="r"):
    pass
"""


def plant(repo: Path) -> None:
    """Change and add files so that secrets are on every side of the diff, and beside it."""
    (repo / "train.py").write_text(f"{SECRETS['context']}\nx = 2\n{SECRETS['added']}\n")
    (repo / "new.py").write_text("\n".join(SECRETS[k] for k in ("header", "url", "aws")))
    (repo / "new.yaml").write_text(f"a: {SECRETS['github']}\nb: {SECRETS['openai']}\n")
    (repo / "known.txt").write_text(f"nothing says that {SECRETS['known']} is one\n")
    (repo / "staged.sh").write_text(f"export {SECRETS['staged']}\n")
    git(repo, "add", "staged.sh")
    (repo / "key.txt").write_text(KEY.format("plantedBLOCKplanted\n" * 5))
    (repo / "old_key.txt").write_text("gone\n")
    (repo / "notes-ghp_PLANTEDplanted0123456789abcdefABCDEF.txt").write_text("named\n")
    (repo / "data.bin").write_bytes(b"\0\1" + SECRETS["added"].encode() + b"\0")
    (repo / ".env").write_text("PLAIN=planted-env-file-0042\n")


@pytest.mark.requirement("PROV-1")
def test_no_secret_is_recorded(tmp_path: Path) -> None:
    """Twenty of them, in every place that is looked at; not one is in any file of the run."""
    repo = repository(
        tmp_path / "repo",
        {
            "train.py": f"{SECRETS['context']}\nx = 1\n{SECRETS['removed']}\n",
            "data.bin": "\0",
            "old_key.txt": KEY.format("plantedOLDplanted\n" * 5),
        },
    )
    plant(repo)
    git(repo, "checkout", "-q", "-b", "by-ghp_PLANTEDbranch0123456789abcdefABCDEFgh")
    site = tmp_path / "site" / "planted-1.0.dist-info"
    site.mkdir(parents=True)
    (site / "METADATA").write_text("Metadata-Version: 2.1\nName: planted\nVersion: 1.0\n")
    url = {"url": "https://me:planted-package-8h7g@host/x.git", "vcs_info": {"commit_id": "abc"}}
    (site / "direct_url.json").write_text(json.dumps(url))
    environ = os.environ | {
        "MY_TOKEN": SECRETS["known"],
        "SLURM_JWT": "planted-slurm-jwt-31415926",
        "PYTHONPATH": f"{site.parent}:{Path(__file__).parents[2]}",
        "TORCH_HUB_PASSWORD": "planted-torch-27182818",
        "RAY_ADDRESS": "ray://me:planted-ray-16180339@host:1",
    }
    arguments = [
        *("--api-key", "planted-flag-1a2b3c4d5e6f", "--password=planted-equals-6g7h8"),
        *("https://me:planted-argument-9i0j@host", SECRETS["known"]),
        "wandb.api_key=planted-override-5k6l7m8n9o0p",
    ]
    root = tmp_path / "runs"
    command = [sys.executable, "-c", PROGRAM, str(root), *arguments]
    subprocess.run(command, cwd=repo, env=environ, check=True, capture_output=True)
    files = sorted((root / "r").rglob("*"))
    assert {"provenance.1.json", "code.1.diff", "code.1.tar.gz"} <= {file.name for file in files}
    for file in files:
        if file.is_file():
            data = file.read_bytes()
            text = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("latin-1")
            lines = [line for line in text.lower().splitlines() if "planted" in line]
            left = [line for line in lines if '"planted": {' not in line]  # the package's name
            assert left == [], file.name
    code = json.loads((root / "r" / "provenance.1.json").read_text())["code"]
    assert {"train.py", "new.py", "new.yaml", "known.txt", "key.txt"} <= set(code["scrubbed"])


def test_a_diff_keeps_what_is_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads as git wrote it, but for the secrets."""
    from keisei.provenance.code import code_state

    repo = repository(tmp_path / "repo", {"a.py": "one\ntwo\nthree\n"})
    (repo / "a.py").write_text('one\npassword = "planted-99-secret"\nthree\r\n')
    diff = code_state(str(repo), (), (), 30.0, 2**20, 2**20).diff.decode()
    assert diff.splitlines()[5:] == [
        *(" one", "-two", "-three", '+password = "**********"', "+three"),
    ]
    assert diff.startswith("diff --git a/a.py b/a.py\n")
