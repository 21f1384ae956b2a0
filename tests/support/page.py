"""The page's server on loopback, in a thread of the test, and a client that has its token."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import uvicorn

from keisei.dashboard import guard, serving
from keisei.dashboard.app import Page
from keisei.dashboard.listing import Listing

TOKEN = "a-token-of-the-tests"
Query = dict[str, str | list[str]]


@dataclass
class Served:
    """A server that answers.

    Attributes:
        port: its port.
        headers: what each request has.
    """

    port: int
    headers: dict[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {TOKEN}"})

    @property
    def address(self) -> str:
        """What a person opens."""
        return serving.address("127.0.0.1", self.port, TOKEN)

    def ask(
        self,
        path: str,
        query: Query | None = None,
        body: object = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of an answer; headers may be added, or changed."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        address = path + (f"?{urlencode(query, doseq=True)}" if query else "")
        sent = self.headers | dict(headers or {})
        data = None if body is None else json.dumps(body)
        try:
            connection.request("GET" if body is None else "POST", address, data, sent)
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()
        finally:
            connection.close()

    def get(self, path: str, query: Query | None = None) -> Any:
        """Return what an answer holds."""
        status, _, body = self.ask(path, query)
        assert status == 200, body
        return json.loads(body)

    def problem(self, path: str, query: Query | None = None) -> tuple[int, str]:
        """Return the status of an answer, and what is wrong."""
        status, _, body = self.ask(path, query)
        return status, json.loads(body)["problem"]

    def post(self, path: str, body: object) -> tuple[int, Any]:
        """Return status and content of the answer to a change."""
        status, _, answer = self.ask(path, body=body)
        return status, json.loads(answer)

    def read(self, query: Query) -> Any:
        """Return what is drawn, once all of the runs is read."""
        while (found := self.get("/api/series", query))["share"] < 1:
            pass
        return found["series"]

    @contextmanager
    def follow(self, query: Query) -> Iterator[Iterator[Any]]:
        """Yield what a stream says, one after the other."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        connection.request("GET", f"/api/follow?{urlencode(query, doseq=True)}", None, self.headers)
        answer = connection.getresponse()
        assert answer.status == 200

        def said() -> Iterator[Any]:
            while line := answer.readline():
                if line.startswith(b"data: "):
                    yield json.loads(line[6:])

        try:
            yield said()
        finally:
            connection.close()


@contextmanager
def served(root: Path, port: int = 0) -> Iterator[Served]:
    """Serve the page of the runs under a root."""
    listening = serving.bound("127.0.0.1", port)
    taken = listening.getsockname()[1]
    listing = Listing(str(root))
    page = Page(listing, TOKEN, guard.LOOPBACK, taken, stopping=lambda: server.should_exit)
    config = uvicorn.Config(
        page.app, log_level="error", loop="asyncio", http="h11", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield Served(taken)  # the socket listens: a request waits until it is answered
    finally:
        server.should_exit = True
        thread.join(10)
        listening.close()
    assert not thread.is_alive()
