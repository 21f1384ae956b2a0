"""The set-up steps under their documented names; each is defined elsewhere."""

from keisei.run.record import serialize_config
from keisei.run.seeding import setup_seeding
from keisei.trackers.wandb import setup_wandb
from keisei.training.directories import setup_directories

__all__ = ["serialize_config", "setup_directories", "setup_seeding", "setup_wandb"]
