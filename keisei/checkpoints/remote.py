"""The checkpoints of a run at a URL, by `fsspec`: files first, the manifest last.

A rename is not atomic in an object store, so the manifest is the mark of a commit: what lies there
without one does not count. It is the first to be removed, too. All of it blocks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import IO

from keisei.checkpoints.layout import MANIFEST
from keisei.errors import CheckpointError, MissingExtraError, describe
from keisei.redaction import clean, redact, secret_values

_CHUNK = 8 * 2**20  # bytes


class RemoteDirectory:
    """The directory of a run's checkpoints at a URL; it blocks, and belongs on a thread.

    Args:
        url: any that `fsspec` knows, whose last part is the directory above the run's.
        run_name: the name of the run, and of its directory there.

    Attributes:
        url: where the run's checkpoints lie, secrets hidden.

    Raises:
        MissingExtraError: `fsspec`, or the package that it needs for such a URL, is not installed.
        CheckpointError: nothing can be at such a URL.
    """

    def __init__(self, url: str, run_name: str) -> None:
        self.url = clean(f"{url.rstrip('/')}/{run_name}")
        self._secrets = url
        try:
            import fsspec
        except ImportError:
            raise MissingExtraError(
                'checkpoints.remote needs fsspec: pip install "keisei[remote]"'
            ) from None
        try:
            self._fs, root = fsspec.core.url_to_fs(url)
        except ImportError as exc:  # its message names the package
            raise MissingExtraError(f"checkpoints.remote: {self._hidden(str(exc))}") from None
        except Exception as exc:  # noqa: BLE001 - a driver's own
            raise self._error("cannot be used", exc) from None
        self._root = f"{str(root).rstrip('/')}/{run_name}"

    def manifests(self, wanted: Callable[[str], bool], most: int) -> dict[str, bytes]:
        """Return the text of each committed checkpoint's manifest by the checkpoint's name.

        Args:
            wanted: which names are a checkpoint's; a listing may hold anything.
            most: how many bytes a manifest can have; what is longer is none.
        """
        found = {}
        with self._errors("cannot be listed"):
            self._fs.invalidate_cache(self._root)
            try:
                listed = self._fs.ls(self._root, detail=False)
            except FileNotFoundError:
                return {}
            for name in sorted({str(path).rstrip("/").rpartition("/")[2] for path in listed}):
                if wanted(name):
                    text = self._read(f"{name}/{MANIFEST}", most)
                    if text is not None:
                        found[name] = text
        return found

    def upload(self, name: str, files: Iterable[tuple[str, IO[bytes]]], manifest: bytes) -> None:
        """Copy a checkpoint there: its files, then its manifest.

        Args:
            name: of the checkpoint.
            files: the names of its files, with the files themselves, opened to be read.
            manifest: the text of its manifest.
        """
        with self._errors(f"cannot take {name}"):
            self._remove(name)
            for file_name, file in files:
                path = f"{self._root}/{name}/{file_name}"
                self._fs.makedirs(path.rpartition("/")[0], exist_ok=True)
                with self._fs.open(path, "wb") as out:
                    while chunk := file.read(_CHUNK):
                        out.write(chunk)
            self._fs.makedirs(f"{self._root}/{name}", exist_ok=True)
            self._fs.pipe_file(f"{self._root}/{name}/{MANIFEST}", manifest)

    def download(self, name: str, file_name: str, size: int, into: IO[bytes]) -> None:
        """Copy a file of a checkpoint from there.

        Args:
            name: of the checkpoint.
            file_name: of the file.
            size: how many bytes it has by the manifest; no more than one beyond that are read.
            into: where to write it.
        """
        with self._errors(f"cannot give {name}/{file_name}"):
            left = size + 1
            with self._fs.open(f"{self._root}/{name}/{file_name}", "rb") as file:
                while left > 0 and (chunk := file.read(min(_CHUNK, left))):
                    into.write(chunk)
                    left -= len(chunk)

    def remove(self, name: str) -> None:
        """Remove a checkpoint: its manifest, then the rest."""
        with self._errors(f"cannot remove {name}"):
            self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove one by one what stands there: a removal at once would take names for patterns."""
        path = f"{self._root}/{name}"
        self._fs.invalidate_cache(self._root)
        self._fs.invalidate_cache(path)
        with suppress(FileNotFoundError):
            self._fs.rm_file(f"{path}/{MANIFEST}")
        there = self._fs.find(path, withdirs=True, detail=True)
        for each, about in sorted(there.items(), reverse=True):
            if about["type"] != "directory":
                self._fs.rm_file(each)
        for each, about in sorted(there.items(), reverse=True):
            if about["type"] == "directory":
                self._remove_directory(each)
        self._remove_directory(path)

    def _remove_directory(self, path: str) -> None:
        with suppress(Exception):  # an object store has none
            self._fs.rmdir(path)

    def _read(self, name: str, most: int) -> bytes | None:
        try:
            with self._fs.open(f"{self._root}/{name}", "rb") as file:
                text: bytes = file.read(most + 1)
        except FileNotFoundError:
            return None
        return text if len(text) <= most else None

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """Raise whatever a driver raises as one error, with the URL's secrets hidden."""
        try:
            yield
        except Exception as exc:  # noqa: BLE001 - a driver's own
            raise self._error(what, exc) from None

    def _error(self, what: str, exc: Exception) -> CheckpointError:
        return CheckpointError(f"{self.url} {what}: {self._hidden(describe(exc))}", path=self.url)

    def _hidden(self, text: str) -> str:
        hidden: str = redact(text, secret_values({**os.environ, "URL": self._secrets}))
        return hidden
