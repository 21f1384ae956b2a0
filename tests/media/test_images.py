"""What a call takes of an image, and the file that it becomes."""

from __future__ import annotations

import io
import struct
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from keisei.errors import MediaError
from keisei.media.formats import MOST_PIXELS, image_header, suffix_of
from keisei.media.images import take_image
from keisei.media.names import check_name
from keisei.media.values import Content, Kept
from tests.support.pixels import read_png


def unwanted(content: Content) -> Kept:
    """Refuse to keep anything else."""
    raise AssertionError(content)


def encoded(image: object) -> Content:
    """Return what an image becomes."""
    return take_image(image).encode(unwanted)


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([None, 1, 3, 4]),
    seed=st.integers(0, 99),
)
def test_an_array_becomes_a_png_with_its_very_pixels(
    height: int, width: int, channels: int | None, seed: int
) -> None:
    """Every shape that is allowed comes back as it was, by this reader and by PIL's."""
    shape = (height, width) if channels is None else (height, width, channels)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    content = encoded(pixels)
    assert (content.kind, content.suffix) == ("image", ".png")
    assert content.about == {"width": width, "height": height}
    assert content.data is not None
    assert np.array_equal(read_png(content.data), pixels.reshape(height, width, channels or 1))
    seen = np.asarray(Image.open(io.BytesIO(content.data)))
    assert np.array_equal(seen.reshape(pixels.shape), pixels)


@pytest.mark.parametrize(
    ("given", "seen"),
    [
        (np.array([[0.0, 0.5, 1.0]]), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], "float16"), [0, 128, 255]),
        (np.array([[False, True]]), [0, 255]),
    ],
)
def test_floats_and_flags_become_bytes(given: Any, seen: list[int]) -> None:
    """0 is black, 1 is white, and what lies between is rounded."""
    data = encoded(given).data
    assert data is not None
    assert read_png(data).ravel().tolist() == seen


def test_what_is_written_to_an_array_later_is_not_seen() -> None:
    """The call has a copy; a part of a larger array does not keep that alive."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    taken = take_image(pixels)
    pixels[:] = 255
    data = taken.encode(unwanted).data
    assert data is not None
    assert not read_png(data).any()
    assert take_image(np.zeros((100, 100), np.uint8)[::50, ::50]).size == 4


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((3, 8, 8), np.uint8), "the channels come last"),
        (np.zeros((8,), np.uint8), "(8,)"),
        (np.zeros((8, 8, 2), np.uint8), "(8, 8, 2)"),
        (np.zeros((0, 8), np.uint8), "8 x 0"),
        (np.zeros((2, 2), np.int64), "int64"),
        (np.array([["a"]]), "<U1"),
        (np.full((2, 2), np.nan), "nan"),
        (np.full((2, 2), 255.0), "255"),
        (np.full((2, 2), -0.1), "-0.1"),
        (np.full((2, 2), 1j), "complex"),
        (np.lib.stride_tricks.as_strided(np.zeros(1, np.uint8), (10**5, 10**5), (0, 0)), "pixels"),
        (3, "int"),
        (None, "NoneType"),
        ([[0, 1]], "list"),
        ("a\0b", "no path"),
        ("", "no path"),
        (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">II", 10**6, 10**6), "1,000,000"),
        (b"plain text", "no PNG"),
        (b"", "no PNG"),
    ],
)
def test_what_is_no_image_is_refused_at_the_call(image: object, said: str) -> None:
    """The error names the argument, says what is wrong with it, and is two builtin kinds."""
    with pytest.raises(MediaError, match="^image: ") as caught:
        take_image(image)
    assert said in str(caught.value)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_an_image_of_pil_is_copied_in_whatever_mode() -> None:
    """Each mode becomes a PNG of its size; what a PNG cannot hold is converted."""
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "YCbCr", "F", "I;16"):
        image = Image.new(mode, (3, 2))
        content = encoded(image)
        assert content.data is not None, mode
        assert image_header(content.data) == (".png", 3, 2), mode


def test_an_image_of_pil_with_too_many_pixels_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """A bomb is known by what its header says."""
    bomb = Image.new("1", (12_000, 12_000))
    bomb.save(tmp_path / "bomb.png")
    with pytest.raises(MediaError, match="12,000 x 12,000"):
        take_image(bomb)
    with pytest.raises(MediaError, match="12,000 x 12,000"):
        encoded(tmp_path / "bomb.png")
    assert MOST_PIXELS < 12_000**2


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "webp", "bmp"])
def test_a_file_stays_as_it_is_and_its_size_is_known(tmp_path: Path, suffix: str) -> None:
    """The format is known by the content, and not by the name; nothing is decoded."""
    Image.new("RGB", (123, 45), "red").save(tmp_path / f"a.{suffix}")
    (tmp_path / f"a.{suffix}").rename(tmp_path / "name")
    content = encoded(tmp_path / "name")
    assert (content.kind, content.suffix, content.data) == ("image", f".{suffix}", None)
    assert content.path == str(tmp_path / "name")
    assert content.about == {"width": 123, "height": 45}
    assert encoded((tmp_path / "name").read_bytes()).suffix == f".{suffix}"


def test_an_svg_is_a_file_and_no_image() -> None:
    """It may hold a script, which a page that shows images must not run."""
    svg = b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"><script/></svg>'
    content = encoded(svg)
    assert (content.kind, content.suffix) == ("file", ".svg")


@given(st.binary(max_size=64), st.sampled_from([b"", b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF"]))
def test_no_header_is_an_error_of_any_other_kind(rest: bytes, begin: bytes) -> None:
    """Whatever a file begins with, it is an image of some size, a file, or refused."""
    try:
        content = encoded(begin + rest)
    except MediaError:
        return
    assert content.kind == "file" or content.about["width"] > 0


@given(st.text(max_size=40))
def test_a_name_is_a_safe_one_or_refused(name: str) -> None:
    """No name that is taken leads elsewhere or hides anything."""
    try:
        taken = check_name(name)
    except MediaError:
        return
    assert taken == name
    assert all(part.strip() not in ("", ".", "..") for part in taken.split("/"))
    assert "\\" not in taken
    assert not {unicodedata.category(char) for char in taken} & {"Cc", "Cf", "Cs"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../b",
        "a//b",
        "a/",
        "a\\b",
        "a\0b",
        "\x1b[31m",
        "x" * 257,
        "a\u202eb",
        "a\nb",
        ".",
        "a/ /b",
        "a\ud800",
    ],
)
def test_names_with_tricks_are_refused(name: str) -> None:
    """The message quotes the name escaped."""
    with pytest.raises(MediaError, match="^name: ") as caught:
        check_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", [None, 3, b"a"])
def test_a_name_is_a_text(name: object) -> None:
    """Anything else is a typed error."""
    with pytest.raises(MediaError, match="name: must be a string"):
        check_name(name)


def test_suffixes_are_plain_ones() -> None:
    """What a file's name ends with is part of another file's name only where it is plain."""
    known = {"a.PNG": ".png", "a.tar.gz": ".gz", "a.x/../y": "", "a.b c": "", "a": "", "a.é": ""}
    assert {name: suffix_of(name) for name in known} == known
