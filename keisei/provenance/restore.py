"""Restore the code of an attempt: its commit, and the files that differed from it.

The run's directory may be anybody's: it decides neither which repository is read nor where anything
is written. What would lead out of the target is refused before anything is written.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from keisei._io.directories import OpenDirectory
from keisei.errors import ProvenanceError, quoted
from keisei.provenance.archive import unpacked
from keisei.provenance.code import Kept
from keisei.provenance.git import GitError, ask
from keisei.provenance.reading import part, read_snapshot, texts
from keisei.provenance.snapshot import archive_name

TIMEOUT = 600.0  # seconds, for git

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
# What some file systems leave out of a name, so that others read as `.git`.
_IGNORED = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2064\u206a-\u206f\ufeff]")
_AT = os.open in os.supports_dir_fd and os.mkdir in os.supports_dir_fd


@dataclass
class RestoredCode:
    """What was restored of an attempt's code.

    Attributes:
        commit: the commit, where there is one.
        written: how many files were written over it.
        deleted: how many of its files were not in the tree any more.
        differs: what is not as it was, in words; where it is empty, the tree is, byte for byte.
    """

    commit: str | None
    written: int = 0
    deleted: int = 0
    differs: list[str] = field(default_factory=list)


def restore_code(
    directory: str, target: str, repository: str, attempt: int | None = None
) -> RestoredCode:
    """Write the code of an attempt into a directory; blocks.

    Args:
        directory: the run's directory.
        target: where it is written: a directory that is new, or empty.
        repository: a directory in a repository that has the commit.
        attempt: which attempt; without it, the last one that has a record.

    Raises:
        ProvenanceError: it is not recorded, the commit is not there, or the target cannot take it.
    """
    snapshot = read_snapshot(directory, attempt)
    code = part(snapshot, "code")
    if snapshot is None or not ("changed" in code or code.get("commit")):
        problem = code.get("problem") or "the program was started outside of a git repository"
        what = "nothing" if snapshot is None else "no code"
        why = "" if snapshot is None else f": {quoted(problem, 300)[1:-1]}"
        raise ProvenanceError(f"{what} is recorded of what the attempt was started from{why}")
    commit, number = code.get("commit"), snapshot.get("attempt")
    if not (commit is None or (isinstance(commit, str) and _COMMIT.fullmatch(commit))):
        raise ProvenanceError(f"the record names no commit: {quoted(commit)}")
    deleted = [os.fsencode(path) for path in texts(code, "deleted")]
    name = archive_name(number if isinstance(number, int) else 0)
    try:
        for path in deleted:
            _check(path)
        if isinstance(code.get("archive"), str) and _digest(directory, name) != code["archive"]:
            raise ValueError("it has gone, or is not the one that was recorded")
        with _opened(directory, name) as files:
            for one in files:
                _check(one.path)
    except ValueError as exc:
        raise ProvenanceError(f"{name} is refused, and nothing is written: {exc}") from None
    restored = RestoredCode(commit, differs=_differences(code))
    _make(target)
    if commit is not None:
        restored.differs += _check_out(repository, commit, target)
    try:
        for path in deleted:
            restored.deleted += _remove(target, path)
        links = []
        with _opened(directory, name) as files:
            for one in files:
                restored.written += 1
                if one.mode == "120000":  # last: nothing is written through one
                    links.append(one)
                else:
                    _write(target, one)
        for one in links:
            _write(target, one)
    except (OSError, ValueError) as exc:
        raise ProvenanceError(
            f"{quoted(target, 300)} is not whole: {exc}. Remove it, and try again in another place"
        ) from None
    return restored


def _differences(code: Mapping[str, Any]) -> list[str]:
    """Return what of the tree was not recorded as it was."""
    found = [
        f"{quoted(path, 300)[1:-1]}: what looks like a secret was hidden"
        for path in texts(code, "scrubbed")
    ]
    left_out = code.get("left_out")
    for one in left_out if isinstance(left_out, list) else []:
        if isinstance(one, Mapping):
            path, reason = one.get("path"), one.get("reason")
            found.append(f"{quoted(path, 300)[1:-1]}: left out, {quoted(reason, 300)[1:-1]}")
    if more := code.get("left_out_more"):
        found.append(f"{quoted(more)} more files: left out")
    if code.get("list_is_cut") is True:
        found.append("the list of what had changed was too long, and is not whole")
    if code.get("problem"):
        found.append(f"the record is not whole: {quoted(code['problem'], 300)[1:-1]}")
    return found


def _check(path: bytes) -> None:
    """Check that a path leads to a file below the target, and into no repository's own files."""
    separators = b"/" if os.sep == "/" else b"/\\"
    parts = re.split(b"[" + re.escape(separators) + b"]", path)
    for each in parts:
        plain = _IGNORED.sub("", each.decode("utf-8", "surrogateescape")).rstrip(". ").lower()
        if each in (b"", b".", b"..") or plain in (".git", "git~1") or b"\0" in each:
            raise ValueError(f"{quoted(os.fsdecode(path), 300)} leads out of the directory")
        if os.name == "nt" and b":" in each:
            raise ValueError(f"{quoted(os.fsdecode(path), 300)} is no path here")


