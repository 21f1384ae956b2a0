"""Call what is the user's own where its failure reaches nobody else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import anyio

from keisei._io import files
from keisei._log import logger
from keisei.config.text import weigh, without_json
from keisei.errors import ConfigSaveError, describe, quoted
from keisei.session.facts import SessionFacts
from keisei.training import utils

LOGGER_TIMEOUT = 10.0
LIGHT = 1000  # values in a config that are serialised on the loop: about 5 ms

LoggerFunc = Callable[[str], object]


async def tell(logger_func: LoggerFunc, lines: Iterable[str]) -> int:
    """Call a logger of the user's with each line, on the loop.

    Args:
        logger_func: may be async. One that raises, or takes over 10 s, loses that line only.
        lines: the lines.

    Returns:
        How many of the calls failed.
    """
    errors = 0
    for line in lines:
        try:
            with anyio.fail_after(LOGGER_TIMEOUT):
                outcome = logger_func(line)
                if inspect.isawaitable(outcome):
                    await outcome
        except Exception as exc:  # noqa: BLE001 - foreign code: no logger may stop the training
            if not errors:
                logger.warning(
                    "logger_func failed (%s); counted, and not said again", describe(exc)
                )
            errors += 1
    return errors


async def config_text(facts: SessionFacts[Any]) -> str:
    """Return the effective config as text, serialised now where it has not been yet.

    On a thread where it is so large that it would hold the loop.

    Args:
        facts: what is known of the session.

    Raises:
        ConfigSaveError: it holds too much to be a config, or what JSON cannot express.
    """
    if facts.config_text is None:
        with no_json_form(facts):
            light = weigh(facts.config) < LIGHT
        if light:
            facts.config_text = serialized(facts)
        else:
            facts.config_text = await files.in_thread(serialized, facts)
    return facts.config_text


def serialized(facts: SessionFacts[Any]) -> str:
    """Return the config as it is now as text; blocks.

    Raises:
        ConfigSaveError: it holds too much to be a config, or what JSON cannot express.
    """
    with no_json_form(facts):
        return utils.serialize_config(facts.config)


@contextmanager
def no_json_form(facts: SessionFacts[Any]) -> Iterator[None]:
    """Turn whatever a config's serialisation raises into an error that names the key."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - the user's own serializers
        reason = describe(exc)
    else:
        return
    where = ""
    with suppress(Exception):
        where = without_json(facts.config)
    at = f", for what stands under {quoted(where, 200)}" if where else ""
    path = quoted(facts.paths.config_path, 300) if facts.paths else "the effective config"
    raise ConfigSaveError(
        f"{path}: the config has no JSON form{at} ({reason}). Keep a plain value there "
        "(a number, a text, a list, a mapping), or give the field a serializer"
    )
