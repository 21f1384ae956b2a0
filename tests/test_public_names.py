"""The public shape: what is importable, from where, at what cost, and that the faces agree."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import os
import pickle
from pathlib import Path
from typing import get_type_hints

import pytest

import keisei
from keisei import (
    AppConfig,
    AsyncSessionManager,
    AsyncSessionMember,
    OpenConfig,
    SessionManager,
    SessionMember,
    errors,
)

ASYNC_STEPS = [
    "setup_directories",
    "setup_wandb",
    "save_effective_config",
    "setup_seeding",
    "log_session_info",
    "log_session_start",
    "finalize_session",
]
PROPERTIES = [
    "config",
    "app_config",
    "args",
    "run_name",
    "session_id",
    "status",
    "run_artifact_dir",
    "model_dir",
    "log_file_path",
    "eval_log_file_path",
    "is_wandb_active",
    "wandb_run",
    "state",
]

# What users may import, the errors apart: a new name is a promise.
PUBLIC = [
    "AsyncRegistry",
    "MetricSummary",
    "Preempting",
    "Registry",
    "RunRow",
    "AppConfig",
    "MediaConfig",
    "BudgetConfig",
    "CostConfig",
    "MonitoringConfig",
    "AsyncSessionManager",
    "AsyncSessionMember",
    "Checkpoint",
    "CheckpointsConfig",
    "DistributedConfig",
    "EnvConfig",
    "FinalStatus",
    "JournalConfig",
    "KeepBest",
    "LoggingConfig",
    "OnChange",
    "OpenConfig",
    "ProvenanceConfig",
    "Restored",
    "RunHandle",
    "Section",
    "SessionManager",
    "SessionMember",
    "SessionState",
    "SignalsConfig",
    "Status",
    "TrackingConfig",
    "TrainingConfig",
    "WandbConfig",
    "generate_run_name",
    "load_config",
]
ERRORS = [kind for kind in vars(errors).values() if isinstance(kind, type)]
MODULES = {
    "keisei.journal.reader": [
        *("AttemptReader", "Damage", "Event", "Media", "Position", "Row", "RunJournal", "Value"),
        *("read_run", "repair"),
    ],
    "keisei.testing": [
        *("Clock", "Faults", "HungTracker", "MemoryRun", "MemoryTracker", "Plan", "PlannedError"),
        *("Sessions", "WandbServer", "check_adapter", "check_config_source", "check_launcher"),
        *("check_sampler", "check_tracker", "installed"),
    ],
    "keisei.trackers.base": [
        *("Event", "Media", "Position", "Record", "Row", "RunInfo", "Tracker", "TrackerRun"),
    ],
    "keisei.training.session_manager": ["AsyncSessionManager", "SessionManager", "utils"],
    "keisei.training.utils": [
        *("serialize_config", "setup_directories", "setup_seeding", "setup_wandb"),
    ],
    "keisei.utils.utils": ["generate_run_name", "load_config"],
}


def public(face: type) -> dict[str, object]:
    """Give a face's public members, the context managers' own aside."""
    return {name: getattr(face, name) for name in dir(face) if not name.startswith("_")}


@pytest.mark.requirement("FACE-1")
def test_both_faces_are_importable_from_both_places() -> None:
    """The front door and the documented module give the same two classes."""
    module = importlib.import_module("keisei.training.session_manager")
    assert module.AsyncSessionManager is AsyncSessionManager
    assert module.SessionManager is SessionManager
    parameters = ["config", "args", "run_name"]
    for face in (AsyncSessionManager, SessionManager):
        signature = inspect.signature(face)
        assert list(signature.parameters) == parameters
        assert signature.parameters["args"].default is None
        assert signature.parameters["run_name"].default is None


@pytest.mark.requirement("FACE-1", "FACE-2", "RANK-5")
@pytest.mark.parametrize(
    ("async_face", "blocking_face"),
    [(AsyncSessionManager, SessionManager), (AsyncSessionMember, SessionMember)],
)
def test_the_faces_have_the_same_members_arguments_and_results(
    async_face: type, blocking_face: type
) -> None:
    """The blocking face has every public member of the async one, and no other."""
    asynchronous, blocking = public(async_face), public(blocking_face)
    assert asynchronous.keys() == blocking.keys()
    for name, member in asynchronous.items():
        twin = blocking[name]
        assert type(member) is type(twin), name
        assert inspect.getdoc(twin), name
        if inspect.isfunction(member) and inspect.isfunction(twin):
            assert inspect.signature(member) == inspect.signature(twin), name
            assert not inspect.iscoroutinefunction(twin), name
            assert get_type_hints(member) == get_type_hints(twin), name


@pytest.mark.requirement("RANK-5")
def test_a_member_has_what_a_member_may_call_and_nothing_of_an_owners() -> None:
    """What a member logs is called as on a session; it ends, saves and sets up no run."""
    may_call = ["as_current", "flush", "log_evaluation", "log_event", "log_handler", "log_metrics"]
    may_call += ["log_audio", "log_figure", "log_file", "log_histogram", "log_image", "log_table"]
    may_call += ["log_cost", "log_text", "log_tokens", "log_video", "phase"]
    about = ["attempt", "run_artifact_dir", "run_name", "session_id", "status"]
    own = ["handle", "role"]
    assert sorted(public(AsyncSessionMember)) == sorted([*may_call, *about, *own])
    for name in may_call:
        member, session = public(AsyncSessionMember)[name], public(AsyncSessionManager)[name]
        assert inspect.signature(member) == inspect.signature(session), name  # type: ignore[arg-type]
    for face in (AsyncSessionMember, SessionMember):
        assert list(inspect.signature(face).parameters) == ["handle", "role"]


@pytest.mark.requirement("FACE-2")
def test_the_documented_members_are_of_their_kind() -> None:
    """The steps are awaitable on the async face; what only reads is plain on both."""
    for name in ASYNC_STEPS:
        assert inspect.iscoroutinefunction(getattr(AsyncSessionManager, name)), name
    for face in (AsyncSessionManager, SessionManager):
        for name in PROPERTIES:
            assert isinstance(inspect.getattr_static(face, name), property), name
        assert not inspect.iscoroutinefunction(face.get_session_summary)


def test_what_users_may_import() -> None:
    """What the front door exports is this list, with all errors; nothing is imported later."""
    assert sorted(keisei.__all__) == sorted([*PUBLIC, *(kind.__name__ for kind in ERRORS)])
    assert keisei.__all__ == sorted(keisei.__all__)
    assert set(keisei.__all__) <= vars(keisei).keys()
    assert "__getattr__" not in vars(keisei)
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = keisei.no_such_name  # type: ignore[attr-defined]


def test_a_star_import_brings_the_public_names() -> None:
    """`from keisei import *` defines the public names and nothing else."""
    names: dict[str, object] = {}
    exec("from keisei import *", names)
    assert names.keys() - {"__builtins__"} == set(keisei.__all__)


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_documented_modules_hold(module: str) -> None:
    """The modules that users may import beside the front door hold exactly these names."""
    assert sorted(importlib.import_module(module).__all__) == MODULES[module]


def test_a_type_checker_sees_exactly_the_public_names(tmp_path: Path) -> None:
    """For mypy a public name is there, and a misspelled or an internal one is an error."""
    api = pytest.importorskip("mypy.api")
    wrong = ["no_such_name", "AsyncSessionManger", "FinalStatuses"]
    program = tmp_path / "program.py"
    lines = [f"keisei.{name}" for name in [*keisei.__all__, *wrong]]
    program.write_text("\n".join(["import keisei", *lines, ""]), encoding="utf-8")
    front_door = os.path.join(os.path.dirname(keisei.__file__), "__init__.py")
    # What the front door imports is skipped: its names are there, whatever they are.
    options = ["--strict", "--follow-imports=skip", "--config-file=", "--no-incremental"]
    options += ["--cache-dir", os.devnull, "--explicit-package-bases", "--hide-error-context"]
    said = api.run([*options, front_door, str(program)])[0]
    problems = [line for line in said.splitlines() if ": error: " in line]
    assert len(problems) == len(wrong), said
    for name, problem in zip(wrong, problems, strict=True):
        assert "[attr-defined]" in problem
        assert f'"{name}"' in problem


def test_every_error_is_of_the_tree_a_builtin_and_pickles() -> None:
    """Each error is a KeiseiError, a builtin's kind, survives pickling, and is in the drawing."""
    assert len(ERRORS) >= 10
    for kind in ERRORS:
        assert issubclass(kind, errors.KeiseiError)
        assert kind.__name__ in str(errors.__doc__)
        if kind is not errors.KeiseiError:
            assert issubclass(kind, (ValueError, RuntimeError, ImportError))
            assert getattr(keisei, kind.__name__) is kind
        again = pickle.loads(pickle.dumps(kind("what is wrong")))
        assert type(again) is kind
        assert str(again) == "what is wrong"
    taken = errors.SessionInUseError("taken", path="/p", host="h", pid=7)
    again = pickle.loads(pickle.dumps(taken))
    assert (again.path, again.host, again.pid) == ("/p", "h", 7)


