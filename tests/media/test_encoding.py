"""Audio, video, figures, histograms and tables: what a call takes, and what becomes of it."""

from __future__ import annotations

import io
import json
import sys
import warnings
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei.errors import MediaError, MissingExtraError
from keisei.media import extras
from keisei.media.audio import take_audio
from keisei.media.figures import take_figure
from keisei.media.formats import image_header
from keisei.media.histograms import take_histogram
from keisei.media.tables import take_table
from keisei.media.text import take_file, take_text
from keisei.media.values import Content, Kept, Taken
from keisei.media.video import take_video

AVI: Any = "avi"


def encoded(taken: Taken, kept: list[Content] | None = None) -> Content:
    """Return what a call's copy becomes, and what is kept on the way."""

    def keep(content: Content) -> Kept:
        assert kept is not None
        kept.append(content)
        return Kept(f"ab/{len(kept)}{content.suffix}", len(content.data or b""), "d")

    return taken.encode(keep)


def as_json(content: Content) -> Any:
    """Return what a JSON file holds."""
    assert content.data is not None
    return json.loads(content.data)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 50), st.sampled_from([None, 1, 2]), st.integers(0, 9))
def test_samples_become_a_wav_that_is_read_back(
    length: int, channels: int | None, seed: int
) -> None:
    """Frames, channels and rate are there, and the samples are what they were."""
    shape = (length,) if channels is None else (length, channels)
    samples = np.random.default_rng(seed).integers(-(2**15), 2**15, shape, dtype=np.int16)
    content = encoded(take_audio(samples, 8000))
    assert content.about == {"rate": 8000, "seconds": length / 8000}
    assert content.data is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with wave.open(io.BytesIO(content.data)) as file:
            assert (file.getnchannels(), file.getframerate()) == (channels or 1, 8000)
            read = np.frombuffer(file.readframes(length), "<i2")
    assert np.array_equal(read, samples.ravel())


def test_floats_from_minus_one_to_one_are_samples() -> None:
    """They are rounded to 16 bits."""
    content = encoded(take_audio(np.array([-1.0, 0.0, 1.0]), 1))
    assert content.data is not None
    assert np.frombuffer(content.data[44:], "<i2").tolist() == [-32767, 0, 32767]


