"""Loads one plug-in in a process of its own, and says what is wrong with it."""

from __future__ import annotations

import json
import os
import sys

from keisei._io.plugins import load
from keisei.config.files import SOURCE
from keisei.distributed.named import LAUNCHER
from keisei.errors import describe
from keisei.monitoring.plugged import SAMPLER
from keisei.trackers.loading import TRACKERS

KINDS = (TRACKERS, LAUNCHER, SOURCE, SAMPLER)


def begin() -> None:
    """Load the plug-in that is named on the pipe, and write its problem; never returns."""
    boot = sys.modules["__main__"]
    group, name = json.loads(boot.requests.readline())
    problem = ""
    try:
        load(next(kind for kind in KINDS if kind.group == group), name)
    except BaseException as exc:  # noqa: BLE001 - that is the answer
        problem = str(exc) if getattr(exc, "__cause__", None) else describe(exc)
    boot.news.write(json.dumps(problem).encode())
    boot.news.flush()
    os._exit(0)  # whatever it has started
