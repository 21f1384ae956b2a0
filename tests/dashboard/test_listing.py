"""What the list knows of runs that live."""

from __future__ import annotations

from pathlib import Path

from keisei import SessionManager
from keisei.dashboard.listing import Listing
from tests.conftest import MakeConfig
from tests.support.logged_runs import Log, line


def test_a_live_run_shows_no_superseded_rows(
    make_config: MakeConfig, log: Log, tmp_path: Path
) -> None:
    """What a resume has left behind does not count, from the moment that it is said."""
    log("resumed", line(range(100), -1.0))
    listing = Listing(str(tmp_path / "runs"))
    with SessionManager(make_config(), run_name="resumed") as session:
        session.flush()
        assert listing.row("resumed").metrics["loss"].min == -99.0
        session.resume_at(9)
        session.log_metrics({"loss": 5.0}, 10)
        session.flush()
        metrics = listing.row("resumed").metrics["loss"]
        assert (metrics.min, metrics.count, metrics.last) == (-9.0, 11, 5.0)
    listing.close()


def test_a_live_run_hides_what_its_attempt_has_logged_again(
    make_config: MakeConfig, log: Log, tmp_path: Path
) -> None:
    """Where nothing is said, a later value of the same step hides the earlier one."""
    log("again", line(range(20), -1.0))
    listing = Listing(str(tmp_path / "runs"))
    with SessionManager(make_config(), run_name="again") as session:
        for step in range(10, 20):
            session.log_metrics({"loss": float(step)}, step)
        session.flush()
        metrics = listing.row("again").metrics["loss"]
        assert (metrics.min, metrics.count, metrics.last) == (-9.0, 20, 19.0)
    listing.close()
