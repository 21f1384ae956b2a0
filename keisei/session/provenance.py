"""What a session records of where its values, its code and its machine come from."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from keisei._io.offload import patiently
from keisei._log import logger
from keisei._text import as_lines
from keisei.config.hydra import name_origins
from keisei.config.layers import Origin, Path
from keisei.config.origins import as_data
from keisei.errors import describe
from keisei.provenance.shared import Taking
from keisei.provenance.snapshot import Task, within
from keisei.redaction import secret_values
from keisei.run.owned import OwnedRun
from keisei.run.status import FINAL
from keisei.session.facts import SessionFacts
from keisei.session.recorder import Recorder
from keisei.store.opening import URL_VARIABLE

SWITCH = "KEISEI_PROVENANCE"
PATIENCE = 0.1  # seconds that a look at the code may have taken when an end still waits for it
GRACE = 0.5  # seconds that it waits until what was seen is written
EVENT = "provenance"

_ON = {"on": True, "1": True, "true": True, "off": False, "0": False, "false": False}


def is_wanted(facts: SessionFacts[Any]) -> bool:
    """Return whether a session records where it comes from."""
    by_variable = _ON.get(os.environ.get(SWITCH, "").lower())
    return bool(facts.config.provenance.enabled) if by_variable is None else by_variable


def origins_text(facts: SessionFacts[Any]) -> str:
    """Return where the values of a session's config came from, as JSON text; empty where off.

    Where Hydra has composed the config, its files are read.

    Args:
        facts: what is known of the session; its config has been serialised.
    """
    if facts.config_text is None or not is_wanted(facts):
        return ""
    try:
        name_origins(facts.config)
        effective = json.loads(facts.config_text)
        data = as_data(facts.config, effective, _in_force(facts), secret_values(os.environ))
        text = as_lines({**data, "attempt": facts.attempt})
        return text.encode("utf-8", "backslashreplace").decode()
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
        recorder: what it records with.
    """

    def __init__(self, facts: SessionFacts[Any], recorder: Recorder) -> None:
        self._facts, self._recorder = facts, recorder
        self._taking: Taking | None = None
        self._directory = os.curdir
        self._outside: tuple[str, ...] = ()

    def claimed(self) -> None:
        """Note where the code is looked for, and where not; on the thread that claims."""
        paths = self._facts.paths
        if paths is None or not is_wanted(self._facts):
            return
        with suppress(OSError):
            self._directory = os.getcwd()
            roots = {os.path.dirname(paths.run_artifact_dir)}
            if os.path.dirname(paths.model_dir) != paths.run_artifact_dir:
                roots.add(os.path.dirname(paths.model_dir))
            self._outside = within(self._directory, roots)

    def begin(self) -> None:
        """Begin, on a thread that the entry does not wait for; where it is off, do nothing."""
        owned = self._facts.owned
        if self._taking is not None or not isinstance(owned, OwnedRun):
            return
        if self._facts.status in FINAL or not is_wanted(self._facts):
            return
        limits = self._facts.config.provenance
        task = Task(
            run_name=owned.record.run_name,
            directory=self._directory,
            attempt=owned.record.attempt,
            outside=self._outside,
            timeout=limits.timeout,
            largest_file=limits.largest_file,
            largest_total=limits.largest_total,
            changes=tuple(owned.changes),
        )
        self._taking = Taking(task, owned.home, self._known)

    def _known(self, short: Mapping[str, Any]) -> None:
        """Note what was recorded, and log it; on the thread that has recorded it."""
        self._facts.provenance = short
        self._recorder.note(EVENT, short)

    def hasten(self) -> None:
        """Take it now, for the session ends."""
        if self._taking is not None:
            self._taking.hasten()

    async def is_over(self) -> None:
        """Wait until it is recorded, where that is a matter of a moment.

        A look that takes longer goes on behind the session's end, and so does a slow disk.
        """
        taking = self._taking
        if taking is None or taking.over.is_set():
            return
        try:
            with suppress(TimeoutError):
                if not taking.seen.is_set():
                    left = PATIENCE - taking.looking_for()
                    if left <= 0:
                        return
                    await patiently(taking.seen.wait, left)
                await patiently(taking.over.wait, GRACE)
        finally:
            taking.leave(is_owner=self._recorder.over is None)
