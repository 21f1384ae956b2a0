"""The registry: how fast it is written, rebuilt and listed, and how many owners it stands.

A row is a run with ten metrics, two tags and a config. The peer of the upserts writes the same rows
by the same statements through SQLAlchemy Core, as that comes, in a commit each. Then many
processes take, renew and release the leases of a few runs that they all want, and write their rows,
while others do; and many sessions log to one server. Postgres is a server of the benchmark's own,
with fsync; without one installed its rows are left out.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any

import anyio
import sqlalchemy as sa

from keisei import AsyncSessionManager, load_config
from keisei._io.process import since_boot
from keisei.run.lease import Holder
from keisei.run.names import new_session_id
from keisei.run.session_file import SessionRecord
from keisei.store import leases, reading, schema, tables
from keisei.store.database import Database
from keisei.store.rows import MetricSummary, RunRow
from keisei.store.tables import Entry
from keisei.store.writing import Writer
from tests.benchmarks.measure import (
    ROOT,
    Row,
    child_environment,
    met,
    progress,
    row,
    workplace,
)
from tests.support.postgres import NoServer, make_database, postgres_server

CALLERS = 100
CONFIG = {"env": {"seed": 3, "device": "cpu"}, "training": {"total_timesteps": 1_000_000}}
METRICS = {f"train/metric_{n}": MetricSummary(0.5, 0.1, 0.9, 0.5, None, 100, 7) for n in range(10)}
WANTED = 16  # runs that all want to own
TTL = 4.0  # seconds
SESSIONS, PROGRAMS = 256, 8
TIMEOUT = 120.0  # seconds for a child beyond its time


def run(*, quick: bool) -> list[Row]:
    """Measure the registry.

    Args:
        quick: have less of everything.
    """
    rows: list[Row] = []
    with ExitStack() as stack:
        home, place = (stack.enter_context(workplace()) for _ in range(2))
        environ = child_environment(home)
        urls: dict[str, Callable[[str], str]] = {
            "SQLite": lambda name: f"sqlite:///{place}/{name}.db"
        }
        try:
            server = stack.enter_context(postgres_server("max_connections=400"))
            urls["Postgres"] = lambda name: make_database(server, name)
        except NoServer as exc:
            progress(f"registry: no Postgres: {exc}")
        for kind, url in urls.items():
            progress(f"registry: upserts in {kind}")
            rows += _upserts(kind, url("upserts"), quick=quick)
        for kind, url in urls.items():
            progress(f"registry: the latest 50 in {kind}")
            rows.append(_latest(kind, url("latest"), 100_000 if quick else 1_000_000))
        rows += _lists(place, environ, 1_000 if quick else 10_000)
        seconds = 10.0 if quick else 120.0
        processes, threads = {"SQLite": 64, "Postgres": PROGRAMS}, {"SQLite": 1, "Postgres": 32}
        for kind, url in urls.items():
            progress(f"registry: owners in {kind}, {seconds:.0f} s")
            rows.append(
                _owners(kind, url("owners"), processes[kind], threads[kind], seconds, environ)
            )
        if "Postgres" in urls:
            progress(f"registry: sessions, {seconds:.0f} s")
            rows.append(_sessions(urls["Postgres"]("sessions"), place, seconds, environ))
    return rows


def _entry(key: str, at: float = 0.0) -> Entry:
    row = RunRow(
        key,
        f"/runs/{key}",
        session_id=key,
        status="running",
        attempt=1,
        host="node-1",
        pid=1,
        started=at,
        tags=("ppo", "best"),
        config=CONFIG,
        metrics=METRICS,
    )
    return Entry(row, time.time())


def _upserts(kind: str, url: str, *, quick: bool) -> list[Row]:
    """Measure upserts, against Core as it comes, and against Core on the registry's settings."""
    seconds, repeats = (1.0, 1) if quick else (4.0, 3)
    samples: dict[str, list[float]] = {"ours": [], "plain": [], "same": []}
    plain = sa.create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    writer = Writer(url)
    writer.write(_entry("first"))
    with Database(url) as database:
        if kind == "SQLite":  # Core leaves the journal as SQLite has it
            path = url.removeprefix("sqlite:///")
            other = f"{path}.plain"
            Database(f"sqlite:///{other}").close()
            with sqlite3.connect(other) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
            connection.close()
            plain = sa.create_engine(f"sqlite:///{other}", connect_args={"timeout": 60.0})

        def alone(entry: Entry) -> None:
            with plain.begin() as connection:
                tables.write(connection, [entry])

        def on_same_settings(entry: Entry) -> None:
            with database.writing() as connection:
                tables.write(connection, [entry])

        for _ in range(repeats):
            samples["ours"].append(_calls(writer.write, seconds))
            samples["plain"].append(_calls(alone, seconds))
            samples["same"].append(_calls(on_same_settings, seconds))
    plain.dispose()
    what = f"upserts a second, {CALLERS} callers, {kind}, against a commit each"
    ours = samples["ours"]
    rows = [row(f"{what} of Core", ours, samples["plain"], unit="", ratio_at_least=10)]
    if kind == "SQLite":
        rows.append(
            row(f"{what} with a write-ahead log, without fsync", ours, samples["same"], unit="")
        )
    return rows


