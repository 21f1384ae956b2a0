"""A line of progress in a terminal, where the config asks for one.

One daemon thread for all sessions looks into the first one's journal twice a second, so that a row
costs its caller nothing more, and draws what it finds with rich. Where stderr is no terminal, is a
dumb one or a CI's, there is neither thread nor line.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from time import monotonic, time
from typing import TYPE_CHECKING, Protocol, TextIO

from keisei._io.forks import after_in_child
from keisei._io.switching import yield_gil
from keisei._log import logger
from keisei._text import one_line
from keisei.config.schema import AppConfig
from keisei.console.terminal_line import TerminalLine
from keisei.journal.attempt import AttemptReader
from keisei.journal.records import as_float, is_system
from keisei.journal.throughput import SteadyTime, Throughput, time_to_go
from keisei.journal.writer import Journal
from keisei.redaction import clean
from keisei.run.layout import RunPaths

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PAUSE = 0.5  # seconds between two looks
_MOST_METRICS = 3
_SHORTEST_NAME = 12  # columns
_WINDOW = 60  # looks that the speed is measured over
_ERASE_TIMEOUT = 1.0


def in_terminal() -> bool:
    """Return whether stderr is a terminal in which something may be drawn."""
    dumb = ("dumb", "unknown") if sys.platform == "win32" else ("", "dumb", "unknown")
    if os.environ.get("TERM", "").lower() in dumb or os.environ.get("CI", "") not in ("", "false"):
        return False
    return _is_terminal(sys.stderr)


class Recording(Protocol):
    """What a session records with."""

    journal: Journal | None


class Watched(Protocol):
    """What is known of a session that is shown."""

    @property
    def run_name(self) -> str:
        """Its run's name."""

    @property
    def attempt(self) -> int:
        """Which start of the run it is."""

    @property
    def paths(self) -> RunPaths | None:
        """Its paths, once claimed."""

    @property
    def config(self) -> AppConfig:
        """Its config."""

    @property
    def rank(self) -> int:
        """Which rank it is of its run."""


