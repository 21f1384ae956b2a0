"""What a run is called: the order of the sources, generated names and ids."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from keisei import AppConfig, AsyncSessionManager, SessionManager
from keisei.run.names import MAX_LENGTH, check_run_name, new_session_id, numbered
from keisei.utils.utils import generate_run_name

ULID = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


@pytest.mark.requirement("ID-1")
@pytest.mark.parametrize("absent", [None, ""])
@pytest.mark.parametrize(
    "args",
    [
        argparse.Namespace(run_name="from-args"),
        SimpleNamespace(run_name="from-args"),
        {"run_name": "from-args"},
    ],
    ids=["namespace", "object", "mapping"],
)
def test_the_argument_comes_before_args_before_the_config(args: Any, absent: Any) -> None:
    """The first name that is there wins, and an empty one counts as absent."""
    config = AppConfig.model_validate({"logging": {"run_name": "from-config"}})
    assert AsyncSessionManager(config, args, "given").run_name == "given"
    assert AsyncSessionManager(config, args, absent).run_name == "from-args"
    for without in (None, argparse.Namespace(), argparse.Namespace(run_name=absent), {}, object()):
        assert SessionManager(config, without, absent).run_name == "from-config"
    config.logging.run_name = absent
    generated = AsyncSessionManager(config, None, absent).run_name
    assert check_run_name(generated)
    assert generated not in ("given", "from-args", "from-config")


def test_args_are_kept_as_they_were_given() -> None:
    """`session.args` is the very object."""
    args = object()
    assert AsyncSessionManager(AppConfig(), args).args is args


@pytest.mark.requirement("ID-2")
def test_names_of_several_processes_in_one_second_are_all_different() -> None:
    """100,000 names made at the same time by four processes hold no pair."""
    code = (
        "from keisei import AppConfig, generate_run_name\n"
        "config = AppConfig()\n"
        "print('ready', flush=True); input()\n"
        "print('\\n'.join(generate_run_name(config) for _ in range(25_000)))"
    )
    command = [sys.executable, "-c", code]
    makers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for maker in makers:
        assert maker.stdout is not None
        assert maker.stdout.readline() == "ready\n"
    for maker in makers:  # all at once, not one after the other
        assert maker.stdin is not None
        maker.stdin.write("\n")
        maker.stdin.flush()
    lots = [maker.communicate()[0].split() for maker in makers]
    names = [name for lot in lots for name in lot]
    assert len(names) == len(set(names)) == 100_000
    for lot in lots:
        assert lot == sorted(lot)


@pytest.mark.requirement("ID-2")
def test_a_generated_name_is_readable_legal_and_sorts_by_time() -> None:
    """It begins with date and time in UTC, and shows the seed where there is one."""
    config = AppConfig.model_validate({"env": {"seed": 7}})
    name = generate_run_name(config)
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-z]{4}-seed7-[0-9a-z]{6}", name)
    assert check_run_name(name) == name
    assert "seed" not in generate_run_name(AppConfig())
    names = [generate_run_name(config) for _ in range(1000)]
    assert names == sorted(names)


@pytest.mark.requirement("ID-4")
def test_the_session_id_is_a_time_sortable_ulid() -> None:
    """Ids sort in the order of their making, cannot be set, and are other than the name."""
    ids = [new_session_id() for _ in range(1000)]
    assert ids == sorted(set(ids))
    session = AsyncSessionManager(AppConfig())
    assert ULID.fullmatch(session.session_id)
    assert session.session_id != session.run_name
    with pytest.raises(AttributeError):
        session.session_id = "other"  # type: ignore[misc]


@pytest.mark.parametrize("number", [2, 10, 12345])
def test_a_numbered_name_is_a_legal_one(number: int) -> None:
    """The longest name can be numbered, too."""
    for name in ("a", "a" * MAX_LENGTH, "a" * 100 + "-." + "b" * 26):
        assert check_run_name(numbered(name, number)).endswith(f"-{number}")