def _digest(directory: str, name: str) -> str | None:
    with OpenDirectory(directory) as opened:
        try:
            fd = opened.open(name, os.O_RDONLY)
        except FileNotFoundError:
            return None
        with open(fd, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _opened(directory: str, name: str) -> Iterator[Iterator[Kept]]:
    """Open an archive of the run's; where there is none, it has no files."""
    with OpenDirectory(directory) as opened:
        try:
            fd = opened.open(name, os.O_RDONLY)
        except FileNotFoundError:
            yield iter(())
            return
        with open(fd, "rb") as file:
            yield unpacked(file)


def _make(target: str) -> None:
    try:
        os.makedirs(target, exist_ok=True)
        if os.path.islink(target) or os.listdir(target):
            raise ProvenanceError(
                f"{quoted(target, 300)} is not empty: name a directory that is new, or empty"
            )
    except OSError as exc:
        raise ProvenanceError(f"{quoted(target, 300)}: {exc.strerror or exc}") from None


def _check_out(repository: str, commit: str, target: str) -> list[str]:
    """Write the files of a commit; return what is not restored of it."""
    give_up = time.monotonic() + TIMEOUT
    try:
        ask(repository, ["cat-file", "-e", f"{commit}^{{commit}}"], give_up)
        found = ask(repository, ["rev-parse", "--absolute-git-dir"], give_up).output
    except GitError as exc:
        raise ProvenanceError(
            f"commit {commit} is not to be had from {quoted(repository, 300)} ({exc}): call it "
            "inside a clone that has the commit, or name one with --repository"
        ) from None
    with tempfile.TemporaryDirectory() as place:
        environ = {
            "GIT_DIR": os.fsdecode(found.removesuffix(b"\n")),
            "GIT_WORK_TREE": os.path.abspath(target),
            "GIT_INDEX_FILE": os.path.join(place, "index"),
        }
        command = ["-c", "core.sparseCheckout=false", "read-tree", "-u", "--reset", commit]
        try:
            ask(target, command, give_up, environ=environ)
            listed = ask(target, ["ls-files", "-s", "-z"], give_up, 2**30, environ).output
        except GitError as exc:
            raise ProvenanceError(f"commit {commit} cannot be restored: {exc}") from None
    paths = [
        os.fsdecode(entry.partition(b"\t")[2])
        for entry in listed.split(b"\0")
        if entry.startswith(b"160000 ")
    ]
    return [f"{quoted(path, 300)[1:-1]}: a submodule, which is left empty" for path in paths]


@contextmanager
def _above(target: str, path: bytes, *, make: bool) -> Iterator[tuple[int | None, bytes]]:
    """Open the directory that a path stands in, following no symlink below the target.

    Yields:
        Its descriptor, and the path's name in there; where the system has no descriptors of
        directories, ``None`` and the whole path.
    """
    *parts, name = path.split(b"/")
    if not _AT:
        where = os.fsencode(target)
        for each in parts:
            where = os.path.join(where, each)
            if make and not os.path.lexists(where):
                os.mkdir(where)
            if os.path.islink(where):
                raise ValueError(f"{quoted(os.fsdecode(path), 300)} leads through a symlink")
        yield None, os.path.join(where, name)
        return
    flags = os.O_RDONLY | os.O_DIRECTORY
    fd = os.open(target, flags)
    try:
        for each in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(each, dir_fd=fd)
            inner = os.open(each, flags | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            fd = inner
        yield fd, name
    finally:
        os.close(fd)


def _remove(target: str, path: bytes) -> bool:
    """Remove a file, and the directories above it that are empty then; return whether it was."""
    try:
        with _above(target, path, make=False) as (fd, name):
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                return False
            os.unlink(name, dir_fd=fd)
    except (FileNotFoundError, NotADirectoryError):
        return False
    above = path.rpartition(b"/")[0]
    with suppress(OSError):
        while above:
            with _above(target, above, make=False) as (fd, name):
                os.rmdir(name, dir_fd=fd)
            above = above.rpartition(b"/")[0]
    return True


def _write(target: str, one: Kept) -> None:
    """Write a file or a symlink in the place of what stands there."""
    with _above(target, one.path, make=True) as (fd, name):
        with suppress(FileNotFoundError):
            if stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
                os.rmdir(name, dir_fd=fd)
            else:
                os.unlink(name, dir_fd=fd)
        if one.mode == "120000":
            os.symlink(one.data, name, dir_fd=fd)
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        mode = 0o777 if one.mode == "100755" else 0o666
        with open(os.open(name, flags, mode, dir_fd=fd), "wb") as file:
            file.write(one.data)
