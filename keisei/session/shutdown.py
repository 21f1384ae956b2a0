"""A session's answer to signals: the first ends it gracefully, a second one at once.

That another owner has taken the run over ends it, too.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import anyio

from keisei._io import signals
from keisei._io.loop import calling_soon
from keisei.config.schema import SignalsConfig
from keisei.errors import RankLostError, SignalError, TakenOverError, quoted
from keisei.run.failure import Failure, ended_by, failure_of
from keisei.run.status import FinalStatus, status_after

Tell = Callable[[FrameType | None], BaseException | None]
EndNow = Callable[[FinalStatus, Failure | None], object]
Hold = Callable[[float], float | None]

# How long the last words of a session that is ended at once may take, in seconds.
LAST_WORDS = 1.0


class Interruption:
    """The signals of one session: what came, what it means, and how the body is told.

    Args:
        hold: called in the main thread when the preemption signal comes, with the grace time in
            seconds; returns how long the body may go on to a safe point, and ``None`` where it is
            to be told at once.
        can_be_taken: returns whether another process may end the session: an owner that takes the
            run over, or a rank.

    Attributes:
        holds: whether a signal came that the body is not told of yet.
    """

    def __init__(
        self, hold: Hold = lambda grace: None, can_be_taken: Callable[[], bool] = bool
    ) -> None:
        self.holds = False
        self._can_be_taken = can_be_taken
        self._error: TakenOverError | RankLostError | None = None
        self._ask_to_hold = hold
        self._patience: float | None = None
        self._came = False
        self._end_now: EndNow = lambda final, failure: None
        self._watch: signals.Watch | None = None
        self._preemption: signal.Signals | None = None
        self._cancel: Callable[[], object] | None = None
        self._scope: anyio.CancelScope | None = None
        self._raised: BaseException | None = None
        self._task: asyncio.Task[Any] | None = None  # that `_cancel` cancels, on asyncio
        self._told = self._body_is_over = False

    @property
    def status(self) -> FinalStatus | None:
        """How the session ends by the signal that came, if any."""
        received = None if self._watch is None else self._watch.received
        if received is None:
            return None
        return "preempted" if received == self._preemption else "cancelled"

    def start(
        self,
        config: SignalsConfig,
        end_now: EndNow,
        preemption: str | None = None,
        grace: float | None = None,
        tell: Tell | None = None,
    ) -> None:
        """Begin to handle signals; a second call changes nothing.

        Args:
            config: which signals, and how long the graceful end may take.
            end_now: records the end with status and reason, for a process that is about to die.
            preemption: the preemption signal's name, in place of the config's.
            grace: how long the graceful end may take, in seconds, in place of the config's.
            tell: tells the body in the main thread, given the frame that the signal interrupted;
                what it returns is raised there. Without it, the body's task is cancelled.

        Raises:
            SignalError: this is not the main thread, or there is no such signal.
        """
        if self._watch is not None:
            return
        self._end_now = end_now
        name = config.preemption if preemption is None else preemption
        wait = config.grace if grace is None else grace
        to_body = tell or self.cancel_body
        try:
            numbers = {signal.SIGINT, signal.SIGTERM}
            if name is not None and not (name == "SIGUSR1" and sys.platform == "win32"):
                self._preemption = signal.Signals[name]
                numbers.add(self._preemption)

            def receive(number: int, frame: FrameType | None) -> BaseException | None:
                if not self._came:
                    self._came = True
                    self._patience = self._hold(number, wait)
                    self.holds = self._patience is not None
                    return None if self.holds else to_body(frame)
                was_held, self.holds = self.holds, False
                return to_body(frame) if was_held else None

            watch = signals.Watch(numbers, wait, receive, self._end_at_once, lambda: self._patience)
            if tell is None and (task := _current_task()) is not None:
                self._task, self._cancel = task, calling_soon(task.cancel)
            self._watch = watch  # before it starts: the first signal may be there already
            watch.start()
        except (KeyError, RuntimeError, OSError, ValueError, TypeError) as exc:
            self._watch = None
            raise SignalError(
                f"signals cannot be handled ({quoted(str(exc))}). Call handle_signals() in the "
                f"main thread; the preemption signal ({quoted(name)}) must be one that a process "
                f"may handle, and the grace time ({quoted(wait)}) a number of seconds above 0."
            ) from exc

    def open_scope(self) -> None:
        """Make the body's task one that a signal cancels, from here to `leave`."""
        if self._scope is None and (self._watch is not None or self._can_be_taken()):
            scope = anyio.CancelScope()
            self._scope = scope.__enter__()
            self._task, self._cancel = _current_task(), calling_soon(scope.cancel)
            if (self.status is not None and not self.holds) or self._error is not None:
                scope.cancel()

    def _hold(self, number: int, grace: float) -> float | None:
        """Return how long the body is not told of a signal, in seconds; ``None``: it is told."""
        if number != self._preemption or self._body_is_over:
            return None
        return self._ask_to_hold(grace)

    def at_safe_point(self) -> BaseException | None:
        """Cancel the body, which was not told of the signal, from its own task or thread.

        Returns:
            What to raise where no loop runs. On a loop the caller's next suspension is cancelled.
        """
        self.holds = False
        if self._scope is not None:
            self._scope.cancel()
        elif self._task is not None:
            self._task.cancel()
        return self.error()

    def cancel_body(self, frame: FrameType | None = None) -> BaseException | None:
        """Cancel the body's task, from a signal handler.

        Where none is known yet, `open_scope` does it, or the grace time ends it.

        Returns:
            What to raise in the main thread, where the task that entered is over: a fixture's.
        """
        if self._task is not None and self._task.done() and not self._body_is_over:
            self._told = True
            return self.error()
        if self._cancel is not None:
            self._cancel()
        return None

    def take_over(self, error: TakenOverError | RankLostError) -> None:
        """Cancel the body, for another process has ended the session; from any thread.

        A body that cannot be cancelled, because it runs in no loop, goes on.

        Args:
            error: what leaves the session in place of the cancellation.
        """
        self._error = error
        cancel = None if self._body_is_over else self._cancel
        if cancel is not None:
            cancel()

    def end_body(self) -> None:
        """Note that the body is over: from now on a signal leaves the end whole."""
        self._body_is_over, self.holds = True, False

    def ends_as(self, exc: BaseException | None) -> FinalStatus:
        """Return how the session ends: by what leaves its body, and the signal if one came."""
        if self._error is not None:
            return "failed"
        by_signal = self.status
        return status_after(exc) if by_signal is None or self._fails_itself(exc) else by_signal

    def reason(self, exc: BaseException | None) -> Failure | None:
        """Return why the session ends so: the error that leaves its body, or the signal."""
        if self._error is not None:
            return failure_of(self._error)
        return failure_of(exc) if self._fails_itself(exc) else self._signal() or failure_of(exc)

    def _signal(self) -> Failure | None:
        error = self.error()
        if error is None or self._watch is None or self._watch.received is None:
            return None
        return ended_by(signal.Signals(self._watch.received).name, error)

    def _fails_itself(self, exc: BaseException | None) -> bool:
        """Return whether the body has failed by an error of its own, whatever signal came."""
        return status_after(exc) == "failed" and not self._is_its_exit(exc)

    def _is_its_exit(self, exc: BaseException | None) -> bool:
        """Return whether the signal raised it, perhaps through a session around this one."""
        error = self.error()
        return (
            isinstance(exc, SystemExit) and isinstance(error, SystemExit) and exc.code == error.code
        )

    def error(self) -> BaseException | None:
        """Return what leaves the session when a signal has ended it; ``None`` where none has.

        `KeyboardInterrupt` for SIGINT, else `SystemExit` with 128 and the signal's number.
        """
        received = None if self._watch is None else self._watch.received
        if received is None:
            return None
        if self._raised is None:
            interrupted = received == signal.SIGINT
            self._raised = KeyboardInterrupt() if interrupted else SystemExit(128 + received)
        return self._raised

    def stop(self) -> None:
        """Put the process's own handlers back; what came until now stays known."""
        if self._watch is not None:
            self._watch.stop()

    def leave(self, exc: BaseException | None) -> BaseException | None:
        """Close the scope around the body, and give what leaves the session in place of ``exc``."""
        scope, self._scope, self._cancel = self._scope, None, None
        caught = False
        if scope is not None:
            try:
                caught = bool(scope.__exit__(type(exc) if exc else None, exc, None))
            except RuntimeError as misplaced:  # left in another task than it was entered in
                is_alive = self._task is None or not self._task.done()
                if exc is None and is_alive and self._watch is not None:
                    exc = SignalError(
                        "a session that handles signals was left in another task than the one that "
                        "entered it. Leave it in the same task, or set signals.handle to false"
                    )
                    exc.__cause__ = misplaced
            except BaseException as filtered:  # noqa: BLE001 - a group without the cancellations
                exc = filtered
        if self._error is not None and (caught or exc is None):
            return self._error
        error = None if self._told else self.error()
        if error is not None and (caught or exc is None or self.ends_as(exc) != "failed"):
            return error
        return None if caught else exc

    def _end_at_once(self, received: int) -> None:
        status: FinalStatus = "preempted" if received == self._preemption else "cancelled"
        failure = self._signal()
        words = threading.Thread(target=self._end_now, args=(status, failure), daemon=True)
        words.start()
        words.join(LAST_WORDS)
        os._exit(128 + received)


def _current_task() -> asyncio.Task[Any] | None:
    """Return the task that runs now, where the loop is asyncio's."""
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def error_at_exit() -> BaseException | None:
    """Return the error that has ended the program, once the interpreter is on its way out.

    The exit status of `sys.exit` cannot be seen by then, and an error at a prompt has ended
    nothing.
    """
    if hasattr(sys, "ps1") or threading.main_thread().is_alive():
        return None
    error = getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None
