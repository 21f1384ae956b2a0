"""What a resumed run changes is said by field: free, worth a warning, refused."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from keisei import (
    AppConfig,
    AsyncSessionManager,
    ConfigChangedError,
    OnChange,
    Section,
    SessionManager,
    load_config,
)
from keisei.config.changes import changes
from keisei.config.text import serialize_config
from tests.support.dirty_trees import git, repository


class Model(Section):
    """What a checkpoint fits, and what it does not mind."""

    width: Annotated[int, OnChange("refuse")] = 64
    depth: Annotated[int, Field(ge=1), OnChange("refuse")] | None = 2
    dropout: float = 0.1
    workers: Annotated[int, OnChange("free")] = 1


class Data(Section):
    """A section that stays as a whole, but for one field."""

    name: str = "mnist"
    split: dict[str, float] = {"train": 0.9}
    threads: Annotated[int, OnChange("free")] = 1


class TrainConfig(AppConfig):
    """A program's config."""

    model: Model = Model()
    data: Annotated[Data, OnChange("refuse")] = Data()
    api_key: str = "none"


def config(root: Path, **overrides: Any) -> TrainConfig:
    """Return a config with some values set, whose runs live below a directory."""
    given = {"logging.log_dir": str(root), **overrides}
    return load_config(overrides=given, model=TrainConfig)


def start(root: Path, **overrides: Any) -> SessionManager[TrainConfig]:
    """Run the next attempt of a run, and return its session."""
    with SessionManager(config(root, **overrides), run_name="r") as session:
        pass
    return session


def verdicts(before: AppConfig, after: AppConfig) -> dict[str, str]:
    """Return what a resume says of each change, by key."""
    earlier, now = (json.loads(serialize_config(one)) for one in (before, after))
    return {change.key: change.verdict for change in changes(earlier, now, after)}


def test_a_field_says_what_its_change_means(tmp_path: Path) -> None:
    """Its own word counts, else that of what it stands in, else a warning."""
    found = verdicts(
        config(tmp_path),
        config(
            tmp_path,
            **{
                "model": {"width": 128, "depth": None, "dropout": 0.2, "workers": 9},
                "data": {"name": "x", "split": {"test": 0.1}, "threads": 4},
                "env.seed": 3,
                "training": {"total_timesteps": 5, "steps_per_epoch": 7},
                "logging.log_level": "debug",
            },
        ),
    )
    assert found == {
        "model.width": "refuse",
        "model.depth": "refuse",
        "model.dropout": "warn",
        "model.workers": "free",
        "data.name": "refuse",
        "data.split.test": "refuse",
        "data.split.train": "refuse",
        "data.threads": "free",
        "env.seed": "warn",
        "training.total_timesteps": "free",
        "training.steps_per_epoch": "warn",
        "logging.log_level": "free",
    }


def test_what_has_gone_and_what_is_new_are_changes(tmp_path: Path) -> None:
    """A new field with its default is none: the older attempt did not have it."""

    class Older(AppConfig):
        gone: int = 3

    class Newer(AppConfig):
        new: Annotated[int, OnChange("refuse")] = 1

    assert verdicts(Older(), Newer()) == {"gone": "warn"}
    assert verdicts(Older(), Newer(new=2)) == {"gone": "warn", "new": "refuse"}
    taken = config(tmp_path), config(tmp_path)
    del taken[1].data.split["train"]
    assert verdicts(*taken) == {"data.split.train": "refuse"}


@pytest.mark.requirement("PROV-1")
def test_a_refused_change_leaves_the_run_as_it_was(tmp_path: Path) -> None:
    """The error names both values and every way out, and can be sent to another process."""
    start(tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "r").iterdir() if path.is_file()}
    with pytest.raises(ConfigChangedError) as caught:
        start(tmp_path, **{"model.width": 128, "data.name": "imagenet", "model.dropout": 0.3})
    message = str(caught.value)
    for said in ("model.width: 64 at the earlier attempt, 128 now", "mnist", "imagenet"):
        assert said in message
    for way_out in ("Put the earlier value back", "another run name", "'number'", "accept_changes"):
        assert way_out in message
    assert "dropout" not in message
    assert caught.value.changes[0] == ("model.width", "64", "128")
    assert pickle.loads(pickle.dumps(caught.value)).changes == caught.value.changes
    assert isinstance(caught.value, ValueError)
    after = {path: path.read_bytes() for path in (tmp_path / "r").iterdir() if path.is_file()}
    assert after == before
    assert start(tmp_path).get_session_summary()["attempt"] == 2


async def test_the_async_face_refuses_it_too(tmp_path: Path) -> None:
    """In the block, and step by step."""
    async with AsyncSessionManager(config(tmp_path), run_name="r"):
        pass
    changed = config(tmp_path, **{"model.width": 128})
    with pytest.raises(ConfigChangedError):
        async with AsyncSessionManager(changed, run_name="r"):
            pass
    with pytest.raises(ConfigChangedError):
        await AsyncSessionManager(changed, run_name="r").setup_directories()
    async with AsyncSessionManager(config(tmp_path), run_name="r") as session:
        assert session.get_session_summary()["attempt"] == 2


def test_a_change_that_is_meant_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """`provenance.accept_changes` names the key, or what it stands in."""
    start(tmp_path)
    accepted = {"provenance.accept_changes": ["model", "data.name"]}
    changed = {"model": {"width": 128, "dropout": 0.9}, "data.name": "imagenet"}
    start(tmp_path, **accepted, **changed)
    assert "goes on with another config" not in caplog.text
    with pytest.raises(ConfigChangedError):  # from then on it is what stays
        start(tmp_path)


