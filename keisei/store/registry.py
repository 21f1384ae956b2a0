"""The registry for programs: which runs there are, on whichever machine, and what is said of them.

Two faces with the same methods: `Registry` blocks, `AsyncRegistry` lets a daemon thread do so.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from functools import partial
from typing import ParamSpec, TypeVar

import anyio

from keisei._io.offload import Work
from keisei.errors import RegistryError, quoted
from keisei.run import find, labels
from keisei.run.labels import Labels
from keisei.store.directories import row_of
from keisei.store.opening import Opened, url_of
from keisei.store.rebuilding import Rebuilt, rebuild
from keisei.store.rows import RunRow

P = ParamSpec("P")
T = TypeVar("T")

WATCH_INTERVAL = 1.0  # seconds


class Registry:
    """A registry of runs, for scripts and threads; thread-safe.

    It connects when it is first asked for something. Use it as a context manager, or `close` it.

    Args:
        url: `sqlite:///PATH` or `postgresql://...`; without it, `KEISEI_REGISTRY_URL`.

    Raises:
        RegistryError: neither names one. Each method raises it where the database cannot be
            reached or used.
    """

    def __init__(self, url: str | None = None) -> None:
        self._opened = Opened(url_of(url))

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the next call opens others."""
        self._opened.close()

    def runs(
        self,
        query: str = "",
        *,
        order_by: str = "-started",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[RunRow]:
        """Return the runs that fit a query.

        Args:
            query: the query, such as `status:failed and tag:ppo since:7d`; all without one.
            order_by: the column to sort by; with `-` before it, the largest comes first.
            limit: the most runs; ``None`` for all.
            offset: how many to leave out first.

        Raises:
            QueryError: the query does not parse, or there is no such column.
        """
        return self._opened.find(query, order_by, limit, offset)

    def run(self, name_or_id: str) -> RunRow:
        """Return one run by its name (of several the newest), its session id or its directory.

        Args:
            name_or_id: what it is known by.
        """
        return self._opened.one(name_or_id)

    def tag(self, run: str, *tags: str) -> RunRow:
        """Tag a run; the tags that it has stay.

        Args:
            run: its name, session id or directory.
            tags: the tags.

        Raises:
            ValueError: a tag is none.
            OSError: the run's directory cannot be written.
        """
        return self._change(run, partial(labels.tagged, tags=tags))

    def untag(self, run: str, *tags: str) -> RunRow:
        """Remove tags from a run; see `tag`."""
        return self._change(run, partial(labels.untagged, tags=tags))

    def note(self, run: str, text: str | None) -> RunRow:
        """Write a run's note, in place of the one that it has; see `tag`.

        Args:
            run: its name, session id or directory.
            text: the note; ``None`` and an empty one remove it.
        """
        return self._change(run, partial(labels.noted, note=text))

    def rebuild(self, roots: Iterable[str | os.PathLike[str]]) -> Rebuilt:
        """Make the registry's rows of some roots again from the directories.

        Args:
            roots: the directories under which runs live.

        Returns:
            What was found.

        Raises:
            OSError: a root cannot be read.
        """
        return rebuild(self._opened, [find.absolute_path(root) for root in roots])

    def watch(self, query: str = "") -> Iterator[RunRow]:
        """Yield the runs that fit a query, those that are there first, then each that changes.

        A run changes, too, when its owner has stopped renewing its lease: then it is `lost`. It
        blocks while nothing changes, and never ends.

        Args:
            query: the query; all without one.

        Raises:
            QueryError: the query does not parse.
        """
        seen: dict[str, tuple[float, str]] = {}
        while True:
            yield from self._opened.changed(query, seen)
            time.sleep(WATCH_INTERVAL)

    def _change(self, run: str, change: Callable[[Labels], Labels]) -> RunRow:
        row = self._opened.one(run)
        found = find.find_at(row.directory)
        if found is None or (row.session_id and not _is(found, row.session_id)):
            raise RegistryError(
                f"the directory of run {quoted(row.name)}, {quoted(row.directory, 300)}, cannot be "
                "seen from here, and holds its tags and its note: call this where it can"
            )
        labels.change_labels(row.directory, change)
        changed = row_of(found)
        self._opened.write([changed])
        return changed


class AsyncRegistry:
    """A registry of runs, for programs on an event loop; see `Registry`.

    Args:
        url: `sqlite:///PATH` or `postgresql://...`; without it, `KEISEI_REGISTRY_URL`.

    Raises:
        RegistryError: neither names one.
    """

    def __init__(self, url: str | None = None) -> None:
        self._registry = Registry(url)

    async def __aenter__(self) -> AsyncRegistry:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the next call opens others."""
        await _on_thread(self._registry.close)

    async def runs(
        self,
        query: str = "",
        *,
        order_by: str = "-started",
        limit: int | None = None,
        offset: int = 0,
    ) -> list[RunRow]:
        """Return the runs that fit a query; see `Registry`."""
        return await _on_thread(
            self._registry.runs, query, order_by=order_by, limit=limit, offset=offset
        )

    async def run(self, name_or_id: str) -> RunRow:
        """Return one run by its name, its session id or its directory; see `Registry`."""
        return await _on_thread(self._registry.run, name_or_id)

    async def tag(self, run: str, *tags: str) -> RunRow:
        """Tag a run; see `Registry`."""
        return await _on_thread(self._registry.tag, run, *tags)

    async def untag(self, run: str, *tags: str) -> RunRow:
        """Remove tags from a run; see `Registry`."""
        return await _on_thread(self._registry.untag, run, *tags)

    async def note(self, run: str, text: str | None) -> RunRow:
        """Write a run's note; see `Registry`."""
        return await _on_thread(self._registry.note, run, text)

    async def rebuild(self, roots: Iterable[str | os.PathLike[str]]) -> Rebuilt:
        """Make the registry's rows of some roots again from the directories; see `Registry`."""
        return await _on_thread(self._registry.rebuild, list(roots))

    def watch(self, query: str = "") -> AsyncIterator[RunRow]:
        """Yield the runs that fit a query, and then each that changes; see `Registry`."""
        return _Watching(self._registry._opened, query)


class _Watching(AsyncIterator[RunRow]):
    """The runs as they change; unlike a generator it may be left without being closed."""

    def __init__(self, opened: Opened, query: str) -> None:
        self._opened, self._query = opened, query
        self._seen: dict[str, tuple[float, str]] = {}
        self._found: deque[RunRow] = deque()
        self._asked = False

    async def __anext__(self) -> RunRow:
        while not self._found:
            if self._asked:
                await anyio.sleep(WATCH_INTERVAL)
            self._asked = True
            changed = await _on_thread(self._opened.changed, self._query, self._seen)
            self._found.extend(changed)
        return self._found.popleft()


def _is(found: find.FoundRun, session_id: str) -> bool:
    return found.record is not None and found.record.session_id == session_id


async def _on_thread(func: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a blocking call on a daemon thread; a cancelled caller leaves it to its end."""
    work = Work(partial(func, *args, **kwargs))
    try:
        return await work.result()
    except anyio.get_cancelled_exc_class():
        work.leave()
        raise