@pytest.mark.parametrize(
    ("take", "said"),
    [
        (lambda: take_audio(np.zeros(3), None), "rate: "),
        (lambda: take_audio(np.zeros(3), 0), "rate: "),
        (lambda: take_audio(np.zeros(3), True), "rate: "),
        (lambda: take_audio(np.zeros(0), 1), "audio: has the shape"),
        (lambda: take_audio(np.zeros((1, 99)), 1), "audio: has the shape"),
        (lambda: take_audio(np.array([np.nan]), 1), "audio: holds floats"),
        (lambda: take_audio(np.array([2.0]), 1), "audio: holds floats"),
        (lambda: take_audio(np.zeros(3, np.int32), 1), "audio: holds int32"),
        (lambda: take_audio("a.txt", None), "audio: 'a.txt' ends with none"),
        (lambda: take_audio(object(), 1), "audio: "),
        (lambda: take_video("a.exe", None, "mp4"), "video: 'a.exe' ends with none"),
        (lambda: take_video(np.zeros((2, 4, 4), np.uint8), None, "mp4"), "fps: "),
        (lambda: take_video(np.zeros((2, 4, 4), np.uint8), float("nan"), "mp4"), "fps: "),
        (lambda: take_video(np.zeros((2, 4, 4), np.uint8), 1, AVI), "format: "),
        (lambda: take_video(np.zeros((4, 4), np.uint8), 1, "gif"), "video: has the shape"),
        (lambda: take_video(np.zeros((0, 4, 4), np.uint8), 1, "gif"), "video: has the shape"),
        (lambda: take_video(np.full((2, 4, 4), 7.0), 1, "gif"), "video: holds floats"),
        (lambda: take_video([], 1, "gif"), "video: must be"),
        (lambda: take_video([np.zeros((2, 2)), np.zeros((3, 3))], 1, "gif"), "video: "),
        (lambda: take_figure(3), "figure: must be"),
        (lambda: take_histogram(None, None, None, 8), "samples: "),
        (lambda: take_histogram([1], [1], [0, 1], 8), "samples: "),
        (lambda: take_histogram(None, [1], None, 8), "samples: "),
        (lambda: take_histogram([1], None, None, 0), "bins: "),
        (lambda: take_histogram(None, [1], [0], 8), "edges: "),
        (lambda: take_histogram(None, [1, 2], [0, 2, 1], 8), "edges: "),
        (lambda: take_histogram(None, [-1], [0, 1], 8), "counts: "),
        (lambda: take_histogram(None, ["a"], [0, 1], 8), "counts: "),
        (lambda: take_histogram(["a"], None, None, 8), "samples: "),
        (lambda: take_table("abc", None), "rows: "),
        (lambda: take_table({"a": 1}, None), "rows: "),
        (lambda: take_table([[1]], None), "columns: "),
        (lambda: take_table([], None), "columns: "),
        (lambda: take_table([[1]], "a"), "columns: "),
        (lambda: take_table([[1, 2]], ["a", "a"]), "columns: "),
        (lambda: take_table([[1, 2]], ["a"]), "rows[0]: has 2 cells"),
        (lambda: take_table([{"b": 1}], ["a"]), "rows[0]: has no such column"),
        (lambda: take_table([3], ["a"]), "rows[0]: must be"),
        (lambda: take_table([[object()]], ["a"]), "rows[0]['a']: object"),
        (lambda: take_table([[np.full((2, 2), 9.0)]], ["a"]), "rows[0]['a']: image: "),
        (lambda: take_text(3, redact=True), "text: "),
        (lambda: take_file(3, "x"), "file: "),
    ],
)
def test_what_makes_no_sense_is_refused_at_the_call(take: Callable[[], Taken], said: str) -> None:
    """The error begins with the argument that is wrong."""
    with pytest.raises(MediaError) as caught:
        take()
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize("size", [(16, 16), (15, 17)])
@pytest.mark.parametrize("channels", [None, 1, 3, 4])
def test_frames_become_a_video(size: tuple[int, int], channels: int | None) -> None:
    """PyAV reads back as many frames as there were, of an even size."""
    av = pytest.importorskip("av")
    shape = (5, *size) if channels is None else (5, *size, channels)
    frames = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    content = encoded(take_video(frames, 10, "mp4"))
    about = {"width": size[1], "height": size[0], "fps": 10.0, "frames": 5}
    assert (content.kind, content.suffix, content.about) == ("video", ".mp4", about)
    with av.open(io.BytesIO(content.data or b"")) as container:
        read = list(container.decode(video=0))
        assert len(read) == 5
        assert (read[0].height, read[0].width) == (size[0] + size[0] % 2, size[1] + size[1] % 2)


def test_frames_become_a_gif() -> None:
    """A sequence of images will do, and the pause between them is in it."""
    from PIL import Image

    frames = [np.full((4, 4, 3), shade) for shade in (0.0, 0.5, 1.0)]
    content = encoded(take_video(frames, 4, "gif"))
    assert content.data is not None
    with Image.open(io.BytesIO(content.data)) as image:
        assert (image.n_frames, image.info["duration"]) == (3, 250)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("format", "package"), [("mp4", "av"), ("gif", "PIL")])
