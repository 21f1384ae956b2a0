"""W&B's SDK: how it is imported, what it knows of a login and a server, and what it holds."""

from __future__ import annotations

import atexit
import http.client
import importlib
import os
import re
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import quote

from keisei.config.schema import WandbMode
from keisei.errors import TrackerError, describe
from keisei.trackers.loading import need_temporary_directory
from keisei.trackers.wandb import private
from keisei.trackers.wandb.mode import for_sdk

OLDEST, NEWEST = (0, 27), (0, 31)  # of the SDK's releases that keisei was tried with
_BEHIND = NEWEST[0], NEWEST[1] + 1

FLUSH_SETTING = "x_transaction_log_flush_interval"
_import_lock = threading.Lock()
_SENDS_NOTHING: dict[str, WandbMode] = {
    "offline": "offline",
    "dryrun": "offline",
    "disabled": "disabled",
}


def load_sdk() -> Any:
    """Import the SDK, with what its first `init` would import."""
    # Without network the SDK's own error reports would hold the process's exit for 10 s, and it
    # reads how long to wait for its service only when it starts that.
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ.setdefault("WANDB__SERVICE_WAIT", "5")
    need_temporary_directory("the SDK's service to say where it listens")
    with _import_lock:
        loaded = "wandb" in sys.modules
        module = importlib.import_module("wandb")
        if not loaded:
            with suppress(Exception):
                private.get("launch")  # 115 ms of the first init
        with suppress(Exception), _known_mode():  # or settings that do not fit
            settings()  # loads them; threads that did so together saw the defaults
        return module


def lags(module: Any) -> bool:
    """Return whether the SDK cannot be told how soon it writes a run's file: before 0.31.

    It then writes when 32 KiB have come, and at the end.

    Args:
        module: the SDK's module.
    """
    return not private.has_setting(module, FLUSH_SETTING)


@contextmanager
def _known_mode() -> Iterator[None]:
    """Replace a WANDB_MODE that the SDK does not know, which it would refuse to load."""
    asked, known = os.environ.get("WANDB_MODE"), for_sdk(os.environ)
    if asked == known:
        yield
        return
    try:
        os.environ.pop("WANDB_MODE", None)
        if known is not None:
            os.environ["WANDB_MODE"] = known
        yield
    finally:
        if asked is not None:
            os.environ["WANDB_MODE"] = asked


def default_mode() -> WandbMode | None:
    """Return the mode of the SDK's own settings, where that is not to send; else ``None``."""
    with suppress(Exception):
        mode = str(settings().mode)
        return _SENDS_NOTHING.get(mode)
    return None


@contextmanager
def telling_version() -> Iterator[None]:
    """Name the version in whatever fails, where the installed SDK is newer than what was tried.

    Raises:
        TrackerError: something has failed, and the SDK's release is none that was tried.
    """
    try:
        yield
    except Exception as exc:
        module = sys.modules.get("wandb")
        if module is None or release_of(module) <= NEWEST:
            raise
        raise TrackerError(
            f"{describe(exc)}. wandb {module.__version__} is installed; keisei was tried with "
            f"wandb {_plain(OLDEST)} to {_plain(NEWEST)}: `pip install 'wandb<{_plain(_BEHIND)}'`"
        ) from exc


def release_of(module: Any) -> tuple[int, int]:
    """Return the first two numbers of the SDK's version; zeros where it does not tell it.

    Args:
        module: the SDK's module.
    """
    numbers = [*map(int, re.findall(r"\d+", str(getattr(module, "__version__", "")))[:2]), 0, 0]
    return numbers[0], numbers[1]


def check_release(module: Any) -> None:
    """Refuse an SDK that is too old; warn once of one that lacks what its release should have.

    Args:
        module: the SDK's module.

    Raises:
        TrackerError: it is older than what keisei's promises can be kept with.
    """
    release = release_of(module)
    if release < OLDEST:
        wanted = f"wandb>={_plain(OLDEST)}"
        raise TrackerError(
            f"wandb {getattr(module, '__version__', '?')} is installed, and keisei needs {wanted}: "
            f"`pip install '{wanted}'`"
        )
    private.warn_of_missing(release, str(module.__version__))


def _plain(release: tuple[int, int]) -> str:
    return f"{release[0]}.{release[1]}"


def start_service() -> None:
    """Start the SDK's service process, if it is not there, and have it killed when this one ends.

    The SDK's own hook waits for it, and it may wait for a server. Hooks run in the reverse order
    of their registration, and the SDK registers its own when the service starts: so this comes
    before anything else that would start it.
    """
    with suppress(private.MissingName):
        service()
    atexit.unregister(kill_service)
    atexit.register(kill_service)


