"""What a run is called: which name wins, whether it is a safe one, and new names and ids."""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from keisei.config.checking import check_config
from keisei.config.schema import AppConfig
from keisei.errors import InvalidRunNameError, quoted

MAX_LENGTH = 128

_LEGAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RULE = (
    f"a run name has 1 to {MAX_LENGTH} of the characters A-Z a-z 0-9 . _ -, starts with a letter "
    "or digit, does not end in a dot, and holds no `..`"
)
# https://learn.microsoft.com/windows/win32/fileio/naming-a-file: reserved with any extension too.
_WINDOWS_DEVICES = frozenset(
    ["CON", "PRN", "AUX", "NUL"] + [f"{stem}{n}" for stem in ("COM", "LPT") for n in range(10)]
)
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [first + second for first in _CROCKFORD for second in _CROCKFORD]
SESSION_ID = rf"^[0-7][{_CROCKFORD}]{{25}}$"


def check_run_name(name: object) -> str:
    """Return the name if it is a safe one on every system.

    Raises:
        InvalidRunNameError: it is not; the message quotes it escaped and lists what is legal.
    """
    if not isinstance(name, str):
        raise InvalidRunNameError(f"run name {quoted(name)} is a {type(name).__name__}: {_RULE}")
    name = str.__str__(name)  # a subclass is judged by its characters, and not by its methods
    if not _LEGAL.fullmatch(name) or ".." in name or name.endswith("."):
        raise InvalidRunNameError(f"illegal run name {quoted(name)}: {_RULE}")
    if name.partition(".")[0].upper() in _WINDOWS_DEVICES:
        raise InvalidRunNameError(
            f"illegal run name {quoted(name)}: it names a device on Windows; {_RULE}"
        )
    return name


def resolve_run_name(run_name: str | None, args: object, config: AppConfig) -> str:
    """Choose the run's name: the argument, ``args.run_name``, the config's, a generated one.

    Args:
        run_name: the explicit name; ``None`` and ``""`` count as absent, here and below.
        args: a namespace, any object, a mapping, or ``None``.
        config: the run's config.

    Raises:
        InvalidRunNameError: the name that wins is not a safe one.
    """
    chosen = chosen_run_name(run_name, args, config)
    return generate_run_name(config) if chosen is None else chosen


def chosen_run_name(run_name: str | None, args: object, config: AppConfig) -> str | None:
    """Return the run's name that somebody has chosen; ``None`` where one is to be generated.

    Args:
        run_name: the explicit name; ``None`` and ``""`` count as absent, here and below.
        args: a namespace, any object, a mapping, or ``None``.
        config: the run's config.

    Raises:
        InvalidRunNameError: the name that wins is not a safe one.
    """
    for _, candidate in (*_arguments(run_name, args), ("", config.logging.run_name)):
        if not _is_absent(candidate):
            return check_run_name(candidate)
    return None


def asked_by(run_name: str | None, args: object) -> str | None:
    """Return which argument names the run; ``None`` where none does.

    Args:
        run_name: the explicit name.
        args: a namespace, any object, a mapping, or ``None``.
    """
    given = _arguments(run_name, args)
    return next((name for name, value in given if not _is_absent(value)), None)


def _arguments(run_name: str | None, args: object) -> list[tuple[str, Any]]:
    from_args = (
        args.get("run_name") if isinstance(args, Mapping) else getattr(args, "run_name", None)
    )
    return [("run_name", run_name), ("args.run_name", from_args)]


def _is_absent(name: object) -> bool:
    return name is None or (isinstance(name, str) and str.__len__(name) == 0)


def generate_run_name(config: AppConfig | None = None, run_name: str | None = None) -> str:
    """Return the name that is given, or a new one: ``20260131-093015-eqkh-seed7-k3v9x2``.

    A new one sorts by time (UTC, to the microsecond), and in one process strictly in the order of
    the calls; 30 random bits keep names of one microsecond in several processes apart.

    Args:
        config: where it sets ``env.seed``, the name shows it.
        run_name: a name that somebody has chosen; ``None`` and ``""`` count as absent.

    Raises:
        ConfigError: the config is no `AppConfig`.
        InvalidRunNameError: the name that is given is not a safe one.
    """
    if run_name:
        return check_run_name(run_name)
    if config is not None:
        check_config(config)
    tick = _next_microsecond()
    moment = datetime.fromtimestamp(tick // 1_000_000, UTC)
    seed = None if config is None else config.env.seed
    middle = "" if seed is None else f"seed{seed}-"
    micro, tail = _base32(tick % 1_000_000, 4), _base32(secrets.randbits(30), 6)
    return f"{moment:%Y%m%d-%H%M%S}-{micro.lower()}-{middle}{tail.lower()}"


def new_session_id() -> str:
    """Make a ULID (https://github.com/ulid/spec): 48 bits of milliseconds, 80 bits to be unique.

    The first 10 of the 80 hold the microsecond, so that ids of one process sort strictly in the
    order of the calls; the other 70 are random.
    """
    milliseconds, micro = divmod(_next_microsecond(), 1000)
    return _base32(milliseconds << 80 | micro << 70 | secrets.randbits(70), 26)


def numbered(name: str, number: int) -> str:
    """Return the name with a number (``name-2``), cut so that the result is still a legal one."""
    suffix = f"-{number}"
    return name[: MAX_LENGTH - len(suffix)] + suffix


_tick_lock = threading.Lock()
_last_tick = 0


def _next_microsecond() -> int:
    """Read the wall clock in microseconds, never twice the same nor an earlier one."""
    global _last_tick
    with _tick_lock:
        _last_tick = max(time.time_ns() // 1000, _last_tick + 1)
        return _last_tick


def _base32(value: int, length: int) -> str:
    """Return a value of an even number of digits; two at a time, for sessions come by thousands."""
    shifts = range(5 * length - 10, -1, -10)
    return "".join([_PAIRS[value >> shift & 1023] for shift in shifts])
