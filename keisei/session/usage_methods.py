"""What a program tells of what it uses: its phases."""

from __future__ import annotations

from keisei.monitoring.phases import checked_name
from keisei.session.facts import ConfigT
from keisei.session.phases import Phase, Phases
from keisei.session.recording import Recording, SessionRecording


class PhaseMethods(Recording):
    """The phases of a session, or of a member of its run."""

    _phases: Phases

    def phase(self, name: str) -> Phase:
        """Return a context manager for a `with` block, whose time is the phase's; never waits.

        It may be used on the loop and in any thread, by many tasks at once, and within another
        phase: then the time is the inner one's. What is in phases at the same time shares the
        time. It decorates functions, too, coroutine functions among them.

        ``setup``, ``training``, ``evaluation``, ``checkpoint`` and ``waiting`` are keisei's own
        words; time that is in no phase is training.

        Args:
            name: the phase's name; any other word makes a phase of its own.

        Raises:
            TypeError: the name is no text.
            ValueError: it is empty, too long, or found by keisei itself: ``stall``, ``down``,
                ``lost``.
            NotReadyError: on entering the block, the directories are not set up.
            SessionEndedError: on entering the block, the session has ended.
            ForkedSessionError: on entering the block, this process was forked from the session's.
        """
        return Phase(self._phases, checked_name(name), self._check_phase)

    def _check_phase(self) -> None:
        """Check that a phase may be entered now; see `phase`."""
        if not self._recorder.ready or self._facts.forked():
            raise self._no_journal("phase()")


class SessionUsage(SessionRecording[ConfigT], PhaseMethods):
    """What a session is told of what it uses, on both faces."""
