"""What `keisei check --follow --record` logs to the runs that it follows: verdicts, as events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Self

import typer

from keisei._text import one_line
from keisei.errors import KeiseiError
from keisei.store.rows import RunRow

if TYPE_CHECKING:
    from keisei.session.blocking_member import SessionMember

EVENT = "verdict"
ROLE = "check"


class Events:
    """Logs events to runs that go on, as a member of each; does nothing where it is off.

    Args:
        rows: the runs.
        is_on: whether to log.

    Raises:
        KeiseiError: a run cannot be joined.
    """

    def __init__(self, rows: Sequence[RunRow], *, is_on: bool) -> None:
        self._rows = [row for row in rows if row.session_id and row.attempt] if is_on else []
        self._stack = ExitStack()
        self._members: list[SessionMember] = []

    def __enter__(self) -> Self:
        """Join the runs."""
        with ExitStack() as stack:
            for row in self._rows:
                from keisei.session.blocking_member import SessionMember
                from keisei.session.handle import RunHandle

                assert row.session_id is not None
                assert row.attempt is not None
                handle = RunHandle(row.name, row.session_id, row.attempt, row.directory)
                self._members.append(stack.enter_context(SessionMember(handle, role=ROLE)))
            self._stack = stack.pop_all()
        return self

    def log(self, found: Mapping[str, Mapping[str, object]]) -> None:
        """Log verdicts; where a run has ended meanwhile, say so, and log no more.

        Args:
            found: the verdicts as plain data, by metric.
        """
        try:
            for member in self._members:
                for key, one in found.items():
                    member.log_event(EVENT, {"metric": key, **one})
                if found:
                    member.flush()
        except KeiseiError as exc:
            self._members.clear()
            typer.echo(f"keisei check: goes on without events: {one_line(str(exc))}", err=True)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the runs."""
        self._stack.__exit__(exc_type, exc, traceback)
