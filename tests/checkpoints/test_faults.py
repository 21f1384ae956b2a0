"""What a failing disk does to a save: one typed error, and what stood there is as it was."""

from __future__ import annotations

import errno
import itertools
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from keisei import CheckpointError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.commit import commit
from keisei.checkpoints.packing import pack
from keisei.checkpoints.restore import load
from keisei.checkpoints.retention import remove
from tests.support.checkpoints import (
    RUN,
    contents,
    facts_of,
    leftovers,
    save,
    state_of,
    unsound,
)
from tests.support.file_faults import Call, Fault, FileFaults
from tests.support.storms import repetitions

pytestmark = pytest.mark.skipif(os.name == "nt", reason="counts on directory descriptors")

ERRNOS = [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EMFILE]
CANNOT_REMOVE = ("open", "close", "rename", "unlink", "rmdir")  # where one of these fails


def write(into: Path) -> None:
    """Write the files of a checkpoint, as a program's function does."""
    (into / "deep").mkdir()
    for name in ("deep/a", "b"):
        (into / name).write_bytes(name.encode() * 1000)


class Saves:
    """A directory with two checkpoints, into copies of which a third is saved."""

    def __init__(self, place: Path, *, by_function: bool) -> None:
        self._place = place
        self._content = write if by_function else pack(state_of(3), copy=True)
        self._before = place / "before"
        self._before.mkdir(parents=True)
        with OpenDirectory(str(self._before)) as models:
            for step in (1, 2):
                save(models, step)
        self.old = contents(self._before)
        self.injected = 0
        self.violations: list[str] = []

    def suffer(self, fault: Fault | None) -> list[Call]:
        """Save and remove the oldest with this fault, and note what it must not have done."""
        path = self._place / "models"
        shutil.copytree(self._before, path, symlinks=True)
        faults = FileFaults(fault)
        with pytest.MonkeyPatch.context() as patch:
            faults.install(partial(patch.setattr, raising=False))
            models, saved = None, False
            with suppress(OSError):  # the caller's own, before anything of the save
                models = OpenDirectory(str(path))
            if models is not None:
                saved = self._save(models, faults)
        if models is not None:
            models.close()
        try:
            with OpenDirectory(str(path)) as models:
                self._look(models, saved, faults)
        except Exception as exc:
            self._wrong(faults, f"{type(exc).__name__}: {exc}")
        shutil.rmtree(path)
        self.injected += len(faults.injected)
        return faults.calls

    def _save(self, models: OpenDirectory, faults: FileFaults) -> bool:
        saved = False
        try:
            checkpoint = commit(models, self._content, facts_of(3))
            saved = True
            remove(models, ["checkpoint_1.ckpt"], newest="checkpoint_3.ckpt")
            assert checkpoint.step == 3
        except CheckpointError as exc:
            if exc.path is None or not exc.path.startswith(models.path):
                self._wrong(faults, f"the error names {exc.path}")
            if faults.injected and os.strerror(faults.injected[0].errno) not in str(exc):
                self._wrong(faults, f"the error does not say why: {exc}")
        except OSError as exc:
            self._wrong(faults, f"{type(exc).__name__}: {exc}")
        return saved

    def _look(self, models: OpenDirectory, saved: bool, faults: FileFaults) -> None:
        now = contents(Path(models.path))
        kept = [name for name in self.old if saved or name.startswith("checkpoint_")]
        for name in kept:
            if name == "latest" or (saved and name.startswith("checkpoint_1.")):
                continue
            if now.get(name) != self.old[name]:
                self._wrong(faults, f"{name} is not as it was")
        if unsound(models):
            self._wrong(faults, f"{unsound(models)} does not verify")
        if saved and not models.holds("checkpoint_3.ckpt"):
            self._wrong(faults, "what was saved is not there")
        left = leftovers(models)
        if left and not any(call.kind in CANNOT_REMOVE for call in faults.injected):
            self._wrong(faults, f"{left} is left over")
        # The next save goes on without help.
        checkpoint = commit(models, self._content, facts_of(3))
        assert checkpoint.step == 3
        loaded = load(models, run=RUN, set_aside=False)
        assert loaded is not None
        loaded.release()
        assert loaded.stored.manifest.step == 3
        assert leftovers(models) == []
        assert os.readlink(Path(models.path, "latest")) == "checkpoint_3.ckpt"

    def _wrong(self, faults: FileFaults, what: str) -> None:
        first = faults.injected[0] if faults.injected else None
        self.violations.append(f"{faults._fault} at {first}: {what}")


def every_fault(calls: list[Call], errnos: list[int]) -> Iterator[Fault]:
    """Yield every fault for a save of those calls: kind, number, errno, once or for ever."""
    for kind, count in Counter(call.kind for call in calls).items():
        for number, error, forever in itertools.product(range(1, count + 1), errnos, (False, True)):
            yield Fault(kind, number, error, forever)
            if kind == "write":
                yield Fault(kind, number, error, forever=True, short=True)


@pytest.mark.requirement("CKPT-4")
@pytest.mark.parametrize("by_function", [False, True])
def test_an_error_at_every_call(fast: Path, by_function: bool) -> None:
    """Whatever call fails, and with whatever error, the old checkpoints are as they were, the error
    is typed and names path and cause, no temporary file is left, and the next save goes on."""
    sweep(fast, by_function, one_in=7)


FULL = 20  # of the faults: each; of a share of the storms every n-th


@pytest.mark.storm
@pytest.mark.parametrize("by_function", [False, True])
def test_every_error_at_every_call(fast: Path, by_function: bool) -> None:
    """The same with each error at each call."""
    sweep(fast, by_function, one_in=FULL // repetitions(FULL))


def sweep(fast: Path, by_function: bool, one_in: int) -> None:
    """Inject every n-th of all faults."""
    saves = Saves(fast, by_function=by_function)
    calls = saves.suffer(None)
    assert not saves.violations
    for fault in itertools.islice(every_fault(calls, ERRNOS), 0, None, one_in):
        saves.suffer(fault)
    print(f"injected errors: {saves.injected}, violations: {len(saves.violations)}")
    assert saves.injected > 100
    assert not saves.violations, "\n".join(saves.violations[:20])
