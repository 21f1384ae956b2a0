"""A run's checkpoints at a URL: files first, the manifest last, and no word of a credential."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest

from keisei import CheckpointError, MissingExtraError
from keisei.checkpoints.remote import RemoteDirectory
from tests.support.object_store import object_store

NAMES = ["checkpoint_1.ckpt", "checkpoint_2.ckpt"]


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket in an object store."""
    with object_store() as url:
        yield url


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A URL of each kind, with nothing at it."""
    kind = request.param
    if kind == "s3":
        return f"{request.getfixturevalue('bucket')}/{request.node.name}"
    if kind == "file":
        return (tmp_path / "there").as_uri()
    return f"memory://{tmp_path.name}"


def is_checkpoint(name: str) -> bool:
    """Return whether a name is a checkpoint's."""
    return name.startswith("checkpoint_")


def put(remote: RemoteDirectory, name: str, text: bytes = b"manifest", size: int = 10) -> None:
    """Upload a checkpoint of two files."""
    files = {"state.json": b"{}", "files/deep/a b.bin": bytes(size)}
    remote.upload(name, [(key, io.BytesIO(data)) for key, data in files.items()], text)


def test_what_is_uploaded_is_listed_and_comes_back(url: str) -> None:
    """Two checkpoints, with a file in a folder that is larger than a chunk."""
    remote = RemoteDirectory(url, "r")
    assert remote.manifests(is_checkpoint, 100) == {}
    for name in NAMES:
        put(remote, name, name.encode(), size=9_000_000)
    assert RemoteDirectory(url, "r").manifests(is_checkpoint, 100) == {n: n.encode() for n in NAMES}
    assert remote.manifests(lambda name: name == NAMES[1], 100) == {NAMES[1]: NAMES[1].encode()}
    into = io.BytesIO()
    remote.download(NAMES[0], "files/deep/a b.bin", 9_000_000, into)
    assert into.getvalue() == bytes(9_000_000)
    assert RemoteDirectory(url, "other").manifests(is_checkpoint, 100) == {}


def test_one_byte_too_many_is_read_and_no_more(url: str) -> None:
    """A file that has grown is told from the true one, and does not fill the disk."""
    remote = RemoteDirectory(url, "r")
    put(remote, NAMES[0], size=1000)
    into = io.BytesIO()
    remote.download(NAMES[0], "files/deep/a b.bin", 10, into)
    assert len(into.getvalue()) == 11


def test_what_has_no_manifest_does_not_count(url: str) -> None:
    """An upload that broke off is as if it never was, and a later one takes its place."""

    class BreaksOff(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError("the disk is gone")

    remote = RemoteDirectory(url, "r")
    put(remote, NAMES[0])
    with pytest.raises(CheckpointError, match="cannot take checkpoint_1.ckpt: OSError"):
        remote.upload(NAMES[0], [("x", io.BytesIO(b"1")), ("y", BreaksOff())], b"new")
    assert remote.manifests(is_checkpoint, 100) == {}
    put(remote, NAMES[0], b"newer")
    assert remote.manifests(is_checkpoint, 100) == {NAMES[0]: b"newer"}
    with pytest.raises(CheckpointError):  # nothing of the broken one is left
        remote.download(NAMES[0], "x", 1, io.BytesIO())


def test_a_removed_checkpoint_is_gone(url: str) -> None:
    """Its files, too; removing it again is no error."""
    remote = RemoteDirectory(url, "r")
    put(remote, NAMES[0])
    put(remote, NAMES[1])
    remote.remove(NAMES[0])
    remote.remove(NAMES[0])
    assert remote.manifests(is_checkpoint, 100) == {NAMES[1]: b"manifest"}
    with pytest.raises(CheckpointError):
        remote.download(NAMES[0], "state.json", 2, io.BytesIO())


def test_a_url_that_cannot_be_used_is_one_error_without_its_password() -> None:
    """Whatever the driver says, the password is hidden in message, path and representation."""
    with pytest.raises(CheckpointError) as refused:
        RemoteDirectory("ftp://user:hunter2secret@127.0.0.1:9/runs", "r")
    assert "hunter2secret" not in f"{refused.value} {refused.value!r} {refused.value.path}"
    assert refused.value.path == "ftp://**********@127.0.0.1:9/runs/r"
    with pytest.raises(CheckpointError, match="Protocol not known: nonsense"):
        RemoteDirectory("nonsense://runs", "r")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver of a URL, or fsspec itself."""
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    with pytest.raises(MissingExtraError, match="gcsfs"):
        RemoteDirectory("gs://bucket/runs", "r")
    monkeypatch.setitem(__import__("sys").modules, "fsspec", None)
    with pytest.raises(MissingExtraError, match=r"keisei\[remote\]"):
        RemoteDirectory("memory://runs", "r")
