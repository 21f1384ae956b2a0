"""Digests of what a checkpoint holds: which algorithm, and one call to begin one."""

from __future__ import annotations

import hashlib
from typing import Protocol

from keisei.errors import MissingExtraError

FAST = "xxh3_128"
PLAIN = "blake2b"
ALGORITHMS = (FAST, PLAIN)
_BYTES = 16


class Digest(Protocol):
    """A digest under way, as hashlib's and xxhash's objects are."""

    def update(self, data: bytes | memoryview, /) -> None:
        """Add bytes to what is digested."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes so far, in hexadecimal digits."""


def best_algorithm() -> str:
    """Return the fastest algorithm that is installed; it may import one, so not on a loop."""
    try:
        import xxhash  # noqa: F401 - whether it is there
    except ImportError:
        return PLAIN
    return FAST


def new_digest(algorithm: str) -> Digest:
    """Begin a digest of 128 bits; it may import the algorithm, so not on a loop.

    Args:
        algorithm: one of `ALGORITHMS`.

    Raises:
        MissingExtraError: the algorithm is xxhash's, and that is not installed.
        ValueError: there is no such algorithm.
    """
    if algorithm == PLAIN:
        return hashlib.blake2b(digest_size=_BYTES)
    if algorithm != FAST:
        raise ValueError(f"unknown algorithm {algorithm!r}: one of {', '.join(ALGORITHMS)}")
    try:
        import xxhash
    except ImportError as exc:
        raise MissingExtraError(
            "this checkpoint's digests are xxhash's, which is not installed: "
            "pip install 'keisei[checkpoints]'"
        ) from exc
    digest: Digest = xxhash.xxh3_128()
    return digest


def digest_of(algorithm: str, data: bytes) -> str:
    """Return the digest of some bytes as ``ALGORITHM:HEX``; see `new_digest`."""
    digest = new_digest(algorithm)
    digest.update(data)
    return f"{algorithm}:{digest.hexdigest()}"