def _calls(write: Callable[[Entry], object], seconds: float) -> float:
    """Return how many calls a second many threads get through."""
    counts = [0] * CALLERS
    ends = perf_counter() + seconds

    def call(number: int) -> None:
        while perf_counter() < ends:
            write(_entry(f"run-{number}"))
            counts[number] += 1

    began = perf_counter()
    threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / (perf_counter() - began)


def _latest(kind: str, url: str, count: int) -> Row:
    """Measure the newest 50 runs among many, of which a few run and have leases."""
    with Database(url) as database:
        _fill(database, count)
        samples = []
        with database.reading() as connection:
            for _ in range(101):
                began = perf_counter()
                found = reading.find(connection, limit=50)
                samples.append(perf_counter() - began)
                assert len(found) == 50
    what = f"the newest 50 of {count:,} runs, {kind}, in an open connection"
    return row(what, samples[1:], unit="ms", at_most=1)


def _fill(database: Database, count: int) -> None:
    """Have so many runs in a registry, each with two metrics."""
    series = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count) "
        if database.is_sqlite
        else "WITH n(i) AS (SELECT generate_series(1, :count)) "
    )
    columns = (
        '"key", name, directory, root, session_id, status, attempt, host, pid, started, config, '
        "trackers, checkpoints, facts, updated"
    )
    values = (
        "'k' || i, 'run-' || i, '/runs/run-' || i, '/runs', 'k' || i, "
        "CASE WHEN i % 100 = 0 THEN 'running' ELSE 'completed' END, 1, 'node', 1, "
        f"1.0 * i, '{json.dumps(CONFIG)}', '{{}}', '{{}}', '{{}}', 1.0"
    )
    insert = f"INSERT INTO keisei_runs ({columns}) {series if database.is_sqlite else ''}"
    with database.writing() as connection:
        if database.is_sqlite:
            text = f"{insert} SELECT {values} FROM n"
        else:
            text = f"{series} INSERT INTO keisei_runs ({columns}) SELECT {values} FROM n"
        connection.execute(sa.text(text.replace('": ', '"\\: ')), {"count": count})
        for name in ("loss", "reward"):
            metric = sa.select(schema.runs.c.key, sa.literal(name), sa.literal(0.5), sa.literal(1))
            into = schema.metrics.insert().from_select(["key", "name", "last", "count"], metric)
            connection.execute(into)
    with database.writing() as connection:
        connection.execute(sa.text("ANALYZE"))


