"""On which file system a path lies: databases need locks that network file systems do not keep."""

from __future__ import annotations

import os
import re

_NETWORK = re.compile(
    r"nfs\d?|cifs|smb\w*|ncpfs|afs|9p|lustre|gpfs|beegfs|ceph|glusterfs|fuse\.(?!fuseblk)\w+|davfs"
)
_MOUNTS = "/proc/self/mountinfo"


def network_file_system(path: str, mounts: str = _MOUNTS) -> str | None:
    """Return the kind of network file system that a path lies on; ``None`` for a local one.

    Where the system has no list of mounts (macOS, Windows), it cannot be told, and is taken for a
    local one; on Windows a path of another machine is seen by its form.

    Args:
        path: an absolute path; it need not exist.
        mounts: the list of mounts.
    """
    if path.startswith(("\\\\", "//")) and os.name == "nt":
        return "a share"
    try:
        with open(mounts, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.readlines()
    except OSError:
        return None
    real, best, kind = os.path.realpath(path), "", ""
    for line in lines:
        fields, _, after = line.partition(" - ")
        parts, kinds = fields.split(), after.split()
        if len(parts) < 5 or not kinds:
            continue
        point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), parts[4])
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, kinds[0]
    return kind if _NETWORK.fullmatch(kind) else None
