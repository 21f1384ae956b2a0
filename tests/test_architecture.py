"""The drawing of the house: rows import only downward, and foreign things have one home each."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import keisei

PACKAGE = Path(keisei.__file__).parent
TESTS = Path(__file__).parent

# Rooms, the highest row first. A room is a module or a package below `keisei`; `""` is the front
# door. Rooms of one row do not see each other.
ROWS: list[list[str]] = [
    ["__main__", "pytest_plugin"],
    ["cli", "testing"],
    ["integrations"],
    [""],
    ["training.session_manager"],
    ["session"],
    ["distributed"],
    ["training.utils", "utils.utils"],
    ["reports"],
    ["dashboard"],
    ["analysis"],
    ["store"],
    ["checkpoints", "console", "monitoring", "provenance", "trackers"],
    ["run"],
    ["config", "journal", "media"],
    ["_io"],
    ["_log", "errors"],
    ["_text", "_version", "redaction"],
]
ONE_HOME = {
    "PIL": "media.video",
    "aiofiles": "_io.files",
    "av": "media.video",
    "amdsmi": "monitoring.amd",
    "fsspec": "checkpoints.remote",
    "genai_prices": "monitoring.prices",
    "matplotlib": "reports.pictures",
    "pyarrow": "reports.parquet",
    "mlflow": "trackers.mlflow",
    "psutil": "monitoring",
    "pynvml": "monitoring.nvidia",
    "pytest": "pytest_plugin",
    "tensorboard": "trackers.tensorboard",
    "starlette": "dashboard",
    "trackio": "trackers.trackio",
    "typer": "cli",
    "uvicorn": "dashboard",
    "xxhash": "checkpoints.digests",
    "yaml": "config.parsing",
}
# Files that decide and do nothing else: no loop, no disk, no clock, no thread, no other process.
PURE = [
    "analysis.comparable",
    "analysis.curves",
    "analysis.directions",
    "analysis.following",
    "analysis.lived",
    "analysis.noise",
    "analysis.snapshots",
    "analysis.student",
    "analysis.targets",
    "analysis.verdicts",
    "checkpoints.digests",
    "checkpoints.dtypes",
    "checkpoints.manifest",
    "checkpoints.layout",
    "checkpoints.policy",
    "checkpoints.refusals",
    "checkpoints.shards",
    "checkpoints.tree",
    "config.lines",
    "dashboard.guard",
    "dashboard.pixels",
    "distributed.launch",
    "distributed.launchers",
    "distributed.preemption",
    "distributed.merging",
    "journal.merging",
    "journal.records",
    "journal.superseding",
    "journal.throughput",
    "journal.values",
    "monitoring.cgroups",
    "monitoring.budget",
    "monitoring.goodput",
    "monitoring.ledger",
    "monitoring.money",
    "monitoring.node_time",
    "monitoring.phases",
    "monitoring.readings",
    "monitoring.resources",
    "monitoring.lag_table",
    "monitoring.stalls",
    "monitoring.visible",
    "provenance.comparison",
    "run.failure",
    "run.layout",
    "run.log_lines",
    "run.part_file",
    "run.rebuild",
    "run.session_file",
    "run.status",
    "session.evaluation",
    "store.rows",
    "trackers.base",
    "trackers.mlflow.rows",
    "trackers.wandb.mode",
]
# What they may import of keisei, each other apart: plain values, and texts made of them.
PLAIN = "_text checkpoints.values config.schema config.usage errors redaction run.names".split()
EFFECTS = set(
    "aiofiles anyio atexit datetime fcntl gc glob http importlib multiprocessing os pathlib "
    "platform queue random secrets select shutil signal socket subprocess tempfile threading "
    "time".split()
)
# Folders of tests that are no room's.
NO_ROOMS = ["benchmarks", "packaging", "support"]
# How no docstring begins: it says what a call returns or does, in the field's words.
WEAK_VERBS = ("Give", "Have", "Let", "Say", "Tell")


@cache
def modules() -> dict[str, Path]:
    """Return every module of the package by its name below `keisei`."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
        if parts[-1] == "__init__":
            parts.pop()
        found[".".join(parts)] = path
    return found


@cache
def tree_of(path: Path) -> ast.Module:
    """Return what a file says; each is read once for all tests."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path, *, typing_only: bool = True) -> frozenset[str]:
    """Return every module that a file imports, function-local imports included."""
    tree = tree_of(path)
    skipped: set[int] = set()
    if not typing_only:
        for node in ast.walk(tree):
            if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
                skipped.update(id(inner) for inner in ast.walk(node))
    names: set[str] = set()
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names.update({module} | {f"{module}.{alias.name}" for alias in node.names})
    return frozenset(names)


def room(module: str) -> str:
    """Return the room that a module belongs to: the longest name in the table that begins it."""
    fitting = [r for row in ROWS for r in row if module == r or (r and module.startswith(f"{r}."))]
    assert fitting, f"keisei.{module} has no row: give it one in ROWS first"
    return max(fitting, key=len)


def row_of(name: str) -> int:
    """Return a room's row, 0 being the highest."""
    return next(i for i, row in enumerate(ROWS) if name in row)