def test_a_missing_encoder_is_said_at_the_call(
    format: Any, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the extra, and what can be done without it; a path needs none."""
    monkeypatch.setitem(extras._INSTALLED, package, False)
    with pytest.raises(MissingExtraError, match=r"keisei\[media\]"):
        take_video(np.zeros((2, 4, 4), np.uint8), 1, format)
    assert encoded(take_video("episode.mp4", None, format)).path == "episode.mp4"


def test_a_figure_of_matplotlib_is_drawn_from_a_copy() -> None:
    """What is drawn into it after the call is not seen, and no window is opened for the copy."""
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    figure, axes = pyplot.subplots(figsize=(2, 1), dpi=50)
    axes.plot([1, 2, 3])
    before = encoded(take_figure(figure))
    taken = take_figure(figure)
    axes.plot([3, 2, 1])
    numbers = pyplot.get_fignums()
    assert encoded(taken).data == before.data
    assert encoded(take_figure(figure)).data != before.data
    assert before.about == {"width": 100, "height": 50}
    assert pyplot.get_fignums() == numbers
    axes.xaxis.set_major_formatter(lambda value, _: f"{value} s")  # which does not pickle
    content = encoded(take_figure(figure))
    assert content.data is not None
    assert image_header(content.data) == (".png", 100, 50)
    pyplot.close(figure)
    with pytest.raises(MediaError, match=r"axes\.figure"):
        take_figure(axes)


def test_a_figure_of_plotly_is_kept_as_its_json() -> None:
    """Plotly makes the same figure of it again."""
    graphs = pytest.importorskip("plotly.graph_objects")
    figure = graphs.Figure(data=[graphs.Bar(y=[2, 3, 1])])
    content = encoded(take_figure(figure))
    assert (content.kind, content.suffix, content.about) == ("figure", ".json", {"by": "plotly"})
    assert as_json(content)["data"][0]["type"] == "bar"


@given(st.lists(st.floats(width=32), max_size=50), st.integers(1, 20))
def test_every_sample_is_in_one_bin_or_counted_apart(samples: list[float], bins: int) -> None:
    """With numpy and without it, whatever the samples are."""
    for given_samples in (np.array(samples), samples):
        loaded = sys.modules.pop("numpy") if given_samples is samples else None
        try:
            content = encoded(take_histogram(given_samples, None, None, bins))
        finally:
            if loaded is not None:
                sys.modules["numpy"] = loaded
        found = as_json(content)
        assert sum(found["counts"]) + found.get("not_finite", 0) == len(samples)
        assert len(found["edges"]) == len(found["counts"]) + 1
        assert found["edges"] == sorted(found["edges"])


def test_counts_and_edges_stay_as_they_are() -> None:
    """Where somebody else has counted, nothing is counted again."""
    found = as_json(encoded(take_histogram(None, [1, 2.5], np.array([0, 1, 2]), 64)))
    assert found == {"counts": [1, 2.5], "edges": [0.0, 1.0, 2.0]}


def test_a_table_keeps_plain_values_and_images() -> None:
    """An image in a cell is a file of its own, kept before the table is."""
    image = np.zeros((2, 3), np.uint8)
    rows = [
        {"text": "a", "reward": np.float32(0.5), "picture": image},
        {"text": None, "reward": float("nan")},
        {"text": True, "reward": 2**70, "picture": None},
    ]
    kept: list[Content] = []
    content = encoded(take_table(rows, None), kept)
    image[:] = 255
    assert as_json(content) == {
        "columns": ["text", "reward", "picture"],
        "rows": [
            ["a", 0.5, {"kind": "image", "file": "ab/1.png", "width": 3, "height": 2}],
            [None, "NaN", None],
            [True, str(2**70), None],
        ],
    }
    assert content.about == {"rows": 3, "columns": 3}
    assert [one.kind for one in kept] == ["image"]


def test_paths_and_bytes_are_files(tmp_path: Path) -> None:
    """A suffix is a plain one, and the name of a file is known."""
    content = encoded(take_file(tmp_path / "Model.ONNX", "m"))
    assert (content.suffix, content.about) == (".onnx", {"file_name": "Model.ONNX"})
    assert encoded(take_file(b"x", "notes.md")).suffix == ".md"
    assert encoded(take_file(b"x", "notes.a/b")).suffix == ""
