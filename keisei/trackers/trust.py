"""What `keisei sync` does only because a run's directory says so, and who had said it first.

A run's directory may come from somebody else. So what a tracker is made with is signed in its
cursor, with a secret of this user: what this user has named on this machine is obeyed later. What
is not signed is obeyed only where it cannot lead out of the run, to a package or to a server that
the user has not named.
"""

from __future__ import annotations

import errno
import functools
import hmac
import json
import os
import secrets
from collections.abc import Mapping

from keisei._io import files, locks
from keisei.config.schema import WandbConfig
from keisei.errors import quoted
from keisei.redaction import clean
from keisei.run.find import absolute_path
from keisei.trackers.loading import KIND, kind_of

_FILE = "signing-key"
_LENGTH = 32  # bytes

# The options of each of keisei's trackers that name no server, no path and no package.
_HARMLESS = {
    "mlflow": {"experiment", "tags"},
    "tensorboard": set[str](),
    "trackio": {"project", "group"},
    "wandb": set(WandbConfig.model_fields),
}


def sign(*facts: object) -> str | None:
    """Return the signature of some facts; blocks, and makes the user's secret at first need.

    Args:
        facts: what JSON can hold.

    Returns:
        The signature; ``None`` where the user's config directory cannot be written.
    """
    try:
        return _signature(_secret(_config_directory(), make=True), facts)
    except OSError:
        return None


def is_signed(signature: object, *facts: object) -> bool:
    """Return whether `sign` has returned this signature for the facts; never raises."""
    try:
        expected = _signature(_secret(_config_directory(), make=False), facts)
        return isinstance(signature, str) and hmac.compare_digest(
            signature.encode(), expected.encode()
        )
    except (OSError, ValueError, RecursionError):
        return False


def reach(name: str, options: Mapping[str, object], directory: str) -> str | None:
    """Return what a tracker would do beyond the run that this user may not know of, in words.

    Args:
        name: the tracker's name.
        options: what it would be made with.
        directory: the run's directory.

    Returns:
        What it would do; ``None`` where it stays in the run, or goes where the user's own
        environment or login leads.
    """
    kind = kind_of(name, options)
    if kind not in _HARMLESS:
        return f"load the tracker {quoted(kind)}"
    for option, value in places(name, options).items():
        named = option == "tracking_uri" and value == clean(os.environ.get("MLFLOW_TRACKING_URI"))
        if not (named or _inside(value, directory)):
            return f"use {quoted(value, 300)} as {quoted(option)}"
    return None


def places(name: str, options: Mapping[str, object]) -> dict[str, object]:
    """Return the options of a tracker that may name a server, a path or a package.

    Args:
        name: the tracker's name.
        options: what it would be made with.
    """
    others = {KIND, *_HARMLESS.get(kind_of(name, options), ())}
    return {
        option: value
        for option, value in options.items()
        if option not in others and value is not None
    }


def refusal(beyond: str) -> str:
    """Return why something is not done, and the way out.

    Args:
        beyond: what it would do, as `reach` returns it.
    """
    who = "only the run's directory says so, and it may be somebody else's"
    return f"it would {beyond}: {who}. `keisei sync --trust` does it"


def _inside(value: object, directory: str) -> bool:
    """Return whether an option is a path, or a local database, within the run's directory."""
    if not isinstance(value, str) or set(value) & set("?%#\0"):
        return False
    path = value.removeprefix("sqlite:///")
    if not os.path.isabs(path):
        return False
    above = os.path.realpath(directory)
    return os.path.realpath(path).startswith(os.path.join(above, ""))


def _signature(secret: bytes, facts: tuple[object, ...]) -> str:
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"), default=str)
    return hmac.new(secret, text.encode(), "sha256").hexdigest()


def _config_directory() -> str:
    """Return where keisei keeps what is this user's own."""
    if chosen := os.environ.get("KEISEI_CONFIG_DIR"):
        return absolute_path(chosen)
    variable, usual = (
        ("APPDATA", "~/AppData/Roaming") if os.name == "nt" else ("XDG_CONFIG_HOME", "~/.config")
    )
    return absolute_path(os.path.join(os.environ.get(variable) or usual, "keisei"))


@functools.lru_cache(maxsize=8)
def _secret(directory: str, *, make: bool) -> bytes:
    if make:
        files.make_directory(directory)
    with files.OpenDirectory(directory, follow=True) as opened:
        found = opened.read(_FILE)
        if found is None and make:
            with locks.locked(opened, f"{_FILE}.lock"):
                found = opened.read(_FILE)
                if found is None:
                    found = secrets.token_bytes(_LENGTH)
                    files.write_atomic(opened, _FILE, found)
    if found is None or len(found) != _LENGTH:
        raise OSError(errno.EINVAL, "it holds no key", os.path.join(directory, _FILE))
    return found
