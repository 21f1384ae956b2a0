"""What a W&B server remembers of its runs, and how it answers; knows no sockets.

The tables follow what W&B's SDK asks for (`RunResumeStatus`, `UpsertBucket`, file stream,
`CreateRunFiles`); what is unknown here is answered as W&B does, with a GraphQL error.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

_HISTORY = "wandb-history.jsonl"
_SUMMARY = "wandb-summary.json"
_EVENTS = "wandb-events.jsonl"
_CONSOLE = "output.log"

Answer = dict[str, Any]


@dataclass
class RecordedRun:
    """A run as the server knows it.

    Args:
        id: The run's id.
        entity: The entity it belongs to.
        project: The project it belongs to.
        created_at: When the server first heard of it, by `time.monotonic()`, in seconds.
        display_name: The name that users see.
        config: The config, without W&B's own `_wandb` entry.
        group: The run's group, if it has one.
        job_type: The run's job type, if it has one.
        tags: The run's tags.
        notes: The run's notes, if it has any.
        exit_code: The exit code of the last attempt, or None while there is none.
        ended_at: When the last attempt completed, by `time.monotonic()`, in seconds; None while
            one is alive.
        rows_received: How many history rows came in, those sent again counted again.
        upserts: How often the run was created or updated.
        rewinds: How often it was rewound.
        uploads: The uploaded files' contents, by name.
    """

    id: str
    entity: str
    project: str
    created_at: float
    display_name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)
    notes: str | None = None
    exit_code: int | None = None
    ended_at: float | None = None
    rows_received: int = 0
    upserts: int = 0
    rewinds: int = 0
    uploads: dict[str, bytes] = field(default_factory=dict)
    _sent_config: dict[str, Any] = field(default_factory=dict, repr=False)
    _streams: dict[str, dict[int, str]] = field(default_factory=dict, repr=False)
    _shared_places: dict[tuple[str, str, int], int] = field(default_factory=dict, repr=False)

    @property
    def storage_id(self) -> str:
        """The id under which W&B's database would hold the run."""
        return base64.b64encode(f"Run:v1:{self.id}:{self.project}:{self.entity}".encode()).decode()

    @property
    def complete(self) -> bool:
        """Whether the run's last attempt has ended."""
        return self.ended_at is not None

    @property
    def state(self) -> str:
        """What W&B would show: `running`, `finished` or `failed`."""
        if not self.complete:
            return "running"
        return "finished" if self.exit_code == 0 else "failed"

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows, each at the place that its offset gives it."""
        return [json.loads(line) for line in self.lines(_HISTORY)]

    @property
    def summary(self) -> dict[str, Any]:
        """The summary as last sent, without W&B's own `_wandb` entry."""
        lines = self.lines(_SUMMARY)
        summary: dict[str, Any] = json.loads(lines[-1]) if lines else {}
        summary.pop("_wandb", None)
        return summary

    @property
    def console(self) -> list[str]:
        """The lines of the run's console output."""
        return self.lines(_CONSOLE)

    def lines(self, file: str) -> list[str]:
        """Return the lines of a streamed file, each at the place that its offset gives it."""
        return [line for _, line in sorted(dict(self._streams.get(file, {})).items())]


