"""Where trackers keep runs, as absolute places, whoever asks from where, and when.

A relative path among a tracker's options, or in a variable that it reads, begins at the working
directory of the program when the tracker is asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from keisei.config.references import problem_of_path
from keisei.errors import TrackerError, quoted

_MEMORY = (":memory:", "file::memory:", "?")


def working_directory() -> str:
    """Return the program's working directory; the root where it has been removed."""
    try:
        return os.getcwd()
    except OSError:
        return os.sep


def absolute_path(path: str, directory: str) -> str:
    """Return the absolute form of a path.

    Args:
        path: the path; a leading ``~`` is the home directory.
        directory: where it begins, if it is relative.

    Raises:
        TrackerError: it holds a reference that nobody has resolved, or there is no such home.
    """
    expanded = os.path.expanduser(path)
    if (problem := problem_of_path(expanded)) is not None:
        raise TrackerError(f"{quoted(path, 300)}: {problem}")
    return os.path.normpath(os.path.join(directory, expanded)) if path else path


def absolute_uri(uri: str, directory: str) -> str:
    """Return a tracking URI that means the same in each working directory.

    Args:
        uri: the URI of a server, of a database or of a directory.
        directory: where its path begins, if it has one and that is relative.

    Raises:
        TrackerError: as `absolute_path`.
    """
    scheme, _, path = uri.partition(":///")
    if scheme.startswith("sqlite") and path and not path.startswith(_MEMORY):
        kind = "file:" if path.startswith("file:") else ""
        path, mark, query = path.removeprefix(kind).partition("?")
        return f"{scheme}:///{kind}{absolute_path(path, directory)}{mark}{query}"
    if uri.startswith("file:") and not uri.startswith("file:/"):
        return f"file://{absolute_path(uri.removeprefix('file:'), directory)}"
    if "/" in uri and not urlsplit(uri).scheme:
        return absolute_path(uri, directory)
    return uri


_Absolute = Callable[[str, str], str]
_OPTIONS: dict[str, dict[str, _Absolute]] = {
    "mlflow": {"tracking_uri": absolute_uri},
    "registry": {"url": absolute_uri},
    "tensorboard": {"log_dir": absolute_path},
    "trackio": {"directory": absolute_path},
}
_VARIABLES: dict[str, _Absolute] = {
    "KEISEI_REGISTRY_URL": absolute_uri,
    "MLFLOW_TRACKING_URI": absolute_uri,
    "TRACKIO_DIR": absolute_path,
}


def absolute_options(kind: str, options: Mapping[str, object], directory: str) -> dict[str, object]:
    """Return a tracker's options with absolute places.

    Args:
        kind: its entry point.
        options: what it is made with.
        directory: where relative paths begin.

    Raises:
        TrackerError: as `absolute_path`.
    """
    found = dict(options)
    for name, absolute in _OPTIONS.get(kind, {}).items():
        value = found.get(name)
        if isinstance(value, str | os.PathLike):
            found[name] = absolute(os.fspath(value), directory)
    return found


def absolute_environ(environ: Mapping[str, str], directory: str) -> dict[str, str]:
    """Return an environment in which what trackers read is absolute.

    Args:
        environ: the environment.
        directory: where relative paths begin.
    """
    found = dict(environ)
    for name, absolute in _VARIABLES.items():
        if name in found:
            with suppress(TrackerError):  # the tracker itself will say so
                found[name] = absolute(found[name], directory)
    return found
