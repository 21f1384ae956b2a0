"""Launches in the registry: which run the ranks of a launch share, where no file tells them.

Rank 0 inserts a row for its launch, which is exclusive, and writes its run into it; the others look
for it. The row is its owner's as long as that is at work: until its run's lease is over, or, where
it has none yet, for a while by the database's clock. Nobody waits long for a registry: the file
under the root says the same where the ranks share a root.
"""

from __future__ import annotations

import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, NamedTuple

from keisei.run import find
from keisei.run.session_file import Owner
from keisei.store.renewal import keeper_for

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

_KEPT = 30 * 86400.0  # seconds that the row of a launch is kept
_BEGINS = 45.0  # seconds within which an owner has its run


class FoundLaunch(NamedTuple):
    """The row of a launch.

    Attributes:
        agreement: what rank 0 has published, as text.
        owner: the process that is rank 0, as text.
        is_over: whether it has said that it has no run.
        is_new: whether it was published a moment ago.
        is_held: whether the run's lease is held.
    """

    agreement: bytes
    owner: str
    is_over: bool
    is_new: bool
    is_held: bool


class LaunchRow:
    """One launch's row in a registry, as one rank of it sees it.

    Args:
        url: the registry's.
        key: what tells the launch from all others.
    """

    def __init__(self, url: str, key: str) -> None:
        self._keeper, self._key = keeper_for(url), key

    def take(self, owner: Owner, agreement: bytes, gone: Owner | None) -> bytes | None:
        """Take the row, unless another one has it that is at work; waits shortly.

        Args:
            owner: the process that is rank 0.
            agreement: what it publishes, as text.
            gone: one that is known to have ended: its row is free.

        Returns:
            What the other one has published; ``None`` where the row was taken, or the registry is
            away.
        """
        return self._keeper.answer(
            lambda connection: _taken(connection, self._key, owner, agreement, gone)
        )

    def publish(self, owner: Owner, agreement: bytes, session_id: str | None) -> Future[None]:
        """Write what rank 0 has become into its row, as long as it has it; never waits.

        Args:
            owner: the process that is rank 0.
            agreement: what it publishes, as text.
            session_id: its run's id; ``None`` where it has no run.

        Returns:
            What is done once the registry has it.
        """
        return self._keeper.ask(
            lambda connection: _published(connection, self._key, owner, agreement, session_id)
        )

    def find(self) -> Future[FoundLaunch | None]:
        """Look for the row; never waits.

        Returns:
            What has the row once the registry has answered; ``None`` where there is none.
        """
        return self._keeper.ask(lambda connection: _found(connection, self._key))


def _taken(
    connection: Connection, key: str, owner: Owner, agreement: bytes, gone: Owner | None
) -> bytes | None:
    import sqlalchemy as sa

    from keisei.store.schema import launches
    from keisei.store.upserts import insert_into

    connection.execute(sa.delete(launches).where(launches.c.updated < time.time() - _KEPT))
    new = _new(owner, agreement)
    insert = insert_into(connection, launches).values(key=key, **new)
    if connection.execute(insert.on_conflict_do_nothing().returning(launches.c.key)).scalar():
        return None
    found = _found(connection, key, lock=True)
    if found is not None and _is_at_work(found, [_text(one) for one in (owner, gone) if one]):
        return found.agreement
    connection.execute(sa.update(launches).where(launches.c.key == key).values(**new))
    return None


def _is_at_work(found: FoundLaunch, free: list[str]) -> bool:
    if found.is_over or found.owner in free:
        return False
    if find.seen(Owner.model_validate_json(found.owner)) is False:
        return False
    return found.is_held or found.is_new


def _published(
    connection: Connection, key: str, owner: Owner, agreement: bytes, session_id: str | None
) -> None:
    import sqlalchemy as sa

    from keisei.store.schema import launches

    own = sa.and_(launches.c.key == key, launches.c.owner == _text(owner))
    changed = _new(owner, agreement) | {"session_id": session_id, "is_over": int(not session_id)}
    connection.execute(sa.update(launches).where(own).values(**changed))


def _new(owner: Owner, agreement: bytes) -> dict[str, object]:
    from keisei.store.clock import boot, now

    return {
        "owner": _text(owner),
        "agreement": agreement.decode(),
        "session_id": None,
        "is_over": 0,
        "new_until": now() + _BEGINS,
        "clock": boot(),
        "updated": time.time(),
    }


def _found(connection: Connection, key: str, *, lock: bool = False) -> FoundLaunch | None:
    import sqlalchemy as sa

    from keisei.store.clock import boot, now
    from keisei.store.schema import launches, leases

    is_new = sa.and_(launches.c.new_until > now(), launches.c.clock == boot())
    is_held = sa.and_(leases.c.released == 0, leases.c.expires >= now(), leases.c.clock == boot())
    statement = (
        sa.select(launches.c.agreement, launches.c.owner, launches.c.is_over, is_new, is_held)
        .select_from(launches.outerjoin(leases, leases.c.session_id == launches.c.session_id))
        .where(launches.c.key == key)
    )
    row = connection.execute(statement.with_for_update(of=launches) if lock else statement).first()
    if row is None:
        return None
    agreement, owner, is_over, new, held = row
    return FoundLaunch(agreement.encode(), owner, bool(is_over), bool(new), bool(held))


def _text(owner: Owner) -> str:
    return owner.model_dump_json()
