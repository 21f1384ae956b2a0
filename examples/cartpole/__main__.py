"""Train CartPole-v1 on one event loop, in a keisei session: `python -m examples.cartpole`."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio

from keisei import AsyncSessionManager, KeiseiError, load_config

from . import display
from .config import CartPoleConfig
from .heartbeat import Heartbeat
from .metrics import logger
from .train import train
from .training import Training


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m examples.cartpole", description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=Path(__file__).with_name("config.yaml"), help="a YAML file"
    )
    parser.add_argument("--run-name", help="unset, a name is generated")
    parser.add_argument("--backend", choices=["asyncio", "uvloop", "trio"], default="asyncio")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="such as training.total_timesteps=100000"
    )
    return parser.parse_args()


async def run(session: AsyncSessionManager[CartPoleConfig]) -> None:
    """Train in the session, and report where everything is, however it ended."""
    heartbeat = Heartbeat()
    training = Training(session.config)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(heartbeat.run)
            async with session:
                logger.setLevel(logging.INFO)
                logger.addHandler(session.log_handler())
                await session.log_session_info(
                    display.line, agent_info={"type": "PPO in numpy", "name": "cartpole"}
                )
                await train(session, heartbeat, training)
            tasks.cancel_scope.cancel()
    finally:
        report_end(session, training)
        display.line(str(heartbeat))


def report_end(session: AsyncSessionManager[CartPoleConfig], training: Training) -> None:
    """Print how it ended, where it is and what to do next; then the details."""
    summary = session.get_session_summary()
    learned = display.learning_line(training.returns)
    if summary["status"] == "completed":
        outcome = "solved" if training.solved else "not solved yet"
        learned = f"CartPole is {outcome}, {learned}"
    display.line(f"\n{summary['status']} after {summary['duration_s']:.1f} s: {learned}")
    if summary["run_artifact_dir"] is None:
        return
    run = Path(summary["run_artifact_dir"])
    display.line(f"everything is in {near(run)}")
    display.line(f"look at it: {near(Path(sys.executable).parent / 'keisei')} plot {near(run)}\n")
    files = {
        "final model": Path(summary["model_dir"], "final_model"),
        "training log": Path(summary["log_file_path"]),
        "evaluation log": Path(summary["eval_log_file_path"]),
        "effective config": run / "effective_config.json",
    }
    there = {what: os.path.relpath(path, run) for what, path in files.items() if path.exists()}
    trackers = {name: describe(about, run) for name, about in summary["trackers"].items()}
    display.table("in that directory", {**there, **trackers})


def describe(tracker: Mapping[str, Any], run: Path) -> str:
    """Return where a tracker has the run, and how it stands, in words."""
    where = tracker["url"] or os.path.relpath(tracker["directory"] or run, run)
    behind = f", {tracker['behind']:,} rows behind" if tracker["behind"] else ""
    return f"{where} ({tracker['state']}{behind})"


def near(path: Path) -> str:
    """Return a path as one would type it here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def main() -> int:
    """Run the example and return its exit status."""
    args = parse_arguments()
    try:
        config = load_config(args.config, args.overrides, model=CartPoleConfig)
        session = AsyncSessionManager(config, args=args)
    except KeiseiError as error:  # A wrong config, or a name that is no safe one.
        print(error, file=sys.stderr)
        return 2
    use_uvloop = args.backend == "uvloop"
    status = 0
    try:
        anyio.run(
            run,
            session,
            backend="trio" if args.backend == "trio" else "asyncio",
            backend_options={"use_uvloop": True} if use_uvloop else None,
        )
    except* KeyboardInterrupt:  # trio raises it in a group, from whichever task it struck.
        status = 130
    return status


if __name__ == "__main__":
    sys.exit(main())
