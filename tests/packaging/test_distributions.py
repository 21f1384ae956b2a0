"""What is shipped: the distributions, what an environment with nothing else does, and its types.

An environment that pip makes gets the wheel; the checkers look at it from outside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import pytest

from keisei import __version__
from tests.support.docs_blocks import BLOCK, PAGES, ROOT, write_programs

pytest.importorskip("build")
pytestmark = [pytest.mark.packaging, pytest.mark.xdist_group("packaging")]
MEBIBYTE = 2**20
# What the docs' programs import beside keisei, so that the checkers know its types.
IMPORTED = ["hydra-core", "jsonargparse", "pytest", "tyro"]
WRONG = "from keisei import AppConfig, SessionManager\n\nSessionManager(AppConfig(), run_name=3)\n"
# A program may leave its own functions without annotations, and use frameworks that have none.
MYPY = [
    *("--strict", "--allow-untyped-defs", "--allow-untyped-calls", "--allow-incomplete-defs"),
    *("--allow-subclassing-any", "--allow-untyped-decorators", "--config-file="),
    "--disable-error-code=import-not-found",
]
PYRIGHT = {"typeCheckingMode": "standard", "reportMissingImports": "none"}


def run(*command: str | Path, where: Path, status: int = 0) -> str:
    """Return what a command prints; its status is the one that is expected."""
    environ = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environ["NO_COLOR"] = "1"
    done = subprocess.run(
        [*map(str, command)], cwd=where, env=environ, capture_output=True, text=True
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def distributions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built of it."""
    made = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", made, ROOT, where=made)
    (sdist,), (wheel,) = made.glob("*.tar.gz"), made.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="module")
def bare(distributions: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel and what it needs, W&B apart."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    wheel = distributions[1]
    metadata = zipfile.ZipFile(wheel).read(f"keisei-{__version__}.dist-info/METADATA").decode()
    needed = [
        line.partition(": ")[2]
        for line in metadata.splitlines()
        if line.startswith("Requires-Dist: ") and "extra ==" not in line
    ]
    assert any(one.startswith("wandb") for one in needed)
    pip_install(python, "--no-deps", str(wheel))
    pip_install(python, *(one for one in needed if not one.startswith("wandb")))
    return python


def pip_install(python: Path, *arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q"]
    run(*pip, "--disable-pip-version-check", *arguments, where=python.parent)


def size_of(python: Path) -> tuple[float, float]:
    """Return how many MiB the packages of an environment take, and their bytecode besides."""
    command = "import sysconfig; print(sysconfig.get_path('purelib'))"
    packages = Path(run(python, "-c", command, where=python.parent).strip())
    size = {False: 0, True: 0}
    for path in packages.rglob("*"):
        if path.is_file():
            size[path.suffix == ".pyc"] += path.stat().st_size
    return size[False] / MEBIBYTE, size[True] / MEBIBYTE


def first_program() -> str:
    """Return README's first program."""
    return next(block[2] for block in BLOCK.finditer(PAGES["README.md"]) if block[1] == "python")


def test_the_distributions_are_whole(distributions: tuple[Path, Path]) -> None:
    """Every file of the package is in both, its pages' too, and the metadata is in order."""
    sdist, wheel = distributions
    run(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel, where=sdist.parent)
    files = [path for path in (ROOT / "keisei").rglob("*") if path.is_file()]
    ours = {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}
    with zipfile.ZipFile(wheel) as archive:
        shipped = {name for name in archive.namelist() if not name.startswith("keisei-")}
    assert {"keisei/py.typed", "keisei/dashboard/static/index.html"} <= shipped
    assert shipped == ours
    with tarfile.open(sdist) as tar:
        inside = {name.partition("/")[2] for name in tar.getnames()}
    assert ours <= inside
    wanted = {".ci/run", ".mkdocs.yml", "CHANGELOG.md", "LICENSE", "README.md", "docs/index.md"}
    assert wanted | {"examples/blocking.py", "tests/conftest.py", "pyproject.toml"} <= inside
    assert __version__ in sdist.name
    assert __version__ in wheel.name


def test_sessions_run_where_wandb_is_not_installed(
    bare: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """README's first program ends well; the packages take less than 20 MB, bytecode apart."""
    (tmp_path / "program.py").write_text(first_program())
    assert run(bare, "-W", "error", "program.py", where=tmp_path).startswith("completed ")
    size, bytecode = size_of(bare)
    with capsys.disabled():
        print(f"\ninstalled, without W&B: {size:.1f} MiB, and {bytecode:.1f} MiB of bytecode")
    assert size * MEBIBYTE < 20e6


def test_the_program_names_the_extra_that_it_needs(bare: Path, tmp_path: Path) -> None:
    """In one line, until the extra is there."""
    said = run(bare, "-m", "keisei", "--version", where=tmp_path, status=2)
    assert said.splitlines() == [said.strip()]
    assert 'pip install "keisei[cli]"' in said


@pytest.fixture(scope="module")
def whole(bare: Path, distributions: tuple[Path, Path]) -> Path:
    """The same environment with all of the wheel's needs, the program's, and the docs'."""
    pip_install(bare, f"{distributions[1]}[cli]", *IMPORTED)
    return bare


def test_the_installed_program_and_the_first_session_work(whole: Path, tmp_path: Path) -> None:
    """As they stand, in a directory with nothing of the repository."""
    assert run(whole, "-m", "keisei", "--version", where=tmp_path) == f"keisei {__version__}\n"
    (tmp_path / "program.py").write_text(first_program())
    assert run(whole, "program.py", where=tmp_path).startswith("completed ")
    assert "walker" in run(whole, "-m", "keisei", "ls", where=tmp_path)


def test_mypy_knows_the_types_of_the_docs_programs(whole: Path, tmp_path: Path) -> None:
    """From outside: it finds nothing in them, and the mistake in one more."""
    programs = write_programs(tmp_path)
    assert len(programs) > 30
    mypy = [sys.executable, "-m", "mypy", *MYPY, "--python-executable", str(whole)]
    run(*mypy, *programs, where=tmp_path)
    (tmp_path / "wrong.py").write_text(WRONG)
    said = run(*mypy, "wrong.py", where=tmp_path, status=1)
    assert 'wrong.py:3: error: Argument "run_name"' in said


def test_pyright_knows_the_types_of_the_docs_programs(whole: Path, tmp_path: Path) -> None:
    """From outside: it finds nothing in them, and the mistake in one more."""
    write_programs(tmp_path)
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    pyright = [sys.executable, "-m", "pyright", "--pythonpath", str(whole)]
    run(*pyright, where=tmp_path)
    (tmp_path / "wrong.py").write_text(WRONG)
    said = run(*pyright, "wrong.py", where=tmp_path, status=1)
    assert "wrong.py:3:" in said
    assert "run_name" in said
