"""The code of an attempt is restored as it was, and nothing is written anywhere else."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest

from keisei import ProvenanceError, SessionManager, load_config
from keisei.provenance.restore import restore_code
from tests.support.dirty_trees import dirty_tree, git, repository, tree_of
from tests.support.storms import repetitions


def run_in(repo: Path, root: Path, monkeypatch: pytest.MonkeyPatch, **limits: Any) -> str:
    """Run a session in a repository, and return its directory."""
    monkeypatch.chdir(repo)
    overrides = {"logging.log_dir": str(root), "provenance": {"timeout": 60, **limits}}
    with SessionManager(load_config(overrides=overrides)) as session:
        pass
    return session.run_artifact_dir


def check_restored(place: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Check that a dirty tree is restored byte for byte from a run that was started in it."""
    repo = dirty_tree(place / f"repo-{seed}", seed)
    before = tree_of(repo)
    run = run_in(repo, place / "runs", monkeypatch)
    restored = restore_code(run, str(place / f"again-{seed}"), str(repo))
    after = tree_of(place / f"again-{seed}")
    assert restored.differs == [], seed
    assert after == before, (seed, {k for k in {*before, *after} if before.get(k) != after.get(k)})
    assert tree_of(repo) == before, seed


@pytest.mark.requirement("PROV-1")
def test_dirty_trees_are_restored_byte_for_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Binary files, modes, symlinks, renames, deletions, line ends and odd names come back."""
    for seed in range(12):
        check_restored(tmp_path, seed, monkeypatch)


@pytest.mark.storm
def test_many_dirty_trees_are_restored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However they differ from their commit."""
    for seed in range(100, 100 + repetitions(200)):
        check_restored(tmp_path, seed, monkeypatch)


def test_a_repository_without_a_commit_is_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that stands in it is what differs."""
    (tmp_path / "repo").mkdir()
    git(tmp_path / "repo", "init", "-q")
    (tmp_path / "repo" / "train.py").write_text("print()\n")
    run = run_in(tmp_path / "repo", tmp_path / "runs", monkeypatch)
    assert restore_code(run, str(tmp_path / "again"), str(tmp_path)).differs == []
    assert tree_of(tmp_path / "again") == {b"train.py": ("file", b"print()\n")}


def test_what_is_not_as_it_was_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hidden secrets, large and binary files, pipes, other repositories: each with its reason."""
    repo = repository(tmp_path / "repo", {"train.py": "x = 1\n"})
    repository(tmp_path / "module", {"m.py": "m\n"})
    command = ["-c", "protocol.file.allow=always", "submodule", "add", "-q"]
    git(repo, *command, str(tmp_path / "module"), "sub")
    git(repo, "commit", "-q", "-m", "with a submodule")
    (repo / "train.py").write_text(
        'x = 2\nwandb_api_key = "0123456789abcdef0123456789abcdef01234567"\n'
    )
    (repo / "large.txt").write_bytes(b"x\n" * 1000)
    (repo / "data.bin").write_bytes(b"\0\1\2")
    (repo / ".env").write_text("A=b\n")
    repository(repo / "nested", {"n.py": "n\n"})
    os.mkfifo(repo / "pipe")
    run = run_in(repo, tmp_path / "runs", monkeypatch, largest_file=1000)
    said = restore_code(run, str(tmp_path / "again"), str(repo)).differs
    for path, reason in {
        "train.py": "what looks like a secret was hidden",
        "large.txt": "larger than provenance.largest_file",
        "data.bin": "binary",
        ".env": "its name says",
        "nested/": "another repository",
        "sub": "a submodule, which is left empty",
    }.items():
        assert any(text.startswith(f"{path}: ") and reason in text for text in said), (path, said)
    text = (tmp_path / "again" / "train.py").read_text()
    assert text.startswith("x = 2\n")
    assert "0123456789abcdef" not in text
    assert (tmp_path / "again" / "sub").is_dir()


def test_a_large_untracked_file_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One of 4 GB is named, and costs nothing; the small ones beside it are kept."""
    repo = repository(tmp_path / "repo", {"train.py": "x = 1\n"})
    with open(repo / "data.npy", "wb") as file:
        file.truncate(4 * 2**30)
    (repo / "notes.txt").write_text("kept\n")
    run = run_in(repo, tmp_path / "runs", monkeypatch)
    code = json.loads(Path(run, "provenance.1.json").read_text())["code"]
    assert [one["path"] for one in code["left_out"]] == ["data.npy"]
    restore_code(run, str(tmp_path / "again"), str(repo))
    assert (tmp_path / "again" / "notes.txt").read_text() == "kept\n"


def test_runs_below_the_repository_are_not_part_of_its_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The root of the runs, where it lies in the tree, is left out without a word."""
    repo = repository(tmp_path / "repo", {"train.py": "x = 1\n"})
    for _ in range(2):
        run = run_in(repo, repo / "runs", monkeypatch)
    code = json.loads(Path(run, "provenance.1.json").read_text())["code"]
    assert (code["is_dirty"], code["untracked"]) == (False, 0)


HOSTILE = [
    *("../out", "/tmp/keisei-out", "a/../../out", ".git/hooks/pre-commit", "x/.GIT/config"),
    *("git~1/config", ".g\u200cit/config", "a//b", "./x", ".git"),
]


