"""What a session offers about signals and its preemption, on both faces."""

from __future__ import annotations

import math
import time

from keisei._text import one_line
from keisei.distributed.preemption import Notice, Preempting
from keisei.errors import quoted
from keisei.redaction import clean
from keisei.run.status import Step, require
from keisei.session import signal_names
from keisei.session.facts import ConfigT
from keisei.session.shutdown import Interruption, Tell
from keisei.session.signal_names import Names
from keisei.session.usage_methods import SessionUsage

_LONGEST = 100  # characters of a source


class SessionStopping(SessionUsage[ConfigT]):
    """What ends a session before its body does: signals, and a preemption that is asked for."""

    _interruption: Interruption
    _tell: Tell | None = None  # how the body is told, where it is not a task that is cancelled
    _entered = False  # whether the body's task runs in the block

    def handle_signals(
        self, *, preemption: Names | None = None, grace: float | None = None
    ) -> None:
        """End the session gracefully at SIGINT, SIGTERM or a preemption signal; a second ends it.

        The first ends the body of the block: on the async face it is cancelled, on the blocking
        one an error is raised in it. The session ends as `cancelled`, or by a preemption signal as
        `preempted`, and `KeyboardInterrupt` (SIGINT) or `SystemExit` with 128 and the signal's
        number leaves the block. At a second one, or after the grace time, the end is recorded and
        the process ends at once. The process's own handlers are put back when the session has
        ended; until then `signals.others` says what becomes of them. Call it before the block,
        directly in it, or set `signals.handle`.

        Args:
            preemption: the preemption signal's name, or several; without it, the config's.
            grace: how long the graceful end may take, in seconds; without it, the config's.

        Raises:
            SignalError: this is not the main thread, or there is no such signal.
        """
        self._facts.check_process("handle_signals()")
        require(Step.SIGNALS, self._facts.done, self._facts.status)
        self._interruption.start(self._facts.config.signals, preemption, grace, self._tell)
        if self._entered:
            self._interruption.open_scope()

    @property
    def preempting(self) -> Preempting | None:
        """The preemption that is under way: deadline and source; ``None`` where there is none."""
        return self._interruption.verdict.preempting

    def preempt(self, deadline: float | None = None, source: str = "call") -> None:
        """End the run as `preempted`, as the preemption signal does; a second call changes nothing.

        It saves at the next safe point where the policy says so, and leaves the block by
        `SystemExit`. It returns at once, and may be called from any thread. After the deadline the
        end is recorded and the process ends.

        Args:
            deadline: when the process has to be over, in seconds since the epoch; without it,
                `signals.grace` seconds from now.
            source: what has told it, for the session file.

        Raises:
            ValueError: the deadline is no finite number.
            TypeError: the deadline is no number, or the source no text.
            SessionEndedError: the session has ended.
            ForkedSessionError: this process was forked from the session's own.
        """
        self._facts.check_process("preempt()")
        require(Step.PREEMPT, self._facts.done, self._facts.status)
        if not isinstance(source, str):
            raise TypeError(f"a preemption's source is a text: {quoted(source)}")
        signals = self._facts.config.signals
        at = time.time() + signals.grace if deadline is None else float(deadline)
        if not math.isfinite(at):
            raise ValueError(f"a deadline is a time in seconds since the epoch: {quoted(deadline)}")
        told_by = one_line(clean(source))[:_LONGEST] or "call"
        number = signal_names.exit_number(signals.preemption)
        self._interruption.stop_by(Notice("preempted", told_by, at, number))