def _lists(place: Path, environ: dict[str, str], count: int) -> list[Row]:
    """Measure the commands, the start of their process included."""
    root, url = place / "many", f"sqlite:///{place}/lists.db"
    progress(f"registry: makes {count:,} runs")
    _make_runs(root, count)
    with Database(url) as database:
        _fill(database, count * 10)
    progress("registry: rebuild and ls")
    rebuilt = f"sqlite:///{place}/rebuilt.db"
    plain = _seconds(["ls", "--root", str(root)], environ, 5)
    asked = _seconds(["ls", "--registry", url], environ, 5)
    made = _seconds(["registry", "rebuild", str(root), "--registry", rebuilt], environ, 1)
    return [
        row(f"keisei ls of {count:,} directories, no registry", plain, unit="s", at_most=1),
        row(f"keisei ls in a registry of {count * 10:,}", asked, unit="s", at_most=0.5),
        row(f"keisei registry rebuild of {count:,} runs", made, unit="s", at_most=10),
    ]


def _make_runs(root: Path, count: int) -> None:
    """Make directories of runs that have ended, from one that has."""

    async def one() -> str:
        config = load_config(overrides={"logging": {"log_dir": str(root), "log_level": "critical"}})
        async with AsyncSessionManager(config, run_name="first") as session:
            for step in range(20):
                session.log_metrics({"loss": 1.0 / (step + 1), "reward": step / 7}, step=step)
        return session.run_artifact_dir

    first = Path(anyio.run(one))
    record = SessionRecord.parsed((first / "session.json").read_bytes())
    assert record is not None
    files = [path for path in first.iterdir() if path.is_file() and path.name != "session.json"]
    for number in range(1, count):
        name = f"run-{number:06}"
        directory = root / name
        (directory / "models").mkdir(parents=True)
        own = record.model_copy(update={"run_name": name, "session_id": new_session_id()})
        (directory / "session.json").write_bytes(own.text())
        for path in files:
            shutil.copyfile(path, directory / path.name)