@pytest.mark.requirement("FACE-6")
def test_a_derived_config_is_typed() -> None:
    """A manager is generic over its config: a type checker knows the user's own sections."""

    class MyConfig(AppConfig):
        """A config with a section of the user's own."""

        my_section: dict[str, int] = {"width": 3}

    session = AsyncSessionManager(MyConfig())
    config: MyConfig = session.config  # checked by mypy
    assert config.my_section["width"] == 3
    blocking: SessionManager[MyConfig] = SessionManager(MyConfig())
    assert blocking.config.my_section == {"width": 3}
    assert session.app_config is config


@pytest.mark.requirement("CFG-6")
def test_a_config_of_another_kind_is_typed_too() -> None:
    """A type checker knows the user's own dataclass as that, and what keisei makes of it."""

    @dataclasses.dataclass
    class Mine:
        width: int = 3

    session = AsyncSessionManager(Mine())
    config: Mine = session.config  # checked by mypy
    assert config.width == 3
    made: AppConfig = session.app_config
    assert isinstance(made, OpenConfig)
    assert made.model_extra == {"width": 3}


def test_the_package_is_typed() -> None:
    """`py.typed` is shipped, so that a type checker believes the annotations."""
    assert os.path.exists(os.path.join(os.path.dirname(keisei.__file__), "py.typed"))
