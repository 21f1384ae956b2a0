"""The user's own lines in a session's training log, for the tests."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest

LINE = re.compile(r"\[(\S+)\] (?:\| )?(\w+) user: (.*)")


@pytest.fixture(name="user")
def user_logger() -> logging.Logger:
    """A logger of the user's that nobody else hears."""
    return logging.Logger("user", logging.DEBUG)


def lines_of(session: Any) -> list[str]:
    """Give the lines of a session's training log."""
    return Path(session.log_file_path).read_text(encoding="utf-8").split("\n")[:-1]


def messages_of(session: Any) -> list[str]:
    """Give the messages that the user has logged into a session's training log."""
    return [found[3] for line in lines_of(session) if (found := LINE.fullmatch(line))]
