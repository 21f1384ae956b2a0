"""What a session measures of itself, from its claim to its end: each part in a file of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from keisei.session.costs import Costs
from keisei.session.facts import SessionFacts
from keisei.session.lag import Lag
from keisei.session.phases import Phases
from keisei.session.recorder import Recorder
from keisei.session.resources import Resources
from keisei.session.shutdown import Interruption
from keisei.session.usage_part import UsagePart, guarded


class Usage:
    """What one session measures of itself.

    Args:
        facts: what is known of the session.
        recorder: what it records with.
        interruption: what ends it before its body does.

    Attributes:
        phases: what it does with its time.
        lag: what holds the loop that it lives in.
        resources: what it uses of its machine.
        costs: what it costs.
    """

    def __init__(
        self, facts: SessionFacts[Any], recorder: Recorder, interruption: Interruption
    ) -> None:
        self._facts = facts
        measured = facts.config.monitoring.phases
        self.phases = Phases(recorder, _total_of(facts), measured=measured)
        self.costs = Costs(facts, recorder, interruption)
        self.resources = Resources(facts, recorder, self.costs.used)
        self.lag = Lag(facts, recorder, self.phases.add_stall)
        self.parts: tuple[UsagePart, ...] = (self.lag, self.phases, self.resources, self.costs)

    def claimed(self) -> None:
        """Begin what needs no loop; called on the thread that has claimed the run."""
        for part in self.parts:
            self._guarded(part.claimed)

    def begin(self) -> None:
        """Begin what belongs to the loop; called in it, when the session has been entered."""
        for part in self.parts:
            self._guarded(part.begin)

    def leave_loop(self) -> None:
        """End what `begin` has begun; called in the loop, when the session begins to end."""
        for part in self.parts:
            self._guarded(part.leave_loop)

    def tick(self) -> None:
        """Do what is due by now; called every second on a thread."""
        for part in self.parts:
            self._guarded(part.tick)

    def record_end(self) -> None:
        """Log what is to be logged last; called on any thread, while the journal is open."""
        for part in self.parts:
            self._guarded(part.record_end)

    def summary(self) -> dict[str, Any]:
        """Return what is known by now as plain data."""
        known: dict[str, Any] = {}
        for part in self.parts:
            known |= part.summary()
        return known

    def _guarded(self, hook: Callable[[], None]) -> None:
        guarded(hook, self._facts.run_name)


def _total_of(facts: SessionFacts[Any]) -> int | None:
    """Return how many steps the training takes, where the config says so, and no default."""
    training = facts.config.training
    return training.total_timesteps if "total_timesteps" in training.model_fields_set else None
