"""The set-up steps under their documented names; each is defined elsewhere."""

from keisei.config.text import serialize_config
from keisei.run.claim import setup_directories
from keisei.run.seeding import setup_seeding
from keisei.trackers.wandb.setup import setup_wandb

__all__ = ["serialize_config", "setup_directories", "setup_seeding", "setup_wandb"]
