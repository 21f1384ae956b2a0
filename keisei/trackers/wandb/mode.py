"""Which mode W&B is asked for, by the config and by the environment."""

from __future__ import annotations

from collections.abc import Mapping

from keisei.config.schema import WandbConfig, WandbMode

NAME = "wandb"

_MODES: dict[str, WandbMode] = {
    "online": "online",
    "run": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


def requested_mode(config: WandbConfig, environ: Mapping[str, str]) -> WandbMode | None:
    """Return the mode that the config or ``WANDB_MODE`` asks for; ``None``: the login decides."""
    if config.mode is not None:
        return config.mode
    return _MODES.get(environ.get("WANDB_MODE", "").lower())
