"""Audio: a path, or samples that become a WAV."""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

from keisei.errors import MediaError, quoted
from keisei.media.arrays import copied
from keisei.media.formats import check_suffix
from keisei.media.text import checked_path
from keisei.media.values import Content, Keep, Taken

if TYPE_CHECKING:
    from keisei.media.arrays import Array

SUFFIXES = frozenset([".wav", ".mp3", ".ogg", ".oga", ".opus", ".flac", ".m4a", ".aac"])
_MOST_CHANNELS = 32
_MOST_HERTZ = 768_000


def take_audio(audio: object, rate: int | None) -> Taken:
    """Take audio: a path, or samples.

    Args:
        audio: a path; or samples, of the shape (samples) or (samples, channels), int16 or floats
            from -1 to 1.
        rate: how many samples there are in a second; only with samples.

    Raises:
        MediaError: an argument makes no sense.
    """
    if isinstance(audio, (str, os.PathLike)):
        path = checked_path("audio", audio)
        suffix = check_suffix("audio", path, SUFFIXES)
        content = Content("audio", suffix, path=path)
        return Taken(0, lambda keep: content)
    if type(rate) is not int or not 0 < rate <= _MOST_HERTZ:
        raise MediaError(
            f"rate: {quoted(rate)} is no number of samples in a second: samples need one, from 1 "
            f"to {_MOST_HERTZ:,}"
        )
    samples = copied("audio", audio)
    if samples.ndim not in (1, 2) or not samples.size or samples[:1].size > _MOST_CHANNELS:
        raise MediaError(
            f"audio: has the shape {samples.shape}, and not (samples,) or (samples, channels), "
            f"with {_MOST_CHANNELS} channels at most"
        )
    if samples.dtype.kind == "f":
        low, high = float(samples.min()), float(samples.max())
        if not (low >= -1.0 and high <= 1.0):
            raise MediaError(
                f"audio: holds floats from {low:g} to {high:g}: samples are from -1 to 1, none of "
                "them NaN, or int16"
            )
    elif samples.dtype.name != "int16":
        raise MediaError(f"audio: holds {samples.dtype}: samples are int16, or floats from -1 to 1")

    def encode(keep: Keep) -> Content:
        about = {"rate": rate, "seconds": len(samples) / rate}
        return Content("audio", ".wav", wav(samples, rate), about=about)

    return Taken(samples.nbytes, encode)


def wav(samples: Array, rate: int) -> bytes:
    """Return the file of a WAV, with 16 bits for a sample.

    Args:
        samples: samples, or samples x channels.
        rate: how many samples there are in a second.
    """
    if samples.dtype.kind == "f":
        samples = (samples.astype("float32") * 32767.0).round()
    data = samples.astype("<i2").tobytes()
    channels = samples.shape[1] if samples.ndim == 2 else 1
    frame = 2 * channels
    about = struct.pack("<HHIIHH", 1, channels, rate, rate * frame, frame, 16)
    body = b"WAVEfmt " + struct.pack("<I", len(about)) + about
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body
