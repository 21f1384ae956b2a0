"""Every failure keisei raises. Each is a ``KeiseiError`` and also a builtin's kind.

KeiseiError
├── CheckpointError         RuntimeError  a checkpoint cannot be saved or restored
│   └── WorldSizeError                    it was saved by another number of ranks
├── ConfigError             ValueError    a config cannot be read, or does not fit the schema
│   └── ConfigChangedError                a resume changes what a field of the config refuses
├── ConfigSaveError         RuntimeError  effective_config.json cannot be written
├── DirectorySetupError     RuntimeError  the run's directories cannot be made or claimed
│   └── SessionInUseError                 the run's name is taken
│       ├── PartInUseError                another process logs as this part of the run
│       └── TakenOverError  OSError       another owner has taken this session's run over
├── DistributedError        RuntimeError  the processes of a launch do not come to one run
│   ├── LaunchError         ValueError    the launcher's variables contradict each other
│   ├── RankLostError                     another rank has failed, has vanished or never came
│   ├── RankMismatchError                 this rank and rank 0 have started differently
│   ├── RankTimeoutError    TimeoutError  rank 0 has not published its run in time
│   └── RunNotSeenError     OSError       this host does not see the run's directory
├── ForkedSessionError      RuntimeError  the session belongs to the process that forked this one
├── HandleError             ValueError    a handle leads to no run that can be joined from here
├── InvalidRoleError        ValueError    a member's role is not a safe name, or is reserved
├── InvalidRunNameError     ValueError    the run's name is not a safe one
├── InvalidStatusError      ValueError    a run cannot end with that status
├── JournalError            RuntimeError  the journal cannot be written, or may not be from here
├── MediaError      TypeError, ValueError  an image, a video or the like cannot be kept
├── MissingExtraError       ImportError   an optional package is not installed
├── NoThreadError           RuntimeError  the system has no thread left for the blocking face
├── NotReadyError           RuntimeError  a step is missing that has to come first
├── ProvenanceError         RuntimeError  the code of an attempt cannot be restored
├── QueryError              ValueError    a query for runs does not parse
├── RegistryError           RuntimeError  the registry's database cannot be used
├── RunCancelledError       RuntimeError  `keisei cancel` has ended the run
├── SessionEndedError       RuntimeError  a step came after the end
│   └── RunEndedError       OSError       the run that a part belongs to has ended
├── SignalError             RuntimeError  signals cannot be handled here
└── TrackerError            RuntimeError  a tracker cannot start, or is out of reach

A new error gets its line above, one message argument (so that it pickles), and attributes with
defaults for what a program may want to act on.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from keisei.redaction import clean

if TYPE_CHECKING:
    from collections.abc import Mapping

# What stands so far behind a cut that it can only matter to what is being hidden.
_BEYOND = 4096


def quoted(value: object, limit: int = 80) -> str:
    """Return a value as it may stand in a message: quoted, escaped, secrets hidden, cut.

    Secrets are hidden before the cut, which would leave the first half of one unknown.

    Args:
        value: anything a user passed in.
        limit: the longest text to show, in characters; what is longer is cut and said to be.
    """
    try:
        text = str.__str__(value) if isinstance(value, str) else repr(value)
    except Exception:  # noqa: BLE001 - the user's own object
        text = f"<{type(value).__name__} object>"
    hidden = clean(text[: limit + _BEYOND])
    part = hidden[:limit]
    while len(shown := ascii(part)) > limit + 2:  # with its quotes; an escape is up to ten long
        part = part[: len(part) - max(1, (len(shown) - limit) // 10)]
    return shown if part == hidden else f"{shown}... ({len(text)} characters)"


def describe(exc: BaseException) -> str:
    """Return an error in one line: its kind and its message, secrets hidden; never raises."""
    kind = type(exc).__name__
    try:
        text = str(exc)
    except Exception:  # noqa: BLE001 - an error of somebody else's
        return f"{kind} (its message cannot be read)"
    return f"{kind}: {quoted(text, 300)[1:-1]}" if text else kind


class KeiseiError(Exception):
    """The base of every error that keisei raises; secrets are hidden in its message."""

    def __init__(self, *args: object) -> None:
        super().__init__(*(clean(arg) for arg in args))


class CheckpointError(KeiseiError, RuntimeError):
    """A checkpoint cannot be saved or restored; what was saved before is as it was.

    Attributes:
        path: the checkpoint, or the file in it, where known; secrets are hidden in it, too.
        corrupt: whether what stands on the disk is not what was saved.
    """

    path: str | None = None
    corrupt: bool = False

    def __init__(self, message: str, *, path: str | None = None, corrupt: bool = False) -> None:
        super().__init__(message)
        self.path = clean(path)
        self.corrupt = corrupt


class WorldSizeError(CheckpointError):
    """A checkpoint was saved by another number of ranks than are there to restore it.

    Attributes:
        saved: how many ranks have saved it.
        world_size: how many ranks the run has now.
    """

    saved: int | None = None
    world_size: int | None = None

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        saved: int | None = None,
        world_size: int | None = None,
    ) -> None:
        super().__init__(message, path=path)
        self.saved = saved
        self.world_size = world_size


class ConfigError(KeiseiError, ValueError):
    """A config cannot be read, or does not fit the schema."""


class ConfigChangedError(ConfigError):
    """A run cannot be resumed: its config has another value where a field refuses that.

    Attributes:
        changes: the keys that are refused, each with its earlier value and the one now, as JSON.
    """

    changes: tuple[tuple[str, str, str], ...] = ()

    def __init__(self, message: str, *, changes: tuple[tuple[str, str, str], ...] = ()) -> None:
        super().__init__(message)
        self.changes = clean(changes)


class ConfigSaveError(KeiseiError, RuntimeError):
    """The effective config cannot be written."""


class DirectorySetupError(KeiseiError, RuntimeError):
    """The run's directories cannot be made or claimed.

    Attributes:
        path: what could not be made, where known; secrets are hidden in it, too.
    """

    path: str | None = None

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = clean(path)


class SessionInUseError(DirectorySetupError):
    """The run's name is taken: by an owner that lives, or because ``if_exists`` is ``refuse``.

    Attributes:
        host: the owner's host, where known.
        pid: the owner's process id, where known.
    """

    host: str | None = None
    pid: int | None = None

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        host: str | None = None,
        pid: int | None = None,
    ) -> None:
        super().__init__(message, path=path)
        self.host = host
        self.pid = pid


class TakenOverError(SessionInUseError, OSError):
    """Another owner has taken the session's run over: the session writes nothing more to it."""

    def __init__(
        self,
        message: str,
        *,
        path: str | None = None,
        host: str | None = None,
        pid: int | None = None,
    ) -> None:
        super().__init__(message, path=path, host=host, pid=pid)
        self.errno = errno.EPERM  # what stays so: no writer tries again

    def __str__(self) -> str:
        return str(self.args[0])  # whatever file was being written


