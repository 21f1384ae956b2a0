"""README and docs do what they say: programs run, links lead somewhere, tables are complete."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import typer
from pydantic import BaseModel

import keisei
from keisei import AppConfig, AsyncSessionManager, OpenConfig
from keisei.cli import program
from tests.support.docs_blocks import BLOCK, PAGES, ROOT, line_of

EVERYTHING = "\n".join(PAGES.values())
# What the programs of docs/trainers.md need besides, each left out where it is not installed.
FRAMEWORKS = ("accelerate", "lightning", "ray", "stable_baselines3", "torch", "transformers")
for _command in program.COMMANDS:
    program.register(_command)
COMMANDS: dict[str, Any] = typer.main.get_command(program.app).commands  # type: ignore[attr-defined]


def frameworks_of(source: str) -> list[Any]:
    """Return the marks of a program that needs a trainer's framework."""
    needed = [name for name in FRAMEWORKS if re.search(rf"^(from|import) {name}\b", source, re.M)]
    missing = [name for name in needed if find_spec(name) is None]
    skip = pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")
    return [pytest.mark.frameworks, skip] if needed else []


def programs() -> list[Any]:
    """Return each Python block, with the YAML block that stands before it on its page."""
    found = []
    for page, text in PAGES.items():
        config = ""
        for block in BLOCK.finditer(text):
            if block[1] == "yaml":
                config = block[2]
            elif block[1] == "python":
                line = line_of(text, block)
                marks = frameworks_of(block[2])
                found.append(pytest.param(block[2], config, id=f"{page}:{line}", marks=marks))
    return found


def yaml_blocks() -> list[Any]:
    """Return each YAML block."""
    return [
        pytest.param(block[2], id=f"{page}:{line_of(text, block)}")
        for page, text in PAGES.items()
        for block in BLOCK.finditer(text)
        if block[1] == "yaml"
    ]


def code(text: str) -> list[str]:
    """Return the inline code of a page, and its shell commands without their comments."""
    lines = [
        line.partition(" #")[0]
        for block in BLOCK.finditer(text)
        if block[1] == "bash"
        for line in block[2].splitlines()
    ]
    return lines + re.findall(r"`([^`\n]+)`", BLOCK.sub("", text))


def options_of(command: str) -> set[str]:
    """Return the options of a command of the program."""
    group = getattr(COMMANDS[command], "commands", {"": COMMANDS[command]})
    params = [param for one in group.values() for param in one.params]
    names = {name for param in params for name in [*param.opts, *param.secondary_opts]}
    return {name for name in names if name.startswith("-")}


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize(("source", "config"), programs())
def test_every_python_block_is_a_program_that_runs(
    source: str, config: str, tmp_path: Path
) -> None:
    """It runs without a warning of its own, prints what its comments say, and needs no network."""
    (tmp_path / "config.yaml").write_text(config)
    (tmp_path / "program.py").write_text(source)
    nowhere = "http://127.0.0.1:9"
    proxies = {"HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "NO_PROXY": "127.0.0.1,localhost"}
    environ = {**os.environ, **proxies, "PYTHONWARNINGS": "error", "KEISEI_PROVENANCE": "on"}
    chatty = bool(frameworks_of(source))  # a framework warns, and introduces itself
    if chatty:
        environ["PYTHONWARNINGS"] = "ignore"
    # To files: a host process that goes on may hold a pipe open.
    with open(tmp_path / "out", "w+") as out, open(tmp_path / "errors", "w+") as errors:
        command = [sys.executable, "program.py"]
        status = subprocess.run(
            command, cwd=tmp_path, env=environ, stdout=out, stderr=errors, timeout=120
        ).returncode
        printed, complaint = (tmp_path / "out").read_text(), (tmp_path / "errors").read_text()
    assert status == 0, complaint
    assert complaint == "" or chatty
    for expected in re.findall(r"print\(.*\)  # (.+)$", source, re.MULTILINE):
        assert expected in printed


@pytest.mark.parametrize("source", yaml_blocks())
def test_every_yaml_block_is_a_config(source: str, tmp_path: Path) -> None:
    """It loads as it stands; one with a key `keisei` has fields of others, too."""
    (tmp_path / "c.yaml").write_text(source)
    model = OpenConfig if "\nkeisei:" in source else AppConfig
    assert isinstance(keisei.load_config(tmp_path / "c.yaml", model=model), AppConfig)


def test_the_tables_name_every_field_with_its_default() -> None:
    """A field that is not in the table is one that nobody finds."""
    page = PAGES["docs/configuration.md"]
    rows = dict(re.findall(r"^\| `(\w+\.\w+)` \| (.+?) \|", page, re.MULTILINE))
    fields = {
        f"{section}.{name}": field.default
        for section, part in AppConfig.model_fields.items()
        for name, field in model_of(part.annotation).model_fields.items()
    }
    assert rows.keys() == fields.keys()
    for name, default in fields.items():
        plain = str(default).lower() if isinstance(default, bool) else f"{default}"
        shown = f"`{plain.removesuffix('.0')}`" if default or default is False else "none"
        assert (name, rows[name]) == (name, shown)


def model_of(annotation: object) -> type[BaseModel]:
    """Return the model of a section."""
    assert isinstance(annotation, type)
    assert issubclass(annotation, BaseModel)
    return annotation


def test_the_tables_name_every_error_method_and_summary_key() -> None:
    """What the front door exports and a session has is documented."""
    for name in keisei.__all__:
        if name.endswith("Error"):
            assert f"| `{name}` |" in PAGES["docs/errors.md"]
    session = PAGES["docs/session.md"]
    for name in dir(AsyncSessionManager):
        if not name.startswith("_"):
            assert re.search(rf"`{name}[(`]|\[`{name}`\]", session), name
    for key in AsyncSessionManager(AppConfig()).get_session_summary():
        assert f"`{key}`" in session, key


def test_extras_are_documented() -> None:
    """Each extra of the package is on the page that says how to install it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for extra in project["optional-dependencies"]:
        assert f"`{extra}`" in PAGES["docs/quickstart.md"], extra


def test_environment_variables_are_documented() -> None:
    """Every variable of keisei's own, and those of W&B that it reads, are in the table."""
    pattern = r"\"((?:KEISEI|WANDB)_\w+)\""
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "keisei").rglob("*.py")]
    names = {name for source in sources for name in re.findall(pattern, source)}
    assert "KEISEI_LOG_DIR" in names
    undocumented = {name for name in names if f"`{name}`" not in PAGES["docs/configuration.md"]}
    assert undocumented == set()


