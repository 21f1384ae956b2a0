"""Repositories whose working tree differs from their commit at random, and what stands in one."""

from __future__ import annotations

import os
import random
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

Tree = dict[bytes, tuple[str, bytes]]  # by path: `file`, `executable` or `symlink`, and its content

NAMES = [
    *(
        b"plain.py",
        b"with space.txt",
        b"-dash",
        b"tab\tname",
        b"new\nline",
        b'quo"te',
        b"back\\slash",
    ),
    *("ümlaut.py".encode(), b"no-utf8-\xff\xfe", b"star*", b":colon", b"#hash", b"a/b/c/deep.py"),
    *(
        b"a/b/other.py",
        b"a/x.txt",
        b".hidden",
        b".github/w.yml",
        b"%41",
        b"CON",
        b"emoji-\xf0\x9f\x98\x80",
    ),
]


def git(directory: Path | bytes, *arguments: str) -> str:
    """Run git as a user would, apart from the test machine's own settings."""
    environ = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    who = {
        f"GIT_{role}_{what}": "x@x"
        for role in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    command = ["git", "-c", "init.defaultBranch=main", "-c", "core.safecrlf=false", *arguments]
    done = subprocess.run(
        command, cwd=directory, env=environ | who, capture_output=True, check=True
    )
    return done.stdout.decode("utf-8", "replace").strip()


def repository(place: Path, files: dict[str, str]) -> Path:
    """Return a repository with one commit of some files."""
    place.mkdir(parents=True)
    git(place, "init", "-q")
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    git(place, "add", "-A")
    git(place, "commit", "-q", "--allow-empty", "-m", "one")
    return place


def content(draw: random.Random) -> bytes:
    """Return a file's bytes: text with any line ends, none, or binary."""
    lines = [b"line %d" % draw.randrange(100) for _ in range(draw.randrange(30))]
    match draw.randrange(7):
        case 0:
            return b"".join(line + b"\r\n" for line in lines)
        case 1:
            return b"\n".join(lines)
        case 2:
            return draw.randbytes(draw.randrange(1, 3000)) + b"\0"
        case 3:
            return b""
        case 4:
            return b"\r".join(lines) + b"caf\xe9 \xe2\x80\xa8 end\x0c\x85\n"
        case _:
            return b"".join(line + b"\n" for line in lines)


def text_content(draw: random.Random) -> bytes:
    """Return the bytes of a file that git would call text."""
    while b"\0" in (found := content(draw)):
        pass
    return found


def put(path: bytes, data: bytes, *, executable: bool = False) -> None:
    """Write a file in the place of whatever stands there."""
    away(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(data)
    os.chmod(path, 0o755 if executable else 0o644)


def link(path: bytes, target: bytes) -> None:
    """Make a symlink in the place of whatever stands there."""
    away(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    os.symlink(target, path)


def away(path: bytes) -> None:
    """Remove whatever stands there, or in the place of a directory above it."""
    above = path
    while above != b"/" and not os.path.lexists(above):
        above = os.path.dirname(above)
    if above != path and (os.path.islink(above) or not os.path.isdir(above)):
        os.unlink(above)
    if os.path.islink(path) or os.path.isfile(path):
        os.unlink(path)
    elif os.path.isdir(path):
        shutil.rmtree(path)


def dirty_tree(place: Path, seed: int) -> Path:
    """Return a repository with a commit, and a working tree that differs from it in many ways."""
    draw = random.Random(seed)
    top = os.fsencode(repository(place, {}))
    if draw.random() < 0.3:
        put(os.path.join(top, b".gitattributes"), b"*.txt text eol=crlf\n*.bin -text\n")
    if draw.random() < 0.2:
        git(top, "config", "core.autocrlf", draw.choice(["true", "input"]))
    for name in draw.sample(NAMES, draw.randrange(3, len(NAMES))):
        path = os.path.join(top, name)
        if draw.random() < 0.15:
            link(path, draw.choice([b"plain.py", b"nowhere", b"a/b", b"/etc/hostname", b"../up"]))
        else:
            put(path, content(draw), executable=draw.random() < 0.2)
    git(top, "add", "-A")
    git(top, "commit", "-q", "--allow-empty", "-m", "two")
    for path in tree_of(top):
        os.unlink(os.path.join(top, path))
    git(top, "checkout", "-q", "-f", "HEAD")  # as a clone has it, line ends and all
    known = [os.path.join(top, path) for path in tree_of(top)]
    for path in draw.sample(known, draw.randrange(len(known) + 1)):
        if os.path.lexists(path):
            draw.choice(CHANGES)(path, draw)
    for _ in range(draw.randrange(5)):
        name = draw.choice(
            [b"new.py", b"n/e/w.cfg", b"odd \xc3\xbc \xff", b"line\nend", b"-n", b"~"]
        )
        if not os.path.lexists(os.path.join(top, name)):
            put(os.path.join(top, name), text_content(draw), executable=draw.random() < 0.2)
    if draw.random() < 0.4:
        git(top, "add", "-A")
        if known and os.path.isfile(known[0]) and not os.path.islink(known[0]):
            _edit(known[0], draw)  # staged, and then changed again
    return place


def _edit(path: bytes, draw: random.Random) -> None:
    if os.path.islink(path) or os.path.isdir(path):
        link(path, b"else")
        return
    with open(path, "rb") as file:
        data = file.read()
    cut = draw.randrange(len(data) + 1)
    put(path, data[:cut] + text_content(draw) + data[cut:], executable=os.access(path, os.X_OK))


def _replace(path: bytes, draw: random.Random) -> None:
    put(path, content(draw), executable=draw.random() < 0.5)


def _mode(path: bytes, draw: random.Random) -> None:
    if not os.path.islink(path):
        os.chmod(path, os.stat(path).st_mode ^ 0o111)


def _delete(path: bytes, draw: random.Random) -> None:
    away(path)


def _to_link(path: bytes, draw: random.Random) -> None:
    link(path, draw.choice([b".", b"gone", b"x\xff"]))


def _to_directory(path: bytes, draw: random.Random) -> None:
    put(os.path.join(path, b"inner.py"), text_content(draw))


def _rename(path: bytes, draw: random.Random) -> None:
    if not os.path.islink(path):
        with open(path, "rb") as file:
            if b"\0" in file.read():
                return  # moved, it would be a binary file that git does not track
    os.rename(path, path + b".moved")


CHANGES: list[Callable[[bytes, random.Random], None]] = [
    _edit, _edit, _replace, _mode, _delete, _to_link, _to_directory, _rename,
]  # fmt: skip


def tree_of(top: Path | bytes) -> Tree:
    """Return what stands below a directory, a repository's own files apart."""
    found: Tree = {}
    base = os.fsencode(top)
    for directory, names, files in os.walk(base):
        if directory == base and b".git" in names:
            names.remove(b".git")
        for name in [*files, *(n for n in names if os.path.islink(os.path.join(directory, n)))]:
            path = os.path.join(directory, name)
            mode = os.lstat(path).st_mode
            if stat.S_ISLNK(mode):
                found[os.path.relpath(path, base)] = ("symlink", os.readlink(path))
            else:
                with open(path, "rb") as file:
                    kind = "executable" if mode & stat.S_IXUSR else "file"
                    found[os.path.relpath(path, base)] = (kind, file.read())
    return found
