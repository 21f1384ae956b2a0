"""Finds by name what installed packages offer as entry points: trackers, launchers and the like.

keisei's own have names, too, which come first: for these, nothing that is installed is looked at.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from keisei.errors import KeiseiError, describe, quoted

if TYPE_CHECKING:
    from importlib.metadata import Distribution

OWN = "keisei"  # the distribution whose entry points are not looked at
_ENTRY_POINTS = "entry_points.txt"


class Kind(NamedTuple):
    """One kind of plug-in.

    Attributes:
        group: the group of its entry points.
        noun: what one is called in a message.
        own: keisei's own by name, each as an entry point has it: `module:attribute`.
        error: what is raised where one cannot be found or loaded.
        method: the method that each one has; empty where it is called itself.
    """

    group: str
    noun: str
    own: Mapping[str, str]
    error: type[KeiseiError]
    method: str = ""


class Offer(NamedTuple):
    """A plug-in that an installed package offers.

    Attributes:
        group: the group of its entry point.
        name: its name.
        value: where it is: `module:attribute`.
        package: the distribution that offers it.
        version: the distribution's version.
    """

    group: str
    name: str
    value: str
    package: str
    version: str


class Unreadable(NamedTuple):
    """An installed package whose entry points cannot be read.

    Attributes:
        package: the distribution.
        problem: why, in one line.
    """

    package: str
    problem: str


def load(kind: Kind, name: str) -> object:
    """Return the plug-in of a name; blocks, and not for a loop, for it imports it.

    Args:
        kind: its kind.
        name: its name.

    Raises:
        KeiseiError: `kind.error`: nothing that is installed offers it, several packages do, or it
            cannot be imported; or what importing it has raised of keisei's errors.
        OSError: it cannot be read; it may be tried again.
    """
    value, package = kind.own.get(name), ""
    if value is None:
        offer = _offered(kind, name)
        value, package = offer.value, f" (of {quoted(offer.package)[1:-1]})"
    try:
        found = resolve(value)
    except (KeiseiError, OSError, MemoryError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # whatever it is, and `sys.exit` too, it is the plug-in's alone
        raise kind.error(f"{name} cannot be imported{package}: {describe(exc)}") from exc
    if not callable(getattr(found, kind.method, None) if kind.method else found):
        lacks = f"it has no method {kind.method}" if kind.method else "it cannot be called"
        raise kind.error(f"{name} is no {kind.noun}{package}: {lacks} ({quoted(value)})")
    return found


def check_name(kind: Kind, name: str) -> None:
    """Check that a plug-in that is asked for beside keisei's own is none of these.

    Args:
        kind: its kind.
        name: its name.

    Raises:
        KeiseiError: `kind.error`: it is.
    """
    if name in kind.own:
        raise kind.error(
            f"{quoted(name)} is one of keisei's own {kind.noun}s, which are there in any case: "
            "leave it out"
        )


def resolve(value: str) -> object:
    """Import what an entry point points to.

    Args:
        value: where it is: `module:attribute`.

    Raises:
        BaseException: whatever importing it raises.
    """
    module, _, attributes = value.partition("[")[0].partition(":")
    found: object = importlib.import_module(module.strip())
    for attribute in filter(None, attributes.strip().split(".")):
        found = getattr(found, attribute)
    return found


def scan(groups: Iterable[str]) -> tuple[list[Offer], list[Unreadable]]:
    """Return what installed packages offer, and those that cannot be read; it imports none.

    Args:
        groups: the groups of the entry points.
    """
    from importlib import metadata  # 15 ms that programs without plug-ins save

    wanted = frozenset(groups)
    offers, unreadable = list[Offer](), list[Unreadable]()
    seen = {OWN}
    for found in metadata.distributions():
        try:
            text = found.read_text(_ENTRY_POINTS)
            if text is None or not any(f"[{group}]" in text for group in wanted):
                continue
            distribution = _first(found)
            package = _name(distribution)
            if (known := re.sub(r"[-_.]+", "-", package).lower()) in seen:
                continue
            seen.add(known)
            offers += _offers(distribution, package, wanted)
        except Exception as exc:  # noqa: BLE001 - a package that is damaged is no other one's matter
            unreadable.append(Unreadable(_name(found), describe(exc)))
    return sorted(offers), unreadable


def _offered(kind: Kind, name: str) -> Offer:
    offers, _ = scan([kind.group])
    fitting = [offer for offer in offers if offer.name == name]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        packages = " and ".join(f"{offer.package} {offer.version}" for offer in fitting)
        raise kind.error(
            f"{quoted(name)} is offered as a {kind.noun} by {packages}: uninstall all but one"
        )
    known = ", ".join(sorted({*kind.own, *(offer.name for offer in offers)})) or "none"
    raise kind.error(f"no {kind.noun} is called {quoted(name)}; installed: {known}")


def _first(found: Distribution) -> Distribution:
    """Return the distribution of that name that the import path has first."""
    from importlib import metadata

    try:
        return metadata.distribution(found.metadata["Name"])
    except Exception:  # noqa: BLE001 - it does not say its name
        return found


def _offers(distribution: Distribution, package: str, wanted: frozenset[str]) -> Iterator[Offer]:
    try:
        version = str(distribution.version)
    except Exception:  # noqa: BLE001 - it does not say it
        version = "?"
    for point in distribution.entry_points:
        if point.group in wanted:
            yield Offer(point.group, point.name, point.value, package, version)


def _name(distribution: Distribution) -> str:
    try:
        name = distribution.metadata["Name"]
    except Exception:  # noqa: BLE001 - it does not say it
        name = None
    return name or str(getattr(distribution, "_path", "a package without a name"))