def internal_imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, by their names below `keisei`."""
    known = modules()
    found = {name.removeprefix("keisei.") for name in imports(path) if name.startswith("keisei.")}
    return {name for name in found if name in known}


EMPTY = {"training", "utils"}


def test_imports_point_down() -> None:
    """A module imports rooms of lower rows only, and its own room."""
    wrong = []
    for module in sorted(set(modules()) - EMPTY):
        own = room(module)
        for target in internal_imports(modules()[module]) - EMPTY:
            other = room(target)
            if other != own and row_of(other) <= row_of(own):
                wrong.append(f"{module} imports {target}")
    assert wrong == []


def test_there_are_no_circles() -> None:
    """No module reaches itself through what it imports."""
    graph = {name: internal_imports(path) - {name} for name, path in modules().items() if name}

    def reaches(start: str, goal: str, seen: set[str]) -> bool:
        for nearer in graph.get(start, set()) - seen:
            seen.add(nearer)
            if nearer == goal or reaches(nearer, goal, seen):
                return True
        return False

    assert [name for name in graph if reaches(name, name, set())] == []


@pytest.mark.parametrize(("library", "home"), sorted(ONE_HOME.items()))
def test_foreign_libraries_have_one_home(library: str, home: str) -> None:
    """Only one module, or what it is split into, imports a library the rest must not know."""
    homes = {
        name
        for name, path in modules().items()
        if any(i.split(".")[0] == library for i in imports(path, typing_only=False))
    }
    assert homes
    assert all(name == home or name.startswith(f"{home}.") for name in homes)


def test_private_names_of_wandb_have_one_home() -> None:
    """One file knows them; where the SDK is imported at all is one folder."""
    text = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    knowing = {name for name in text if re.search(r"\bwandb\.(sdk|proto|apis)\b", text[name])}
    assert knowing == {"trackers.wandb.private"}
    loading = {name for name in text if 'import_module("wandb")' in text[name]}
    assert loading
    assert all(name.startswith("trackers.wandb.") for name in loading)
    found = {i for path in modules().values() for i in imports(path, typing_only=False)}
    assert not {name for name in found if name.split(".")[0] == "wandb"}


@pytest.mark.parametrize("module", PURE)
def test_decisions_are_pure(module: str) -> None:
    """A file that decides does it without a loop, a disk, a clock, a thread or another process."""
    path = modules()[module]
    foreign = {name for name in imports(path) if not name.startswith(("keisei.", "os.path"))}
    assert not {name.split(".")[0] for name in foreign} & EFFECTS
    source = path.read_text(encoding="utf-8")
    assert "open(" not in source
    assert "await " not in source
    assert internal_imports(path) <= {*PURE, *PLAIN}


def test_the_documented_import_paths_define_nothing() -> None:
    """Modules that exist for a documented import path only pass names on."""
    for module in ("training.session_manager", "training.utils", "utils.utils"):
        tree = tree_of(modules()[module])
        kinds = {type(node) for node in tree.body[1:]}  # after the docstring
        assert kinds <= {ast.ImportFrom, ast.Assign}, module
    for package in EMPTY:
        assert (PACKAGE / package / "__init__.py").read_text(encoding="utf-8") == ""


def test_files_stay_small() -> None:
    """A file near 400 lines is asking to be two."""
    for name, path in modules().items():
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 400, name


def test_tests_mirror_the_rooms() -> None:
    """Every folder of tests has the name of a package, or is one of the helpers'."""
    folders = {path.parent.relative_to(TESTS) for path in TESTS.rglob("*.py")} - {Path()}
    for folder in folders:
        mirrored = (PACKAGE / folder).is_dir() or (PACKAGE / f"_{folder}").is_dir()
        assert mirrored or folder.parts[0] in NO_ROOMS, folder


def test_no_test_module_imports_another() -> None:
    """What tests share is in `tests/support/`, or in a `conftest.py`."""
    for path in TESTS.rglob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "tests" and (TESTS.parent / f"{'/'.join(parts)}.py").exists():
                assert not parts[-1].startswith("test_"), f"{path} imports {name}"


def test_docstrings_open_with_what_a_call_does() -> None:
    """No docstring opens with a verb that leaves open what happens: `Return`, and not `Give`."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    weak = [
        f"{module}: {getattr(node, 'name', 'the module')}"
        for module, path in sorted(modules().items())
        for node in ast.walk(tree_of(path))
        if isinstance(node, kinds)
        and (ast.get_docstring(node, clean=False) or "").partition(" ")[0] in WEAK_VERBS
    ]
    assert weak == []
