"""A run's tags and note: kept in its directory, whole, by many writers at once."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from keisei._io.files import OpenDirectory
from keisei.run.labels import (
    LONGEST_NOTE,
    LONGEST_TAG,
    MOST_TAGS,
    Labels,
    change_labels,
    noted,
    read_labels,
    tagged,
    untagged,
)

POSIX = pytest.mark.skipif(os.name == "nt", reason="links and FIFOs of POSIX")


def read(path: Path) -> Labels:
    with OpenDirectory(str(path)) as directory:
        return read_labels(directory)


def test_labels_are_kept_in_the_run(tmp_path: Path) -> None:
    """Tags and note stand in `labels.json`, mode 0600, and are read back."""
    assert read(tmp_path) == Labels()
    change_labels(str(tmp_path), partial(tagged, tags=["ppo", "best", "ppo"]))
    change_labels(str(tmp_path), partial(noted, note=" größer "))
    assert read(tmp_path) == Labels(("best", "ppo"), "größer")
    text = (tmp_path / "labels.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"tags": ["best", "ppo"], "note": "größer"}
    if os.name != "nt":
        assert (tmp_path / "labels.json").stat().st_mode & 0o777 == 0o600
    change_labels(str(tmp_path), partial(untagged, tags=["best", "absent"]))
    change_labels(str(tmp_path), partial(noted, note=""))
    assert read(tmp_path) == Labels(("ppo",))


def test_many_writers_lose_no_tag(tmp_path: Path) -> None:
    """Tags that are added at the same time are all there."""
    names = [f"tag-{number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: change_labels(str(tmp_path), partial(tagged, tags=[n])), names))
    assert read(tmp_path).tags == tuple(sorted(names))


@pytest.mark.parametrize(
    "tag", ["", "x" * (LONGEST_TAG + 1), "a,b", "a\x1bb", " a", "a\n", '"', 3, None]
)
def test_what_is_no_tag_is_refused(tag: object) -> None:
    """A tag has a length, can be printed, and can be asked for."""
    with pytest.raises(ValueError, match="is no tag"):
        tagged(Labels(), [tag])  # type: ignore[list-item]


def test_there_are_bounds() -> None:
    """A run has so many tags at most, and a note of so many characters."""
    with pytest.raises(ValueError, match="at most"):
        tagged(Labels(), [str(number) for number in range(MOST_TAGS + 1)])
    with pytest.raises(ValueError, match="at most"):
        noted(Labels(), "x" * (LONGEST_NOTE + 1))


def test_a_secret_in_a_note_is_hidden() -> None:
    """A note is text that people paste: secrets in it are hidden before it is written."""
    assert "hunter2-hunter2" not in (noted(Labels(), "password=hunter2-hunter2").note or "")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"tags": 3}', '{"tags": ["a\\u001b"]}', '{"note": []}', "[" * 100_000]
)
def test_a_damaged_file_is_no_labels_and_is_not_written_over(tmp_path: Path, text: str) -> None:
    """A reader passes damage over; a change is refused, and leaves the file as it is."""
    (tmp_path / "labels.json").write_text(text)
    assert read(tmp_path) == Labels()
    with pytest.raises(ValueError, match=r"labels\.json.*damaged"):
        change_labels(str(tmp_path), partial(tagged, tags=["x"]))
    assert (tmp_path / "labels.json").read_text() == text


@POSIX
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    """A planted link leads nobody out of the run's directory."""
    (tmp_path / "run").mkdir()
    (tmp_path / "outside").write_text('{"tags": ["stolen"]}')
    (tmp_path / "run" / "labels.json").symlink_to(tmp_path / "outside")
    with pytest.raises(OSError, match="labels"):
        read(tmp_path / "run")
    with pytest.raises(OSError, match="labels"):
        change_labels(str(tmp_path / "run"), partial(tagged, tags=["x"]))
    assert (tmp_path / "outside").read_text() == '{"tags": ["stolen"]}'
