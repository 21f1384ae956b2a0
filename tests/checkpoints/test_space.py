"""A full disk: said before anything is written where it can be, and else a save that never was."""

from __future__ import annotations

import os
import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from keisei import CheckpointError
from keisei._io.directories import OpenDirectory
from keisei.checkpoints import forecast
from keisei.checkpoints.commit import commit
from keisei.checkpoints.packing import pack
from tests.support.checkpoints import (
    contents,
    facts_of,
    leftovers,
    restored,
    save,
    state_of,
    unsound,
)
from tests.support.storms import repetitions

PAGE = 4096
FILES = 24
BIG = 1_000_000


def write(into: Path) -> None:
    """Write more than fits, page by page."""
    for number in range(FILES):
        (into / f"part {number}").write_bytes(bytes([number]) * PAGE)


def fails_as_it_should(models: OpenDirectory, save_it: Callable[[], object]) -> bool:
    """Save on a disk that is nearly full; return whether it failed, and as it should."""
    before, failure = contents(Path(models.path)), None
    try:
        save_it()
    except CheckpointError as exc:
        failure = exc
    if failure is not None:
        assert "free some space" in str(failure)
        assert failure.path == os.path.join(models.path, "checkpoint_2.ckpt")
        assert contents(Path(models.path)) == before
        assert restored(models).stored.manifest.step == 1
    assert unsound(models) == []
    assert leftovers(models) == []
    return failure is not None


def fill_at(disk: Path, pages: Iterable[int]) -> None:
    """Fill a disk up to so many free pages, and save there: a state, and files of a function."""
    path = disk / "models"
    path.mkdir()
    failed = saved = 0
    with OpenDirectory(str(path)) as models:
        save(models, 1)
        for free in pages:
            for content in (pack(state_of(2), copy=True), write):
                with filled(disk, free):
                    if fails_as_it_should(models, partial(commit, models, content, facts_of(2))):
                        failed += 1
                    else:
                        saved += 1
                models.remove_tree("checkpoint_2.ckpt")
    print(f"saves on a disk filled at so many places: {failed} failed whole, {saved} saved")
    assert failed > 0
    assert saved > 0


@contextmanager
def filled(disk: Path, free: int) -> Iterator[None]:
    """Have only so many pages free on a disk."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        while (now := os.statvfs(disk).f_bavail) > free:
            try:
                file.write(b"\0" * PAGE * (now - free))
            except OSError:
                break
    yield
    filler.unlink()


@pytest.mark.requirement("CKPT-3", "CKPT-8")
def test_a_disk_that_is_full_at_some_place(tiny_disk: Path) -> None:
    """Whichever page does not fit, nothing of the save is left, and the old one is as it was."""
    fill_at(tiny_disk, [0, 1, 2, 3, 4, 5, 8, 13, FILES, FILES + 1, FILES + 8])


@pytest.mark.storm
def test_a_disk_that_is_full_at_every_page(tiny_disk: Path) -> None:
    """The same at each page that a save takes."""
    fill_at(tiny_disk, range(FILES + 8))


def no_more_than(limit: int, what: Callable[[], None]) -> bool:
    """Run something in a child whose files cannot be longer; return whether it went well."""
    import resource

    child = os.fork()
    if not child:
        status = 1
        try:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            what()
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    return status == 0


def limit_at(models: OpenDirectory, limits: Iterable[int]) -> None:
    """Save where no file may be longer than so many bytes."""
    save(models, 1)
    for limit in limits:

        def save_it() -> None:
            assert fails_as_it_should(models, lambda: save(models, 2))

        assert no_more_than(limit, save_it), limit
    print("saves where a file may not be longer than some limit, all of them failed whole")


LONGEST = 1200  # bytes: the arrays of `state_of`, header apart


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_file_that_may_not_be_so_long(models: OpenDirectory) -> None:
    """A quota is not said before: the write fails at some byte, and nothing is left of the save."""
    rng = random.Random(5)
    limit_at(models, [0, 1, *sorted(rng.sample(range(2, LONGEST), 10)), LONGEST])


@pytest.mark.storm
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
def test_a_file_that_may_not_be_so_long_at_200_places(models: OpenDirectory) -> None:
    """The same at 200 places."""
    limit_at(models, random.sample(range(LONGEST), repetitions(200)))


@pytest.mark.requirement("CKPT-8")
def test_what_cannot_fit_is_an_error_before_anything_is_written(
    models: OpenDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names what is needed and what is free."""
    save(models, 1)
    free = forecast.free_bytes(models)
    assert free is not None
    assert free > 0
    monkeypatch.setattr(forecast, "free_bytes", lambda models: 100)
    before = contents(Path(models.path))
    with pytest.raises(CheckpointError, match=r"needs 1,\d\d\d bytes, and 100 are free"):
        save(models, 2)
    assert contents(Path(models.path)) == before


@pytest.mark.requirement("CKPT-8")
@pytest.mark.parametrize(
    ("free", "present", "kept", "warned"),
    [
        (4 * BIG, 0, 3, False),  # three, and one more for a moment
        (4 * BIG - 1, 0, 3, True),
        (2 * BIG, 2, 3, False),  # two stand there already
        (BIG, 3, 3, False),
        (BIG, 9, 3, False),  # it is the older ones' space that it takes next
        (BIG - 1, 3, 3, True),
        (10 * BIG, 0, None, False),
        (10 * BIG - 1, 50, None, True),
        (None, 0, 3, False),
    ],
)
def test_too_little_space_for_the_policy_is_known_before(
    free: int | None, present: int, kept: int | None, warned: bool
) -> None:
    """What the policy keeps is counted, what stands there already, and one more for a moment."""
    text = forecast.warning(BIG, free, present=present, kept=kept)
    assert (text is not None) == warned
    if text is not None:
        assert "checkpoints.keep_last" in text
