"""What packages offer is found by name, and one that is broken is nobody else's matter."""

from __future__ import annotations

import os
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from keisei._io.plugins import Kind, check_name, load, scan
from keisei.config.files import SOURCE
from keisei.distributed.named import LAUNCHER
from keisei.errors import TrackerError
from keisei.monitoring.plugged import SAMPLER
from keisei.testing import installed
from keisei.trackers.loading import TRACKERS
from tests.support.plugins import install

THINGS = Kind("keisei.things", "thing", {"own": "os.path:join"}, TrackerError)


def test_one_is_found_by_its_name_and_imported_only_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its module is imported when it is named; others that are installed are not."""
    install(tmp_path, "good", {"keisei.things": {"a": "good_one:make", "b": "good_two:make"}})
    for name in ("good_one", "good_two"):
        (tmp_path / f"{name}.py").write_text("def make(): return 'made'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    make = load(THINGS, "a")
    assert callable(make)
    assert make() == "made"
    assert "good_two" not in sys.modules
    monkeypatch.delitem(sys.modules, "good_one")


def test_of_keiseis_own_nothing_installed_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A package that offers the name of one of keisei's own does not get into its place."""
    install(tmp_path, "usurper", {"keisei.things": {"own": "usurper:make"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(metadata, "distributions", None)
    assert load(THINGS, "own") is os.path.join
    with pytest.raises(TrackerError, match="'own' is one of keisei's own things"):
        check_name(THINGS, "own")


BROKEN = {
    "raises": ("raise RuntimeError('no such card')", "RuntimeError: no such card"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "lacks": ("", "has no attribute 'make'"),
    "needs": (
        "import a_package_that_is_not_there",
        "No module named 'a_package_that_is_not_there'",
    ),
    "wrong": ("make = 3", "it cannot be called"),
    "syntax": ("def", "SyntaxError"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_one_that_is_broken_is_an_error_that_names_it_and_its_package(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it does, `sys.exit` too, it is one error in one line, and others load."""
    source, problem = BROKEN[kind]
    module = f"broken_{kind}"
    points = {"broken": f"{module}:make", "good": "os.path:join"}
    install(tmp_path, "some-package", {"keisei.things": points})
    (tmp_path / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(TrackerError) as caught:
        load(THINGS, "broken")
    sys.modules.pop(module, None)
    text = str(caught.value)
    assert problem in text
    assert text.startswith("broken ")
    assert "some-package" in text
    assert "\n" not in text
    assert load(THINGS, "good") is os.path.join


def test_a_name_that_two_packages_offer_is_refused_with_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which of them is meant cannot be known; the same package twice is one."""
    for number, package in enumerate(["first", "second"]):
        path = tmp_path / package
        install(path, package, {"keisei.things": {"a": "os.path:join"}}, f"{number}.5")
        monkeypatch.syspath_prepend(str(path))
    with pytest.raises(TrackerError, match="by first 0.5 and second 1.5: uninstall all but one"):
        load(THINGS, "a")


def test_of_a_package_that_is_installed_twice_the_first_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old one behind it, which Python does not import, offers nothing."""
    install(tmp_path / "old", "a.Package", {"keisei.things": {"a": "os:sep", "b": "os:sep"}}, "1.0")
    install(tmp_path / "new", "a-package", {"keisei.things": {"a": "os.path:join"}}, "2.0")
    monkeypatch.syspath_prepend(str(tmp_path / "old"))
    monkeypatch.syspath_prepend(str(tmp_path / "new"))
    offers, unreadable = scan([THINGS.group])
    assert [(offer.name, offer.version) for offer in offers] == [("a", "2.0")]
    assert not unreadable
    install(tmp_path / "newest", "a-package", {"other.things": {"a": "os:sep"}}, "3.0")
    monkeypatch.syspath_prepend(str(tmp_path / "newest"))
    assert scan([THINGS.group]) == ([], [])  # it offers none any more


def test_an_unknown_name_lists_what_is_installed() -> None:
    """keisei's own, and what packages offer."""
    with (
        installed({"keisei.things": {"mine": "os.path:join"}}),
        pytest.raises(TrackerError, match="no thing is called 'x'; installed: mine, own"),
    ):
        load(THINGS, "x")
    with pytest.raises(TrackerError, match="installed: own$"):
        load(THINGS, "x")


@pytest.mark.parametrize("damage", ["no text", "no pairs", "no metadata"])
def test_a_damaged_package_hides_no_other(
    damage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its entry points are not read, which is said; those of others are."""
    about = install(tmp_path / "bad", "damaged", {"keisei.things": {"c": "os.path:join"}})
    if damage == "no text":
        (about / "entry_points.txt").write_bytes(b"[keisei.things]\n\xff\xfe = a:b\n")
    elif damage == "no pairs":
        (about / "entry_points.txt").write_text("[keisei.things]\nwhat is this\n")
    else:
        (about / "METADATA").unlink()
    install(tmp_path / "good", "good", {"keisei.things": {"a": "os.path:join"}})
    for name in ("bad", "good"):
        monkeypatch.syspath_prepend(str(tmp_path / name))
    assert load(THINGS, "a") is os.path.join
    offers, unreadable = scan([THINGS.group])
    assert [offer.name for offer in offers] == ["a", "c"][: len(offers)]
    assert len(offers) + len(unreadable) == 2


def test_keiseis_own_are_where_they_are_said_to_be() -> None:
    """Each one of the tables can be imported."""
    from keisei._io.plugins import resolve

    for kind in (TRACKERS, LAUNCHER, SOURCE, SAMPLER):
        assert kind.own
        for value in kind.own.values():
            assert resolve(value) is not None


def test_looking_for_plugins_is_not_slower_than_pythons_own_way() -> None:
    """It reads the entry points of few packages; printed, not asserted."""

    def took(look: object) -> float:
        began = time.perf_counter()
        assert callable(look)
        look()
        return time.perf_counter() - began

    own = min(took(lambda: scan([TRACKERS.group])) for _ in range(3))
    pythons = min(took(lambda: metadata.entry_points(group=TRACKERS.group)) for _ in range(3))
    print(f"scan: {own * 1e3:.1f} ms, metadata.entry_points: {pythons * 1e3:.1f} ms")
