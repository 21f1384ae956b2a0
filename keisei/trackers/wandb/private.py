"""Every private name of W&B's SDK that keisei uses: what for, and what it does without it.

`get` is the only way to one. A name that the installed SDK lacks costs what `without` says: runs
are tracked and ended all the same. One warning, and `keisei doctor --wandb`, say what is missing.
"""

from __future__ import annotations

import importlib
import inspect
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from keisei._log import logger

_SLOW = "rows are sent one by one, which costs six times as much"
_TRUST_FILES = "only the run's local files say how far W&B has got"
_NO_SYNC = "`keisei sync` cannot upload offline runs: `wandb sync` can"
_NO_KILL = "a process may wait for W&B's service to end, and that for its server"
_HELD_ID = "an offline run in place of one that cannot start gets an id of its own"
_BY_ENVIRONMENT = "only the environment and the SDK's settings files say so"
_FIRST = (0, 27)


class MissingName(AttributeError):
    """The installed SDK has no such name."""


@dataclass(frozen=True)
class PrivateName:
    """A private name of the SDK.

    Attributes:
        where: a module of the SDK's, and the path of a name in it; `module:Class.name`.
        wanted_for: what keisei does with it.
        without: what it does where the name is missing.
        since: the first of the SDK's releases, in the range that keisei takes, that has it.
    """

    where: str
    wanted_for: str
    without: str
    since: tuple[int, int] = _FIRST

    @property
    def name(self) -> str:
        """The last part of its path."""
        return re.split(r"[.:]", self.where)[-1]


_SETUP = "wandb.sdk.wandb_setup:"
_CONNECTION = "wandb.sdk.lib.service.service_connection:ServiceConnection."
_SOCK = "wandb.sdk.interface.interface_sock:InterfaceSock"
_BASE = "wandb.sdk.interface.interface:InterfaceBase."
_AUTH = "wandb.sdk.lib.wbauth:"
_SETTINGS = "wandb:Settings."

NAMES: dict[str, PrivateName] = {
    "launch": PrivateName(
        "wandb.sdk.launch", "importing early what the first start needs", "that start takes longer"
    ),
    "singleton": PrivateName(
        f"{_SETUP}singleton",
        "the SDK's settings, and its service",
        f"{_BY_ENVIRONMENT}; {_NO_SYNC}; {_NO_KILL}",
    ),
    "settings": PrivateName(
        f"{_SETUP}_WandbSetup.settings",
        "the server, the mode, the login and a sweep's run as the SDK knows them",
        f"{_BY_ENVIRONMENT}; {_NO_SYNC}",
    ),
    "ensure_service": PrivateName(
        f"{_SETUP}_WandbSetup.ensure_service",
        "starting the SDK's service before the first run",
        f"{_HELD_ID}; {_NO_SYNC}",
    ),
    "asyncer": PrivateName(f"{_SETUP}_WandbSetup.asyncer", "uploading a run file", _NO_SYNC),
    "connection": PrivateName(
        f"{_SETUP}_WandbSetup._connection", "ending the SDK's service at exit", _NO_KILL
    ),
    "cleanup": PrivateName(
        f"{_CONNECTION}_cleanup",
        "ending the SDK's service at exit",
        "the SDK's own hook may complain",
    ),
    "service": PrivateName(f"{_CONNECTION}_proc", "ending the SDK's service at exit", _NO_KILL),
    "process": PrivateName(
        "wandb.sdk.lib.service.service_process:ServiceProcess._process",
        "ending the SDK's service at exit",
        _NO_KILL,
    ),
    "service_asyncer": PrivateName(f"{_CONNECTION}_asyncer", "freeing an id", _HELD_ID),
    "service_client": PrivateName(f"{_CONNECTION}_client", "freeing an id", _HELD_ID),
    "inform_finish": PrivateName(f"{_CONNECTION}inform_finish", "freeing an id", _HELD_ID),
    "InterfaceSock": PrivateName(_SOCK, "freeing an id", _HELD_ID),
    "deliver_exit": PrivateName(f"{_BASE}deliver_exit", "freeing an id", _HELD_ID),
    "init_sync": PrivateName(f"{_CONNECTION}init_sync", "uploading a run file", _NO_SYNC),
    "sync": PrivateName(f"{_CONNECTION}sync", "uploading a run file", _NO_SYNC),
    "session_credentials": PrivateName(
        f"{_AUTH}session_credentials", "looking for a login", "only a key counts, or a .netrc"
    ),
    "read_netrc_auth": PrivateName(
        f"{_AUTH}read_netrc_auth", "looking for a login", "only a key in the environment counts"
    ),
    "authenticate_session": PrivateName(
        f"{_AUTH}authenticate_session", "logging in without a prompt", _NO_SYNC
    ),
    "ServiceApi": PrivateName(
        "wandb.apis.public.service_api:ServiceApi",
        "asking the server for its last row",
        _TRUST_FILES,
    ),
    "execute_graphql": PrivateName(
        "wandb.apis.public.service_api:ServiceApi.execute_graphql",
        "asking the server for its last row, and for a rewind",
        _TRUST_FILES,
    ),
    "Record": PrivateName(
        "wandb.proto.wandb_internal_pb2:Record",
        "reading a run's local file",
        f"keisei's cursor says how far W&B has got: a kill may send rows twice; {_NO_SYNC}",
    ),
    "ServerRequest": PrivateName(
        "wandb.proto.wandb_server_pb2:ServerRequest", "sending rows", _SLOW
    ),
    "interface": PrivateName("wandb:Run._interface", "sending rows", _SLOW),
    "interface_asyncer": PrivateName(f"{_SOCK}._asyncer", "sending rows", _SLOW),
    "interface_client": PrivateName(f"{_SOCK}._client", "sending rows", _SLOW),
    "stream_id": PrivateName(f"{_SOCK}._stream_id", "sending rows", _SLOW),
    "publish": PrivateName(
        "wandb.sdk.lib.service.service_client:ServiceClient.publish", "sending rows", _SLOW
    ),
    "deliver_history_step": PrivateName(
        f"{_BASE}deliver_history_step", "knowing that the service has taken rows", _SLOW
    ),
    "is_finished": PrivateName(
        "wandb:Run._is_finished",
        "seeing that a user has ended a run",
        "rows sent to it are in vain",
    ),
    "x_transaction_log_flush_interval": PrivateName(
        f"{_SETTINGS}x_transaction_log_flush_interval",
        "having the run's local file written at once",
        "it is written when 32 KiB have come and at the end: what a kill takes of it comes from "
        "the journal again, and log lines may be missing or there twice",
        (0, 31),
    ),
    "x_disable_meta": PrivateName(
        f"{_SETTINGS}x_disable_meta", "keeping the command line from W&B", "W&B gets it"
    ),
    "x_save_requirements": PrivateName(
        f"{_SETTINGS}x_save_requirements", "a quick start", "each start takes 0.1 s longer"
    ),
    "x_label": PrivateName(f"{_SETTINGS}x_label", "a run of many ranks", "ranks have no labels"),
    "x_primary": PrivateName(
        f"{_SETTINGS}x_primary", "a run of many ranks", "a rank that ends may end the run on W&B"
    ),
    "x_update_finish_state": PrivateName(
        f"{_SETTINGS}x_update_finish_state",
        "a run of many ranks",
        "a rank that ends may end the run on W&B",
    ),
    "x_server_side_derived_summary": PrivateName(
        f"{_SETTINGS}x_server_side_derived_summary",
        "a run of many ranks",
        "a rank's summary may take the place of rank 0's",
    ),
}