def test_a_change_worth_a_warning_is_one(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line has all of them; a free change is recorded, and not said."""
    start(tmp_path)
    session = start(tmp_path, **{"model": {"dropout": 0.5, "workers": 8}, "env.seed": 1})
    (said,) = [one.getMessage() for one in caplog.records if "another config" in one.getMessage()]
    assert "model.dropout from 0.1 to 0.5" in said
    assert "env.seed from null to 1" in said
    assert "workers" not in said
    record = json.loads(Path(session.run_artifact_dir, "provenance.2.json").read_text())
    found = {one["key"]: one["verdict"] for one in record["config_changes"]}
    assert found == {"env.seed": "warn", "model.dropout": "warn", "model.workers": "free"}


def test_an_unchanged_resume_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither of the config, nor of code, packages and machine."""
    start(tmp_path)
    caplog.set_level(logging.INFO, "keisei")
    start(tmp_path)
    assert "goes on with" not in caplog.text


def test_a_secret_is_in_no_message(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two secrets are the same to whoever reads the record."""
    start(tmp_path, api_key="first-secret-1a2b3c4d")
    start(tmp_path, api_key="other-secret-5e6f7a8b")
    assert "secret" not in caplog.text


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_damaged_earlier_config_refuses_nothing(tmp_path: Path, text: bytes) -> None:
    """There is nothing to compare with."""
    start(tmp_path)
    (tmp_path / "r" / "effective_config.json").write_bytes(text)
    assert start(tmp_path, **{"model.width": 128}).status == "completed"


def test_another_machine_is_no_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An info says it; other packages, or another Python, are worth a warning."""
    caplog.set_level(logging.INFO, "keisei")
    path = Path(start(tmp_path).run_artifact_dir, "provenance.1.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"machine": record["machine"] | {"host": "elsewhere"}}))
    start(tmp_path)
    (said,) = [one for one in caplog.records if "goes on with other host" in one.getMessage()]
    assert (said.getMessage()[-6:], said.levelno) == ("(free)", logging.INFO)
    record["machine"]["python"] = "2.7.18"
    (path.parent / "provenance.2.json").write_text(json.dumps(record))
    start(tmp_path)
    (said,) = [one for one in caplog.records if "goes on with other python" in one.getMessage()]
    assert said.levelno == logging.WARNING


def test_what_is_not_known_is_no_difference(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Code of which git has said nothing is not compared."""
    path = Path(start(tmp_path).run_artifact_dir, "provenance.1.json")
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"code": {"commit": None, "problem": "git hangs"}}))
    start(tmp_path)
    assert "goes on with other" not in caplog.text


def test_other_code_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A resume from another commit, or with other changes to it, says so."""
    caplog.set_level(logging.INFO, "keisei")
    repo = repository(tmp_path / "repo", {"train.py": "x = 1\n"})
    monkeypatch.chdir(repo)
    root = tmp_path / "runs"
    start(root)
    (repo / "train.py").write_text("x = 2\n")
    start(root)
    (said,) = [one for one in caplog.records if "goes on with other" in one.getMessage()]
    assert "other code: other changes to commit" in said.getMessage()
    assert (said.getMessage()[-6:], said.levelno) == ("(warn)", logging.WARNING)
    git(repo, "commit", "-q", "-am", "two")
    session = start(root)
    record = json.loads(Path(session.run_artifact_dir, "provenance.3.json").read_text())
    assert record["differs"][0].startswith("code: commit ")


def test_each_attempts_origins_are_kept(tmp_path: Path) -> None:
    """The newest have the plain name, as the effective config has."""
    start(tmp_path)
    session = start(tmp_path, **{"model.dropout": 0.5})
    directory = Path(session.run_artifact_dir)
    now = json.loads((directory / "config_origins.json").read_text())
    before = json.loads((directory / "config_origins.attempt-1.json").read_text())
    assert (before["attempt"], now["attempt"]) == (1, 2)
    assert now["values"]["model.dropout"] == {
        "value": 0.5,
        "source": "override",
        "name": "2",
        "beat": [{"source": "default", "value": 0.1}],
    }
    assert now["values"]["logging.run_name"]["name"] == "run_name"


def test_it_is_switched_on_by_config_and_by_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is recorded where nobody says anything; the variable goes before the config."""
    monkeypatch.delenv("KEISEI_PROVENANCE")
    written = {"config_origins.json", "provenance.1.json"}

    def files(name: str, **overrides: Any) -> set[str]:
        with SessionManager(config(tmp_path, **overrides), run_name=name) as session:
            pass
        return {path.name for path in Path(session.run_artifact_dir).iterdir()} & written

    assert files("a") == written
    assert files("b", **{"provenance.enabled": False}) == set()
    monkeypatch.setenv("KEISEI_PROVENANCE", "on")
    assert files("c", **{"provenance.enabled": False}) == written
    monkeypatch.setenv("KEISEI_PROVENANCE", "off")
    assert files("d", **{"provenance.enabled": True}) == set()


def test_many_sessions_share_one_look_at_the_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that begin while git is asked wait for the next answer, all for the same one."""
    import anyio

    from keisei.provenance import code, snapshot

    asked = []
    real = code.code_state

    def counted(*args: Any) -> Any:
        asked.append(args)
        return real(*args)

    monkeypatch.setattr(snapshot, "code_state", counted)

    async def one(number: int) -> None:
        async with AsyncSessionManager(config(tmp_path), run_name=f"r{number}"):
            pass

    async def crowd() -> None:
        async with anyio.create_task_group() as tasks:
            for number in range(30):
                tasks.start_soon(one, number)

    anyio.run(crowd)
    assert len(list(tmp_path.glob("r*/provenance.1.json"))) == 30
    assert len(asked) < 25
