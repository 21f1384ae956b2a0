"""A program's first sessions, and the modules that were imported while its event loop ran.

Run as `python -m tests.support.first_session FACE FIRST DIRECTORY`: everything that a session can
do is done for the first time, in a session of which FIRST says whether it is taken by its `block`
or by its `steps`; with `named`, TensorBoard tracks it, too. What was imported meanwhile is printed,
by where: `on_a_loop`, or `elsewhere` (a thread without a loop, or the blocking program itself).
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from typing import Any

import sniffio

import keisei
from keisei.testing import MemoryTracker

TRACKER = MemoryTracker()


class Watch:
    """The first of the finders: it notes what is imported, and whether a loop runs there."""

    def __init__(self) -> None:
        self.on_a_loop: list[str] = []
        self.elsewhere: list[str] = []

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Note an import, and leave it to the finders behind this one."""
        try:
            sniffio.current_async_library()
        except sniffio.AsyncLibraryNotFoundError:
            self.elsewhere.append(name)
        else:
            self.on_a_loop.append(name)


def ignore(line: str) -> None:
    """Take a line that introduces the session."""


async def by_its_block(config: keisei.AppConfig) -> None:
    """Take a session by its block, with signals."""
    config.signals.handle = True
    async with keisei.AsyncSessionManager(config, run_name="block") as session:
        session.log_metrics({"loss": 0.5}, step=1)


async def step_by_step(config: keisei.AppConfig) -> None:
    """Take a session step by step, with all that it can log."""
    session = keisei.AsyncSessionManager(config, run_name="steps")
    session.handle_signals()
    await session.setup_directories()
    await session.setup_wandb()
    await session.setup_trackers()
    await session.setup_remote_logging(TRACKER)
    await session.save_effective_config()
    await session.setup_seeding()
    await session.log_session_info(ignore)
    await session.log_session_start()
    log_everything(session)
    await session.flush()
    assert session.get_session_summary()["seed"] == 3
    assert await session.finalize_session() == "completed"


def log_everything(session: Any) -> None:
    """Log what a session of either face can log."""
    session.log_metrics({"loss": 0.5, "deep": {"er": 1}}, step=1)
    session.log_event("milestone", {"what": [1, 2, None]})
    session.log_evaluation({"score": 0.5, "name": "first"}, step=1)
    logging.getLogger("program").addHandler(session.log_handler())
    with session.as_current():
        logging.getLogger("program").warning("a line")


def blocking(config: keisei.AppConfig) -> None:
    """Take both sessions on the blocking face."""
    session = keisei.SessionManager(config, run_name="steps")
    session.handle_signals()
    session.setup_directories()
    session.setup_wandb()
    session.setup_trackers()
    session.setup_remote_logging(TRACKER)
    session.save_effective_config()
    session.setup_seeding()
    session.log_session_info(ignore)
    session.log_session_start()
    log_everything(session)
    session.flush()
    assert session.get_session_summary()["seed"] == 3
    assert session.finalize_session() == "completed"
    config.signals.handle = True
    with keisei.SessionManager(config, run_name="block") as session:
        session.log_metrics({"loss": 0.5}, step=1)


def configured(directory: str, first: str) -> keisei.AppConfig:
    """Return a config; this, too, is done on the loop."""
    logs = {"log_dir": directory, "log_level": "error"}
    trackers = ["tensorboard"] if first == "named" else []
    overrides = {"logging": logs, "env.seed": 3, "tracking.trackers": trackers}
    return keisei.load_config(overrides=overrides)


def main(face: str, first: str, directory: str) -> None:
    """Watch the sessions on one face, and print what was imported meanwhile."""
    library = importlib.import_module(face) if face != "blocking" else None

    async def on_a_loop() -> None:
        both = [by_its_block, step_by_step]
        for session in reversed(both) if first == "steps" else both:
            await session(configured(directory, first))

    watch = Watch()
    before = set(sys.modules)
    sys.meta_path.insert(0, watch)
    if library is None:
        blocking(configured(directory, first))
    elif face == "trio":
        library.run(on_a_loop)
    else:
        library.run(on_a_loop())
    new = sorted(set(sys.modules) - before)
    print(json.dumps({"on_a_loop": watch.on_a_loop, "elsewhere": watch.elsewhere, "new": new}))


if __name__ == "__main__":
    main(*sys.argv[1:])
