"""Which mode W&B is told to run in: by the config, the environment, or the SDK's settings files.

Whatever keeps the SDK itself from sending keeps keisei from it. A value that nobody knows was meant
to change something: then nothing is uploaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from keisei.config.schema import WandbConfig, WandbMode
from keisei.errors import quoted

NAME = "wandb"

_MODES: dict[str, WandbMode] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    **dict.fromkeys(["disabled", "off", "none", "false", "no", "0"], "disabled"),
}
_OF_DISABLED: dict[str, WandbMode | None] = {
    **dict.fromkeys(["true", "yes", "on", "1", "t", "y"], "disabled"),
    **dict.fromkeys(["", "false", "no", "off", "0", "f", "n"], None),
}


def requested_mode(config: WandbConfig, environ: Mapping[str, str]) -> WandbMode | None:
    """Return the mode that the config or the environment asks for; ``None`` where neither does.

    Args:
        config: how W&B tracks the run; it comes first, as an argument of the SDK's `init` does.
        environ: the environment, with ``WANDB_DISABLED`` before ``WANDB_MODE``.
    """
    if config.mode is not None:
        return config.mode
    if disabled := _OF_DISABLED.get(_plain(environ, "WANDB_DISABLED"), "offline"):
        return disabled
    mode = _plain(environ, "WANDB_MODE")
    return _MODES.get(mode, "offline") if mode else None


def mode_in(settings: str) -> WandbMode | None:
    """Return the mode that a settings file of the SDK's has; ``None`` where it has none.

    Args:
        settings: the file's text.
    """
    section = mode = ""
    for line in settings.splitlines():
        if line.startswith("["):
            section = line.strip("[] \t")
        key, _, value = line.replace(":", "=", 1).partition("=")
        if section == "default" and key.strip().lower() == "mode":
            mode = value.strip().lower()
    return _MODES.get(mode, "offline") if mode else None


def unknown_value(config: WandbConfig, environ: Mapping[str, str]) -> str | None:
    """Return which variable has a value that nobody knows, as text for a warning, if one has."""
    if config.mode is None:
        for name, known in (("WANDB_DISABLED", _OF_DISABLED), ("WANDB_MODE", {"": None, **_MODES})):
            if _plain(environ, name) not in known:
                return f"{name}={quoted(environ[name])}"
    return None


def for_sdk(environ: Mapping[str, str]) -> str | None:
    """Return ``WANDB_MODE`` as the SDK takes it, which fails for a value that it does not know."""
    mode = _plain(environ, "WANDB_MODE")
    return _MODES.get(mode, "offline") if mode else None


def _plain(environ: Mapping[str, str], name: str) -> str:
    return environ.get(name, "").strip().lower()
