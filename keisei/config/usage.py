"""The sections of a config about what a run uses: what is measured, what it costs, its budget."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from keisei.config.leaves import OnChange
from keisei.config.section import Section, by_name

# Whoever pays may change these between two attempts.
_Price = Annotated[float, Field(ge=0, allow_inf_nan=False), OnChange("free")]
_Limit = Annotated[float, Field(gt=0, allow_inf_nan=False), OnChange("free")]


class MonitoringConfig(Section):
    """What is measured of what the run uses."""

    lag: bool = True
    """Measure the lag of the event loop, in sessions of the async face."""
    lag_threshold: Annotated[float, Field(ge=0.01, le=3600, allow_inf_nan=False)] = 0.1
    """For how long the loop has to be held to make a stall, in seconds."""
    phases: bool = True
    """Measure how the run's time is shared out to phases, and how fast its steps come."""
    resources: bool = True
    """Measure what the run uses of its machine; without `keisei[monitoring]` nothing is measured.

    The environment variable KEISEI_RESOURCES (`on`, `off`) comes before it."""
    track: bool = False
    """Send what is measured of the machine, the rows `system/...`, to the trackers, too."""
    samplers: Annotated[dict[str, dict[str, Any]], BeforeValidator(by_name)] = {}
    """Samplers of installed packages (entry points of the group `keisei.resources`) by name, each
    with its options; a list of names will do where none has any."""
    interval: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 15.0
    """How often that is measured, in seconds; in a session's first minute each second."""


class CostConfig(Section):
    """What the run's resources cost."""

    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$"), OnChange("free")] = "USD"
    """The currency of the prices, of `budget.money` and of `log_cost`, by its three letters."""
    gpu_hour: _Price | None = None
    """The price of one GPU for an hour; unset, GPUs are not priced."""
    node_hour: _Price | None = None
    """The price of one node, that is a host on which the run has a process, for an hour."""
    kwh: _Price | None = None
    """The price of one kWh of the energy that was measured."""
    gpus: Annotated[int, Field(ge=0), OnChange("free")] | None = None
    """How many GPUs of each node the run pays for; unset, those that the sampler sees."""


class BudgetConfig(Section):
    """How much the run may use, over all its attempts, before it is ended as `cancelled`."""

    money: _Limit | None = None
    """The most money, in `cost.currency`; other currencies do not count."""
    hours: _Limit | None = None
    """The most hours of wall time, summed over the attempts."""
    energy_kwh: _Limit | None = None
    """The most energy, as far as it is measured, in kWh."""
    warn_at: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False), OnChange("free")] = 0.8
    """From which share of a limit on a warning is logged, once in each attempt."""

    @property
    def is_set(self) -> bool:
        """Whether there is any limit."""
        return any(x is not None for x in (self.money, self.hours, self.energy_kwh))
