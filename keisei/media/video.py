"""Video: a path, or frames that become an MP4 (by PyAV) or a GIF (by PIL)."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Literal, get_args

from keisei.errors import MediaError, quoted
from keisei.media.arrays import as_bytes, check_pixels, copied, is_array
from keisei.media.extras import need
from keisei.media.formats import check_suffix
from keisei.media.images import check_shape
from keisei.media.text import checked_path
from keisei.media.values import Content, Keep, Taken

if TYPE_CHECKING:
    from keisei.media.arrays import Array

Format = Literal["mp4", "gif"]
SUFFIXES = frozenset([".mp4", ".webm", ".mov", ".mkv", ".avi", ".ogv", ".m4v", ".gif"])
_FASTEST = 1000


def take_video(video: object, fps: float | None, format: Format) -> Taken:
    """Take a video: a path, or frames.

    Args:
        video: a path; or frames, as an array of the shape (frames, height, width) or (frames,
            height, width, channels) with 1, 3 or 4 channels, or a sequence of such images.
        fps: how many frames there are in a second; only with frames.
        format: what frames become.

    Raises:
        MediaError: an argument makes no sense.
        MissingExtraError: what encodes frames is not installed.
    """
    if isinstance(video, (str, os.PathLike)):
        path = checked_path("video", video)
        suffix = check_suffix("video", path, SUFFIXES)
        content = Content("video", suffix, path=path)
        return Taken(0, lambda keep: content)
    if format not in get_args(Format):
        raise MediaError(f"format: {quoted(format)} is none of {get_args(Format)}")
    sound = isinstance(fps, (int, float)) and math.isfinite(fps) and 0 < fps <= _FASTEST
    if not sound or isinstance(fps, bool):
        raise MediaError(f"fps: {quoted(fps)} is no number of frames in a second: frames need one")
    if not is_array(video) and not (isinstance(video, Sequence) and len(video)):
        raise MediaError(
            f"video: must be a path or frames, an array or a sequence, not {type(video).__name__}"
        )
    if format == "mp4":
        need("av", "a video of frames", "give format='gif', or the path of a video")
    else:
        need("PIL", "a GIF of frames", "give the path of a video")
    frames = copied("video", video)
    if frames.ndim not in (3, 4) or not len(frames):
        raise MediaError(
            f"video: has the shape {frames.shape}, and not (frames, height, width) or (frames, "
            "height, width, channels)"
        )
    check_shape("video", frames.shape[1:])
    check_pixels("video", frames)
    rate, count = Fraction(fps).limit_denominator(1001), len(frames)  # type: ignore[arg-type]
    if not rate:
        raise MediaError(f"fps: {quoted(fps)} is too slow for a video")
    write: Callable[[Array, Fraction], bytes] = _mp4 if format == "mp4" else _gif

    def encode(keep: Keep) -> Content:
        height, width = frames.shape[1:3]
        about = {"width": width, "height": height, "fps": float(rate), "frames": count}
        return Content("video", f".{format}", write(frames, rate), about=about)

    return Taken(frames.nbytes, encode)


def _colours(frame: Array) -> Array:
    """Return one image as height x width x 3 bytes."""
    pixels = as_bytes(frame)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    return pixels.repeat(3, 2) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _mp4(frames: Array, rate: Fraction) -> bytes:
    """Return an MP4 that every browser plays: H.264, with the last row and column twice if odd."""
    import av
    import numpy as np

    height, width = frames.shape[1:3]
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1  # the training has the others
        for frame in frames:
            image = np.pad(_colours(frame), ((0, height % 2), (0, width % 2), (0, 0)), "edge")
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            container.mux(stream.encode(shown))
        container.mux(stream.encode())
    return file.getvalue()


def _gif(frames: Array, rate: Fraction) -> bytes:
    from PIL import Image

    first, *others = [Image.fromarray(_colours(frame).copy()) for frame in frames]
    file = io.BytesIO()
    pause = max(20, round(1000 / rate))  # milliseconds; browsers slow down what is faster
    first.save(file, "GIF", save_all=True, append_images=others, duration=pause, loop=0)
    return file.getvalue()
