"""The registry's faces and commands: one set of methods, and the directories as the truth."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path

import anyio
import pytest
from typer.testing import CliRunner

from keisei import AsyncRegistry, Registry, RegistryError
from keisei.cli import ls as _ls  # noqa: F401 - registers the commands
from keisei.cli import registry as _registry  # noqa: F401
from keisei.cli import show as _show  # noqa: F401
from keisei.cli.program import app
from tests.conftest import MakeConfig
from tests.support.runs import Runs


@pytest.fixture
def runs(tmp_path: Path, make_config: MakeConfig) -> Runs:
    """A root with three runs that have ended."""
    made = Runs(tmp_path / "runs", make_config)
    for name in ("a", "b", "c"):
        made.completed(name)
    return made


def keisei(*arguments: str, status: int = 0) -> str:
    """Run a command in this process, and return what it printed."""
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == status, done.output
    return done.output if status else done.stdout


@pytest.mark.requirement("REG-5")
def test_both_faces_have_the_same_methods() -> None:
    """What blocks on one face is awaited on the other, with the same arguments."""
    names = {name for name in vars(Registry) if not name.startswith("_")}
    assert names == {name for name in vars(AsyncRegistry) if not name.startswith("_")}
    assert names == {"runs", "run", "tag", "untag", "note", "watch", "rebuild", "close"}
    for name in names:
        plain, awaited = getattr(Registry, name), getattr(AsyncRegistry, name)
        assert inspect.signature(plain).parameters == inspect.signature(awaited).parameters
        assert inspect.iscoroutinefunction(awaited) or name == "watch"


@pytest.mark.requirement("REG-2", "REG-5")
def test_the_directories_make_it_again(runs: Runs, url: str) -> None:
    """A rebuilt registry lists what stands in the directories, and forgets what does not."""
    with Registry(url) as registry:
        assert registry.rebuild([runs.root]).runs == 3
        assert {row.name for row in registry.runs()} == {"a", "b", "c"}
        shutil.rmtree(runs.root / "b")
        (runs.root / "c").rename(runs.root / "d")
        done = registry.rebuild([runs.root])
        assert (done.runs, done.forgotten, done.copies) == (2, 1, {})
        assert {row.name: row.directory for row in registry.runs()} == {
            "a": str(runs.root / "a"),
            "d": str(runs.root / "d"),
        }


def test_a_copied_run_has_one_row(runs: Runs, url: str) -> None:
    """The copy of a run's directory is said, and takes no row from the run."""
    shutil.copytree(runs.root / "a", runs.root / "a-copy")
    with Registry(url) as registry:
        done = registry.rebuild([runs.root])
        assert done.copies == {str(runs.root / "a-copy"): str(runs.root / "a")}
        assert len(registry.runs()) == 3


@pytest.mark.requirement("REG-5")
def test_labels_outlive_the_registry(runs: Runs, url: str, tmp_path: Path) -> None:
    """Tags and notes stand in the run's directory; another registry has them, too."""
    with Registry(url) as registry:
        registry.rebuild([runs.root])
        assert registry.tag("a", "ppo", "best").tags == ("best", "ppo")
        assert registry.untag("a", "ppo").tags == ("best",)
        assert registry.note("a", "the one").note == "the one"
        assert [row.name for row in registry.runs("tag:best note:one")] == ["a"]
        with pytest.raises(ValueError, match="no tag"):
            registry.tag("a", "x,y")
        with pytest.raises(RegistryError, match="no run 'z'"):
            registry.run("z")
        shutil.rmtree(runs.root / "b")
        with pytest.raises(RegistryError, match="cannot be seen from here"):
            registry.note("b", "gone")
    with Registry(f"sqlite:///{tmp_path}/other.db") as other:
        other.rebuild([runs.root])
        assert other.run("a").note == "the one"


@pytest.mark.requirement("REG-5")
async def test_changes_are_watched(runs: Runs, tmp_path: Path) -> None:
    """A watcher gets what is there, and then what changes, on every loop."""
    url, seen = f"sqlite:///{tmp_path}/registry.db", list[tuple[str, tuple[str, ...]]]()
    async with AsyncRegistry(url) as registry:
        await registry.rebuild([runs.root])
        with anyio.fail_after(60):
            async for row in registry.watch("name:a or name:b"):
                seen.append((row.name, row.tags))
                if len(seen) == 2:
                    await registry.tag("c", "ignored")
                    await registry.tag("b", "new")
                if len(seen) == 3:
                    break
        assert sorted(seen[:2]) == [("a", ()), ("b", ())]
        assert seen[2] == ("b", ("new",))


def test_no_registry_is_an_error_that_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL the error names both ways to give one."""
    monkeypatch.delenv("KEISEI_REGISTRY_URL", raising=False)
    for face in (Registry, AsyncRegistry):
        with pytest.raises(RegistryError, match="KEISEI_REGISTRY_URL"):
            face()


def test_the_commands_use_it(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`ls` and `show` print the same from the registry as from the directories."""
    url = f"sqlite:///{tmp_path}/registry.db"
    runs.record("b", status="failed")
    assert "3 runs are in the registry" in keisei(
        "registry", "rebuild", str(runs.root), "--registry", url
    )
    root = ("--root", str(runs.root))
    for arguments in (["ls", "-c", "name,status"], ["ls", "status:failed"], ["show", "b"]):
        assert keisei(*arguments, "--registry", url) == keisei(*arguments, *root)
    monkeypatch.setenv("KEISEI_REGISTRY_URL", url)
    shutil.rmtree(runs.root / "c")
    assert [run["name"] for run in json.loads(keisei("ls", "--json"))["runs"]] == ["c", "b", "a"]
    assert len(json.loads(keisei("ls", "--json", *root))["runs"]) == 2
    about = json.loads(keisei("registry", "status", "--json"))
    assert about["statuses"] == {"completed": 2, "failed": 1}
    assert "character 1" in keisei("ls", "colour:red", status=2)
    monkeypatch.setenv("KEISEI_REGISTRY_URL", "mysql://h/d")
    assert "cannot be in 'mysql'" in keisei("ls", status=2)