class Cloud:
    """The runs, and the answers to the SDK's requests; safe to use from several threads.

    Attributes:
        rewinds: whether it can rewind a run, a feature that not every server of W&B's has.

    Args:
        entity: Whose runs they are where a client names no entity.
        base_url: Gives the address to which files are to be uploaded.
    """

    def __init__(self, entity: str, base_url: Callable[[], str]) -> None:
        self.changed = threading.Condition()
        self.runs: dict[str, RecordedRun] = {}
        self.rewinds = True
        self._entity = entity
        self._base_url = base_url
        self._operations: Mapping[str, Callable[[Mapping[str, Any]], Answer]] = {
            "Viewer": self._viewer,
            "ServerFeaturesQuery": self._server_features,
            "RunResumeStatus": self._resume_status,
            "UpsertBucket": self._upsert,
            "RewindRun": self._rewind,
            "CreateRunFiles": self._create_files,
            "MarkRunFilesUploaded": lambda _: {"markRunFilesUploaded": {"success": True}},
            "GetDefaultEntity": self._viewer,
            "Run": self._project_run,
            "RunState": self._project_run,
            "RunHistoryKeys": self._project_run,
        }

    def graphql(self, request: Mapping[str, Any]) -> Answer:
        """Carry out a GraphQL request.

        Args:
            request: The request's body.

        Returns:
            The answer's body, with `data` or `errors`.
        """
        name = operation_name(request)
        try:
            with self.changed:
                data = self._operations[name](request.get("variables") or {})
                self.changed.notify_all()
        except KeyError as missing:
            return {"data": None, "errors": [{"message": f"{name}: there is no {missing}"}]}
        return {"data": data}

    def file_stream(
        self, run_id: str, request: Mapping[str, Any], client: str | None = None
    ) -> Answer | None:
        """Take in one piece of a run's streamed files, and its end if it says so.

        Args:
            run_id: The run's id.
            request: The request's body.
            client: Which of several clients sends it that share the run: the places of its lines
                are counted by itself, and they come behind those that are there.

        Returns:
            The answer's body, or None if there is no such run.
        """
        with self.changed:
            run = self.runs.get(run_id)
            if run is None:
                return None
            for file, piece in (request.get("files") or {}).items():
                lines = piece.get("content") or []
                place = {} if file == _SUMMARY else run._streams.setdefault(file, {})
                for at, line in enumerate(lines, start=piece.get("offset", 0)):
                    own = (client or "", file, at)
                    if client is not None and file != _SUMMARY:
                        place[run._shared_places.setdefault(own, len(place))] = line
                    else:
                        place[at] = line
                run._streams[file] = place
                run.rows_received += len(lines) if file == _HISTORY else 0
            if request.get("complete"):
                run.exit_code = request.get("exitcode")
                run.ended_at = time.monotonic()
            self.changed.notify_all()
        return {"exitcode": None, "limits": {}}

    def upload(self, run_id: str, file: str, content: bytes) -> bool:
        """Take in an uploaded file; returns whether there is such a run."""
        with self.changed:
            run = self.runs.get(run_id)
            if run is not None:
                run.uploads[file] = content
                self.changed.notify_all()
        return run is not None

    def _viewer(self, _: Mapping[str, Any]) -> Answer:
        viewer = {"id": "VXNlcjox", "entity": self._entity, "username": self._entity}
        extra = {"email": "user@example.invalid", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer | extra}

    def _server_features(self, _: Mapping[str, Any]) -> Answer:
        return {"serverInfo": {"features": []}}

    def _resume_status(self, variables: Mapping[str, Any]) -> Answer:
        run = self.runs.get(variables["name"])
        project = variables.get("project") or "uncategorized"
        entity = variables.get("entity") or self._entity
        if run is not None and (run.project, run.entity) != (project, entity):
            run = None
        model = _project(project, entity) | {"bucket": run and _describe(run)}
        return {"model": model}

    def _upsert(self, variables: Mapping[str, Any]) -> Answer:
        run = self._find(variables)
        inserted = run is None
        if run is None:
            run = RecordedRun(
                id=variables["name"],
                entity=variables.get("entity") or self._entity,
                project=variables.get("project") or "uncategorized",
                created_at=time.monotonic(),
            )
            run.display_name = run.id
            self.runs[run.id] = run
        run.upserts += 1
        # An attempt begins with an upsert that names the client's program; later ones do not.
        if variables.get("program") or variables.get("host"):
            run.exit_code = run.ended_at = None
        for name, sent in _UPSERTED.items():
            if variables.get(sent) is not None:
                setattr(run, name, variables[sent])
        if variables.get("config"):
            run._sent_config = json.loads(variables["config"])
            run.config = {
                key: entry.get("value")
                for key, entry in run._sent_config.items()
                if key != "_wandb" and isinstance(entry, dict)
            }
        if variables.get("summaryMetrics"):
            run._streams[_SUMMARY] = {0: variables["summaryMetrics"]}
        return {"upsertBucket": {"bucket": _describe(run), "inserted": inserted}}

    def _find(self, variables: Mapping[str, Any]) -> RecordedRun | None:
        if storage_id := variables.get("id"):
            return next((run for run in self.runs.values() if run.storage_id == storage_id), None)
        return self.runs.get(variables["name"])

    def _rewind(self, variables: Mapping[str, Any]) -> Answer:
        """Keep the history up to a step, as W&B does where it has its rewind; the rest is gone."""
        run = self.runs[variables["runName"]]
        if not self.rewinds or variables["metricName"] != "_step":
            raise KeyError("rewindRun")
        kept = [line for line in run.lines(_HISTORY) if _step_of(line) <= variables["metricValue"]]
        run._streams[_HISTORY] = dict(enumerate(kept))
        run._streams.pop(_SUMMARY, None)
        run._streams.pop(_CONSOLE, None)  # "Logs are reset in the new run segment"
        run.exit_code = run.ended_at = None
        run.rewinds += 1
        return {"rewindRun": {"rewoundRun": _describe(run)}}

    def _create_files(self, variables: Mapping[str, Any]) -> Answer:
        run = self.runs[variables["run"]]
        base = f"{self._base_url()}/storage/{quote(run.id, safe='')}"
        files = [
            {"name": name, "uploadUrl": f"{base}/{quote(name)}"} for name in variables["files"]
        ]
        answer = {"runID": run.storage_id, "uploadHeaders": [], "files": files}
        return {"createRunFiles": answer}

    def _project_run(self, variables: Mapping[str, Any]) -> Answer:
        run = self.runs.get(variables.get("name") or variables["run"])
        return {"project": {"run": run and _describe(run)}}