class PartInUseError(SessionInUseError):
    """Another process, or another member of this one, logs as this part of the run."""


class DistributedError(KeiseiError, RuntimeError):
    """The processes that a launcher has started do not come to one run, or one of them is lost."""


class LaunchError(DistributedError, ValueError):
    """Rank and world size cannot be known: what the launcher says contradicts itself or the user.

    Attributes:
        values: the variables, or fields of the config, and what they say.
    """

    values: dict[str, str]

    def __init__(self, message: str, *, values: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.values = {name: str(clean(value)) for name, value in (values or {}).items()}


class RankLostError(DistributedError):
    """Another rank has ended the run: it has failed or was cancelled, has vanished or never came.

    Attributes:
        rank: which, where known.
    """

    rank: int | None = None

    def __init__(self, message: str, *, rank: int | None = None) -> None:
        super().__init__(message)
        self.rank = rank


class RankMismatchError(DistributedError):
    """A rank and rank 0 have started with different names, configs, world sizes or versions.

    Attributes:
        values: in what they differ: by its name, the value of rank 0 and the one here.
    """

    values: dict[str, tuple[str, str]]

    def __init__(
        self, message: str, *, values: Mapping[str, tuple[str, str]] | None = None
    ) -> None:
        super().__init__(message)
        self.values = {
            name: (str(clean(theirs)), str(clean(own)))
            for name, (theirs, own) in (values or {}).items()
        }


class RankTimeoutError(DistributedError, TimeoutError):
    """Rank 0 of this launch has not published its run within `distributed.timeout`."""


class RunNotSeenError(DistributedError, OSError):
    """Rank 0 has published its run, and its directory cannot be seen from this rank's host.

    Attributes:
        path: the directory; secrets are hidden in it.
        host: the host of rank 0.
    """

    path: str | None = None
    host: str | None = None

    def __init__(self, message: str, *, path: str | None = None, host: str | None = None) -> None:
        super().__init__(message)
        self.path, self.host = clean(path), host


class ForkedSessionError(KeiseiError, RuntimeError):
    """The session belongs to the process that has forked this one."""


class HandleError(KeiseiError, ValueError):
    """A handle leads to no run that can be joined from here: it is damaged, or of elsewhere.

    Attributes:
        path: the run's directory, as the handle has it; secrets are hidden in it.
    """

    path: str | None = None

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = clean(path)


class InvalidRoleError(KeiseiError, ValueError):
    """A member's role could not safely name files on every system, or is reserved."""


class InvalidRunNameError(KeiseiError, ValueError):
    """The run's name could not safely name a directory on every system."""


class InvalidStatusError(KeiseiError, ValueError):
    """A run cannot end with that status."""


class JournalError(KeiseiError, RuntimeError):
    """The run's journal cannot be written, or may not be: it is closed, or this is a fork.

    Attributes:
        path: the journal's file, where known.
    """

    path: str | None = None

    def __init__(self, message: str, *, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class MediaError(KeiseiError, TypeError, ValueError):
    """An image, a video or the like cannot be kept as it was given; the message names the part."""


class MissingExtraError(KeiseiError, ImportError):
    """An optional package is not installed; the message names the extra that brings it."""


class NoThreadError(KeiseiError, RuntimeError):
    """The system has no thread left to run the blocking face's loop in."""


class NotReadyError(KeiseiError, RuntimeError):
    """A step is missing that has to come first; the message names it."""


class ProvenanceError(KeiseiError, RuntimeError):
    """The code that an attempt was started from cannot be restored."""


class QueryError(KeiseiError, ValueError):
    """A query for runs does not parse; the message points at the character.

    Attributes:
        column: where in the query, counted from 0.
    """

    column: int = 0

    def __init__(self, message: str, *, column: int = 0) -> None:
        super().__init__(message)
        self.column = column


class RegistryError(KeiseiError, RuntimeError):
    """The registry's database cannot be reached or used; the directories have everything."""


class RunCancelledError(KeiseiError, RuntimeError):
    """The run was cancelled from elsewhere, by `keisei cancel`: this leaves the session's block."""


class SessionEndedError(KeiseiError, RuntimeError):
    """The session has ended, and what was asked for belongs before its end."""


class RunEndedError(SessionEndedError, OSError):
    """The run that a part belongs to has ended: nothing more is logged to it from here."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.errno = errno.EPERM  # what stays so: no writer tries again

    def __str__(self) -> str:
        return str(self.args[0])  # whatever file was being written


class SignalError(KeiseiError, RuntimeError):
    """Signals cannot be handled: off the main thread, or there is no such signal."""


class TrackerError(KeiseiError, RuntimeError):
    """A tracker cannot start, which a session logs; or its run object is in another process."""
