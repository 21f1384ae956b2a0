"""How MLflow is reached: its import, its stores, and what it raises."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cache, partial
from typing import Any
from urllib.parse import urlsplit

from keisei._io import files, locks
from keisei._log import logger
from keisei.errors import KeiseiError, MissingExtraError, TrackerError, quoted
from keisei.redaction import clean, redact_text

# Addresses of MLflow's that are no path.
_NAMES = frozenset(["databricks", "databricks-uc", "uc"])
# Its own default is 120 s, seven times over. Whoever sends tries again by itself.
_REQUEST_TIMEOUT = 15.0
_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
# How long a start waits while another one makes the database, in seconds: a slow disk may take
# minutes. The session waits no longer than the tracker's start timeout in any case.
LONGEST_CREATION = 600.0
# Two threads that import a package of circular imports at the same time may get half of it.
_import_lock = threading.Lock()


@contextmanager
def errors(known: tuple[str, ...]) -> Iterator[None]:
    """Raise what MLflow raises as an error of ours that holds no secret.

    Args:
        known: what of the tracking URI is one.
    """
    try:
        yield
    except KeiseiError:
        raise
    except Exception as exc:  # noqa: BLE001 - foreign code
        problem = clean(redact_text(f"{type(exc).__name__}: {exc}", known))[:1000]
        # Not a TrackerError: it may be tried again. And what MLflow has raised is not shown.
        raise RuntimeError(f"MLflow: {problem}") from None


def default_uri() -> str:
    """Import MLflow, and return the tracking URI that it would use by itself.

    Raises:
        MissingExtraError: it is not installed.
    """
    with _needing_mlflow(), _import_lock:
        import mlflow

        return str(mlflow.get_tracking_uri())


@contextmanager
def _needing_mlflow() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as exc:
        if exc.name not in ("mlflow", "sqlalchemy"):
            raise
        raise MissingExtraError(
            "the tracker 'mlflow' needs MLflow: install it with `pip install 'keisei[mlflow]'`; "
            "for a tracking server, the package mlflow-skinny does"
        ) from exc


def turn_at(uri: str) -> AbstractContextManager[object]:
    """Return what a run holds while it calls a store: of an SQLite database, a lock.

    SQLite has one writer at a time, and MLflow 15 connections: where a hundred runs of one process
    want them, those that wait for 30 seconds fail.
    """
    return _sqlite_lock(uri) if urlsplit(uri).scheme.startswith("sqlite") else nullcontext()


@cache
def _sqlite_lock(uri: str) -> AbstractContextManager[object]:
    return threading.Lock()


def open_store(uri: str) -> Any:
    """Return MLflow's store at an address.

    Raises:
        MissingExtraError: what MLflow needs for a database is not installed.
        TrackerError: it is a directory of files, to which a row that comes again is added again.
    """
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        return _server(uri)
    if (scheme in ("", "file") or len(scheme) == 1) and uri not in _NAMES:
        raise TrackerError(
            "MLflow would keep the run in a directory of files, which cannot keep each row once: "
            "set tracking_uri or MLFLOW_TRACKING_URI to a database, such as sqlite:///mlflow.db, "
            "or to a server"
        )
    from mlflow.tracking._tracking_service.utils import _get_store

    with _made_tables(uri) if scheme.startswith("sqlite") else nullcontext():
        return _get_store(uri)


@contextmanager
def _made_tables(uri: str) -> Iterator[None]:
    """Make a new database, and keep other starts away meanwhile: two that do so together fail."""
    with _needing_mlflow(), _import_lock:
        from mlflow.store.tracking import sqlalchemy_store  # noqa: F401 - 0.5 s of the first start
        from sqlalchemy.engine import make_url

    database = make_url(uri).database
    if not database or database.startswith((":memory:", "file:")):
        yield
        return
    parent, name = os.path.split(os.path.abspath(database))
    os.makedirs(parent, exist_ok=True)
    with (
        files.OpenDirectory(os.path.realpath(parent)) as directory,
        locks.locked(directory, f"{name}.lock", LONGEST_CREATION),
    ):
        path = os.path.join(parent, name)
        # Where this way fails, MLflow makes the tables by its own.
        with suppress(Exception):
            if not os.path.exists(path):
                _make_database(path)
            elif not os.path.getsize(path):  # as a temporary file is
                _make_tables(path)
        yield


def _make_database(path: str) -> None:
    """Make a database with MLflow's tables, whole or not at all."""
    staged = f"{path}.new"
    try:
        for left in (staged, f"{staged}-journal"):
            with suppress(FileNotFoundError):
                os.unlink(left)
        _make_tables(staged)
        os.link(staged, path)  # a database that somebody has made meanwhile stays
    finally:
        with suppress(OSError):
            os.unlink(staged)


