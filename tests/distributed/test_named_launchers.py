"""Launchers of installed packages: named in the config, imported off the loop, checked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from keisei import AsyncSessionManager, LaunchError, NotReadyError
from keisei.distributed import named
from keisei.distributed.launch import find_launch
from keisei.distributed.launchers import ByVariables, Launch
from keisei.distributed.named import Named, named_launchers
from keisei.testing import check_launcher, installed
from tests.conftest import MakeConfig

FLUX = ByVariables("flux", ("F_RANK",), "F_RANK", "F_SIZE", identity=("F_JOB",), has_own_ids=True)
HERE = {"flux": f"{__name__}:FLUX", "mute": f"{__name__}:Mute", "hangs": "hanging_launcher:IT"}


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    with installed({"keisei.launchers": HERE}):
        yield


class Mute:
    """Has no `find`."""


def environ(rank: int, job: str = "a", size: int = 2) -> dict[str, str]:
    return {"F_RANK": str(rank), "F_SIZE": str(size), "F_JOB": job}


async def test_a_session_is_a_rank_by_a_launcher_that_it_names(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the block the rank is not known, and nothing is imported; in it, it is."""
    for name, value in environ(0, size=1).items():
        monkeypatch.setenv(name, value)
    session = AsyncSessionManager(make_config(distributed={"launchers": ["flux"]}))
    with pytest.raises(NotReadyError, match="distributed.launchers names some"):
        _ = session.rank
    assert session.get_session_summary()["rank"] is None
    async with session:
        assert (session.rank, session.world_size) == (0, 1)
        assert session._facts.launch is not None
        assert session._facts.launch.launcher == "flux"
        assert session._facts.launch.identity == "flux/a"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("absent", "no launcher is called 'absent'; installed: .*flux, .*torchrun"),
        ("mute", "mute is no launcher .*no method find"),
        ("slurm", "'slurm' is one of keisei's own launchers"),
    ],
)
async def test_one_that_cannot_be_used_stops_the_start(
    make_config: MakeConfig, name: str, problem: str
) -> None:
    """A run whose ranks do not know each other would be a wrong one, so none begins."""
    session = AsyncSessionManager(make_config(distributed={"launchers": [name]}))
    with pytest.raises(LaunchError, match=problem):
        async with session:
            pytest.fail("it has begun")
    assert session.get_session_summary()["run_artifact_dir"] is None


@pytest.fixture
def _hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hanging_launcher.py").write_text("import time\ntime.sleep(20)\n")
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("_hanging")
async def test_one_that_hangs_at_its_import_is_given_up(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the timeout it is an error that says where to look; the loop was never held."""
    monkeypatch.setattr(named, "TIMEOUT", 0.3)
    config = make_config(distributed={"launchers": ["hangs"]})
    hint = "one of them hangs. `keisei doctor --plugins` says which"
    with pytest.raises(LaunchError, match=hint):
        async with AsyncSessionManager(config):
            pytest.fail("it has begun")


def test_those_that_are_named_are_asked_first() -> None:
    """What they find decides; where they find nothing, keisei's own do."""
    torchrun = {
        "TORCHELASTIC_RUN_ID": "t",
        "RANK": "1",
        "WORLD_SIZE": "4",
        "MASTER_ADDR": "n",
    }
    asked = named_launchers(["flux"])
    both = find_launch({**torchrun, **environ(1)}, named=asked)
    only = find_launch(torchrun, named=asked)
    assert both is not None
    assert only is not None
    assert (both.launcher, both.world_size) == ("flux", 2)
    assert (only.launcher, only.world_size) == ("torchrun", 4)


class Says:
    """Says what it is told to say."""

    name = "says"

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def find(self, environ: object, pid: int) -> Launch | None:
        """Say it."""
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: Launch | None = self.answer
        return answer


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ((0, 2), "it is a tuple, and no Launch"),
        (Launch("x", 2, 2, None, None, "i"), "its rank is 2 of 2"),
        (Launch("x", -1, 2, None, None, "i"), "its rank is -1"),
        (Launch("x", 0, 2, "0", None, "i"), "its local_rank is 0, which is no count"),  # type: ignore[arg-type]
        (Launch("x", 0, 2, None, None, ""), "its identity is ''"),
        (KeyError("F_RANK"), "has failed: KeyError: 'F_RANK'"),
    ],
)
def test_an_answer_that_makes_no_sense_is_an_error(answer: Any, problem: str) -> None:
    """It names the launcher and the field."""
    with pytest.raises(LaunchError, match=problem) as caught:
        Named("says", Says(answer)).find({}, 1)
    assert "launcher says" in str(caught.value)


def test_the_kit_passes_a_good_one_and_tells_what_is_wrong_with_others() -> None:
    """Ranks that are counted from 1, one identity for two launches, one that is always there."""
    ranks, other = [environ(0), environ(1)], environ(0, "b")
    assert len(check_launcher(FLUX, ranks, other)) == 5
    with pytest.raises(AssertionError, match="another launch has the same identity"):
        check_launcher(FLUX._replace(identity=()), ranks, other)
    with pytest.raises(AssertionError, match="it counts the ranks as"):
        check_launcher(FLUX, ranks[::-1], other)
    always = Launch("x", 0, 2, None, None, "i")
    with pytest.raises(AssertionError, match="it counts the ranks as"):
        check_launcher(Says(always), ranks, other)
