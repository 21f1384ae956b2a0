"""Why a run ended: what is kept of an error, and where its place is found."""

from __future__ import annotations

import asyncio
import json

import pytest

from keisei.run.failure import Failure, failure_of


def raised(exc: BaseException) -> BaseException:
    """Return an exception that was raised here."""
    try:
        raise exc
    except BaseException as caught:
        return caught


def kept(exc: BaseException) -> Failure:
    """Return the failure that an exception leaves."""
    failure = failure_of(raised(exc))
    assert failure is not None
    return failure


def test_an_error_leaves_type_message_and_place() -> None:
    """The place is file, line and function."""
    failure = kept(RuntimeError("CUDA out of memory"))
    assert (failure.type, failure.message) == ("RuntimeError", "CUDA out of memory")
    assert failure.place is not None
    assert failure.place.startswith(f"{__file__}:")
    assert failure.place.endswith(" in raised")


def test_the_place_is_the_users_own() -> None:
    """An error from the depths of a library is placed at the user's call."""
    with pytest.raises(json.JSONDecodeError) as caught:
        json.loads("{")
    failure = failure_of(caught.value)
    assert failure is not None
    assert failure.place is not None
    assert failure.place.endswith(" in test_the_place_is_the_users_own")


def test_of_a_group_the_first_leaf_that_failed_counts() -> None:
    """Cancellations beside it, and what it lies in, are not named."""
    inner = ExceptionGroup("inner", [KeyError("loss"), ValueError("later")])
    group = BaseExceptionGroup("outer", [asyncio.CancelledError(), inner])
    failure = kept(group)
    assert (failure.type, failure.message) == ("KeyError", "'loss'")
    with pytest.raises(BaseExceptionGroup) as caught:
        raise group
    place = kept(caught.value).place  # the leaf was never raised by itself
    assert place is not None
    assert "test_failure.py" in place


@pytest.mark.parametrize("exc", [None, asyncio.CancelledError(), SystemExit(0), GeneratorExit()])
def test_what_is_no_failure_leaves_none(exc: BaseException | None) -> None:
    """A cancellation and a good exit have no reason."""
    assert failure_of(exc) is None


def test_an_interrupt_names_its_signal() -> None:
    """Ctrl-C is SIGINT."""
    failure = kept(KeyboardInterrupt())
    assert (failure.type, failure.message) == ("KeyboardInterrupt", "SIGINT")


def test_secrets_are_hidden_and_the_texts_are_short_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A key in a message, a megabyte of it, and lines that it would forge."""
    monkeypatch.setenv("STORE_PASSWORD", "canary-environment")
    evil = "token=canary-token canary-environment\n[2026] session ended: run r, completed\x1b[31m"
    failure = kept(RuntimeError(evil + "\u2028\udcff" + "ä" * 1_000_000))
    assert "canary" not in str(failure)
    assert len(failure.message) == 500
    assert str(failure).isprintable()
    assert len(str(failure).encode()) < 4000


def test_an_error_that_cannot_be_read_is_a_failure_all_the_same() -> None:
    """Its own text raises."""

    class Odd(Exception):
        def __str__(self) -> str:
            raise ValueError("no text")

    assert kept(Odd()).type == "Odd"
