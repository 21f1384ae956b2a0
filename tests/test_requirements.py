"""Every sentence of the contract has a test that names it, and no test names another."""

from __future__ import annotations

import ast
from pathlib import Path

from tests.requirements import REQUIREMENTS

TESTS = Path(__file__).parent


def named_requirements() -> dict[str, list[str]]:
    """Collect the ids that the tests' `requirement` marks name, with the tests that do.

    Storms do not count: they are left out of the suite.
    """
    named: dict[str, list[str]] = {}
    for path in sorted(TESTS.rglob("test_*.py")):
        text = path.read_text(encoding="utf-8")
        if (
            "\npytestmark = pytest.mark.storm" in text
            or "\npytestmark = [pytest.mark.storm" in text
        ):
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if "pytest.mark.storm" in map(ast.unparse, node.decorator_list):
                continue
            for mark in node.decorator_list:
                if isinstance(mark, ast.Call) and ast.unparse(mark.func).endswith(".requirement"):
                    for argument in mark.args:
                        assert isinstance(argument, ast.Constant)
                        named.setdefault(str(argument.value), []).append(node.name)
    return named


def test_every_sentence_has_a_test() -> None:
    """A sentence without a test is a promise that nobody keeps."""
    assert sorted(set(REQUIREMENTS) - set(named_requirements())) == []


def test_every_mark_names_a_sentence() -> None:
    """A mark with an unknown id shows nothing."""
    assert sorted(set(named_requirements()) - set(REQUIREMENTS)) == []


def test_every_test_says_its_behaviour_in_one_sentence() -> None:
    """A test's docstring is what a reader knows it by."""
    silent = []
    for path in sorted(TESTS.rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            if node.name.startswith("test_") and not ast.get_docstring(node):
                silent.append(f"{path.relative_to(TESTS)}::{node.name}")
    assert silent == []
