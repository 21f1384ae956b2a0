"""Leases of runs in the registry: who owns a run, until when, and as which epoch. It blocks.

The database's clock decides. A file of SQLite serves one machine, whose clock counts the time since
its boot, its sleep included: a wall clock that jumps by an hour ends no lease, a boot ends all.
"""

from __future__ import annotations

import json

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from keisei.run.lease import Holder
from keisei.store.clock import boot, now
from keisei.store.schema import leases
from keisei.store.upserts import insert_into


def acquire(
    connection: Connection,
    session_id: str,
    owner: Holder,
    ttl: float,
    *,
    gone: Holder | None = None,
    least: int = 1,
) -> int | Holder:
    """Acquire a run's lease, in one statement that looks again whether it is free.

    Its owner may acquire it anew: the answer to the first time may have come too late.

    Args:
        connection: a transaction that writes.
        session_id: the run's id.
        owner: who acquires it.
        ttl: its time to live, in seconds.
        gone: an owner that is known to have ended: its lease is free.
        least: the least epoch, behind that in the session file: a registry may be made anew.

    Returns:
        The lease's epoch, or who has it.
    """
    insert = insert_into(connection, leases)
    new = {
        "owner": _text(owner),
        "expires": now() + ttl,
        "ttl": ttl,
        "clock": boot(),
        "released": 0,
    }
    free = sa.or_(
        leases.c.released == 1,
        leases.c.expires < now(),
        leases.c.clock != boot(),
        leases.c.owner.in_([_text(one) for one in (owner, gone) if one is not None]),
    )
    grown = sa.case((leases.c.epoch >= least, leases.c.epoch + 1), else_=least)
    statement = (
        insert.values(session_id=session_id, epoch=least, **new)
        .on_conflict_do_update(
            index_elements=[leases.c.session_id], set_={"epoch": grown, **new}, where=free
        )
        .returning(leases.c.epoch)
    )
    epoch: int | None = connection.execute(statement).scalar()
    if epoch is not None:
        return int(epoch)
    found = holder(connection, session_id)
    assert found is not None  # nobody removes a lease
    return found


def renew(
    connection: Connection, session_id: str, owner: Holder, epoch: int, ttl: float
) -> Holder | None:
    """Renew a lease, however late: as long as nobody else has acquired it.

    One that the database does not know any more, as it was made anew, is made again.

    Args:
        connection: a transaction that writes.
        session_id: the run's id.
        owner: who has it.
        epoch: its epoch.
        ttl: its time to live, in seconds.

    Returns:
        ``None``; or who has taken it over.
    """
    own = sa.and_(leases.c.session_id == session_id, leases.c.epoch == epoch)
    renewed = sa.update(leases).where(own, leases.c.owner == _text(owner))
    values = {"expires": now() + ttl, "ttl": ttl, "clock": boot(), "released": 0}
    if connection.execute(renewed.values(**values)).rowcount:
        return None
    if (found := holder(connection, session_id)) is not None:
        return found
    taken = acquire(connection, session_id, owner, ttl, least=epoch)
    return taken if isinstance(taken, Holder) else None


def release(connection: Connection, session_id: str, owner: Holder, epoch: int) -> None:
    """Release a lease; one that is another's by now stays as it is.

    Args:
        connection: a transaction that writes.
        session_id: the run's id.
        owner: who has it.
        epoch: its epoch.
    """
    own = sa.and_(leases.c.session_id == session_id, leases.c.epoch == epoch)
    connection.execute(
        sa.update(leases).where(own, leases.c.owner == _text(owner)).values(released=1)
    )


def holder(connection: Connection, session_id: str) -> Holder | None:
    """Return who has a run's lease, or had it last; ``None`` where nobody has had one.

    Args:
        connection: a transaction.
        session_id: the run's id.
    """
    text = connection.execute(
        sa.select(leases.c.owner).where(leases.c.session_id == session_id)
    ).scalar()
    return None if text is None else Holder(**json.loads(text))


def is_over(connection: Connection, session_id: str, epoch: int | None = None) -> bool | None:
    """Return whether the time of a run's lease is over.

    Args:
        connection: a transaction; in Postgres nobody else can change the lease before its end.
        session_id: the run's id.
        epoch: the epoch of the lease that is meant; the time of one that another owner has
            acquired since is over, whatever that one has done with it.

    Returns:
        ``None`` where it has none, or one that was released.
    """
    over = sa.or_(leases.c.expires < now(), leases.c.clock != boot())
    statement = sa.select(leases.c.released == 0, over, leases.c.epoch).where(
        leases.c.session_id == session_id
    )
    row = connection.execute(statement.with_for_update()).first()
    if row is not None and epoch is not None and row[2] > epoch:
        return True
    return bool(row[1]) if row is not None and row[0] else None


def _text(owner: Holder) -> str:
    return json.dumps(owner._asdict(), sort_keys=True)
