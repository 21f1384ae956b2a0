"""Images: what a call takes of one, and how it becomes a PNG, or stays the file that it is."""

from __future__ import annotations

import io
import os
import struct
import zlib
from typing import TYPE_CHECKING, Any

from keisei.errors import MediaError, quoted
from keisei.media.arrays import as_bytes, check_pixels, copied, is_array
from keisei.media.formats import HEAD, check_size, image_header, is_svg, suffix_of
from keisei.media.reading import head_of
from keisei.media.text import checked_path
from keisei.media.values import Content, Keep, Taken

if TYPE_CHECKING:
    from keisei.media.arrays import Array

_COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # PNG's kinds, by the number of channels
_SPEED = 3  # of zlib: twice as fast as its default, for some hundredths of the size
_MODES = frozenset(["1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"])  # of PIL, that a PNG can hold


def take_image(image: object) -> Taken:
    """Take an image: a copy of its pixels, or its path.

    Args:
        image: an array of pixels, height x width or height x width x 1, 3 or 4 channels, bytes or
            floats from 0 to 1; an image of PIL's; a path; or the bytes of an image's file.

    Raises:
        MediaError: it is none of these; the message says what is wrong with it.
    """
    if isinstance(image, (str, os.PathLike)):
        path = checked_path("image", image)
        return Taken(0, lambda keep: _file(path))
    if isinstance(image, (bytes, bytearray, memoryview)):
        data = bytes(image)
        content = _described(data[:HEAD], data=data)
        return Taken(len(data), lambda keep: content)
    if is_pil(image):
        return _take_pil(image)
    if not is_array(image):
        raise MediaError(
            f"image: must be an array, an image of PIL's, a path or the bytes of an image's file, "
            f"not {type(image).__name__}"
        )
    check_shape("image", tuple(image.shape))  # type: ignore[attr-defined]
    array = copied("image", image)
    check_pixels("image", array)
    return Taken(array.nbytes, lambda keep: png_content(array))


def check_shape(argument: str, shape: tuple[int, ...]) -> None:
    """Check that a shape is an image's.

    Raises:
        MediaError: it is not.
    """
    if len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        hint = ""
        if len(shape) == 3 and shape[0] in (1, 3, 4):
            hint = ": the channels come last (array.transpose(1, 2, 0))"
        raise MediaError(
            f"{argument}: has the shape {shape}, and not (height, width), or (height, width, "
            f"channels) with 1, 3 or 4 channels{hint}"
        )
    check_size(shape[1], shape[0])


def png_content(array: Array) -> Content:
    """Return an image as a PNG."""
    pixels = as_bytes(array)
    height, width = pixels.shape[:2]
    return Content("image", ".png", png(pixels), about={"width": width, "height": height})


def png(pixels: Array) -> bytes:
    """Return the file of a PNG; its rows are stored as differences to the row above.

    Args:
        pixels: height x width, or height x width x channels, uint8.
    """
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    flat = pixels.reshape(height, width * channels)
    rows = flat.copy()
    rows[1:] -= flat[:-1]  # modulo 256, as the format has it
    lines = type(pixels)((height, 1 + width * channels), "uint8")
    lines[:, 0] = 2  # the filter `Up`
    lines[:, 1:] = rows
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    body = zlib.compress(lines.data, _SPEED)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", body) + _chunk(b"IEND")


def _chunk(kind: bytes, data: bytes = b"") -> bytes:
    crc = zlib.crc32(data, zlib.crc32(kind))
    return b"".join([struct.pack(">I", len(data)), kind, data, struct.pack(">I", crc)])


def _file(path: str) -> Content:
    return _described(head_of(path, HEAD), path=path)


def _described(head: bytes, data: bytes | None = None, path: str | None = None) -> Content:
    """Return an image's file with what it says of itself; an SVG is a file like any other."""
    header = image_header(head)
    if header is not None:
        check_size(header.width, header.height)
        about = {"width": header.width, "height": header.height}
        return Content("image", header.suffix, data, path, about)
    if is_svg(head) or (path is not None and suffix_of(path) == ".svg"):
        return Content("file", ".svg", data, path)
    what = "these bytes are" if path is None else f"{quoted(path, 300)} is"
    raise MediaError(
        f"image: {what} no PNG, JPEG, GIF, WebP or BMP: convert it, or keep it with log_file()"
    )


def is_pil(image: object) -> bool:
    """Return whether a value is an image of PIL's."""
    return any(
        cls.__name__ == "Image" and cls.__module__ == "PIL.Image" for cls in type(image).__mro__
    )


def _take_pil(image: Any) -> Taken:
    width, height = image.size
    check_size(width, height)
    copy = image.copy()
    size = width * height * max(1, len(copy.getbands()))

    def encode(keep: Keep) -> Content:
        shown = copy if copy.mode in _MODES else copy.convert("RGB")
        file = io.BytesIO()
        shown.save(file, "PNG", compress_level=_SPEED)
        about = {"width": width, "height": height}
        return Content("image", ".png", file.getvalue(), about=about)

    return Taken(size, encode)
