"""One name: what the ranks of a launch have in common, and the files in which they say it."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from keisei.distributed.agreement_file import (
    Agreement,
    Terms,
    check_terms,
    earlier_files,
    file_name,
)
from keisei.distributed.launchers import Launch
from keisei.errors import RankMismatchError
from keisei.run.owned import this_owner

LAUNCH = Launch("torchrun", 0, 4, 0, 0, "torchrun/abc")
CONFIG = {"env": {"seed": 1, "device": "cuda:0"}, "training": {"lr": 0.1, "layers": [1, 2]}}


def agreed(**changes: Any) -> Agreement:
    """Return what a rank 0 has published."""
    known: dict[str, Any] = {"name": "r", "world_size": 4, "version": "1.0", "config": CONFIG}
    return Agreement(
        launcher="torchrun", identity="torchrun/abc", owner=this_owner(), **{**known, **changes}
    )


def differences(own: Terms, may_differ: list[str] | None = None) -> dict[str, tuple[str, str]]:
    """Return in what a rank differs from rank 0."""
    found = None
    try:
        check_terms(agreed(), own, 3, may_differ or [])
    except RankMismatchError as exc:
        found = exc
    if found is None:
        return {}
    assert all(one in str(found) and other in str(found) for one, other in found.values.values())
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again, RankMismatchError)
    assert again.values == found.values
    return again.values


@pytest.mark.requirement("RANK-2")
@pytest.mark.parametrize(
    ("own", "values"),
    [
        (Terms("other", 4, "1.0", CONFIG), {"the run's name": ("'r'", "'other'")}),
        (Terms("r", 8, "1.0", CONFIG), {"the world size": ("4", "8")}),
        (Terms("r", 4, "1.1", CONFIG), {"keisei's version": ("'1.0'", "'1.1'")}),
        (
            Terms("r", 4, "1.0", {**CONFIG, "training": {"lr": 0.2, "layers": [1, 2]}}),
            {"training.lr": ("0.1", "0.2")},
        ),
        (
            Terms("r", 4, "1.0", {**CONFIG, "training": {"lr": 0.1, "layers": [1], "new": None}}),
            {"training.layers": ("[1, 2]", "[1]"), "training.new": ("unset", "None")},
        ),
    ],
    ids=["name", "world size", "version", "config", "lists and keys"],
)
def test_ranks_that_differ_are_told_both_values(
    own: Terms, values: dict[str, tuple[str, str]]
) -> None:
    """A rank with another name, world size, version or config is refused, with both values."""
    assert differences(own) == values


def test_ranks_that_agree_are_not_refused() -> None:
    """The same terms, and a rank that has chosen no name of its own, are fine."""
    assert differences(Terms("r", 4, "1.0", CONFIG)) == {}
    assert differences(Terms(None, 4, "1.0", CONFIG)) == {}


def test_fields_may_differ_where_the_config_says_so() -> None:
    """`distributed.may_differ` names fields and whole sections; nothing that only begins so."""
    own = Terms("r", 4, "1.0", {**CONFIG, "env": {"seed": 2, "device": "cuda:3"}})
    assert list(differences(own)) == ["env.seed", "env.device"]
    assert list(differences(own, ["env.seed"])) == ["env.device"]
    assert list(differences(own, ["env.se"])) == ["env.seed", "env.device"]
    assert differences(own, ["env"]) == {}


def test_what_is_rank_0s_alone_may_differ() -> None:
    """Programs switch trackers on at rank 0 only: nobody else starts any."""
    own = {**CONFIG, "wandb": {"project": "p"}, "tracking": {"wait": False}}
    assert differences(Terms("r", 4, "1.0", {**own, "logging": {"wandb_enabled": True}})) == {}


def test_a_message_shows_few_of_many_differences() -> None:
    """Of many differences a message shows some, and says how many more there are."""
    config = {f"field{n}": n for n in range(100)}
    with pytest.raises(RankMismatchError, match="and 94 more") as caught:
        check_terms(agreed(config=config), Terms("r", 4, "1.0", {}), 3, ["field0"])
    assert len(caught.value.values) == 99
    assert len(str(caught.value)) < 1000


def test_the_file_is_one_for_each_start_and_session() -> None:
    """Launches, restarts, requeues and the sessions of a program have files of their own."""
    launches = [
        LAUNCH,
        LAUNCH._replace(identity="torchrun/abd"),
        LAUNCH._replace(restart=1),
        LAUNCH._replace(requeues=1),
    ]
    names = [file_name(launch, number) for launch in launches for number in (0, 1)]
    assert len(set(names)) == len(names)
    assert file_name(LAUNCH._replace(rank=3, local_rank=1), 0) == names[0]
    hostile = file_name(LAUNCH._replace(identity="../\udcff\n" * 1000), 0)
    assert "/" not in hostile
    assert len(hostile) < 80


def test_earlier_starts_are_found_the_latest_first() -> None:
    """What the same launch has had before it was started again is found; no other launch's is."""
    names = [
        file_name(LAUNCH._replace(requeues=requeue, restart=restart), number)
        for requeue in (0, 1, 2)
        for restart in (0, 9, 10)
        for number in (0, 1)
    ]
    names += [file_name(LAUNCH._replace(identity="torchrun/abd"), 0), "lock", ".x.tmp"]
    found = earlier_files(names, LAUNCH._replace(requeues=1, restart=10), 0)
    expected = [(1, 9), (1, 0), (0, 10), (0, 9), (0, 0)]
    assert found == [
        file_name(LAUNCH._replace(requeues=requeue, restart=restart), 0)
        for requeue, restart in expected
    ]
    assert earlier_files(names, LAUNCH, 0) == []


def test_an_agreement_is_read_back_or_is_none() -> None:
    """What is no whole agreement is none, whatever it is cut from."""
    text = agreed(run_name="r", session_id=None).text()
    assert Agreement.parsed(text) == agreed(run_name="r", session_id=None)
    for size in range(0, len(text) - 1, 7):
        assert Agreement.parsed(text[:size]) is None
    assert Agreement.parsed(text.replace(b'"r"', b'"../r"')) is None
