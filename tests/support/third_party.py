"""A package of a third party's with a tracker, as pip would install it."""

from __future__ import annotations

from pathlib import Path

# Options and files beside the program decide what its trackers do.
TRACKERS = """
import logging
import os
import sys
import time
from pathlib import Path

from tests.support.line_tracker import LineTracker


class Lines(LineTracker):
    start_timeout = 3.0

    def __init__(self, refuses=False, away=False, hangs_in="", says="", does="", slow=0.0):
        self.refuses, self.away, self.hangs_in, self.says = refuses, away, hangs_in, says
        self.does, self.slow = does, slow

    def start(self, run):
        if self.away and not Path("well").exists():
            raise ConnectionError("nobody answers")
        if self.says:
            logging.getLogger("keisei").warning(self.says)
        print("this is no answer")
        print("nor is this", file=sys.stderr)
        Path(run.directory, "pid.new").write_text(str(os.getpid()))
        os.replace(Path(run.directory, "pid.new"), Path(run.directory, "pid"))
        if self.hangs_in == "start":
            time.sleep(60)
        if self.does == "chdir":
            os.chdir("/")
        if self.does == "exit":
            os._exit(3)
        if self.does == "flood":
            for number in range(5_000):
                logging.getLogger("keisei").warning("flood %d", number)
        started = super().start(run)
        if self.refuses and not Path("well").exists():
            started.send = self.refuse
        if self.hangs_in == "send":
            started.send = lambda records: time.sleep(60)
        if self.hangs_in == "finish":
            started.finish = lambda status: time.sleep(60)
        if self.slow:
            send = started.send
            started.send = lambda records: (time.sleep(self.slow), send(records))
        return started

    def refuse(self, records):
        raise ConnectionError("the server is away")
"""


def install(directory: Path) -> str:
    """Install the package.

    Args:
        directory: where; it is made.

    Returns:
        The path to import it from.
    """
    about = directory / "lines-1.0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Name: lines\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[keisei.trackers]\nlines = third_party_lines:Lines\n")
    (directory / "third_party_lines.py").write_text(TRACKERS)
    return str(directory)