def _seconds(arguments: list[str], environ: dict[str, str], repeats: int) -> list[float]:
    """Return how long a command takes, after one that nobody counts."""
    samples = []
    for _ in range(repeats + (repeats > 1)):
        began = perf_counter()
        subprocess.run(
            [sys.executable, "-m", "keisei", *arguments],
            cwd=ROOT,
            env=environ,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        samples.append(perf_counter() - began)
    return samples[-repeats:]


def _owners(
    kind: str, url: str, processes: int, threads: int, seconds: float, environ: dict[str, str]
) -> Row:
    """Have many owners want the same runs; none may have one that another one has."""
    Database(url).close()
    found = _all_children(processes, ["owners", url, threads, seconds], seconds, environ)
    held = [tuple(one) for child in found for one in child["held"]]
    errors = [text for child in found for text in child["errors"]]
    for text in errors[:3]:
        progress(f"registry: {text}")
    doubles = _overlaps(held)
    return Row(
        f"{processes} processes with {threads} owners each, {kind}, {seconds:.0f} s: errors, and "
        f"double owners in {len(held):,} ownerships of {WANTED} runs",
        f"{len(errors)}, {doubles}",
        target="0, 0",
        met=met(not errors and not doubles),
    )


def _overlaps(held: list[tuple[Any, ...]]) -> int:
    """Count the ownerships of a run that began before another one's end, or have its epoch."""
    doubles = 0
    for name in {one[0] for one in held}:
        own = sorted((began, ended, epoch) for run, epoch, began, ended in held if run == name)
        for (_, ended, epoch), (began, _, following) in pairwise(own):
            doubles += began < ended or following <= epoch
    return doubles


def _sessions(url: str, place: Path, seconds: float, environ: dict[str, str]) -> Row:
    """Have many sessions in a few programs; all of their rows have to be there."""
    each = SESSIONS // PROGRAMS
    found = _all_children(
        PROGRAMS, ["sessions", url, each, seconds, place / "sessions"], seconds, environ
    )
    warnings = [text for child in found for text in child["warnings"]]
    for text in warnings[:3]:
        progress(f"registry: {text}")
    wanted = {name: last for child in found for name, last in child["last"].items()}
    until, right = time.monotonic() + 60.0, 0
    with Database(url) as database:
        while right < len(wanted) and time.monotonic() < until:  # the rest comes by itself
            time.sleep(0.5)
            with database.reading() as connection:
                rows = reading.find(connection, "status:completed")
            right = sum(wanted.get(row.name) == row.metrics["step"].last for row in rows)
    return Row(
        f"{SESSIONS} sessions in {PROGRAMS} programs, Postgres, {seconds:.0f} s: warnings, and "
        "runs whose rows are right afterwards",
        f"{len(warnings)}, {right}",
        target=f"0, {SESSIONS}",
        met=met(not warnings and right == SESSIONS),
    )


def _all_children(
    count: int, arguments: list[object], seconds: float, environ: dict[str, str]
) -> list[Any]:
    """Run children side by side, and return what each of them prints."""
    command = [sys.executable, "-m", "tests.benchmarks.registry", "child", *map(str, arguments)]
    children = [
        subprocess.Popen(
            [*command, str(number)],
            cwd=ROOT,
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()  # it is ready
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outputs = [child.communicate(timeout=seconds + TIMEOUT)[0] for child in children]
    return [json.loads(output.splitlines()[-1]) for output in outputs]


def _go() -> None:
    print("ready", flush=True)
    sys.stdin.readline()


def _owner(
    url: str, database: Database, number: str, ends: float, held: list[Any], errors: list[str]
) -> None:
    """Take, renew and release leases until the time is over, at times without a word."""
    draw, writer = random.Random(number), _WRITERS[url]
    while time.monotonic() < ends:
        name = f"run-{draw.randrange(WANTED)}"
        owner = Holder("node", os.getpid(), number, 1)
        try:
            asked = since_boot()
            with database.writing() as connection:
                epoch = leases.acquire(connection, name, owner, TTL)
            if isinstance(epoch, Holder):
                time.sleep(draw.uniform(0.0, 0.5))
                continue
            began, until = since_boot(), asked + TTL
            for _ in range(draw.randrange(4)):
                writer.write(_entry(name))
                time.sleep(draw.uniform(0.0, 0.5))
                asked = since_boot()
                with database.writing() as connection:
                    if leases.renew(connection, name, owner, epoch, TTL) is not None:
                        break
                until = asked + TTL
            # It owns the run for as long as it may believe so.
            held.append((name, epoch, began, min(since_boot(), until)))
            if draw.random() < 0.8:
                with database.writing() as connection:
                    leases.release(connection, name, owner, epoch)
        except Exception as exc:
            errors.append(f"{type(exc).__name__}: {exc}")


_WRITERS: dict[str, Writer] = {}


def _child_owners(url: str, threads: str, seconds: str, number: str) -> None:
    held: list[Any] = []
    errors: list[str] = []
    with Database(url) as database:
        _WRITERS[url] = Writer(url)
        _go()
        ends = time.monotonic() + float(seconds)
        workers = [
            threading.Thread(
                target=_owner, args=(url, database, f"{number}.{one}", ends, held, errors)
            )
            for one in range(int(threads))
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    print(json.dumps({"held": held, "errors": errors}))


def _child_sessions(url: str, count: str, seconds: str, place: str, number: str) -> None:
    import logging

    warnings: list[str] = []
    last: dict[str, int] = {}

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            warnings.append(record.getMessage())

    logging.getLogger("keisei").addHandler(Kept(logging.WARNING))
    config = load_config(overrides={"logging": {"log_dir": place}, "registry": {"url": url}})
    _go()
    ends = time.monotonic() + float(seconds)

    async def live(name: str) -> None:
        async with AsyncSessionManager(config, run_name=name) as session:
            step = 0
            while time.monotonic() < ends:
                session.log_metrics({"step": step}, step=step)
                last[name] = step
                step += 1
                await anyio.sleep(0.5)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for one in range(int(count)):
                group.start_soon(live, f"s-{number}-{one}")

    anyio.run(main)
    print(json.dumps({"warnings": warnings, "last": last}))


CHILDREN: dict[str, Callable[..., None]] = {"owners": _child_owners, "sessions": _child_sessions}

if __name__ == "__main__":
    CHILDREN[sys.argv[2]](*sys.argv[3:])
