"""A line of progress at the bottom of a terminal, for each session that logs metrics.

One daemon thread for all sessions looks into their journals' files twice a second, so that a row
costs its caller nothing more. The lines stand below the terminal's scroll region, as `apt` has
them: whatever is printed meanwhile, by whomever, scrolls above them and stays as it is.

Elsewhere nothing happens: where stderr is no terminal, is a dumb one or a CI's, and without rich.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from keisei._io.forks import after_in_child
from keisei._io.loop import on_loop
from keisei._io.switching import yield_gil
from keisei._text import one_line
from keisei.config.schema import AppConfig
from keisei.journal.attempt import AttemptReader
from keisei.journal.records import as_float, is_system
from keisei.journal.throughput import Throughput, time_to_go
from keisei.journal.writer import Journal
from keisei.redaction import clean
from keisei.run.layout import RunPaths

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

PAUSE = 0.5  # seconds between two looks
MOST_LINES = 4
_MOST_METRICS = 3
_SHORTEST_NAME = 12  # columns, where the figures need the rest
_WINDOW = 60  # looks that the speed is measured over
_ERASE_TIMEOUT = 1.0


def in_terminal() -> bool:
    """Return whether stderr is a terminal in which something may be drawn."""
    dumb = ("dumb", "unknown") if sys.platform == "win32" else ("", "dumb", "unknown")
    if os.environ.get("TERM", "").lower() in dumb or os.environ.get("CI", "") not in ("", "false"):
        return False
    try:
        return bool(sys.stderr.isatty())
    except (AttributeError, ValueError):  # there is none, or it is closed
        return False


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


class Progress:
    """How one session goes on, read from its journal.

    Args:
        recording: what it records with.
        facts: what is known of it.
    """

    def __init__(self, recording: Recording, facts: Watched) -> None:
        self._recording, self._facts = recording, facts
        self._reader: AttemptReader | None = None
        self._steps = Throughput(_WINDOW)
        self._values: dict[str, float] = {}
        self.gone = threading.Event()

    @property
    def due(self) -> bool:
        """Whether the session has logged something."""
        return self._recording.journal is not None

    @property
    def shown(self) -> bool:
        """Whether there is anything to show: a row, and not events alone."""
        return bool(self._steps or self._values)

    def look(self) -> None:
        """Read what was logged since the last look."""
        facts = self._facts
        try:
            if self._reader is None and self.due and facts.paths is not None:
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
            self._steps.add(*latest)

    def text(self, width: int) -> Text:
        """Return the line: the figures that fit, and what of the run's name then still does.

        Args:
            width: of the terminal, in columns.
        """
        from rich.text import Text

        name = Text(one_line(self._facts.run_name), style="bold", no_wrap=True)
        left = width - 1 - min(name.cell_len, _SHORTEST_NAME)
        shown = set[int]()
        figures = self._figures()
        for number in sorted(range(len(figures)), key=lambda number: figures[number][0]):
            if (taken := Text(figures[number][1]).cell_len) <= left or not shown:
                shown.add(number)
                left -= taken
        name.truncate(left + _SHORTEST_NAME, overflow="ellipsis")
        for number in sorted(shown):
            name.append(*figures[number][1:])
        return name

    def _figures(self) -> list[tuple[int, str, str]]:
        """Return the parts behind the name: rank, text and style; a small rank matters most."""
        found = []
        if self._steps:
            step, total = self._steps.step, self._facts.config.training.total_timesteps
            found.append((0, f"  {step:,}/{total:,} ({step / total:.0%})", "cyan not bold"))
            if speed := self._steps.recent():
                text = f"  {speed:,.{1 if speed < 100 else 0}f} steps/s"
                found.append((3, text, "not bold"))
                if seconds := time_to_go(step, total, speed):
                    found.append((1, f"  ETA {_clock(round(seconds))}", "not bold"))
        for number, (key, value) in enumerate(islice(self._values.items(), _MOST_METRICS)):
            text = f"  {one_line(clean(key))[:32]} {_short(value)}"
            found.append((2 + 2 * number, text, "dim not bold"))
        return found

    def close(self) -> None:
        """Close the journal's file."""
        if self._reader is not None:
            self._reader.close()


def _clock(seconds: int) -> str:
    return f"{seconds // 3600}:{seconds % 3600 // 60:02}:{seconds % 60:02}"


def _short(value: float) -> str:
    return f"{as_float(value):.4g}"


