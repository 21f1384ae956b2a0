"""The TensorBoard tracker: runs as event files."""

from keisei.trackers.tensorboard.tracker import TensorBoardTracker

__all__ = ["TensorBoardTracker"]