hidden = set[str]()
"""Names that are taken for missing: for tests."""
_warned = threading.Event()


def get(key: str, *of: Any) -> Any:
    """Return what a private name of the SDK stands for.

    Args:
        key: which one, of `NAMES`.
        of: the object whose attribute it is; without one it is looked for in its module.

    Raises:
        MissingName: there is none.
    """
    known = NAMES[key]
    if key in hidden:
        raise MissingName(f"wandb has no {known.where}")
    try:
        return getattr(of[0], known.name) if of else _found(known.where)
    except (AttributeError, ImportError) as exc:
        raise MissingName(f"wandb has no {known.where} ({exc})") from exc


def has_setting(module: Any, name: str) -> bool:
    """Return whether the SDK's settings have one of this name.

    Args:
        module: the SDK's module.
        name: the setting's name.
    """
    return name not in hidden and name in getattr(module.Settings, "model_fields", (name,))


def missing() -> list[PrivateName]:
    """Return the names that the installed SDK lacks, without starting anything of it."""
    return [known for key, known in NAMES.items() if key in hidden or not _is_there(known.where)]


def warn_of_missing(version: tuple[int, int], text: str) -> None:
    """Warn, once in a process, of names that the SDK lacks and that its release should have.

    Args:
        version: the SDK's release.
        text: the whole of it, for the warning.
    """
    lacks = [known for known in missing() if version >= known.since]
    if lacks and not _warned.is_set():
        _warned.set()
        logger.warning(
            "wandb %s lacks what keisei uses of it (%s). Runs are tracked; `keisei doctor --wandb` "
            "says what is done without.",
            text,
            ", ".join(known.where for known in lacks[:5]) + (", ..." if len(lacks) > 5 else ""),
        )


def _found(where: str) -> Any:
    module, _, path = where.partition(":")
    found = importlib.import_module(module)
    for part in path.split(".") if path else ():
        found = getattr(found, part)
    return found


def _is_there(where: str) -> bool:
    """Return whether a name is there: an attribute may be one that only instances get."""
    with suppress(AttributeError, ImportError):
        _found(where)
        return True
    above, _, name = where.rpartition(".")
    with suppress(AttributeError, ImportError):
        owner = _found(above)
        return name in getattr(owner, "model_fields", ()) or name in set(_names_in(owner))
    return False


def _names_in(owner: Any) -> Iterator[str]:
    """Yield the names that a class's annotations and methods use."""
    yield from getattr(owner, "__annotations__", ())
    for method in vars(owner).values():
        if inspect.isfunction(method):
            yield from method.__code__.co_names
