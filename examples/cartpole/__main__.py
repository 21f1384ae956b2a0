"""Train CartPole-v1 on one event loop, in a keisei session: `python -m examples.cartpole`."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path
from typing import Any

import anyio

from keisei import AsyncSessionManager, KeiseiError, load_config

from . import display
from .config import CartPoleConfig
from .heartbeat import Heartbeat
from .metrics import logger
from .train import train


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
    returns: list[float] = []
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(heartbeat.run)
            async with session:
                logger.setLevel(logging.INFO)
                logger.addHandler(session.log_handler())
                await session.log_session_info(
                    display.line, agent_info={"type": "PPO in numpy", "name": "cartpole"}
                )
                await train(session, heartbeat, returns)
            tasks.cancel_scope.cancel()
    finally:
        report_end(session.get_session_summary(), returns, heartbeat)


def report_end(summary: dict[str, Any], returns: list[float], heartbeat: Heartbeat) -> None:
    """Print the session's summary, where its files are, what was learned, and the heartbeat."""
    display.table("session", summary)
    if summary["run_artifact_dir"] is not None:
        run_dir, models = Path(summary["run_artifact_dir"]), Path(summary["model_dir"])
        places = {
            "run directory": run_dir,
            "final model": models / "final_model.npz",
            "training log": Path(summary["log_file_path"]),
            "evaluation log": Path(summary["eval_log_file_path"]),
            "effective config": run_dir / "effective_config.json",
            "TensorBoard": run_dir / "tensorboard",
            "W&B offline run": max(run_dir.glob("wandb/offline-run-*"), default=None),
        }
        display.table(
            "files",
            {name: str(path) for name, path in places.items() if path and path.exists()},
        )
    display.line(display.learning_line(returns))
    display.line(str(heartbeat))
    display.line(f"{summary['status']}: {summary['run_artifact_dir'] or summary['run_name']}")


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