_UPSERTED = {
    "display_name": "displayName",
    "group": "groupName",
    "job_type": "jobType",
    "tags": "tags",
    "notes": "notes",
}
"""A run's fields, and the variables of `UpsertBucket` that set them."""


def operation_name(request: Mapping[str, Any]) -> str:
    """Return the name of a GraphQL request's operation, or an empty string."""
    if name := request.get("operationName"):
        return str(name)
    query = request.get("query") or ""
    if re.match(r"\s*query\s*{\s*viewer\b", query):  # a login before 0.30, which has no name
        return "Viewer"
    match = re.search(r"\b(?:query|mutation)\s+(\w+)", query)
    return match[1] if match else ""


def _step_of(line: str) -> float:
    return float(json.loads(line)["_step"])


def _project(name: str, entity: str) -> Answer:
    owner = {"id": f"entity-{entity}", "name": entity}
    return {"id": f"project-{name}", "name": name, "entity": owner}


def _describe(run: RecordedRun) -> Answer:
    """Describe a run with all that the SDK may ask of one; it takes what it needs."""
    history, events = run.lines(_HISTORY), run.lines(_EVENTS)
    own = run._sent_config.get("_wandb", {}).get("value", {})
    return {
        "id": run.storage_id,
        "name": run.id,
        "displayName": run.display_name,
        "description": None,
        "config": json.dumps(run._sent_config),
        "wandbConfig": json.dumps({"t": own.get("t", {})}),
        "summaryMetrics": json.dumps(run.summary),
        "sweepName": None,
        "group": run.group,
        "jobType": run.job_type,
        "tags": run.tags,
        "notes": run.notes,
        "state": run.state,
        "createdAt": "2000-01-01T00:00:00Z",
        "heartbeatAt": None,
        "commit": None,
        "readOnly": False,
        "user": {"name": run.entity, "username": run.entity},
        "project": _project(run.project, run.entity),
        "logLineCount": len(run.console),
        "historyLineCount": len(history),
        "historyTail": json.dumps(history[-1:]),
        "historyKeys": {"lastStep": json.loads(history[-1])["_step"] if history else -1},
        "eventsLineCount": len(events),
        "eventsTail": json.dumps(events[-1:]),
    }
