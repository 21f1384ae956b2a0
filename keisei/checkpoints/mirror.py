"""A run's checkpoints at a URL: copied there beside the training, and fetched to a new disk.

Copies are made on a thread of their own, which ends when nothing is left to do: neither a save nor
the loop waits for a network. An outage is one warning; what is missing follows with the next save.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from typing import IO

from keisei._io import files
from keisei._io.directories import OpenDirectory
from keisei._log import logger
from keisei.checkpoints import failing
from keisei.checkpoints.copies import adopted, missing, newest_first, superfluous
from keisei.checkpoints.layout import CORRUPT, FINAL_MODEL, LATEST, MANIFEST, step_of
from keisei.checkpoints.listing import Fault, found
from keisei.checkpoints.manifest import LARGEST, Manifest, encode, parse
from keisei.checkpoints.opening import GoneError, opened, read_manifest, within
from keisei.checkpoints.pointers import point
from keisei.checkpoints.remote import RemoteDirectory
from keisei.checkpoints.staging import staged
from keisei.checkpoints.verify import verify
from keisei.config.schema import CheckpointsConfig
from keisei.errors import CheckpointError, KeiseiError, describe, quoted


class Mirror:
    """The copies of a run's checkpoints at a URL; its calls are thread-safe.

    Args:
        url: any that `fsspec` knows, under which each run has a directory.
        run_name: the run's name.
        models: the path of the run's models directory.

    Attributes:
        problem: what has failed last, while it has; ``None`` where all is well.
    """

    def __init__(self, url: str, run_name: str, models: str) -> None:
        self._url, self._run_name, self._models = url, run_name, models
        self._directory: RemoteDirectory | None = None
        self._lock = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()
        self._again = False
        self._policy: CheckpointsConfig | None = None
        self._is_up_to_date = self._is_over = False
        self.problem: str | None = None

    def follow(self, policy: CheckpointsConfig | None = None) -> None:
        """Copy what is missing, and remove what the policy does not keep, soon; never blocks.

        Args:
            policy: the policy that is in force; ``None`` where none is, and nothing is removed.
        """
        with self._lock:
            self._policy, self._again, self._is_up_to_date = policy, True, False
            if not self._idle.is_set():
                return
            self._idle.clear()
        thread = threading.Thread(target=self._work, name="keisei-copies", daemon=True)
        try:
            thread.start()
        except RuntimeError as exc:  # the system has no thread left
            self._idle.set()
            self._failed(exc)

    def finish(self, timeout: float) -> bool:
        """Wait until all is copied, trying once more what has failed; it blocks.

        Args:
            timeout: how long, in seconds.

        Returns:
            Whether it is; a warning says so where it is not.
        """
        if self._idle.is_set() and not self._is_up_to_date:
            self.follow(self._policy)
        if self._idle.wait(timeout) and self._is_up_to_date:
            return True
        logger.warning(
            "run %s: not every checkpoint is copied to %s (%s): the next attempt goes on with it",
            self._run_name,
            self._at,
            self.problem or f"not finished after {timeout:.0f} s",
        )
        return False

    def close(self) -> None:
        """Begin nothing any more: the run may be another session's soon."""
        self._is_over = True

    def fetch(
        self, directory: OpenDirectory, run: str, attempt: int
    ) -> tuple[str | None, list[Fault]]:
        """Commit the newest copy that verifies to the models directory; it blocks.

        A copy that was made under another id, on a disk that is gone, becomes this run's own.

        Args:
            directory: the models directory.
            run: the session's id.
            attempt: the attempt that goes on from it.

        Returns:
            The name of the checkpoint, ``None`` where there is no copy; and those that did not
            verify.

        Raises:
            CheckpointError: the copies cannot be read, or none of them verifies.
            MissingExtraError: a package that the URL needs is not installed.
        """
        remote = self._remote()
        faults: list[Fault] = []
        there = self._manifests(remote)
        for name in newest_first(there):
            if there[name].step is None:
                continue
            try:
                with failing.saving(os.path.join(directory.path, name)):
                    mine = adopted(there[name], run, attempt)
                    problems = _fetched(remote, directory, name, mine)
            except CheckpointError as exc:
                problems = [str(exc)]
            if not problems:
                return name, faults
            faults.append(Fault(name, f"the copy in {remote.url}: {problems[0]}"))
        if faults:
            raise CheckpointError(
                f"none of the {len(faults)} copies in {remote.url} can be restored: "
                f"{faults[0].name}: {faults[0].problem}",
                path=remote.url,
            )
        return None, faults

    @property
    def _at(self) -> str:
        return self._directory.url if self._directory is not None else "checkpoints.remote"

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._again:
                    self._idle.set()
                    return
                self._again, policy = False, self._policy
            try:
                self._follow(policy)
                self.problem = None
                self._is_up_to_date = not (self._again or self._is_over)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the thread is not to die of it
                self._failed(exc)

    def _failed(self, exc: Exception) -> None:
        """Keep what has failed, and say it once until it is well again."""
        first = self.problem is None
        self.problem = str(exc) if isinstance(exc, KeiseiError) else describe(exc)
        if first:
            logger.warning(
                "run %s: a checkpoint is not copied, and follows with the next one: %s",
                self._run_name,
                self.problem,
            )

    def _remote(self) -> RemoteDirectory:
        if self._directory is None:  # here, on a thread: it imports the driver
            self._directory = RemoteDirectory(self._url, self._run_name)
        return self._directory

    def _manifests(self, remote: RemoteDirectory) -> dict[str, Manifest]:
        """Return the manifests of the copies; one that is damaged does not count."""
        there = {}
        for name, text in remote.manifests(_is_checkpoint, LARGEST).items():
            try:
                there[name] = parse(text)
            except CheckpointError as exc:
                logger.warning("%s/%s does not count: %s", remote.url, name, exc)
        return there

    def _follow(self, policy: CheckpointsConfig | None) -> None:
        remote = self._remote()
        there = self._manifests(remote)
        with OpenDirectory(self._models) as models:
            stands = found(models)
            stored = [*stands.checkpoints, *filter(None, [stands.final_model])]
            local = [(each.name, each.manifest) for each in stored]
            for name in missing(local, there):
                if self._is_over:
                    return
                try:
                    with opened(models, name) as directory:
                        manifest, _ = read_manifest(directory)
                        with closing(_files(directory, manifest)) as parts:
                            remote.upload(name, parts, encode(manifest))
                        there[name] = manifest
                except GoneError:  # its policy has removed it
                    continue
        for name in superfluous(dict(local), there, policy):
            if self._is_over:
                return
            remote.remove(name)


