"""Refuse what is no config, with the way to make one of it."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import BaseModel

from keisei.config.schema import AppConfig
from keisei.errors import ConfigError


def check_config(config: object) -> None:
    """Check that a session is given an `AppConfig`.

    Raises:
        ConfigError: it is something else; the message says how to make one of it.
    """
    if not isinstance(config, AppConfig):
        raise ConfigError(
            f"a session's config is an AppConfig, not a {kind(config)}: {way_out(config)}"
        )


def kind(value: object) -> str:
    """Return what kind of value this is, for a message."""
    return f"class {value.__name__}" if isinstance(value, type) else type(value).__name__


def way_out(value: object) -> str:
    """Return how a config is made of something else."""
    if value is None:
        return "AppConfig() has the defaults"
    if isinstance(value, type):
        return "call it, to make one"
    if isinstance(value, (str, os.PathLike)):
        return "load_config(path) reads a file"
    if isinstance(value, BaseModel):
        return "derive its class from keisei.AppConfig, and its sections from keisei.Section"
    plain = "config"
    if type(value).__module__.startswith("omegaconf"):
        plain = "OmegaConf.to_container(config, resolve=True)"
    elif hasattr(value, "__dataclass_fields__"):
        plain = "dataclasses.asdict(config)"
    elif not isinstance(value, Mapping) and hasattr(value, "__dict__"):
        plain = "vars(config)"
    return (
        f"load_config(overrides={plain}, model=MyConfig) makes one of it, where MyConfig derives "
        "from AppConfig and has your own sections"
    )
