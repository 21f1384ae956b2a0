"""What a session records of where its values, its code and its machine come from."""

from __future__ import annotations

import json
import os
import threading
import time
from contextlib import suppress
from typing import Any

from keisei._io.loop import ThreadEvent
from keisei._io.offload import patiently
from keisei._log import logger
from keisei.config.layers import Origin, Path
from keisei.config.origins import as_data
from keisei.errors import describe
from keisei.provenance.snapshot import Task, take
from keisei.redaction import secret_values
from keisei.run.owned import OwnedRun
from keisei.session.facts import SessionFacts
from keisei.store.opening import URL_VARIABLE

SWITCH = "KEISEI_PROVENANCE"
GRACE = 1.0  # seconds, to write what has been found

_ON = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}


def is_wanted(facts: SessionFacts[Any]) -> bool:
    """Return whether a session records where it comes from."""
    by_variable = _ON.get(os.environ.get(SWITCH, "").lower())
    return bool(facts.config.provenance.enabled) if by_variable is None else by_variable


def origins_text(facts: SessionFacts[Any]) -> str:
    """Return where the values of a session's config came from, as JSON text; empty where off.

    Args:
        facts: what is known of the session; its config has been serialised.
    """
    if facts.config_text is None or not is_wanted(facts):
        return ""
    try:
        effective = json.loads(facts.config_text)
        data = as_data(facts.config, effective, _in_force(facts), secret_values(os.environ))
        text = json.dumps({**data, "attempt": facts.attempt}, indent=1, ensure_ascii=False)
        return text.encode("utf-8", "backslashreplace").decode() + "\n"
    except Exception as exc:  # noqa: BLE001 - the user's own types: no reason not to train
        text = "where the values of run %s's config came from is not recorded: %s"
        logger.warning(text, facts.run_name, describe(exc))
        return ""


def _in_force(facts: SessionFacts[Any]) -> dict[Path, Origin]:
    """Return what goes before the config's values: arguments, and variables of the environment."""
    config, found = facts.config, dict[Path, Origin]()
    if (asked := facts.asked_by) is not None:
        found["logging", "run_name"] = Origin("argument", facts.run_name, name=asked)
    before = [
        ("logging", "log_dir", "KEISEI_LOG_DIR"),
        ("logging", "model_dir", "KEISEI_MODEL_DIR"),
    ]
    if config.registry.url is None:
        before.append(("registry", "url", URL_VARIABLE))
    if config.wandb.project is None:
        before.append(("wandb", "project", "WANDB_PROJECT"))
    if os.environ.get(SWITCH, "").lower() in _ON:
        before.append(("provenance", "enabled", SWITCH))
    for section, name, variable in before:
        if value := os.environ.get(variable):
            found[section, name] = Origin("environment", value, name=variable)
    return found


class Snapshot:
    """Records the code, the packages and the machine of one session, behind its entry.

    Args:
        facts: what is known of the session.
    """

    def __init__(self, facts: SessionFacts[Any]) -> None:
        self._facts = facts
        self._over: ThreadEvent | None = None
        self._until = 0.0

    def begin(self, owned: OwnedRun) -> None:
        """Begin, on a thread that nobody waits for; where it is switched off, do nothing.

        Args:
            owned: the run's directories.
        """
        if self._over is not None or not is_wanted(self._facts):
            return
        limits = self._facts.config.provenance
        paths = owned.paths
        roots = {os.path.dirname(paths.run_artifact_dir)}
        if os.path.dirname(paths.model_dir) != paths.run_artifact_dir:
            roots.add(os.path.dirname(paths.model_dir))
        task = Task(
            run_name=owned.record.run_name,
            attempt=owned.record.attempt,
            outside=tuple(sorted(roots)),
            timeout=limits.timeout,
            largest_file=limits.largest_file,
            largest_total=limits.largest_total,
            changes=tuple(owned.changes),
        )
        self._until = time.monotonic() + limits.timeout + GRACE
        over = ThreadEvent()

        def work() -> None:
            try:
                take(task, owned)
            finally:
                over.set()

        with suppress(RuntimeError):  # the system has no thread left: then it is not recorded
            threading.Thread(target=work, name="keisei-provenance", daemon=True).start()
            self._over = over

    async def is_over(self) -> None:
        """Wait until it is recorded, for what is left of its time at most; then do without it."""
        if self._over is None or self._over.is_set():
            return
        try:
            await patiently(self._over.wait, max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            text = "what run %s was started from is not recorded: git or a file has not answered"
            logger.warning(text, self._facts.run_name)
