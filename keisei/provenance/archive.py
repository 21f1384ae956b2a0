"""The archive of the files that differ from their commit: written and read without a surprise."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterator, Sequence
from typing import IO

from keisei._io.switching import yield_gil
from keisei.provenance.code import Kept

_LARGEST, _MOST = 2**31, 100_000  # bytes in all, and files, that are read from one


def packed(kept: Sequence[Kept]) -> bytes:
    """Return files as one archive, the same for the same files.

    Args:
        kept: the files.
    """
    target = io.BytesIO()
    with gzip.GzipFile(fileobj=target, mode="wb", mtime=0, compresslevel=6) as squeezed:
        kind = tarfile.GNU_FORMAT
        with tarfile.open(
            fileobj=squeezed, mode="w", format=kind, encoding="utf-8", errors="surrogateescape"
        ) as archive:
            for one in kept:
                yield_gil()
                info = tarfile.TarInfo(one.path.decode("utf-8", "surrogateescape"))
                if one.mode == "120000":
                    info.type = tarfile.SYMTYPE
                    info.linkname = one.data.decode("utf-8", "surrogateescape")
                    archive.addfile(info)
                    continue
                info.mode = int(one.mode[-3:], 8)
                info.size = len(one.data)
                archive.addfile(info, io.BytesIO(one.data))
    return target.getvalue()


def unpacked(file: IO[bytes]) -> Iterator[Kept]:
    """Yield the files of an archive, which may be anybody's.

    Args:
        file: the archive.

    Raises:
        ValueError: it is damaged, or holds what no archive of keisei's does.
    """
    size = 0
    try:
        with tarfile.open(
            fileobj=file, mode="r|gz", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            for number, info in enumerate(archive):
                size += info.size
                if number >= _MOST or size > _LARGEST:
                    raise ValueError("it holds too much")
                path = info.name.encode("utf-8", "surrogateescape")
                if info.issym():
                    yield Kept(path, "120000", info.linkname.encode("utf-8", "surrogateescape"))
                    continue
                source = archive.extractfile(info) if info.isreg() else None
                if source is None:
                    raise ValueError("it holds what is no file and no symlink")
                mode = "100755" if info.mode & 0o100 else "100644"
                yield Kept(path, mode, source.read())
    except (tarfile.TarError, EOFError, OSError) as exc:
        raise ValueError(f"it is damaged: {exc}") from None
