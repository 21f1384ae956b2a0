"""A manifest has one text: what was changed in it is found, and nothing in it is believed."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keisei import CheckpointError
from keisei.checkpoints.digests import PLAIN, digest_of
from keisei.checkpoints.manifest import (
    FORMAT,
    ArrayEntry,
    FileEntry,
    content_digest,
    encode,
    parse,
    wrong_name,
)
from keisei.journal.records import Position
from tests.support.packed_states import manifest_of

HEX = "0123456789abcdef" * 2
FILES = [FileEntry("state.json", 10, HEX), FileEntry("files/deep/a.bin", 0, HEX)]
ARRAYS = [ArrayEntry("a/b", "<f4", (2, 3), "numpy"), ArrayEntry("c", "bfloat16", (), "torch")]
METRICS = {"loss": 0.1, "best": math.inf, "worst": -math.inf, "zero": -0.0}
WHOLE = manifest_of(FILES, ARRAYS, metrics=METRICS, position=Position(2, 1000))


def framed(content: bytes) -> bytes:
    """Return a text whose digest fits, as anybody can make it."""
    return b'{"digest":"%s","manifest":%s}\n' % (digest_of(PLAIN, content).encode(), content)


def changed(**fields: Any) -> bytes:
    """Return the text of the manifest with other fields."""
    content = json.loads(encode(WHOLE))["manifest"] | fields
    return framed(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def test_a_manifest_comes_back() -> None:
    """What was written is read, numbers that JSON does not have included, and is strict JSON."""
    assert parse(encode(WHOLE)) == WHOLE
    assert parse(changed()) == WHOLE
    nan = manifest_of(FILES, ARRAYS, metrics={"loss": math.nan}, step=None)
    assert math.isnan(parse(encode(nan)).metrics["loss"])
    json.loads(encode(nan), parse_constant=pytest.fail)


@pytest.mark.requirement("CKPT-3")
def test_each_flipped_bit_is_found() -> None:
    """Every bit of every byte has a meaning; so has every byte that is missing or too much."""
    text = encode(WHOLE)
    others = [
        text[:i] + bytes([text[i] ^ 1 << bit]) + text[i + 1 :]
        for i in range(len(text))
        for bit in range(8)
    ]
    others += [text[:i] for i in range(len(text))]
    others += [text[:i] + text[i + 1 :] for i in range(len(text))]
    others += [text[:i] + b" " + text[i:] for i in range(len(text) + 1)]
    for other in others:
        with pytest.raises(CheckpointError) as caught:
            parse(other)
        assert caught.value.corrupt
    print(f"changed texts: {len(others)}, all found")


@pytest.mark.parametrize(
    "fields",
    [
        {"attempt": -1}, {"attempt": True}, {"attempt": 1.0}, {"attempt": "1"}, {"number": None},
        {"number": 10**4000}, {"step": 2**63}, {"step": [1]}, {"extra": 1}, {"run": "../.."},
        {"run": "a\x1b[2J"}, {"keisei": "\x00"}, {"created_at": "now\n"}, {"kind": "pickle"},
        {"algorithm": "md5"}, {"digest": HEX}, {"metrics": {"a": "1"}}, {"metrics": [1]},
        {"metrics": {"a": None}}, {"position": [1, 2]}, {"position": {"attempt": 1}},
        {"files": None}, {"files": {}}, {"files": [1]}, {"files": [["a", 1, HEX]]},
        {"files": [{"name": "a", "size": -1, "digest": HEX}]},
        {"files": [{"name": "a", "size": 1e3, "digest": HEX}]},
        {"files": [{"name": "a", "size": 1, "digest": HEX.upper()}]},
        {"files": [{"name": "a", "size": 1, "digest": HEX, "mode": 1}]},
        {"files": [{"name": "a", "size": 1, "digest": HEX}] * 2},
        {"files": [{"name": "manifest.json", "size": 1, "digest": HEX}]},
        {"arrays": [{"name": "a", "dtype": "<f4", "shape": [-1], "library": "numpy"}]},
        {"arrays": [{"name": "a", "dtype": "<f4", "shape": [2**64], "library": "numpy"}]},
        {"arrays": [{"name": "a", "dtype": "<f4", "shape": [1] * 65, "library": "numpy"}]},
        {"arrays": [{"name": "a", "dtype": "<f4", "shape": "1", "library": "numpy"}]},
        {"arrays": [{"name": "a", "dtype": "<f4", "shape": [1], "library": "pickle"}]},
        {"arrays": [{"name": "a", "dtype": 4, "shape": [1], "library": "numpy"}]},
    ],
    ids=lambda fields: ascii(fields)[:40],
)  # fmt: skip
def test_a_manifest_from_somebody_else(fields: dict[str, Any]) -> None:
    """Whatever has a digest that fits and no sense is one error."""
    with pytest.raises(CheckpointError) as caught:
        parse(changed(**fields), path="/runs/x")
    assert caught.value.corrupt
    assert caught.value.path == "/runs/x"
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content",
    [
        b"{}",
        b'{"a":NaN}',
        b'{"a":' * 20_000 + b"}",
        b'{"a":' + b"9" * 5000 + b"}",
        b'{"\xff":1}',
        b'{"a"}',
    ],
    ids=range(6),
)
def test_a_manifest_that_is_none(content: bytes) -> None:
    """Deep, endless and broken texts are the same error."""
    with pytest.raises(CheckpointError) as caught:
        parse(framed(content))
    assert caught.value.corrupt


def test_another_order_or_spelling_is_another_text() -> None:
    """A text that means the same, and is not the one that keisei writes, is refused."""
    content = json.loads(encode(WHOLE))["manifest"]
    for other in (
        json.dumps(content, sort_keys=True).encode(),
        json.dumps(dict(reversed(content.items())), separators=(",", ":")).encode(),
        json.dumps(content, sort_keys=True, separators=(",", ":"))
        .replace("run-1", "r\\u0075n-1")
        .encode(),
    ):
        with pytest.raises(CheckpointError, match="not the text"):
            parse(framed(other))


def test_a_newer_format_is_not_corrupt() -> None:
    """It is said to be newer, whatever else stands in it."""
    with pytest.raises(CheckpointError, match="newer keisei") as caught:
        parse(changed(format=FORMAT + 1, kind="parts", extra=[1]))
    assert not caught.value.corrupt


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "/etc/passwd", "a/../b", "a//b", "a/", "./a", "a\\b", "c:a", "a\0", "a\n",
     "\x1b[2J", "\ud800", "x" * 256, "é" * 128, "a/" * 2100 + "a", "manifest.json"],
    ids=ascii,
)  # fmt: skip
def test_names_that_lead_elsewhere(name: str) -> None:
    """They are neither written nor read."""
    assert wrong_name(name) is not None or name == "manifest.json"
    with pytest.raises(CheckpointError):
        encode(
            manifest_of([FileEntry("x", 1, HEX)], []).model_copy(
                update={"files": [FileEntry(name, 1, HEX)]}
            )
        )
    with pytest.raises(CheckpointError):
        parse(changed(files=[{"name": name, "size": 1, "digest": HEX}]))


@settings(max_examples=200, deadline=None)
@given(
    st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode(errors="replace"))
)
def test_any_content_is_a_manifest_or_an_error(content: bytes) -> None:
    """No bytes make anything else happen."""
    for text in (content, framed(content), framed(b"{" + content + b"}")):
        with pytest.raises(CheckpointError):
            parse(text)


def test_equal_states_have_equal_digests() -> None:
    """The digest of the content depends on files and arrays, and on nothing else."""
    one = content_digest(FILES, ARRAYS, PLAIN)
    assert one == content_digest(FILES[::-1], ARRAYS, PLAIN)
    assert one.startswith("blake2b:")
    other = [ARRAYS[0]._replace(shape=(3, 2)), ARRAYS[1]]
    assert (
        len({one, content_digest(FILES, other, PLAIN), content_digest(FILES[:1], ARRAYS, PLAIN)})
        == 3
    )