def kill_service() -> None:
    """Kill the SDK's service process; SIGTERM would not end it while it waits for a server.

    It leads a session of its own, to which its monitor of the system belongs: that would outlive
    it for some seconds.
    """
    with suppress(Exception):
        connection = private.get("connection", private.get("singleton")())
        with suppress(private.MissingName):
            private.get("cleanup", connection)()  # takes back its hook, which would only fail now
        service = private.get("process", private.get("service", connection))
        if os.name == "posix" and os.getpgid(service.pid) == service.pid:
            os.killpg(service.pid, signal.SIGKILL)
        service.kill()


def logged_in(sdk: Any) -> bool:
    """Return whether the SDK has a key or a login, without a prompt.

    Args:
        sdk: the SDK's module.
    """
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    ways: tuple[Callable[[], object], ...] = (
        lambda: settings().api_key,
        lambda: private.get("session_credentials")(host=settings().base_url),
        lambda: private.get("read_netrc_auth")(host=settings().base_url),
        lambda: sdk.api.api_key,
    )
    for ask in ways:
        with suppress(Exception):
            if ask():
                return True
    return False


def launched_id() -> str | None:
    """Return the id that the SDK takes in a sweep or a launch, whatever it is asked for."""
    with suppress(Exception):
        known = settings()
        if known.run_id and (known.sweep_id or known.launch):
            return str(known.run_id)
    return None


def base_url() -> str:
    """Return the address of the W&B server that the SDK's settings name."""
    try:
        return str(settings().base_url)
    except private.MissingName:
        return os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def settings() -> Any:
    """Return the SDK's own settings of this process.

    Raises:
        MissingName: the SDK has changed.
    """
    return private.get("settings", private.get("singleton")())


def service() -> Any:
    """Return the SDK's connection to its service process, which is started if it is not there.

    Raises:
        MissingName: the SDK has changed.
    """
    return private.get("ensure_service", private.get("singleton")())()


_asking = threading.Lock()
_answer_lasts = 5.0
_answers: dict[str, tuple[float, Exception | None]] = {}


def ask_server(base_url: str, timeout: float) -> None:
    """Check whether a W&B server answers at all, without a key; an answer lasts for 5 seconds.

    The SDK goes on trying until its own deadline, and holds the run's id meanwhile; asked first,
    a server that is away is known soon, and the id is free for an offline run. Sessions that start
    at the same time ask once.

    Args:
        base_url: the server's address.
        timeout: the longest wait, in seconds.

    Raises:
        OSError: it does not answer, or only with an error of its own (5xx).
    """
    with _asking:
        asked, problem = _answers.get(base_url, (-_answer_lasts, None))
        if time.monotonic() - asked > _answer_lasts:
            problem = _server_problem(base_url, timeout)
            _answers[base_url] = (time.monotonic(), problem)
    if problem is not None:
        raise problem


def close_on_server(entity: str, project: str, run_id: str) -> None:
    """Mark a run on the server as failed, by the one request that the SDK would send last.

    Args:
        entity: whose run it is.
        project: its project.
        run_id: its id.

    Raises:
        OSError: the server does not take it.
    """
    address = base_url()
    key: str = getattr(private.get("session_credentials")(host=address), "api_key", "")
    path = "/".join(quote(part, safe="") for part in (entity, project, run_id))
    request = _post(address, f"files/{path}/file_stream", b'{"complete": true, "exitcode": 1}')
    request.add_header("Authorization", f"Basic {b64encode(f'api:{key}'.encode()).decode()}")
    urllib.request.urlopen(request, timeout=10.0).close()


def _post(base_url: str, path: str, data: bytes) -> urllib.request.Request:
    headers = {"Content-Type": "application/json"}
    return urllib.request.Request(f"{base_url.rstrip('/')}/{path}", data=data, headers=headers)


def _server_problem(base_url: str, timeout: float) -> Exception | None:
    request = _post(base_url, "graphql", b'{"query":"{ __typename }"}')
    try:
        urllib.request.urlopen(request, timeout=timeout).close()
    except urllib.error.HTTPError as exc:
        exc.close()
        return exc if exc.code >= 500 else None
    except urllib.error.URLError as exc:
        import ssl

        # The SDK has certificates of its own: what is wrong with ours says nothing.
        return None if isinstance(exc.reason, ssl.SSLError) else exc
    except (OSError, http.client.HTTPException) as exc:
        return exc
    return None


def free_id(run_id: str) -> None:
    """Make the SDK's service forget an id whose start has failed (not one that is pending).

    Without waiting for the answer to the exit record, the next start of the id would hang.

    Args:
        run_id: the id.
    """
    with suppress(Exception):  # the id may never have been held
        connection = service()
        of_service = (private.get(f"service_{name}", connection) for name in ("asyncer", "client"))
        interface = private.get("InterfaceSock")(*of_service, stream_id=run_id)
        private.get("deliver_exit", interface)(1).wait_or(timeout=2)
        private.get("inform_finish", connection)(run_id)
