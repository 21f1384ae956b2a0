"""Serves the page on this machine: a free port, a token, and a clean end."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
from collections.abc import Callable

from keisei._io.switching import quick_switches
from keisei.dashboard.listing import Listing
from keisei.errors import MissingExtraError, quoted

PORT = 7007
TOKEN_VARIABLE = "KEISEI_UI_TOKEN"
_TRIES = 100  # ports
_SHORTEST = 16  # characters of a token
_GRACE = 0.5  # seconds that open answers may take at the end


def check_extra() -> None:
    """Check that the packages are there.

    Raises:
        MissingExtraError: one is not installed.
    """
    try:
        import starlette
        import uvicorn
    except ImportError as exc:
        raise MissingExtraError(f'the page needs {exc.name}: pip install "keisei[ui]"') from None
    del starlette, uvicorn


def token_of(variable: str | None) -> str:
    """Return the token: the one that is set, so that it outlives the server, else a random one.

    Args:
        variable: what `KEISEI_UI_TOKEN` says.

    Raises:
        ValueError: it is too short, or could not stand in an address.
    """
    if not variable:
        return secrets.token_urlsafe(32)
    if len(variable) < _SHORTEST or not variable.isascii() or not _is_plain(variable):
        raise ValueError(f"{TOKEN_VARIABLE} needs {_SHORTEST} letters, digits, `-` or `_` at least")
    return variable


def _is_plain(text: str) -> bool:
    return text.replace("-", "").replace("_", "").isalnum()


def bound(host: str, port: int) -> socket.socket:
    """Return a socket that is bound to a port, or to the next one that is free.

    Args:
        host: the address to listen at.
        port: the first port; 0 for any.

    Raises:
        OSError: there is no such address, or no port is free.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in range(port, port + (_TRIES if port else 1)):
        listening = socket.socket(family, socket.SOCK_STREAM)
        try:
            if os.name == "posix":
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((host, min(candidate, 65535)))
            listening.listen(128)
            return listening
        except OSError as exc:
            listening.close()
            if exc.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise OSError(f"{quoted(host)} cannot be listened at: {exc.strerror}") from exc
    raise OSError(f"no port from {port} to {port + _TRIES - 1} is free: --port names another")


def serve(
    listing: Listing, listening: socket.socket, host: str, token: str, ready: Callable[[str], None]
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        listing: the runs.
        listening: a bound socket.
        host: the address that it listens at.
        token: whoever has it may ask.
        ready: called with the page's address once it is served.

    Raises:
        KeyboardInterrupt: Ctrl-C.
    """
    import uvicorn

    from keisei.dashboard import guard
    from keisei.dashboard.app import Page

    port = listening.getsockname()[1]
    is_local = host in ("127.0.0.1", "localhost", "::1")
    names = {*guard.LOOPBACK, f"[{host}]" if ":" in host else host.lower()}
    if not is_local:
        names |= {socket.gethostname().lower(), socket.getfqdn().lower()}

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(address(host, port, token))

    page = Page(
        listing,
        token,
        names,
        port,
        any_address=not is_local,
        stopping=lambda: server.should_exit,
    )
    config = uvicorn.Config(
        page.app,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="on",
        timeout_graceful_shutdown=_GRACE,  # type: ignore[arg-type]
    )
    server = Server(config)
    log = logging.getLogger("uvicorn.error")
    log.addFilter(lambda record: not server.should_exit)  # of answers that the end has cut off
    try:
        with quick_switches():  # a run that is being read holds no answer up
            server.run(sockets=[listening])
    finally:
        listing.close()


def address(host: str, port: int, token: str) -> str:
    """Return the address under which the page is opened the first time."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{port}/?token={token}"