def _is_checkpoint(name: str) -> bool:
    return name == FINAL_MODEL or step_of(name) is not None


def _files(
    directory: OpenDirectory, manifest: Manifest
) -> Generator[tuple[str, IO[bytes]], None, None]:
    """Yield the files of a checkpoint, opened one after the other, none through a symlink."""
    for entry in manifest.files:
        with within(directory, entry.name) as (inner, name):
            fd = inner.open(name, os.O_RDONLY)
        with open(fd, "rb") as file:
            yield entry.name, file


def _fetched(
    remote: RemoteDirectory, models: OpenDirectory, name: str, manifest: Manifest
) -> list[str]:
    """Download a copy, verify it and commit it; return what is wrong with it."""
    if models.holds(name) and not verify(models, name):
        with opened(models, name) as directory:
            if read_manifest(directory)[0] == manifest:
                return []
    with staged(models, name) as (directory, temporary):
        for entry in manifest.files:
            with _below(directory, entry.name) as (inner, file_name):
                fd = inner.open(file_name, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
                with open(fd, "wb") as file:
                    remote.download(name, entry.name, entry.size, file)
                    file.flush()
                    os.fsync(file.fileno())
                inner.sync()
        files.write_atomic(directory, MANIFEST, encode(manifest))
        if problems := verify(models, temporary):
            return problems
        if models.holds(name):
            aside = models.set_aside(name, CORRUPT)
            logger.warning("%s is set aside as %s for its copy", quoted(name), quoted(aside))
        models.replace(temporary, name)
    point(models, LATEST, name)
    models.sync()
    return []


@contextmanager
def _below(directory: OpenDirectory, path: str) -> Iterator[tuple[OpenDirectory, str]]:
    """Open the directory that a file is to be in, made where it is missing."""
    first, slash, rest = path.partition("/")
    if not slash:
        yield directory, path
        return
    directory.make(first)
    with directory.inside(first) as inner, _below(inner, rest) as found_there:
        yield found_there
