"""`keisei ui`: the runs in a browser, live."""

from __future__ import annotations

import os
import sys
import threading
from typing import Annotated

import typer

from keisei.cli.program import app
from keisei.cli.shared import RegistryUrl, Root, failures_of
from keisei.dashboard import serving
from keisei.dashboard.listing import Listing
from keisei.run.find import root_of_runs
from keisei.store.opening import URL_VARIABLE, Opened


@app.command()
def ui(
    root: Root = None,
    port: Annotated[
        int,
        typer.Option("--port", "-p", min=0, max=65535, help="The port; the next one if in use."),
    ] = serving.PORT,
    host: Annotated[
        str, typer.Option("--host", metavar="ADDRESS", help="Where to listen; this machine alone.")
    ] = "127.0.0.1",
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in a browser.")
    ] = True,
    url: RegistryUrl = None,
) -> None:
    """Show runs in a browser, live, until Ctrl-C.

    Whoever opens the address that is printed sees the runs, and can change their tags and notes.

    Exit status: 2 where it cannot be served, 130 after Ctrl-C.
    """
    with failures_of("ui"):
        serving.check_extra()
        named = url or (None if root else os.environ.get(URL_VARIABLE))
        opened = Opened(named) if named else None
        listing = Listing(root_of_runs(root), opened)
        where = listing.shown
        listing.find("", "-started", 1)  # what cannot be listed is said here
        token = serving.token_of(os.environ.get(serving.TOKEN_VARIABLE))
        listening = serving.bound(host, port)
        taken = listening.getsockname()[1]
        if port not in (0, taken):
            typer.echo(f"keisei ui: port {port} is in use: this is {taken}", err=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            warning = "others on the network can reach the page, and what it sends is not encrypted"
            typer.echo(f"keisei ui: {warning}", err=True)

        def ready(address: str) -> None:
            typer.echo(f"The runs in {where} are shown at\n\n    {address}\n\nuntil Ctrl-C.")
            sys.stdout.flush()
            if browser and _has_screen():
                threading.Thread(target=_open, args=(address,), daemon=True).start()

        serving.serve(listing, listening, host, token, ready)


def _has_screen() -> bool:
    if sys.platform in ("win32", "darwin"):
        return not os.environ.get("SSH_CONNECTION")
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _open(address: str) -> None:
    import webbrowser

    webbrowser.open(address)
