"""Media as artifacts of a run on MLflow: images and tables where its pages look for them."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import Any

from keisei._log import logger
from keisei.errors import describe, quoted
from keisei.journal.media import KINDS as _ALL
from keisei.journal.media import Media
from keisei.trackers.media import plain_cell, read_json
from keisei.trackers.mlflow.rows import mlflow_name

KINDS = tuple(sorted(_ALL))
TABLES_TAG = "mlflow.loggedArtifacts"


def artifact_of(media: Media) -> tuple[str, str]:
    """Return the folder and the name of the artifact of one; the same for the same thing.

    An image has the name that MLflow's own `log_image` gives it, so that its page shows it.
    """
    suffix = os.path.splitext(media.path)[1]
    name, step = mlflow_name(media.name), 0 if media.step is None else media.step
    if media.kind == "image" or (media.kind == "figure" and suffix != ".json"):
        key = name.replace("/", "#").replace("%", "_x0025_")
        moment = int(media.time * 1000)
        unique = f"{media.attempt}-{media.seq}-{media.digest[:8]}"
        return "images", f"{key}%step%{step}%timestamp%{moment}%{unique}{suffix}"
    if media.kind == "table":
        return f"tables/{name}", f"step-{step}-{media.attempt}-{media.seq}.json"
    said = media.about.get("file_name")
    plain = mlflow_name(said).replace("/", "_x002F_") if isinstance(said, str) and said else ""
    file = plain or f"{media.kind}{suffix}"
    return f"media/{name}", f"step-{step}-{media.attempt}-{media.seq}-{file}"


def keep_artifact(uri: str, tracking_uri: str, media: Media) -> str | None:
    """Upload one; return the artifact's path, or ``None`` where the file cannot be read.

    Args:
        uri: where the run's artifacts are.
        tracking_uri: where the run is.
        media: what to upload.
    """
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    folder, name = artifact_of(media)
    with tempfile.TemporaryDirectory(prefix="keisei-mlflow-") as place:
        path = os.path.join(place, name)
        try:
            if media.kind == "table":
                with open(path, "w", encoding="utf-8") as file:
                    json.dump(_split(media), file)
            else:
                shutil.copyfile(media.path, path)
        except (OSError, ValueError) as exc:
            text = "MLflow gets no %s %s, which cannot be read: %s"
            logger.warning(text, media.kind, quoted(media.name), describe(exc))
            return None
        get_artifact_repository(uri, tracking_uri).log_artifact(path, folder)
    return f"{folder}/{name}"


def tables_tag(before: str | None, path: str) -> str:
    """Return the tag that says which tables a run has, with one more.

    Args:
        before: the tag as it stands.
        path: the artifact's path.
    """
    try:
        known = json.loads(before or "[]")
    except ValueError:
        known = []
    entry = {"path": path, "type": "table"}
    if not isinstance(known, list):
        known = []
    return json.dumps(known if entry in known else [*known, entry])


def _split(media: Media) -> dict[str, Any]:
    """Return a table as MLflow keeps one: what pandas calls `split`."""
    found = read_json(media)
    rows = [[plain_cell(cell) for cell in row] for row in found["rows"]]
    return {"columns": found["columns"], "data": rows}
