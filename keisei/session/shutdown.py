"""What ends a session before its body does: which notice came, what it means, who is told.

A signal, a request in the run's directory, SLURM, a file and a call come here as a `Notice`; the
first one decides. Then the body is told (`Body`), at once or at its next safe point. That another
owner has taken the run over ends it, too.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from keisei._io import signals
from keisei._log import logger
from keisei.config.schema import SignalsConfig
from keisei.distributed.preemption import Notice, time_left
from keisei.errors import RankLostError, SignalError, TakenOverError, quoted
from keisei.run.failure import Failure
from keisei.run.status import FinalStatus
from keisei.session import signal_names
from keisei.session.body import Body
from keisei.session.signal_names import Names
from keisei.session.verdict import Verdict

Tell = Callable[[FrameType | None], BaseException | None]
EndNow = Callable[[FinalStatus, Failure | None], object]
Hold = Callable[[float], float | None]

# How long the last words of a session that is ended at once may take, in seconds.
LAST_WORDS = 1.0


class Interruption:
    """What ends one session from without, and how its body is told.

    Args:
        hold: called when a preemption begins, in the main thread or another one, with the grace
            time in seconds; returns how long the body may go on to a safe point, and ``None``
            where it is to be told at once.
        can_be_taken: returns whether another process may end the session: an owner that takes the
            run over, or a rank.
        at_call: called with an error that the body's next call is to raise, for a body that can be
            told in no other way; and with ``None`` once it is over.

    Attributes:
        body: the session's body.
        verdict: what ends the session, and as what.
        holds: whether a notice came that the body is not told of yet.
        grace: how long the graceful end after a signal may take, in seconds.
        tell_at: when it is told at the latest, by the monotonic clock; ``None`` where a signal's
            watch tells it.
        force_at: when the process is ended, the same; ``None`` where it is not, or the watch does.
        wake: wakes who looks at these times.
        end_now: records the end with status and reason, for a process that is about to die.
    """

    def __init__(
        self,
        hold: Hold = lambda grace: None,
        can_be_taken: Callable[[], bool] = bool,
        at_call: Callable[[BaseException | None], object] = lambda error: None,
    ) -> None:
        self.body, self.verdict = Body(), Verdict()
        self.holds = False
        self.tell_at: float | None = None
        self.force_at: float | None = None
        self.end_now: EndNow = lambda final, failure: None
        self.wake: Callable[[], object] = lambda: None
        self._can_be_taken = can_be_taken
        self._ask_to_hold, self._at_call = hold, at_call
        self._patience: float | None = None
        self._watch: signals.Watch | None = None
        self.grace = 0.0
        self._preemptions: frozenset[int] = frozenset()
        self._to_body: Tell = self.cancel_body
        self._is_due = False  # to be told by an error, in the main thread
        self._told = False

    @property
    def handles_signals(self) -> bool:
        """Whether signals were asked to end the session."""
        return self._watch is not None

    def start(
        self,
        config: SignalsConfig,
        preemption: Names | None = None,
        grace: float | None = None,
        tell: Tell | None = None,
    ) -> None:
        """Begin to handle signals; a second call changes nothing.

        Args:
            config: which signals, and how long the graceful end may take.
            preemption: the names of the preemption signals, in place of the config's.
            grace: how long the graceful end may take, in seconds, in place of the config's.
            tell: tells the body in the main thread, given the frame that the signal interrupted;
                what it returns is raised there. Without it, the body's task is cancelled.

        Raises:
            SignalError: this is not the main thread, or there is no such signal.
        """
        if self._watch is not None:
            return
        names = config.preemption if preemption is None else preemption
        self.grace = config.grace if grace is None else grace
        self._to_body = tell or self.cancel_body
        try:
            self._preemptions = signal_names.numbers(names)
            watch = signals.Watch(
                {signal.SIGINT, signal.SIGTERM} | self._preemptions,
                self.grace,
                self._receive,
                self._end_at_once,
                self._receive_again,
                lambda: self._patience,
                gives_way=config.others == "instead",
                repeatable=self._preemptions - {signal.SIGINT},  # a launcher passes it on, too
            )
            if tell is None:
                self.body.meet()
            self._watch = watch  # before it starts: the first signal may be there already
            watch.start()
        except (KeyError, RuntimeError, OSError, ValueError, TypeError) as exc:
            self._watch = None
            raise SignalError(
                f"signals cannot be handled ({quoted(str(exc))}). Call handle_signals() in the "
                f"main thread; the preemption signal ({quoted(names)}) must be one that a process "
                f"may handle, and the grace time ({quoted(self.grace)}) a number of seconds above "
                "0."
            ) from exc
        for number in sorted(watch.left):
            logger.warning(
                "%s is left to the handler that stands for it, and ends no session: with "
                "signals.others 'after' it is called after keisei's",
                signal.Signals(number).name,
            )

    def open_scope(self) -> None:
        """Take the task that runs now for the body's, which a notice cancels, from here to `leave`.

        A scope is opened only where it was asked for: it has to be left in its own task.
        """
        self.body.open(scoped=self._watch is not None or self._can_be_taken())
        if (self.verdict.notice is not None and not self.holds) or self.verdict.taken_over:
            self.body.cancel_here()

    def stop_by(self, notice: Notice) -> bool:
        """End the session by a notice, where it is the first; from any thread.

        Args:
            notice: what ends it.

        Returns:
            Whether it was the first.
        """
        if not self.verdict.is_first(notice):
            return False
        left = notice.saves_for
        if notice.deadline is not None:
            left = time_left(notice.deadline, time.time())
            self.force_at = time.monotonic() + left
        if left is not None:
            patience = self._held(notice, left)
            if patience is not None:
                self.tell_at = time.monotonic() + patience
        if not self.holds:
            self.tell()
        self.wake()
        return True

    def tell(self) -> None:
        """Cancel the body, or raise in it, which was not told yet; from any thread."""
        self.holds, self.tell_at = False, None
        if self.body.is_over:
            return
        by_error = self._to_body != self.cancel_body or self.body.task_is_over
        if not by_error and self.body.is_known:
            self.body.cancel()
            return
        self._is_due = True
        if self._watch is None or not self._watch.interrupt():
            self._is_due = False
            self.body.cancel()  # a set-up that waits in a loop
            self._at_call(self.verdict.error)

    def _receive(self, number: int, frame: FrameType | None) -> BaseException | None:
        """Take the first signal, in the main thread; return what is to be raised there."""
        status: FinalStatus = "preempted" if number in self._preemptions else "cancelled"
        name, deadline = signal.Signals(number).name, time.time() + self.grace
        notice = Notice(status, name, deadline, number)
        if self.verdict.is_first(notice):
            self._patience = self._held(notice, self.grace)
            self.wake()
            return None if self.holds else self._to_body(frame)
        if status == "preempted" or not self.holds:
            return None  # the same preemption, which was told otherwise before; or the body knows
        self.holds = False
        return self._to_body(frame)

    def _receive_again(self, frame: FrameType | None) -> BaseException | None:
        """Cancel the body, from the main thread; return what is to be raised there."""
        is_due, self.holds, self._is_due = self.holds or self._is_due, False, False
        return self._to_body(frame) if is_due else None

    def _held(self, notice: Notice, grace: float) -> float | None:
        """Return how long the body is not told of a notice, in seconds; ``None``: it is told."""
        patience = None
        saves = notice.status == "preempted" or notice.saves_for is not None
        if saves and not self.body.is_over:
            patience = self._ask_to_hold(grace)
        self.holds = patience is not None
        return patience

    def at_safe_point(self) -> BaseException | None:
        """Cancel the body, which was not told of the notice, from its own task or thread.

        Returns:
            What to raise where no loop runs. On a loop the caller's next suspension is cancelled.
        """
        self.holds, self.tell_at = False, None
        self.body.cancel_here()
        return self.verdict.error

    def cancel_body(self, frame: FrameType | None = None) -> BaseException | None:
        """Cancel the body's task, from a signal handler.

        Where none is known yet, `open_scope` does it, or the grace time ends it.

        Returns:
            What to raise in the main thread, where the task that entered is over: a fixture's.
        """
        if self.body.task_is_over:
            self._told = True
            return self.verdict.error
        self.body.cancel()
        return None

    def take_over(self, error: TakenOverError | RankLostError) -> None:
        """Cancel the body, for another process has ended the session; from any thread.

        A body that runs in no loop is told by its next call.

        Args:
            error: what leaves the session in place of the cancellation.
        """
        self.verdict.taken_over = error
        if self.body.is_known:
            self.body.cancel()
        elif not self.body.is_over:
            self._at_call(error)

    def end_body(self) -> None:
        """Note that the body is over: from now on a notice leaves the end whole."""
        self.body.is_over, self.holds, self.tell_at = True, False, None
        self._at_call(None)

    def stop(self) -> None:
        """Put the process's own handlers back; what came until now stays known."""
        self.force_at = None
        if self._watch is not None:
            self._watch.stop()

    def leave(self, exc: BaseException | None) -> BaseException | None:
        """Close the scope around the body, and return what leaves the session for ``exc``."""
        left = self.body.leave(exc)
        exc = left.error
        if left.misplaced is not None and self._watch is not None:
            exc = SignalError(
                "a session that handles signals was left in another task than the one that "
                "entered it. Leave it in the same task, or set signals.handle to false"
            )
            exc.__cause__ = left.misplaced
        if self.verdict.taken_over is not None and (left.cancelled or exc is None):
            return self.verdict.taken_over
        error = None if self._told else self.verdict.error
        if error is not None and (left.cancelled or self.verdict.ends_as(exc) != "failed"):
            return error
        return None if left.cancelled else exc

    def force(self) -> None:
        """Record the end, and end the process at once: the deadline is over; blocks."""
        notice = self.verdict.notice
        if notice is not None and notice.number is not None:
            self._end_at_once(notice.number)

    def _end_at_once(self, received: int) -> None:
        told = self.verdict.ends_as(None), self.verdict.told_by()
        words = threading.Thread(target=self.end_now, args=told, daemon=True)
        words.start()
        words.join(LAST_WORDS)
        os._exit(128 + received)


def error_at_exit() -> BaseException | None:
    """Return the error that has ended the program, once the interpreter is on its way out.

    The exit status of `sys.exit` cannot be seen by then, and an error at a prompt has ended
    nothing.
    """
    if hasattr(sys, "ps1") or threading.main_thread().is_alive():
        return None
    error = getattr(sys, "last_value", None)
    return error if isinstance(error, BaseException) else None