class Progress:
    """How one session goes on, read from its journal.

    Args:
        recording: what it records with.
        facts: what is known of it.
    """

    def __init__(self, recording: Recording, facts: Watched) -> None:
        self._recording, self._facts = recording, facts
        self._reader: AttemptReader | None = None
        self._steps, self._steady = Throughput(_WINDOW), SteadyTime(time(), monotonic())
        self._values: dict[str, float] = {}

    @property
    def shown(self) -> bool:
        """Whether there is anything to show: a row, and not events alone."""
        return bool(self._steps or self._values)

    def look(self) -> None:
        """Read what was logged since the last look."""
        facts = self._facts
        try:
            if self._reader is None and self._recording.journal and facts.paths is not None:
                self._reader = AttemptReader(facts.paths.run_artifact_dir, facts.attempt)
            if self._reader is not None:
                self._read(self._reader)
        except (OSError, ValueError):
            pass  # there is no journal yet, or it cannot be read: the run goes on all the same

    def _read(self, reader: AttemptReader) -> None:
        latest: tuple[float, int] | None = None
        for batch in reader.batches(events=False):
            yield_gil()
            if not batch.rows:
                continue
            moment, *values, step = batch.rows[-1]
            if is_system(keys := reader.keys(batch)):
                continue
            for key, value in zip(keys, values, strict=True):
                if key in self._values or len(self._values) < _MOST_METRICS:
                    self._values[key] = value  # type: ignore[assignment]
            if isinstance(step, int):
                latest = float(moment), step  # type: ignore[arg-type]
        if latest is not None:
            at = self._steady.time_of(latest[0], time(), monotonic())
            self._steps.add(at, latest[1])

    def text(self, width: int) -> Text:
        """Return the line, in which what matters most comes first; what does not fit is cut.

        Args:
            width: the most columns.
        """
        from rich.text import Text

        line = Text(one_line(self._facts.run_name), style="bold", no_wrap=True)
        line.truncate(max(_SHORTEST_NAME, width // 4), overflow="ellipsis")
        if self._steps:
            step, total = self._steps.step, self._facts.config.training.total_timesteps
            line.append(f"  {step:,}/{total:,} ({step / total:.0%})", "cyan not bold")
            if speed := self._steps.recent():
                if seconds := time_to_go(step, total, speed):
                    line.append(f"  ETA {_clock(round(seconds))}", "not bold")
                line.append(f"  {speed:,.{1 if speed < 100 else 0}f} steps/s", "not bold")
        for key, value in self._values.items():
            text = f"  {one_line(clean(key))[:32]} {as_float(value):.4g}"
            line.append(text, "dim not bold")
        line.truncate(width, overflow="ellipsis")
        return line

    def close(self) -> None:
        """Close the journal's file."""
        if self._reader is not None:
            self._reader.close()


def _clock(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds % 3600 // 60:02}:{seconds % 60:02}"


class Display:
    """The sessions that log, and the thread that shows the first, which ends with the last one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[int, tuple[Recording, Watched]] = {}
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None
        self._line: TerminalLine | None = None

    def add(self, recording: Recording, facts: Watched) -> None:
        """Show a session from when it logs metrics."""
        with self._lock:
            self._sessions[id(recording)] = recording, facts
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="keisei-progress", daemon=True)
                with suppress(RuntimeError):  # no thread left: there are more important ones
                    thread.start()
                    self._thread = thread

    def remove(self, recording: Recording) -> None:
        """Show a session no more, in a moment, or when something is printed."""
        with self._lock:
            if self._sessions.pop(id(recording), None) is not None:
                self._wake.set()

    def end(self) -> None:
        """Show nothing more: the process ends."""
        with self._lock:
            self._sessions.clear()
            thread = self._thread
        self._wake.set()
        if thread is not None:
            thread.join(_ERASE_TIMEOUT)

    def forget(self) -> None:
        """Leave the terminal to the process that this one was forked from."""
        if self._line is not None:
            self._line.forget()

    def _run(self) -> None:
        console = None
        try:
            from rich.console import Console

            console = Console(file=sys.stderr)
        except ImportError as exc:
            logger.debug("no line of progress without the extra keisei[console]: %s", exc)
        shown: tuple[int, Progress] | None = None
        while True:
            self._wake.clear()
            with self._lock:
                logging = [key for key, (one, _) in self._sessions.items() if one.journal]
                if shown is not None and shown[0] not in logging[:1]:
                    shown[1].close()
                    shown = None
                if logging and shown is None:
                    shown = logging[0], Progress(*self._sessions[logging[0]])
                if is_last := not self._sessions:
                    self._thread = None
            # The terminal may be gone: the run goes on all the same.
            with suppress(Exception):
                if console is not None and not console.legacy_windows:
                    self._draw(shown and shown[1], len(logging) - 1, console)
            if is_last:
                return
            self._wake.wait(PAUSE)

    def _draw(self, progress: Progress | None, others: int, console: Console) -> None:
        if progress is None:
            line, self._line = self._line, None
            if line is not None:
                line.close()
            return
        progress.look()
        if progress.shown and _in_foreground():
            more = f"  and {others} more" if others else ""
            width = console.width
            text = progress.text(width - 1 - len(more)).append(more, "dim not bold")
            with console.capture() as drawn:
                console.print(text, end="", soft_wrap=True, highlight=False)
            if self._line is None:
                both = [stream for stream in (sys.stderr, sys.stdout) if _is_terminal(stream)]
                self._line = TerminalLine(both)
            self._line.show(drawn.get(), width)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):  # it is closed
        return False


def _in_foreground() -> bool:
    """Return whether the terminal is this process's to draw in, as far as the system knows it."""
    if sys.platform == "win32":
        return True
    try:
        return os.tcgetpgrp(sys.stderr.fileno()) == os.getpgrp()
    except (OSError, ValueError, AttributeError):  # not the terminal that controls it
        return True


_display = Display()


def show(recording: Recording, facts: Watched) -> None:
    """Show how a session goes on, where its config wants it and there is a terminal.

    Of several ranks, which share a terminal, it is rank 0.

    Args:
        recording: what the session records with.
        facts: what is known of it.
    """
    if facts.config.logging.progress and facts.rank == 0 and in_terminal():
        _display.add(recording, facts)


def hide(recording: Recording) -> None:
    """Show a session no more, if it is shown."""
    _display.remove(recording)


def _after_fork() -> None:
    global _display
    _display.forget()
    _display = Display()


after_in_child(_after_fork)
atexit.register(lambda: _display.end())
