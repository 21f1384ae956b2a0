"""Small media of each kind, whole and damaged, with which a tracker is checked."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from collections.abc import Collection

from keisei.journal.media import FOLDER, Media


def _png() -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0\x7f")) + chunk(b"IEND", b"")
    )


_FORMAT = struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 16)
_WAV = b"RIFF\x26\0\0\0WAVEfmt \x10\0\0\0" + _FORMAT + b"data\2\0\0\0\0\0"
_GIF = bytes.fromhex("47494638396101000100800000000000ffffff2c00000000010001000002024401003b")
_WHOLE: dict[str, tuple[str, bytes]] = {
    "image": (".png", _png()),
    "figure": (".png", _png()),
    "video": (".gif", _GIF),
    "audio": (".wav", _WAV),
    "histogram": (".json", json.dumps({"counts": [1, 2], "edges": [0.0, 1.0, 2.0]}).encode()),
    "table": (".json", json.dumps({"columns": ["a", "b"], "rows": [["x|y", None]]}).encode()),
    "text": (".txt", "<b>odd</b> ünï\n".encode()),
    "file": (".bin", b"\0\1\2"),
}


def samples(directory: str, kinds: Collection[str], first: int, moment: float) -> list[Media]:
    """Write media into a run's directory and return them: of each kind a whole and a damaged one.

    Args:
        directory: the run's directory.
        kinds: the kinds that are wanted.
        first: the number of the first one in attempt 1.
        moment: when it was logged, in seconds since the epoch.
    """
    found: list[Media] = []
    for kind in sorted(kinds):
        suffix, data = _WHOLE[kind]
        for content, step in ((data, len(found)), (f"damaged {kind}".encode(), None)):
            digest = hashlib.sha256(content).hexdigest()
            path = os.path.join(directory, FOLDER, digest[:2], digest + suffix)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content)
            seq, name = first + len(found), f"odd ünï/{kind}"
            size, caption = len(content), "a <caption>"
            one = Media(seq, moment, 1, kind, name, step, path, size, digest, caption, {}, seq - 1)
            found.append(one)
    return found
