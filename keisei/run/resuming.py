"""What a resume changes of a run's config, by what stands in its directory."""

from __future__ import annotations

import json

from keisei._io.directories import OpenDirectory
from keisei.config.changes import Change, changes, check_changes
from keisei.config.schema import AppConfig
from keisei.config.text import serialize_config
from keisei.run.layout import CONFIG_FILE


def config_changes(config: AppConfig, name: str, directory: OpenDirectory) -> list[Change]:
    """Return what a resume changes of the config, unless a field of it refuses that.

    Args:
        config: the config of the attempt that begins.
        name: the run's name.
        directory: its directory, in which the effective config is the earlier attempt's.

    Raises:
        ConfigChangedError: a field refuses it; the run is as it was.
    """
    try:
        earlier = json.loads(directory.read(CONFIG_FILE) or b"null")
        now = json.loads(serialize_config(config))
    except Exception:  # noqa: BLE001 - damaged, or the user's own serializers: saving says that
        return []
    if not isinstance(earlier, dict):
        return []
    found = changes(earlier, now, config, config.provenance.accept_changes)
    check_changes(name, found)
    return found
