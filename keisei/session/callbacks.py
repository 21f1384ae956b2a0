"""Call what is the user's own where its failure reaches nobody else."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any

import anyio

from keisei._io import files
from keisei._log import logger
from keisei.config.text import weigh
from keisei.errors import describe
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
    """Return the effective config as text; it is serialised once in a session.

    On a thread where it is so large that it would hold the loop.

    Args:
        facts: what is known of the session.

    Raises:
        ValueError: it holds too much to be a config. What the serializers raise is raised as it is.
    """
    if facts.config_text is None:
        if weigh(facts.config) < LIGHT:
            facts.config_text = utils.serialize_config(facts.config)
        else:
            facts.config_text = await files.in_thread(utils.serialize_config, facts.config)
    return facts.config_text
