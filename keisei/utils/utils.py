"""Helpers under their documented names; each is defined elsewhere."""

from keisei.config.loading import load_config
from keisei.run.names import generate_run_name

__all__ = ["generate_run_name", "load_config"]
