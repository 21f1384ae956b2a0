"""Which runs are lost: those whose owners have stopped renewing their leases. It blocks.

The database's clock decides, and never a file's age. What is known of an owner for sure (it has
ended, it is seen to be dead) stays as it is: only a run that was running can be lost.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlalchemy.engine import Connection
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from keisei.run.lease import Holder, holder
from keisei.run.owned import this_owner
from keisei.store import leases as ownership
from keisei.store.clock import boot, now
from keisei.store.schema import leases, runs

LOST = "lost"
UNSURE = ("running", "elsewhere")  # what a lease knows more of
_REPAIR_TTL = 60.0  # seconds that the end of a run may take to be recorded


class Lease(NamedTuple):
    """A run's lease, which its owner has not released.

    Attributes:
        holder: its owner.
        lives: whether its time is not over yet.
        silent: how long ago it was renewed, in seconds; ``None`` where that was before a boot.
    """

    holder: Holder
    lives: bool
    silent: float | None


class _attempt(FunctionElement[int]):
    """The attempt that a lease's owner is of."""

    type = sa.BigInteger()
    inherit_cache = True


@compiles(_attempt, "sqlite")
def _attempt_in_sqlite(element: _attempt, compiler: Any, **options: Any) -> str:
    return f"json_extract({compiler.process(element.clauses, **options)}, '$.attempt')"


@compiles(_attempt, "postgresql")
def _attempt_in_postgres(element: _attempt, compiler: Any, **options: Any) -> str:
    return f"(({compiler.process(element.clauses, **options)})::json->>'attempt')::bigint"


def _is_over() -> ColumnElement[bool]:
    return sa.or_(leases.c.expires < now(), leases.c.clock != boot())


_lease_says = (
    sa.select(sa.case((_is_over(), LOST), else_="running"))
    .where(
        leases.c.session_id == runs.c.session_id,
        leases.c.released == 0,
        _attempt(leases.c.owner) >= runs.c.attempt,  # of its last attempt, or of the next one
    )
    .scalar_subquery()
)
STATUS: ColumnElement[str] = sa.case(
    (runs.c.status.in_(UNSURE), sa.func.coalesce(_lease_says, runs.c.status)),
    else_=runs.c.status,
)
"""How a run stands, which a column cannot keep: a lease runs out by itself."""


def lease_of(connection: Connection, session_id: str, attempt: int) -> Lease | None:
    """Return the lease that an attempt of a run, or a later one, has and has not released.

    Args:
        connection: a transaction.
        session_id: the run's id.
        attempt: the attempt.
    """
    renewed = now() - leases.c.expires + leases.c.ttl
    found = connection.execute(
        sa.select(leases.c.owner, _is_over(), leases.c.clock == boot(), renewed).where(
            leases.c.session_id == session_id, leases.c.released == 0
        )
    ).first()
    if found is None:
        return None
    text, is_over, counts, silent = found
    has = Holder(**json.loads(text))
    if has.attempt < attempt:
        return None
    return Lease(has, not is_over, max(0.0, silent) if counts else None)


def take_over(connection: Connection, session_id: str, attempt: int) -> tuple[Holder, int] | None:
    """Acquire the lease of a run that is lost, so that its end can be recorded.

    Args:
        connection: a transaction that writes.
        session_id: the run's id.
        attempt: the attempt that is lost.

    Returns:
        Who has it now, and its epoch, for its release; ``None`` where its owner has renewed it.
    """
    own = holder(this_owner(), attempt)
    epoch = ownership.acquire(connection, session_id, own, _REPAIR_TTL)
    return None if isinstance(epoch, Holder) else (own, epoch)
