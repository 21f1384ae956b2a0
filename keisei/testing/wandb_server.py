"""A W&B server on the loopback, which the real SDK takes for W&B, and which fails on demand.

`python -m keisei.testing.wandb_server --mode slow --seconds 3` starts one by hand.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import json
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from keisei.testing.wandb_cloud import Answer, Cloud, RecordedRun, operation_name
from keisei.testing.wandb_modes import MODES, Fault, Faults, Mode

_POLL_S = 0.02  # how soon the accepting thread sees that it is to stop


@dataclass(frozen=True)
class Request:
    """A request as it arrived.

    Args:
        at: When, by `time.monotonic()`, in seconds.
        method: The HTTP method.
        path: The path, with its query.
        body: The body, decompressed.
        mode: How it is treated.
        client: Which of several clients has sent it that share a run; None where none do.
    """

    at: float
    method: str
    path: str
    body: bytes = field(repr=False)
    mode: Mode = "ok"
    client: str | None = None

    @property
    def parts(self) -> list[str]:
        """The path's parts, unquoted."""
        return [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]

    @property
    def endpoint(self) -> str:
        """`graphql`, `file_stream`, `upload` or `other`."""
        match self.parts:
            case ["graphql"]:
                return "graphql"
            case ["files", _, _, _, "file_stream"]:
                return "file_stream"
            case ["storage", _, *_]:
                return "upload"
        return "other"

    @property
    def operation(self) -> str:
        """The name of the GraphQL operation, or an empty string."""
        return operation_name(self.json()) if self.endpoint == "graphql" else ""

    @property
    def ends_run(self) -> bool:
        """Whether the request tells that a run has ended."""
        return self.endpoint == "file_stream" and bool(self.json().get("complete"))

    def json(self) -> dict[str, Any]:
        """Return the body, decoded from its JSON."""
        return cast(dict[str, Any], json.loads(self.body))


class WandbServer:
    """A W&B server on the loopback, in threads of its own; it runs until `close()`.

    Use it as ``with WandbServer() as server:``, and start clients with ``server.environ()`` in
    their environment. It takes any API key; ``api_key`` is one of the form that the SDK wants.

    Args:
        entity: The entity to which runs belong where a client names none.
        port: The port to listen on; 0 for any that is free.

    Raises:
        OSError: The port is not free.
    """

    def __init__(self, entity: str = "tester", port: int = 0) -> None:
        self.api_key = "k" * 40
        self._cloud = Cloud(entity, lambda: self.url)
        self._changed = self._cloud.changed
        self._requests: list[Request] = []
        self._faults = Faults()
        listening = _bound_socket(port)
        self._port: int = listening.getsockname()[1]
        self._listener: _Listener | None = _Listener(self, listening)
        self._reserved: socket.socket | None = None

    @property
    def url(self) -> str:
        """The server's address, as `WANDB_BASE_URL` wants it."""
        return f"http://127.0.0.1:{self._port}"

    @property
    def runs(self) -> dict[str, RecordedRun]:
        """The runs by id, as they are now; the dictionary is a copy, the runs are live."""
        with self._changed:
            return dict(self._cloud.runs)

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in order of arrival, also those that were not answered."""
        with self._changed:
            return list(self._requests)

    def environ(self) -> dict[str, str]:
        """Return the environment variables that bring a client process to this server."""
        return {
            "WANDB_BASE_URL": self.url,
            "WANDB_API_KEY": self.api_key,
            "WANDB_ERROR_REPORTING": "false",
            "NO_PROXY": "127.0.0.1",
        }

    def set_mode(
        self,
        mode: Mode,
        *,
        endpoint: str | None = None,
        seconds: float = 1.0,
        schedule: Sequence[Mode] = ("500", "ok"),
    ) -> None:
        """Choose how requests are treated from now on; see `Mode`.

        A request stays in the mode in which it arrived until that setting is replaced. Of the
        requests that a replaced mode held back, those under `silent` are dropped (the
        connection is closed), those under `slow` are answered at once.

        Args:
            mode: The mode.
            endpoint: Which requests are meant: `graphql`, `file_stream`, `upload`, `other`, or a
                GraphQL operation such as `UpsertBucket` (a setting for an operation goes before
                one for an endpoint); None for all, which takes back what was set for single ones.
            seconds: The delay of `slow`.
            schedule: The modes that `flaps` goes through, over and over.

        Raises:
            ValueError: There is no such mode, or a single endpoint was to be refused.
        """
        with self._changed:
            self._faults.put(Fault(mode, seconds, schedule), endpoint)
            self._changed.notify_all()
        if endpoint is None:
            self._refuse() if mode == "refuses" else self._accept()

    def wait_for(self, predicate: Callable[[], object], timeout: float = 60.0) -> None:
        """Wait until something is true of what was recorded.

        Args:
            predicate: Looked at after each change; a `KeyError`, as for a run that is not there
                yet, counts as false.
            timeout: How long to wait at most, in seconds.

        Raises:
            TimeoutError: It did not become true in time; the message tells what was recorded.
        """

        def holds() -> bool:
            with contextlib.suppress(KeyError):
                return bool(predicate())
            return False

        with self._changed:
            if not self._changed.wait_for(holds, timeout):
                last = [(seen.operation or seen.path, seen.mode) for seen in self._requests[-10:]]
                raise TimeoutError(f"not within {timeout} s: {self._cloud.runs}, last {last}")

    def close(self) -> None:
        """Stop listening, drop every connection, and wait for the server's threads to end."""
        self.set_mode("refuses")
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def __enter__(self) -> WandbServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _refuse(self) -> None:
        """Stop listening, and keep the port with a socket that does not listen."""
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
            self._reserved = _bound_socket(self._port)

    def _accept(self) -> None:
        """Listen again, on the same port."""
        if self._reserved is not None:
            self._listener = _Listener(self, self._reserved)
            self._reserved = None

    def _admit(
        self, method: str, path: str, body: bytes, client: str | None
    ) -> tuple[Request, Fault]:
        """Enter a request into the list; return it with the fault that governs it."""
        seen = Request(time.monotonic(), method, path, body, client=client)
        with self._changed:
            fault = self._faults.governing(seen.operation, seen.endpoint)
            seen = replace(seen, mode=fault.next_mode(seen.ends_run))
            self._requests.append(seen)
            self._changed.notify_all()
        return seen, fault

    def _hold(self, fault: Fault, seconds: float | None) -> None:
        """Wait until a fault is replaced, or for so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: fault.replaced, seconds)

    def _answer(self, request: Request) -> tuple[int, Answer]:
        """Take a request in; return the answer's status and body."""
        answer: Answer | None = None
        if request.endpoint == "graphql":
            answer = self._cloud.graphql(request.json())
        elif request.endpoint == "file_stream":
            answer = self._cloud.file_stream(request.parts[3], request.json(), request.client)
        elif request.endpoint == "upload":
            _, run_id, *file = request.parts
            answer = {} if self._cloud.upload(run_id, "/".join(file), request.body) else None
        return (200, answer) if answer is not None else (404, {"error": "not found"})


