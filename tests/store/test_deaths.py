"""Owners that are killed at any instant are known by their leases, and those that live are not."""

from __future__ import annotations

import json
import os
import random
import signal
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from keisei._io.process import since_boot
from keisei.run.claim import claim
from keisei.store import clock, schema
from keisei.store.database import Database
from keisei.store.kept_lease import BEATS
from keisei.store.renewal import Leases
from tests.conftest import MakeConfig
from tests.support.storms import repetitions

TTL = 1.0  # seconds
LIVES = 1.5 * TTL  # seconds that an owner goes on, if it is not killed
STATEMENTS = 16  # more than a claim, some renewals and a release have
AT_ONCE = 20
HOUR = 3600.0  # seconds

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no fork")


class Owner:
    """A child that owns a run until it ends, or is killed.

    Args:
        config: its config.
        url: the registry's.
        number: which it is: each second one is killed before a statement, the others when their
            time has come.
        chance: says when that is.
    """

    def __init__(self, config: Any, url: str, number: int, chance: random.Random) -> None:
        self.before = number // 2 % STATEMENTS + 1 if number % 2 else None
        self.after = time.monotonic() + chance.uniform(0.0, LIVES)
        self.ended: float | None = None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # fork beside threads, on 3.12+
            self.pid = os.fork()
        if self.pid == 0:
            try:
                self._live(config, url, number)
            finally:
                os._exit(1)

    def _live(self, config: Any, url: str, number: int) -> None:
        real, shift = time.time, (-HOUR, 0.0, HOUR)[number % 3]
        time.time = lambda: real() + shift
        seen = 0

        def look(*args: object) -> None:
            nonlocal seen
            seen += 1
            if seen == self.before:
                os.kill(os.getpid(), signal.SIGKILL)

        sa.event.listen(sa.Engine, "before_cursor_execute", look)
        owned = claim(config, f"r{number}", f"id-{number}", leases=Leases(url, TTL))
        owned.keep_lease(lambda error: None)
        time.sleep(LIVES)
        owned.release()
        time.sleep(TTL)
        os.kill(os.getpid(), signal.SIGKILL)

    def look(self) -> None:
        """Kill it when its time has come, and note when it has ended."""
        if self.ended is None:
            now = since_boot()
            if self.before is None and time.monotonic() >= self.after:
                os.kill(self.pid, signal.SIGKILL)
            if os.waitpid(self.pid, os.WNOHANG)[0]:
                self.ended = now


def ends(database: Database) -> dict[int, tuple[bool, float]]:
    """Return whether each lease that was not released is over, and when, by its owner."""
    expires = schema.leases.c.expires
    query = sa.select(schema.leases.c.owner, expires < clock.now(), expires)
    with database.reading() as connection:
        found = connection.execute(query.where(schema.leases.c.released == 0))
        return {json.loads(owner)["pid"]: (is_over, end) for owner, is_over, end in found}


def deaths(config: Any, url: str, numbers: Any, chance: random.Random) -> tuple[list[float], int]:
    """Kill owners; return after how long each was known to be dead, and how many too early."""
    owners = [Owner(config, url, number, chance) for number in numbers]
    known: dict[int, float] = {}
    early = set()
    deadline = time.monotonic() + 60.0
    with Database(url) as database:
        while len(known) < len(owners):
            assert time.monotonic() < deadline
            for owner in owners:
                owner.look()
            found = ends(database)
            for owner in owners:
                # One that was killed before it had a lease, or after its end, has none.
                is_over, end = found.get(owner.pid, (owner.ended is not None, 0.0))
                if is_over and owner.ended is None:
                    early.add(owner.pid)
                elif is_over and owner.ended is not None:
                    known.setdefault(owner.pid, max(0.0, end - owner.ended))
            time.sleep(0.01)
    return list(known.values()), len(early)


@pytest.mark.requirement("REG-3", "REG-4")
@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.storm)])
def test_each_death_is_known_within_a_lease_and_a_beat(
    make_config: MakeConfig, tmp_path: Path, count: int
) -> None:
    """At random instants, and before each statement; wall clocks are an hour off, or are not."""
    chance, early = random.Random(500), 0
    known: list[float] = []
    wanted = repetitions(count) if count > 20 else count
    for numbers in [range(n, min(n + AT_ONCE, wanted)) for n in range(0, wanted, AT_ONCE)]:
        url = f"sqlite:///{tmp_path}/{numbers[0]}.db"
        root = str(tmp_path / str(numbers[0]))
        Database(url).close()
        config = make_config(registry={"url": url}, logging={"log_dir": root})
        times, false = deaths(config, url, numbers, chance)
        known, early = [*known, *times], early + false
    late = sum(one > TTL + TTL / BEATS for one in known)
    print(
        f"{len(known)} deaths, {late} known later than a lease and a beat ({TTL:g} s and "
        f"{TTL / BEATS:.2f} s), the last after {max(known):.2f} s; false deaths: {early}"
    )
    assert len(known) == wanted
    assert late == 0
