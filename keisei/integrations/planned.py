"""The trainings of the adapters' conformance kit: what each is to do, and how its run has ended."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from keisei import AppConfig, SessionManager
from keisei._io.directories import OpenDirectory
from keisei.checkpoints.listing import found
from keisei.journal.reader import Row, read_run
from keisei.run.find import find_runs

TIMEOUT = 300.0  # seconds, for a subprocess

Fault = Literal["crash", "interrupt", "stop", "preempt"]
Train = Callable[[Any, "Plan"], object]  # with the session, or a config

STEPS, SAVE_EVERY = 12, 4


class PlannedError(Exception):
    """The error by which a training fails, because its plan says so."""


@dataclass(frozen=True)
class Plan:
    """What one training of `check_adapter` is to do.

    Attributes:
        directory: for what the framework writes itself; empty at first, the same when it resumes.
        steps: how many training steps it takes.
        save_every: after how many of them the framework saves.
        fault: what happens in it: it fails by a `crash`, ends by an `interrupt`, the framework
            ends it early (`stop`), or the run is preempted (`preempt`).
        fault_at: at which step, from 0.
        resumes: whether it goes on from the run's last checkpoint.
        extra: what the framework's own way of logging is given besides, once.
        ranks: how many ranks there are.
        session: the session, for `on_step`.
        seen: the steps that `on_step` was called with.
    """

    directory: Path
    steps: int = STEPS
    save_every: int = SAVE_EVERY
    fault: Fault | None = None
    fault_at: int = STEPS
    resumes: bool = False
    extra: Mapping[str, object] = field(default_factory=dict)
    ranks: int = 1
    session: SessionManager[AppConfig] | None = None
    seen: list[int] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker of the framework's needs: no session."""
        return {**vars(self), "session": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def value(self, step: int) -> float:
        """Return the value that the metric has at a step, from 0."""
        return 1.0 / (1 + step)

    def stops_at(self, step: int) -> bool:
        """Return whether the framework is to end the training after this step, from 0."""
        return self.fault == "stop" and step >= self.fault_at

    def on_step(self, step: int) -> None:
        """Do what the plan has for a step; call it in each, before the framework counts it.

        Args:
            step: the step, from 0.

        Raises:
            PlannedError: the training crashes here.
            KeyboardInterrupt: it is interrupted here.
        """
        self.seen.append(step)
        if step != self.fault_at:
            return
        if self.fault == "crash":
            raise PlannedError("as planned")
        if self.fault == "interrupt":
            raise KeyboardInterrupt
        if self.fault == "preempt" and self.session is not None:
            self.session.preempt(source="the plan")


class Adapter(NamedTuple):
    """What is checked.

    Attributes:
        train: runs a training with the framework and the adapter.
        module: the adapter's module.
        framework: the framework's package.
        extra: keisei's extra that brings it.
        metric: what the run calls the metric that the training logs.
        starts_ranks: whether the framework starts its ranks itself.
        starts_runs: whether the adapter enters the session itself.
        whole: returns how a training without a fault has ended, the same one each time, and the
            directory of its runs.
    """

    train: Train
    module: str
    framework: str
    extra: str
    metric: str
    starts_ranks: bool
    starts_runs: bool
    whole: Callable[[], tuple[Ended, Path]]


class Ended(NamedTuple):
    """How a training has ended.

    Attributes:
        error: what it has raised.
        status: how its run stands.
        failure: why it did not complete, as the session file says it.
        saved: the steps of the checkpoints that were saved, or stand on the disk.
        rows: the rows of the run.
        events: its events.
    """

    error: BaseException | None
    status: str
    failure: object
    saved: list[int | None]
    rows: list[Row]
    events: list[Any]


def config_in(home: Path) -> AppConfig:
    """Return the config of a training whose runs are below a directory."""
    os.environ.pop("KEISEI_LOG_DIR", None)
    (home / "files").mkdir(exist_ok=True)
    return AppConfig.model_validate(
        {
            "logging": {"log_dir": str(home / "runs"), "run_name": "checked"},
            "provenance": {"enabled": False},
            "monitoring": {"resources": False},
        }
    )


def trained(adapter: Adapter, home: Path, plan: Plan) -> Ended:
    """Train as planned, in a session, and return how it has ended."""
    error: BaseException | None = None
    config = config_in(home)
    manager = SessionManager(config)
    try:
        if adapter.starts_runs:
            adapter.train(config, plan)
        else:
            with manager as session:
                adapter.train(session, replace(plan, session=manager))
    except (Exception, KeyboardInterrupt, SystemExit) as exc:  # noqa: BLE001 - what is checked
        error = exc
    runs = find_runs(str(home / "runs"))
    if len(runs) != 1:
        raise AssertionError(f"{len(runs)} runs, and one training that has raised {error!r}")
    journal, record = read_run(runs[0].directory), runs[0].record
    with OpenDirectory(str(Path(runs[0].directory, "models"))) as models:
        saved = [stored.checkpoint.step for stored in found(models).checkpoints]
    failure = None if record is None else record.failure
    return Ended(error, runs[0].state, failure, saved, list(journal.rows()), list(journal.events()))


def run_ranks(adapter: Adapter, home: Path) -> None:
    """Run a training without a fault as two ranks, a process each."""
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    ranks = [
        context.Process(target=_one_rank, args=(adapter.train, home, rank, port))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(TIMEOUT)
    alive = [process.pid for process in ranks if process.is_alive()]
    for process in ranks:
        process.kill()
        process.join()
    if alive:
        raise AssertionError(f"ranks have not ended within {TIMEOUT:g} s")
    codes = [process.exitcode for process in ranks]
    if codes != [0, 0]:
        raise AssertionError(f"the ranks have ended with {codes}; their errors are on stderr")


def _one_rank(train: Train, home: Path, rank: int, port: int) -> None:
    environ = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    os.environ.update({name: str(value) for name, value in environ.items()})
    os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    with SessionManager(config_in(home)) as session:
        train(session, Plan(home / "files", ranks=2, session=session))