def _make_tables(path: str) -> None:
    """Make MLflow's tables in a new or empty database.

    MLflow makes them by its whole history of migrations, with an fsync for each of some 400 steps:
    6 s on a disk that takes 13 ms for one. Here it is one fsync.
    """
    from mlflow.store.db import utils
    from sqlalchemy import URL, create_engine, event

    engine = create_engine(URL.create("sqlite", database=path))
    event.listen(engine, "connect", lambda dbapi, _: dbapi.execute("PRAGMA synchronous=OFF"))
    try:
        utils._initialize_tables(engine)
    finally:
        engine.dispose()
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _server(uri: str) -> Any:
    """Return MLflow's store of a server, with requests that end within a bound."""
    from mlflow.store.tracking.rest_store import RestStore
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.proto_json_utils import parse_dict
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    timeout = float(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT") or _REQUEST_TIMEOUT)

    store = RestStore(partial(get_default_host_creds, uri))

    def call_endpoint(api: Any, json_body: str | None = None, **_: object) -> Any:
        endpoint, method = store._METHOD_TO_INFO[api]
        response = http_request(
            store.get_host_creds(),
            endpoint,
            method,
            max_retries=0,
            timeout=timeout,
            raise_on_status=False,
            **{"params" if method == "GET" else "json": json.loads(json_body or "{}")},
        )
        answer = api.Response()
        parse_dict(json.loads(verify_rest_response(response, endpoint).text), answer)
        return answer

    store._call_endpoint = call_endpoint
    return store


def database_of(uri: str) -> str | None:
    """Return the file of an SQLite database; ``None`` for any other store."""
    if not urlsplit(uri).scheme.startswith("sqlite"):
        return None
    from sqlalchemy.engine import make_url

    return make_url(uri).database


def find_launched(store: Any) -> Any:
    """Return the run that a launcher has made for this program (``MLFLOW_RUN_ID``), if any."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id:
        return None
    try:
        found = store.get_run(run_id)
    except Exception as exc:
        if getattr(exc, "error_code", None) not in _NOT_THERE:
            raise  # it may be tried again
        found = None
    if found is None or found.info.lifecycle_stage != "active":
        text = "MLFLOW_RUN_ID names no run at the tracking URI: one of keisei's own is tracked"
        logger.warning(text)
        return None
    return found


def experiment_of(store: Any, experiment_id: str) -> Any:
    """Return an experiment by its id.

    Raises:
        TrackerError: there is none, or it is deleted.
    """
    try:
        return _active(store.get_experiment(experiment_id))
    except Exception as exc:
        if getattr(exc, "error_code", None) in _NOT_THERE:
            problem = f"MLFLOW_EXPERIMENT_ID names no experiment ({quoted(experiment_id)})"
            raise TrackerError(problem) from None
        raise


def find_experiment(store: Any, name: str) -> Any:
    """Return the experiment of a name, which is created where it is missing.

    Raises:
        TrackerError: it is deleted.
    """
    found = store.get_experiment_by_name(name)
    if found is None:
        try:
            return store.get_experiment(store.create_experiment(name, None, []))
        except Exception:  # another session has created it at the same time
            found = store.get_experiment_by_name(name)
            if found is None:
                raise
    return _active(found)


def _active(experiment: Any) -> Any:
    if experiment.lifecycle_stage != "active":
        raise TrackerError("the experiment is deleted in MLflow: restore it, or name another one")
    return experiment
