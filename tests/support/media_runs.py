"""A session that logs one of each kind of media, for what trackers make of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from keisei import SessionManager

PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
KINDS = ["image", "figure", "video", "audio", "histogram", "table", "text", "file"]


def log_one_of_each(session: SessionManager[Any], step: int = 3) -> None:
    """Log one of each kind, among rows, and wait until they are kept."""
    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([1, 2])
    session.log_metrics({"loss": 1.0}, step)
    session.log_image("samples/cat", PIXELS, step, caption="a cat")
    session.log_figure("curve", figure, step)
    session.log_video("episode", np.zeros((3, 16, 16, 3), np.uint8), step, fps=10, format="gif")
    session.log_audio("sound", np.zeros(100), step, rate=8000)
    session.log_histogram("weights", np.arange(10.0), step, bins=4)
    session.log_table("completions", [["a|b", 0.5, PIXELS]], step, columns=["text", "r", "p"])
    session.log_text("story", "Once <b>upon</b> a time", step)
    session.log_file("notes", b"# notes", step)
    session.flush()
    session.log_metrics({"loss": 2.0}, step + 1)
    session.flush()
