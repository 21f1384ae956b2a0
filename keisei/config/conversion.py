"""Make an `AppConfig` of the config of a program, whatever kind it is of."""

from __future__ import annotations

import os

from keisei.config.checking import kind, way_out
from keisei.config.plain import has_fields, in_both_forms
from keisei.config.schema import AppConfig, OpenConfig
from keisei.config.sources import Sources
from keisei.errors import ConfigError


def as_app_config(config: object) -> AppConfig:
    """Return a config as an `AppConfig`: itself where it is one, else one made of its fields.

    Of the sections of keisei's the config goes before the environment, and that before the
    defaults.

    Args:
        config: an `AppConfig`, or anything with fields: a pydantic model, a dataclass, an attrs
            class, a mapping, OmegaConf's `DictConfig`, a namespace.

    Raises:
        ConfigError: it has no fields, is too large, or a section of keisei's in it is not valid.
    """
    if isinstance(config, AppConfig):
        return config
    if not has_fields(config):
        raise ConfigError(f"a session's config is no {kind(config)}: {_way_out(config)}")
    name = kind(config)
    sources = Sources(OpenConfig, f"the config (a {name})")
    try:
        sources.lay_environment()
        sources.lay_object(name, *in_both_forms(config))
        return sources.config()
    except ConfigError:
        raise
    except (ValueError, RecursionError) as exc:
        problem = f"  {exc}"
    # Raised outside the except block: what was caught may hold what it was given.
    raise sources.unfit(problem)


def _way_out(config: object) -> str:
    if config is None or isinstance(config, (type, str, os.PathLike)):
        return way_out(config)
    here = "vars(config) has those of this object; " if hasattr(config, "__dict__") else ""
    return f"{here}a config has named fields, as a model, a dataclass, a mapping or a namespace has"