class _Listener(ThreadingHTTPServer):
    """One stretch of listening, with the connections that came of it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, owner: WandbServer, bound: socket.socket) -> None:
        super().__init__(bound.getsockname(), _Handler, bind_and_activate=False)
        self.owner = owner
        self._connections: list[tuple[socket.socket, threading.Thread]] = []
        self.socket.close()
        self.socket = bound
        self.server_activate()
        self._accepting = threading.Thread(
            target=self.serve_forever, args=(_POLL_S,), name="wandb-server", daemon=True
        )
        self._accepting.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection on a thread of its own."""
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), daemon=True
        )
        self._connections = [open_ for open_ in self._connections if open_[1].is_alive()]
        self._connections.append((request, thread))
        thread.start()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report what went wrong in a handler, unless a client went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def stop(self) -> None:
        """Close the listening socket and all connections; wait for their threads to end."""
        self.shutdown()
        self._accepting.join()
        self.server_close()
        for connection, thread in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=2.0)


class _Handler(BaseHTTPRequestHandler):
    """Reads requests, and treats each one as its fault wants it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Listener

    def _treat(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionError("the client went away")
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        owner = self.server.owner
        shares = self.headers.get("X-Wandb-Use-Async-Filestream") == "true"
        client = self.headers.get("X-Wandb-Async-Client-Id") if shares else None
        request, fault = owner._admit(self.command, self.path, body, client)
        if request.mode in ("401", "404", "500"):
            message = f"the server is told to answer {request.mode}"
            self._send(int(request.mode), {"error": message, "errors": [{"message": message}]})
        elif request.mode in ("silent", "refuses"):
            if request.mode == "silent":
                owner._hold(fault, None)
            self.close_connection = True
        else:
            status, answer = owner._answer(request)
            if request.mode == "slow":
                owner._hold(fault, fault.seconds)
            self._send(status, answer, cut=request.mode == "closes")

    def _send(self, status: int, answer: Answer, *, cut: bool = False) -> None:
        """Send an answer, or if it is cut its headers and half its body, and then the end."""
        content = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2] if cut else content)
        self.close_connection = self.close_connection or cut

    do_GET = do_POST = do_PUT = _treat

    def log_message(self, format: str, *args: object) -> None:
        """Write no access log."""


def _bound_socket(port: int) -> socket.socket:
    """Return a loopback socket that has this port but does not listen, so that it refuses."""
    bound = socket.socket()
    if sys.platform != "win32":  # where it would let others take the port
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    for attempt in range(10):
        try:
            bound.bind(("127.0.0.1", port))
            break
        except OSError:  # another process's connection may have the port for a moment
            if attempt == 9:
                raise
            time.sleep(0.05)
    return bound


def main() -> None:
    """Serve until the standard input ends; each of its lines, `MODE [ENDPOINT]`, sets a mode."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--mode", choices=MODES, default="ok")
    parser.add_argument("--endpoint", help="the only endpoint that the mode is for")
    parser.add_argument("--seconds", type=float, default=1.0, help="the delay of `slow`")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    with WandbServer(port=options.port) as server:
        server.set_mode(options.mode, endpoint=options.endpoint, seconds=options.seconds)
        for name, value in server.environ().items():
            print(f"export {name}={value}", flush=True)  # noqa: T201 - a program's output
        for line in sys.stdin:
            mode, *endpoint = line.split()
            server.set_mode(
                cast(Mode, mode), endpoint=next(iter(endpoint), None), seconds=options.seconds
            )
            print(f"{mode}: {list(server.runs)}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
