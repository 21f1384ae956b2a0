"""A session's steps in any order, again and again, ended by many at once: the table holds."""

from __future__ import annotations

import itertools
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from keisei import AppConfig, NotReadyError, SessionEndedError, SessionManager
from keisei.run.session_file import SessionRecord
from keisei.run.status import FINAL

# Told once more, as the table in `run/state.py` tells it.
NEEDS_DIRECTORIES = {"setup_wandb", "save_effective_config", "log_session_start"}
KEEPS_ITS_RESULT = {"setup_directories", "setup_wandb"}
SETS = {
    "setup_directories": "directories_setup",
    "setup_wandb": "wandb_initialized",
    "save_effective_config": "config_saved",
    "setup_seeding": "seeding_setup",
    "log_session_start": "session_active",
}


class Life(RuleBasedStateMachine):
    """One session, driven in every order; beside it, what the table says of it."""

    root: Path
    number = itertools.count()

    @initialize(first=st.lists(st.sampled_from(sorted(SETS)), max_size=8))
    def begin(self, first: list[str]) -> None:
        self.place = self.root / str(next(self.number))
        config = AppConfig.model_validate({"logging": {"log_dir": self.place}, "env": {"seed": 3}})
        self.session = SessionManager(config, run_name="r")
        self.done: set[str] = set()
        self.end: str | None = None
        for step in first:  # or most lives would end before they have begun
            self.step(step)

    @rule(step=st.sampled_from(sorted(SETS)))
    def step(self, step: str) -> None:
        if self.end is not None and not (step in self.done and step in KEEPS_ITS_RESULT):
            with pytest.raises(SessionEndedError, match=step):
                getattr(self.session, step)()
        elif step in NEEDS_DIRECTORIES and "setup_directories" not in self.done:
            with pytest.raises(NotReadyError, match=step):
                getattr(self.session, step)()
        else:
            result = getattr(self.session, step)()
            self.done.add(step)
            if step == "setup_directories":
                assert result["run_artifact_dir"] == str(Path(self.place, "r"))
            else:
                assert result is (False if step == "setup_wandb" else None)

    @rule(status=st.sampled_from([None, *FINAL]))
    def finish(self, status: Any) -> None:
        result = self.session.finalize_session(status)
        self.end = self.end or status or "completed"
        assert result == self.end

    @rule(statuses=st.lists(st.sampled_from(FINAL), min_size=2, max_size=4))
    def finish_at_once(self, statuses: list[Any]) -> None:
        results: list[str] = []
        gate = threading.Barrier(len(statuses))

        def finish(status: Any) -> None:
            gate.wait()
            results.append(self.session.finalize_session(status))

        threads = [threading.Thread(target=finish, args=(status,)) for status in statuses]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(results) == len(statuses)
        assert set(results) == ({self.end} if self.end else {results[0]})
        assert results[0] in [*statuses, self.end]
        self.end = results[0]

    @precondition(lambda self: self.end is None)
    @rule()
    def finish_while_a_step_is_taken(self) -> None:
        gate = threading.Barrier(2)

        def late() -> None:
            gate.wait()
            with suppress(SessionEndedError, NotReadyError):
                self.session.setup_directories()

        thread = threading.Thread(target=late)
        thread.start()
        gate.wait()
        self.end = self.session.finalize_session("preempted")
        thread.join()
        assert self.end == "preempted"
        if self.session.state["directories_setup"]:
            self.done.add("setup_directories")

    @rule()
    def use(self) -> None:
        lines: list[str] = []
        if "setup_directories" in self.done:
            self.session.log_session_info(lines.append)
            assert len(lines) == 5
        else:
            with pytest.raises(NotReadyError):
                self.session.log_session_info(lines.append)

    @invariant()
    def the_table_holds(self) -> None:
        if not hasattr(self, "session"):
            return
        claimed = "setup_directories" in self.done
        wanted = {state: step in self.done for step, state in SETS.items()}
        wanted["session_active"] = wanted["session_active"] and self.end is None
        assert self.session.state == wanted
        assert self.session.status == (self.end or ("running" if claimed else "created"))
        run = Path(self.place, "r")
        assert run.exists() == claimed
        assert self.session.get_session_summary()["status"] == self.session.status
        if not claimed:
            return
        record = SessionRecord.model_validate_json((run / "session.json").read_bytes())
        assert (record.status, record.attempt) == (self.session.status, 1)
        log = (run / "training.log").read_text(encoding="utf-8").splitlines()
        assert sum("session ended" in line for line in log) == (self.end is not None)
        assert sum("session started" in line for line in log) == ("log_session_start" in self.done)
        assert (run / "effective_config.json").exists() == ("save_effective_config" in self.done)

    def teardown(self) -> None:
        if hasattr(self, "session"):
            end = self.session.finalize_session()
            assert end == (self.end or "completed")


@pytest.mark.requirement("STATE-1", "FIN-3", "DIR-6")
def test_any_order_of_steps_keeps_the_table(tmp_path: Path) -> None:
    """Steps in any order, repeated ends, ends by many at once and before any set-up."""
    Life.root = tmp_path
    few = settings(max_examples=35, stateful_step_count=10, deadline=None)
    run_state_machine_as_test(Life, settings=few)
    lives = len(list(tmp_path.glob("*/r")))
    print(f"lives lived in any order: {lives} that made a run")
    assert lives >= 5
