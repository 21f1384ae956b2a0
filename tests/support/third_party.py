"""A package of a third party's with a tracker, as pip would install it."""

from __future__ import annotations

from pathlib import Path

# Options and files beside the program decide what its trackers do.
TRACKERS = """
import logging
import os
import signal
import time
from pathlib import Path

from tests.support.line_tracker import LineTracker


class Lines(LineTracker):
    def __init__(self, refuses=False, away=False, hangs_in="", says=""):
        self.refuses, self.away, self.hangs_in, self.says = refuses, away, hangs_in, says

    def start(self, run):
        if self.away and not Path("well").exists():
            raise ConnectionError("nobody answers")
        if self.says:
            logging.getLogger("keisei").warning(self.says)
        Path(run.directory, "pid.new").write_text(str(os.getpid()))
        os.replace(Path(run.directory, "pid.new"), Path(run.directory, "pid"))
        if self.hangs_in == "start":
            time.sleep(60)
        started = super().start(run)
        if self.refuses and not Path("well").exists():
            started.send = self.refuse
        if self.hangs_in == "send":
            started.send = lambda records: time.sleep(60)
        return started

    def refuse(self, records):
        raise ConnectionError("the server is away")


class Apart(Lines):
    name = "apart"
    apart = True

    def start(self, run):
        print("this is no answer")
        return super().start(run)
"""


def install(place: Path) -> str:
    """Install the package.

    Args:
        place: where; it is made.

    Returns:
        The path to import it from.
    """
    about = place / "lines-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: lines\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[keisei.trackers]\nlines = third_party_lines:Lines\napart = third_party_lines:Apart\n"
    )
    (place / "third_party_lines.py").write_text(TRACKERS)
    return str(place)
