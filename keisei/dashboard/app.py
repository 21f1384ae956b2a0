"""The page's server: what it answers, and to whom."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from anyio import to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keisei._io.offload import Work
from keisei.analysis.baselines import BASELINE, MOST_BASELINES
from keisei.dashboard import details, guard, media, summaries
from keisei.dashboard.asked import (
    BadRequestError,
    bound,
    changed,
    content_of,
    list_asked,
    number,
    part,
    texts,
)
from keisei.dashboard.kept import Kept
from keisei.dashboard.listing import Listing
from keisei.dashboard.series import RunSeries, all_keys
from keisei.dashboard.streams import RunsStream, RunStream, streamed
from keisei.errors import KeiseiError
from keisei.provenance.reading import read_origins, read_snapshot
from keisei.redaction import clean
from keisei.run.layout import TRAINING_LOG, log_file
from keisei.run.log_tail import LogTail

STATIC = Path(__file__).parent / "static"
MOST_SERIES, MOST_LINES, MOST_COMPARED = 200, 5_000, 50
_LARGEST, _LARGEST_NAMES = 100_000, 16_000_000  # bytes of a request's body
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Page:
    """The server of one list of runs.

    Args:
        listing: the runs.
        token: whoever has it may ask.
        hosts: the names that the server has.
        port: its port.
        any_address: whether any numeric address is one of its names, too.
        stopping: whether the server ends.
    """

    def __init__(
        self,
        listing: Listing,
        token: str,
        hosts: Collection[str],
        port: int,
        *,
        any_address: bool = False,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._listing, self._stopping = listing, stopping
        self._kept = Kept(stopping)
        self._files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.is_file()}
        routes = [
            Route("/static/{name}", self._file),
            Route("/api/runs", self._runs),
            Route("/api/run/{name}", self._run),
            Route("/api/run/{name}/labels", self._labels, methods=["POST"]),
            Route("/api/run/{name}/events", self._events),
            Route("/api/run/{name}/log", self._log),
            Route("/api/run/{name}/usage", self._usage),
            Route("/api/run/{name}/verdict", self._verdict),
            Route("/api/run/{name}/media", self._media),
            Route("/api/run/{name}/media/{file:path}", self._content),
            Route("/api/compare", self._compare),
            Route("/api/metrics", self._metrics),
            Route("/api/series", self._series),
            Route("/api/series", self._series_named, methods=["POST"]),
            Route("/api/follow", self._follow),
            Route("/", self._page),
            Route("/run/{name}", self._page),
            Route("/compare", self._page),
        ]
        handlers: Any = {
            BadRequestError: _failed(400),
            KeiseiError: _failed(400),
            ValueError: _failed(400),
            FileNotFoundError: _failed(404),
            OSError: _failed(500),
        }
        app = Starlette(routes=routes, exception_handlers=handlers, lifespan=self._lifespan)
        app.router.redirect_slashes = False
        refuse = partial(
            guard.refusal, token=token, hosts=hosts, port=port, any_address=any_address
        )
        self.app: ASGIApp = _Guarded(app, refuse)

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        self._kept.close()

    async def _page(self, request: Request) -> Response:
        return _file(self._files, "index.html")

    async def _file(self, request: Request) -> Response:
        return _file(self._files, request.path_params["name"])

    def _runs(self, request: Request) -> Response:
        query, order_by, limit, extra = list_asked(request)
        rows, counts, total = self._listing.find(query, order_by, limit)
        return _json(
            {
                "where": self._listing.shown,
                "rows": [details.row_data(row, extra) for row in rows],
                "counts": counts,
                "total": total,
            }
        )

    def _run(self, request: Request) -> Response:
        row = self._listing.row(request.path_params["name"])
        origins = snapshot = None
        with suppress(OSError):
            origins = read_origins(row.directory)
            snapshot = read_snapshot(row.directory)
        run = self._kept.run(row.directory)
        return _json({**details.run_data(row, origins, snapshot), "parts": _parts(run)})

    async def _labels(self, request: Request) -> Response:
        asked = await content_of(request, _LARGEST, "tags and a note")
        if not isinstance(asked, dict):
            raise BadRequestError("the body is no JSON object")
        name = request.path_params["name"]
        now = await to_thread.run_sync(self._listing.change, name, partial(changed, asked))
        return _json({"tags": list(now.tags), "note": now.note})

    def _events(self, request: Request) -> Response:
        run = self._asked(request, [request.path_params["name"]])[0]
        return _json({"events": details.event_data(run.events), "share": run.share})

    def _media(self, request: Request) -> Response:
        run = self._asked(request, [request.path_params["name"]])[0]
        return _json({"media": media.media_data(run.media, run.cuts), "share": run.share})

    def _content(self, request: Request) -> Response:
        found = self._listing.one(request.path_params["name"])
        name = request.path_params["file"]
        content = media.read_media(found.directory, name)
        headers = {"Cache-Control": "private, max-age=86400", "Content-Type": media.kind_of(name)}
        return Response(content, headers=headers | {"Content-Disposition": "attachment"})

    def _log(self, request: Request) -> Response:
        found = self._listing.one(request.path_params["name"])
        most = min(int(number(request, "lines", 500)), MOST_LINES)
        log = LogTail(found.directory, log_file(TRAINING_LOG, part(request)))
        try:
            lines = log.last(max(0, most))
            return _json({"lines": [clean(line) for line in (*lines, *log.rest())]})
        finally:
            log.close()

    async def _usage(self, request: Request) -> Response:
        def read() -> dict[str, Any]:
            found = self._listing.one(name)
            return summaries.usage_data(found.directory, is_running=found.state == "running")

        name = request.path_params["name"]
        return _json(await Work(read, is_long=True).result())

    async def _verdict(self, request: Request) -> Response:
        def read() -> dict[str, Any]:
            baselines, _, _ = self._listing.find(f"tag:{BASELINE}", "-started", MOST_BASELINES)
            return summaries.verdict_data(self._listing.row(name), baselines)

        name = request.path_params["name"]
        return _json(await Work(read, is_long=True).result())

    async def _compare(self, request: Request) -> Response:
        def read() -> dict[str, Any]:
            return summaries.compared_data([self._listing.row(name) for name in names])

        names = _names(request)
        return _json(await Work(read, is_long=True).result())

    def _metrics(self, request: Request) -> Response:
        runs = self._asked(request, _names(request))
        return _json(
            {
                "metrics": all_keys(runs),
                "rows": [run.rows for run in runs],
                "has_steps": any(run.last_step() is not None for run in runs),
                "share": min((run.share for run in runs), default=1.0),
            }
        )

    def _series(self, request: Request) -> Response:
        return self._drawn(request, request.query_params.getlist("metric"))

    async def _series_named(self, request: Request) -> Response:
        keys = await content_of(request, _LARGEST_NAMES, "the names of metrics")
        return await to_thread.run_sync(self._drawn, request, texts(keys, "metrics"))

    def _drawn(self, request: Request, keys: list[str]) -> Response:
        names = _names(request)
        if len(names) * len(keys) > MOST_SERIES:
            raise BadRequestError(f"at most {MOST_SERIES} lines are drawn at once")
        runs = self._asked(request, names)
        axis = request.query_params.get("x", "step")
        if axis not in ("step", "time"):
            raise BadRequestError("x is step or time")
        found = [
            {
                "run": name,
                **details.series_data(
                    run,
                    key,
                    axis,  # type: ignore[arg-type]
                    int(number(request, "width", 600)),
                    bound(request, "from"),
                    bound(request, "to"),
                    number(request, "smooth", 0.0),
                ),
            }
            for key in keys
            for name, run in zip(names, runs, strict=True)
        ]
        return _json({"series": found, "share": min((run.share for run in runs), default=1.0)})

    async def _follow(self, request: Request) -> Response:
        stream: RunsStream | RunStream
        if names := request.query_params.getlist("run"):
            wants_log = request.query_params.get("log") == "1"
            stream = RunStream(
                self._listing, self._kept, names[:MOST_COMPARED], part(request), wants_log=wants_log
            )
        else:
            stream = RunsStream(self._listing, *list_asked(request))
        events = streamed(stream, self._stopping)
        return StreamingResponse(
            events, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )

    def _asked(self, request: Request, names: list[str]) -> list[RunSeries]:
        """Return the series of runs, which may still be being read."""
        asked = part(request)
        return [self._kept.run(self._listing.one(name).directory, asked) for name in names]


class _Guarded:
    """Refuses what is not allowed to ask, before anything else is done."""

    def __init__(self, app: ASGIApp, refuse: Callable[..., str | None]) -> None:
        self._app, self._refuse = app, refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return  # a web socket: nothing here speaks it
        request = Request(scope)
        given = request.query_params.get("token")
        reason = self._refuse(request.headers, request.url.path, given)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((name.lower().encode(), text.encode()) for name, text in _HEADERS.items()),
                ]
            await send(message)

        if reason is not None:
            response = Response(f"keisei ui: {reason}\n", 403, media_type="text/plain")
            await response(scope, receive, sent)
        else:
            await self._app(scope, receive, sent)


_HEADERS = guard.HEADERS


def _names(request: Request) -> list[str]:
    names = request.query_params.getlist("run")
    if len(names) > MOST_COMPARED:
        raise BadRequestError(f"at most {MOST_COMPARED} runs are compared at once")
    return names


def _parts(run: RunSeries) -> list[str]:
    from keisei.journal.reader import RunJournal

    with suppress(OSError):
        return RunJournal(run.directory).parts()
    return []


def _file(files: dict[str, bytes], name: str) -> Response:
    body = files.get(name)
    if body is None:
        return Response("there is no such file\n", 404, media_type="text/plain")
    kind = _TYPES.get(Path(name).suffix, "application/octet-stream")
    return Response(body, headers={"Content-Type": kind, "Cache-Control": "no-cache"})


def _json(data: object, status: int = 200) -> Response:
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    headers = {"Cache-Control": "no-store"}
    return Response(text, status, headers, media_type="application/json")


def _failed(status: int) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, exc: Exception) -> Response:
        return _json({"problem": clean(str(exc)) or type(exc).__name__}, status)

    return answer