def hostile_run(place: Path, members: list[tarfile.TarInfo], **code: Any) -> str:
    """Write the directory of a run that somebody has made up."""
    place.mkdir()
    about = {"format": 1, "attempt": 1, "code": {"commit": None, "changed": 1, **code}}
    (place / "provenance.1.json").write_text(json.dumps(about))
    with (
        gzip.open(place / "code.1.tar.gz", "wb") as file,
        tarfile.open(fileobj=file, mode="w") as tar,
    ):
        for member in members:
            tar.addfile(member, io.BytesIO(b"x" * member.size) if member.isreg() else None)
    return str(place)


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    """Return one member of an archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    info.size = 3 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize("name", HOSTILE)
def test_a_path_out_of_the_directory_is_refused(tmp_path: Path, name: str) -> None:
    """Nothing at all is written then, nor removed."""
    run = hostile_run(tmp_path / "run", [member("good.py"), member(name)])
    with pytest.raises(ProvenanceError, match="refused, and nothing is written"):
        restore_code(run, str(tmp_path / "again"), str(tmp_path))
    assert not (tmp_path / "again").exists()
    run = hostile_run(tmp_path / "other", [member("good.py")], deleted=[name])
    with pytest.raises(ProvenanceError, match="refused, and nothing is written"):
        restore_code(run, str(tmp_path / "again"), str(tmp_path))
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_an_archive_of_what_is_no_file_is_refused(tmp_path: Path, kind: bytes) -> None:
    """A hard link, a device and a pipe are none that keisei has written."""
    run = hostile_run(tmp_path / "run", [member("x", kind, "/etc/passwd")])
    with pytest.raises(ProvenanceError, match="refused"):
        restore_code(run, str(tmp_path / "again"), str(tmp_path))


def test_nothing_is_written_through_a_symlink(tmp_path: Path) -> None:
    """Neither one of the archive's, whatever comes first, nor one of the commit's."""
    outside = tmp_path / "outside"
    outside.mkdir()
    link = member("a", tarfile.SYMTYPE, str(outside))
    for number, members in enumerate([[link, member("a/x")], [member("a/x"), link]]):
        run = hostile_run(tmp_path / f"run-{number}", members)
        with pytest.raises(ProvenanceError, match="not whole"):
            restore_code(run, str(tmp_path / f"again-{number}"), str(tmp_path))
    repo = repository(tmp_path / "repo", {})
    (repo / "a").symlink_to(outside)
    git(repo, "add", "-A")
    git(repo, "commit", "-q", "-m", "a link")
    commit = git(repo, "rev-parse", "HEAD")
    run = hostile_run(tmp_path / "run", [member("a/x")], commit=commit)
    with pytest.raises(ProvenanceError, match="not whole"):
        restore_code(run, str(tmp_path / "again"), str(repo))
    assert list(outside.iterdir()) == []


@pytest.mark.parametrize("commit", ["--upload-pack=x", "HEAD", "main", 5, "a" * 39])
def test_a_commit_that_is_none_is_refused(tmp_path: Path, commit: object) -> None:
    """What the record names as one is no argument of git's."""
    run = hostile_run(tmp_path / "run", [], commit=commit)
    with pytest.raises(ProvenanceError, match="names no commit"):
        restore_code(run, str(tmp_path / "again"), str(tmp_path))


def test_a_clone_without_the_commit_is_said(tmp_path: Path) -> None:
    """The message names the commit, the repository and the way out."""
    repo = repository(tmp_path / "repo", {})
    run = hostile_run(tmp_path / "run", [], commit="ab" * 20)
    with pytest.raises(ProvenanceError, match="abab.*--repository"):
        restore_code(run, str(tmp_path / "again"), str(repo))


def test_a_directory_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    """A target is new, or empty."""
    run = hostile_run(tmp_path / "run", [member("x")])
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "mine").write_text("mine")
    with pytest.raises(ProvenanceError, match="not empty"):
        restore_code(run, str(tmp_path / "again"), str(tmp_path))
    assert (tmp_path / "again" / "mine").read_text() == "mine"


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"code": 3}', "[" * 100_000])
def test_a_damaged_record_is_said(tmp_path: Path, text: str) -> None:
    """Nothing is restored of it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "provenance.1.json").write_text(text)
    with pytest.raises(ProvenanceError, match="is recorded"):
        restore_code(str(tmp_path / "run"), str(tmp_path / "again"), str(tmp_path))


def test_a_damaged_archive_is_said(tmp_path: Path) -> None:
    """One that was cut, or is none, is refused before anything is written."""
    run = hostile_run(tmp_path / "run", [member(f"f{n}") for n in range(200)])
    archive = tmp_path / "run" / "code.1.tar.gz"
    whole = archive.read_bytes()
    for damaged in (whole[:50], b"no archive", whole[:30] + b"\xff" * 20 + whole[50:]):
        archive.write_bytes(damaged)
        with pytest.raises(ProvenanceError, match="refused"):
            restore_code(run, str(tmp_path / "again"), str(tmp_path))
    assert not (tmp_path / "again").exists()