def test_every_link_leads_somewhere() -> None:
    """Each relative link names a file of the repository, and a heading that is there."""
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)\s]+)\)", BLOCK.sub("", text)):
            if re.match(r"https?:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (ROOT / page).parent / name if name else ROOT / page
            assert path.exists(), f"{page}: {target}"
            if anchor:
                assert anchor in anchors(path.read_text(encoding="utf-8")), f"{page}: {target}"


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    """A reader gets through it in five minutes, and finds all the rest from there."""
    assert 600 < len(PAGES["README.md"].split()) < 1000
    for page in PAGES.keys() - {"README.md"}:
        assert f"]({page})" in PAGES["README.md"]


def test_commands_and_options_exist() -> None:
    """Each `keisei COMMAND --option` that a page names is one of the program's."""
    named = set()
    for page, text in PAGES.items():
        for line in code(text):
            for command, rest in re.findall(r"(?:^|[ (])keisei ([a-z]+)\b(.*)", line):
                assert command in COMMANDS, f"{page}: {line}"
                named.add(command)
                for option in re.findall(r"(?<=\s)(--?[a-z][\w-]*)", rest):
                    assert option in options_of(command), f"{page}: {line}"
    assert named == COMMANDS.keys()


@pytest.mark.parametrize("command", COMMANDS)
def test_the_command_line_page_names_every_option(command: str) -> None:
    """Each command has a section with all its options and exit statuses, and no others."""
    sections = re.split(r"^## keisei ", PAGES["docs/command-line.md"], flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(f"{command}\n")]
    cells = re.findall(r"^\| (`-.*?) \|", section, re.MULTILINE)
    assert {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)} == options_of(
        command
    )
    group = getattr(COMMANDS[command], "commands", {"": COMMANDS[command]})
    said = " ".join(one.help.partition("Exit status:")[2] for one in group.values())
    listed = re.findall(r"^\| (\d+) \|", section.partition("| exit status |")[2], re.MULTILINE)
    assert listed == sorted(set(re.findall(r"\b\d+\b", said)), key=int)


def test_the_two_commands_are_the_ones_that_ci_runs() -> None:
    """Each is a single line with its mark, by which `.ci/run` finds it."""
    for mark, target in (("try", "examples.cartpole"), ("test", "pytest")):
        (command,) = re.findall(rf"^(.*\S) +# {mark}$", PAGES["README.md"], re.MULTILINE)
        assert target in command


def test_modules_and_files_exist() -> None:
    """Each `python -m MODULE`, test and source file that a page names is there."""
    modules = set(re.findall(r"python -m ((?:examples|tests|keisei)[\w.]*)", EVERYTHING))
    assert "examples.cartpole" in modules
    for module in modules:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    architecture = "docs/architecture.md"
    for page, text in PAGES.items():
        for name in re.findall(r"`([\w.]+/[\w./]*)`", text):
            ours = page == architecture or name.startswith(("keisei/", "tests/", "examples/"))
            if ours and "NAME" not in name:
                assert (ROOT / name).exists() or (ROOT / "keisei" / name).exists(), (
                    f"{page}: {name}"
                )


def test_the_architecture_page_names_every_room_and_benchmark() -> None:
    """Whoever looks for something finds the folder that it is in."""
    page = PAGES["docs/architecture.md"]
    for path in (ROOT / "keisei").iterdir():
        if path.suffix == ".py" or (path / "__init__.py").exists():
            assert f"`keisei/{path.name}{'' if path.suffix else '/'}`" in page, path.name
    source = (ROOT / "tests" / "benchmarks" / "__main__.py").read_text(encoding="utf-8")
    (table,) = [
        node.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BENCHMARKS"
    ]
    assert isinstance(table, ast.Dict)
    names = {ast.literal_eval(key) for key in table.keys if key is not None}
    section = page.partition("## Benchmarks")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == names