class Screen:
    """The last lines of a terminal, kept out of what scrolls.

    Args:
        console: rich's console on it.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._count = self._height = 0

    @property
    def width(self) -> int:
        """How many columns the terminal has."""
        return self._console.width

    def draw(self, lines: list[Text]) -> None:
        """Show some lines instead of those that are there.

        Raises:
            OSError: the terminal is gone.
        """
        width, height = self._console.size
        count = len(lines) if height > len(lines) + 2 else 0
        text = ""
        if (count, height) != (self._count, self._height):
            text = self._cleared()
            if count:  # room is made below the cursor, which keeps its column
                text += "\x1bD" * count + f"\x1b[{count}A\x1b7\x1b[1;{height - count}r\x1b8"
            self._count, self._height = count, height
        if count:
            text += "\x1b7"
            for row, line in enumerate(lines, height - count + 1):
                line.truncate(width - 1, overflow="ellipsis")
                with self._console.capture() as drawn:
                    self._console.print(line, end="", soft_wrap=True, highlight=False)
                text += f"\x1b[{row};1H\x1b[2K{drawn.get()}"
            text += "\x1b8"
        self._write(text)

    def clear(self) -> None:
        """Erase the lines, and leave their rows to the terminal.

        Raises:
            OSError: the terminal is gone.
        """
        self._write(self._cleared())
        self._count = 0

    def _cleared(self) -> str:
        if not self._count:
            return ""
        rows = range(self._height - self._count + 1, self._height + 1)
        return "\x1b7\x1b[r" + "".join(f"\x1b[{row};1H\x1b[2K" for row in rows) + "\x1b8"

    def _write(self, text: str) -> None:
        if text:
            self._console.file.write(text)  # in one piece: nothing that is printed comes between
            self._console.file.flush()


class Display:
    """The sessions that are shown, and the thread that shows them, which ends with the last one."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._sessions: dict[int, Progress] = {}
        self._leaving: list[Progress] = []
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, recording: Recording, facts: Watched) -> None:
        """Show a session from when it logs metrics."""
        with self._lock:
            self._sessions[id(recording)] = Progress(recording, facts)
            if self._thread is None:
                thread = threading.Thread(target=self._run, name="keisei-progress", daemon=True)
                with suppress(RuntimeError):  # no thread left: there are more important ones
                    thread.start()
                    self._thread = thread

    def remove(self, recording: Recording) -> None:
        """Show a session no more; waits for it to be erased, but not on an event loop."""
        with self._lock:
            progress = self._sessions.pop(id(recording), None)
            if progress is None:
                return
            if self._thread is not None:
                self._leaving.append(progress)
        if self._thread is not None:
            self._wake.set()
            if progress.shown and not on_loop():
                progress.gone.wait(_ERASE_TIMEOUT)

    def end(self) -> None:
        """Show nothing more: the process ends."""
        with self._lock:
            thread, self._leaving = self._thread, [*self._leaving, *self._sessions.values()]
            self._sessions.clear()
        if thread is not None:
            self._wake.set()
            thread.join(_ERASE_TIMEOUT)

    def _run(self) -> None:
        try:
            from rich.console import Console

            console = Console(file=sys.stderr)
            screen = None if console.legacy_windows else Screen(console)
        except ImportError:
            screen = None
        while self._look(screen):
            self._wake.wait(PAUSE)
            self._wake.clear()

    def _look(self, screen: Screen | None) -> bool:
        """Draw once; whether there is anything left to wait for."""
        with self._lock:
            sessions, leaving = list(self._sessions.values()), self._leaving
            self._leaving = []
            if not sessions:
                self._thread = None
        try:
            if screen is not None and _in_foreground():
                lines = lines_of(sessions, screen.width)
                if sessions:
                    screen.draw(lines)
                else:
                    screen.clear()
        except Exception:  # noqa: BLE001 - the terminal is gone: the run goes on all the same
            pass
        for progress in leaving:
            progress.close()
            progress.gone.set()
        return bool(sessions)


def lines_of(sessions: list[Progress], width: int) -> list[Text]:
    """Look at the first sessions that log, and return a line for each; the others are counted.

    Args:
        sessions: what is to be shown.
        width: of the terminal, in columns.
    """
    from rich.text import Text

    shown: list[Progress] = []
    for progress in sessions:
        if len(shown) < MOST_LINES:
            progress.look()
            if progress.shown:
                shown.append(progress)
    lines = [progress.text(width) for progress in shown]
    more = sum(progress.due for progress in sessions) - len(shown)
    if len(shown) == MOST_LINES and more:
        lines.append(Text(f"and {more} more", style="dim"))
    return lines


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

    Args:
        recording: what the session records with.
        facts: what is known of it.
    """
    if facts.config.logging.progress and in_terminal():
        _display.add(recording, facts)


def hide(recording: Recording) -> None:
    """Show a session no more, if it is shown."""
    _display.remove(recording)


def _after_fork() -> None:
    global _display
    _display = Display()


after_in_child(_after_fork)
atexit.register(lambda: _display.end())
