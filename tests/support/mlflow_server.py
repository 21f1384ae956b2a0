"""An MLflow server on the loopback interface: MLflow's own handlers, behind faults."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = {
    "an error": "it answers 500 and has taken nothing",
    "a cut": "it closes the connection and has taken nothing",
    "a lost answer": "it takes the request, and closes the connection without an answer",
    "a hang": "it takes the request, and answers when it is released",
}


@dataclass
class MlflowServer:
    """What a test tells the server, and what it has seen.

    Attributes:
        url: its address.
        faults: what happens to the next requests that log a batch, one each.
        released: set to let hanging requests go on.
        hanging: set when a request hangs.
        authorizations: the header of each request.
    """

    url: str = ""
    faults: list[str] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    hanging: threading.Event = field(default_factory=threading.Event)
    authorizations: set[str | None] = field(default_factory=set)


@contextmanager
def mlflow_server(store: Any) -> Iterator[MlflowServer]:
    """Serve a store, until the end of the block.

    Args:
        store: the store behind the server: MLflow's own for a database.
    """
    from flask import Flask
    from mlflow.server import handlers

    app = Flask("mlflow")
    for path, view, methods in handlers.get_endpoints():
        app.add_url_rule(path, f"{methods} {path}", view, methods=methods)
    handlers._tracking_store, before = store, handlers._tracking_store
    control = MlflowServer()

    class Handler(BaseHTTPRequestHandler):
        """Passes requests on, one fault at a time."""

        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            control.authorizations.add(self.headers.get("Authorization"))
            logs = self.path.endswith("/runs/log-batch")
            fault = control.faults.pop(0) if logs and control.faults else None
            if fault == "a cut":
                self.close_connection = True
                return
            status, text = 500, b'{"error_code": "INTERNAL_ERROR", "message": "no"}'
            if fault != "an error":
                kind = self.headers.get("Content-Type")
                answer = app.test_client().open(
                    self.path, method=self.command, data=body, content_type=kind
                )
                status, text = answer.status_code, answer.data
            if fault == "a hang":
                control.hanging.set()
                control.released.wait(180)
            if fault in ("a hang", "a lost answer"):
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            """Write no access log."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    control.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield control
    finally:
        control.released.set()
        server.shutdown()
        server.server_close()
        handlers._tracking_store = before
