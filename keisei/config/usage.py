"""The sections of a config about what a run uses: what is measured, what it costs, its budget."""

from typing import Annotated

from pydantic import Field

from keisei.config.section import Section


class MonitoringConfig(Section):
    """What is measured of what the run uses."""

    lag: bool = True
    """Measure the lag of the event loop, in sessions of the async face."""
    lag_threshold: Annotated[float, Field(ge=0.01, le=3600, allow_inf_nan=False)] = 0.1
    """For how long the loop has to be held to make a stall, in seconds."""
    resources: bool = True
    """Measure what the run uses of its machine; without `keisei[monitoring]` nothing is measured.

    The environment variable KEISEI_RESOURCES (`on`, `off`) comes before it."""
    interval: Annotated[float, Field(ge=0.1, le=3600, allow_inf_nan=False)] = 15.0
    """How often that is measured, in seconds; in a session's first minute each second."""


class CostConfig(Section):
    """What the run's resources cost."""


class BudgetConfig(Section):
    """How much the run may use before it is ended."""
