"""Imports and computing beside the loop leave the program's settings as they were."""

from __future__ import annotations

import gc
import sys
import threading

from keisei._io.switching import quick_switches, quiet_imports


def settings() -> tuple[float, bool, tuple[int, int, int], int]:
    """Return the interpreter's settings that are changed for a while."""
    return sys.getswitchinterval(), gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()


def test_two_at_once_leave_no_setting_behind() -> None:
    """The settings are the program's own again when the last one is done, in any order."""
    gc.unfreeze()  # Python 3.12 begins with a few hundred frozen objects of its own
    before = settings()
    entered, release = threading.Event(), threading.Event()

    def load() -> None:
        with quiet_imports("a_library"), quick_switches():
            entered.set()
            release.wait(60)

    thread = threading.Thread(target=load)
    with quiet_imports("another_library"):
        thread.start()
        assert entered.wait(60)
        assert sys.getswitchinterval() < before[0]
        assert gc.get_threshold()[1:] > before[2][1:]
    assert gc.get_threshold()[1:] > before[2][1:]
    assert sys.getswitchinterval() < before[0]
    release.set()
    thread.join()
    assert settings() == before


def test_what_is_imported_already_changes_nothing() -> None:
    """A second start of a tracker does not touch the garbage collector."""
    before = settings()
    with quiet_imports("sys"):
        assert settings() == before
