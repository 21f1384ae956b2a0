"""A run in place of another one, where what was logged has been left behind.

MLflow keeps each point of a metric for ever. So a resumed run goes on in a new MLflow run with the
same name, tags and params, which gets what still holds from the journal. The replaced one is ended
and no longer the session's; programs that log to it are not disturbed. At the end of the session it
is deleted, as MLflow deletes (`mlflow.MlflowClient.restore_run` brings it back), unless it has
artifacts or models.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from keisei._log import logger

SESSION_TAG = "keisei.session_id"
POSITION_TAG = "keisei.position"
REPLACES_TAG = "keisei.replaces"
REPLACED_BY_TAG = "keisei.replaced_by"
REPLACED_SESSION_TAG = "keisei.replaced_session_id"
EVENT_PREFIX = "keisei.event."

_AT_ONCE = 90  # of MLflow's 100 params in a request
_OWN = (POSITION_TAG, REPLACES_TAG, "mlflow.runName")


def replace(store: Any, old_id: str) -> Any:
    """Return a new run in place of one, which is ended; the one that an earlier try has made.

    Args:
        store: MLflow's store.
        old_id: the run to replace.
    """
    from mlflow.entities import Param, RunTag, ViewType

    old = store.get_run(old_id)
    experiment = old.info.experiment_id
    wanted = f"tags.`{REPLACES_TAG}` = '{old_id}'"
    made = store.search_runs([experiment], wanted, ViewType.ACTIVE_ONLY)
    if made:
        new = made[0]
    else:
        tags = [
            RunTag(key, value)
            for key, value in old.data.tags.items()
            if key not in _OWN and not key.startswith(EVENT_PREFIX)
        ]
        tags.append(RunTag(REPLACES_TAG, old_id))
        info = old.info
        new = store.create_run(experiment, info.user_id, info.start_time, tags, info.run_name)
    new_id = new.info.run_id
    params = [Param(key, value) for key, value in old.data.params.items()]
    for start in range(0, len(params), _AT_ONCE):
        store.log_batch(new_id, [], params[start : start + _AT_ONCE], [])
    retire(store, old, new_id)
    return new


def retire(store: Any, old: Any, new_id: str) -> None:
    """End a run that another one has replaced; it is no longer the session's."""
    from mlflow.entities import RunStatus, RunTag

    old_id, session_id = old.info.run_id, old.data.tags.get(SESSION_TAG)
    if session_id is None:
        return
    tags = [RunTag(REPLACED_BY_TAG, new_id), RunTag(REPLACED_SESSION_TAG, session_id)]
    store.log_batch(old_id, [], [], tags)
    name = f"{old.info.run_name} (replaced)"
    store.update_run_info(old_id, RunStatus.KILLED, int(time.time() * 1000), name)
    store.delete_tag(old_id, SESSION_TAG)
    logger.info(
        "MLflow cannot drop points: its run %s goes on as %s, without what was left behind by "
        "resuming.",
        old_id,
        new_id,
    )


def delete_replaced(store: Any, experiment_id: str, session_id: str) -> None:
    """Delete what runs of a session were replaced, but for those with artifacts or models."""
    from mlflow.entities import ViewType

    wanted = f"tags.`{REPLACED_SESSION_TAG}` = '{session_id}'"
    for old in store.search_runs([experiment_id], wanted, ViewType.ACTIVE_ONLY):
        if not _has_files(store, old):
            store.delete_run(old.info.run_id)


def _has_files(store: Any, run: Any) -> bool:
    """Return whether anybody has logged artifacts or models to a run, or may have."""
    if getattr(getattr(run, "outputs", None), "model_outputs", None):
        return True
    with suppress(Exception):  # where it cannot be told, it may have
        if hasattr(store, "get_host_creds"):
            from mlflow.protos.service_pb2 import ListArtifacts

            question = json.dumps({"run_id": run.info.run_id})
            return bool(store._call_endpoint(ListArtifacts, question).files)
        uri = run.info.artifact_uri
        if urlsplit(uri).scheme in ("", "file"):
            from mlflow.utils.file_utils import local_file_uri_to_path

            path = local_file_uri_to_path(uri)
            return os.path.isdir(path) and bool(os.listdir(path))
    return True
