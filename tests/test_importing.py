"""Imports on a thread that leave the program's settings as they were."""

from __future__ import annotations

import gc
import sys
import threading

from keisei.trackers.importing import gentle_import


def test_two_imports_at_once_leave_no_setting_behind() -> None:
    """One waits for the other, or it would take the other's settings for the program's."""
    before = (sys.getswitchinterval(), gc.isenabled(), gc.get_freeze_count())
    entered, release = threading.Event(), threading.Event()

    def load() -> None:
        with gentle_import("a_library"):
            entered.set()
            release.wait(10)

    thread = threading.Thread(target=load)
    with gentle_import("another_library"):
        assert sys.getswitchinterval() < before[0]
        assert not gc.isenabled()
        thread.start()
        assert not entered.wait(0.05)
    release.set()
    thread.join()
    assert entered.is_set()
    assert (sys.getswitchinterval(), gc.isenabled(), gc.get_freeze_count()) == before


def test_what_is_imported_already_changes_nothing() -> None:
    """A second start of a tracker does not touch the garbage collector."""
    before = (sys.getswitchinterval(), gc.isenabled())
    with gentle_import("sys"):
        assert (sys.getswitchinterval(), gc.isenabled()) == before
