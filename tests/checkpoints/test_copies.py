"""Which copies are missing at a URL, and which may go."""

from __future__ import annotations

from keisei import CheckpointsConfig
from keisei.checkpoints.copies import missing, newest_first, superfluous
from keisei.checkpoints.manifest import Manifest

FIRST, SECOND = "01AAAA", "01BBBB"  # session ids sort by time


def manifest(
    step: int | None, number: int, *, attempt: int = 1, run: str = FIRST, score: float = 0.0
) -> Manifest:
    """Return the manifest of a checkpoint; another number is another content."""
    return Manifest(
        keisei="1",
        run=run,
        step=step,
        attempt=attempt,
        number=number,
        created_at="2026-01-01T00:00:00+00:00",
        metrics={"score": score},
        kind="state",
        digest=f"blake2b:{number:032x}",
        algorithm="blake2b",
        files=[],
    )


def saved(*steps: int) -> dict[str, Manifest]:
    """Return manifests by name, of checkpoints that were committed in this order."""
    return {f"checkpoint_{step}.ckpt": manifest(step, n) for n, step in enumerate(steps)}


def test_what_is_missing_is_copied_the_newest_first() -> None:
    """Another content under the same name is missing, too."""
    local = list(saved(1, 2, 3).items())
    assert missing(local, {}) == ["checkpoint_3.ckpt", "checkpoint_2.ckpt", "checkpoint_1.ckpt"]
    assert missing(local, dict(local)) == []
    changed = {**dict(local), "checkpoint_2.ckpt": manifest(2, 9)}
    assert missing(local, changed) == ["checkpoint_2.ckpt"]


def test_the_policy_decides_over_all_copies() -> None:
    """As if they stood in one directory with the local ones, which stay whatever it says."""
    remote = saved(1, 2, 3, 4, 5)
    local = {name: remote[name] for name in ("checkpoint_1.ckpt", "checkpoint_5.ckpt")}
    assert superfluous(local, remote, CheckpointsConfig(keep_last=2)) == [
        "checkpoint_2.ckpt",
        "checkpoint_3.ckpt",
    ]
    assert superfluous({}, remote, CheckpointsConfig(keep_last=4)) == ["checkpoint_1.ckpt"]
    assert superfluous({}, remote, CheckpointsConfig(keep_last=None)) == []
    assert superfluous({}, remote, None) == []


def test_a_final_model_stays() -> None:
    """No policy is about it."""
    remote = {**saved(1, 2), "final_model": manifest(None, 2)}
    assert superfluous({}, remote, CheckpointsConfig(keep_last=1)) == ["checkpoint_1.ckpt"]


def test_what_a_resume_has_left_behind_goes() -> None:
    """A later attempt counts on from where it went back to; another run's is none of its past."""
    other = manifest(8, 9, run=SECOND)
    remote = {**saved(1, 2, 3), "checkpoint_8.ckpt": other}
    local = {
        "checkpoint_1.ckpt": remote["checkpoint_1.ckpt"],
        "checkpoint_9.ckpt": manifest(9, 1, attempt=2),
    }
    behind = ["checkpoint_2.ckpt", "checkpoint_3.ckpt"]
    assert superfluous(local, {**remote, **local}, None) == behind
    assert superfluous(local, {**remote, **local}, CheckpointsConfig(keep_last=9)) == behind
    later = {**local, "checkpoint_9.ckpt": manifest(9, 3, attempt=2)}
    assert superfluous(later, {**remote, **later}, None) == []


def test_a_run_that_began_anew_on_another_disk_is_the_newer_one() -> None:
    """It counts its commits from 1 again, and its session id sorts behind the first one's."""
    first = saved(10, 20, 30)
    second = {"checkpoint_40.ckpt": manifest(40, 1, run=SECOND)}
    assert newest_first({**first, **second})[0] == "checkpoint_40.ckpt"
    gone = superfluous(second, {**first, **second}, CheckpointsConfig(keep_last=2))
    assert gone == ["checkpoint_10.ckpt", "checkpoint_20.ckpt"]
