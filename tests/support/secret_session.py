"""A program whose config, environment, arguments and errors hold secrets; it writes all it can.

It is run with the secrets in its environment and on its command line, and with a file of theirs:
`python secret_session.py INPUT OUTPUT --password=...`. What it says of them goes to OUTPUT.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import os
import pickle
import sys
import traceback
import urllib.parse
from pathlib import Path
from typing import Any

import anyio
from pydantic import SecretBytes, SecretStr

from keisei import AppConfig, AsyncSessionManager, KeiseiError, Section, SessionManager, load_config
from keisei.testing import MemoryTracker
from keisei.trackers.base import RunInfo
from keisei.trackers.wandb.tracker import WandbTracker

SOURCE, OUTPUT = Path(sys.argv[1]), Path(sys.argv[2])
PLANTED: dict[str, list[str]] = json.loads((SOURCE / "canaries.json").read_text())
TYPED, NAMED, IN_URLS, IN_ENVIRONMENT, IN_TEXTS = PLANTED.values()


class Store(Section):
    """A section with secrets of every kind."""

    token: SecretStr = SecretStr(TYPED[0])
    raw: SecretBytes = SecretBytes(TYPED[1].encode())
    many: list[SecretStr] = [SecretStr(TYPED[2])]
    by_name: dict[str, Any] = {"a": SecretStr(TYPED[3]), "dbpassword": NAMED[0]}
    credentials: dict[str, Any] = {"list": [NAMED[1]], "user": NAMED[1]}
    anything: Any = (Path("/x"), {"client_secret": NAMED[2]})


class Config(AppConfig):
    """A config with secrets under keys, in URLs, and of the environment."""

    store: Store = Store()
    wandb_api_key: str = NAMED[3]
    redis: str = f"redis://:{IN_URLS[0]}@host/0"
    database: Any = f"postgresql+asyncpg://me:p@{IN_URLS[1]}/w0rd@host:5432/db"
    clone: str = f"https://{IN_URLS[2]}@git.example/x"
    plain: list[str] = IN_ENVIRONMENT
    quoted: list[str] = [urllib.parse.quote(value, safe="") for value in IN_ENVIRONMENT]
    coded: list[str] = [base64.b64encode(b"me:" + v.encode()).decode() for v in IN_ENVIRONMENT]
    argument: str = f"prog --password={IN_TEXTS[0]}"


class NeverStarts(MemoryTracker):
    """A tracker whose errors hold secrets."""

    def start(self, run: RunInfo) -> Any:
        """Fail, and say too much."""
        raise RuntimeError(
            f"401: {{'Authorization': 'Basic {IN_TEXTS[1]}'}} {IN_ENVIRONMENT[0]} "
            f"https://x:{IN_URLS[3]}@host"
        )


class NeverEnds(MemoryTracker):
    """A tracker whose run fails to end, with secrets in its error and its address."""

    def start(self, run: RunInfo) -> Any:
        """Start a run that cannot end."""
        started = super().start(run)
        started.url = f"https://me:{IN_URLS[3]}@host/run?token={IN_TEXTS[1]}"
        started.finish = self._finish  # type: ignore[method-assign]
        return started

    def _finish(self, status: str) -> None:
        raise OSError(f"Server=x;Password={IN_TEXTS[2]};User=me {IN_ENVIRONMENT[1]}")


def note(name: str, text: object) -> None:
    """Write down what something says."""
    with (OUTPUT / f"{name}.txt").open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")


def note_error(error: BaseException) -> None:
    """Write down an error with all that hangs on it, formatted and pickled."""
    note("tracebacks", "".join(traceback.format_exception(error)))
    pickled = pickle.dumps(error)
    (OUTPUT / f"{type(error).__name__}.pickle").write_bytes(pickled)
    assert str(pickle.loads(pickled)) == str(error)
    chained: BaseException | None = error
    while chained is not None:
        note("errors", f"{chained!s} {chained!r} {chained.args!r} {vars(chained)!r}")
        chained = chained.__cause__ or chained.__context__


def note_reprs(session: Any, tracker: MemoryTracker) -> None:
    """Write down the reprs of what a program may print."""
    facts = session._facts
    things = [session, session.config, facts, session.state, session.get_session_summary()]
    things += [tracker, WandbTracker(facts.config.wandb), vars(session)]
    for thing in things:
        note("reprs", f"{thing!r} {thing!s}")


def say(line: str) -> None:
    """Write down a line that introduces the session, then fail."""
    note("introduced", line)
    raise RuntimeError(f"{{'api_key': '{IN_TEXTS[3]}'}}")


INTRODUCTION: dict[str, Any] = {
    "agent_info": {"type": IN_ENVIRONMENT[2], "name": f"token={IN_TEXTS[0]}"},
    "resumed_from_checkpoint": f"s3://key:{IN_URLS[3]}@bucket/c.ckpt",
}


async def on_a_loop(config: Config, args: argparse.Namespace) -> None:
    """Take a whole session on the async face, W&B in the program, with trackers that fail."""
    tracker = NeverEnds()
    async with AsyncSessionManager(config, args, run_name="async") as session:
        assert session.is_wandb_active
        assert session.wandb_run is not None
        session.wandb_run.log({"loss": 0.1})
        assert not await session.setup_remote_logging(NeverStarts("broken"))
        assert await session.setup_remote_logging(tracker)
        await session.log_session_info(say, **INTRODUCTION)
        note_reprs(session, tracker)


def blocking(config: Config, args: argparse.Namespace) -> None:
    """Take the same session on the blocking face, W&B in its process, with a body that fails."""
    tracker = MemoryTracker()
    try:
        with SessionManager(config, args, run_name="blocking") as session:
            assert session.is_wandb_active
            session.log_metrics({"loss": 0.1})
            session.setup_remote_logging(NeverStarts("broken"))
            session.setup_remote_logging(tracker)
            session.log_session_info(say, **INTRODUCTION)
            note_reprs(session, tracker)
            raise ZeroDivisionError(f"password={IN_TEXTS[2]}")
    except ZeroDivisionError:
        print(session.get_session_summary(), session.config)


def refused() -> None:
    """Provoke the errors that a config, a name and a directory can end in."""
    for path in [*sorted(SOURCE.glob("bad*")), SOURCE / "missing.yaml"]:
        try:
            load_config(path, model=Config)
        except KeiseiError as exc:
            note_error(exc)
    for wrong in (f"{IN_TEXTS[3]}", f"wandb.api_key={IN_TEXTS[3]}", f"env=['{IN_TEXTS[3]}"):
        try:
            load_config(overrides=[wrong])
        except KeiseiError as exc:
            note_error(exc)
    for value in (*IN_ENVIRONMENT, "x" * 70 + IN_ENVIRONMENT[0], f"a://me:{IN_URLS[0]}@h"):
        try:
            SessionManager(Config(), run_name=f"{value}/")
        except KeiseiError as exc:
            note_error(exc)
    occupied = OUTPUT / "occupied"
    occupied.write_text("")
    config = load_config(overrides={"logging.log_dir": str(occupied)}, model=Config)
    os.environ["KEISEI_LOG_DIR"] = str(occupied)
    try:
        SessionManager(config).setup_directories()
    except KeiseiError as exc:
        note_error(exc)


def log() -> None:
    """Log to keisei's logger as its own modules do, and as a careless program would."""
    logger = logging.getLogger("keisei")
    try:
        raise ValueError(f"token={IN_TEXTS[1]} {IN_ENVIRONMENT[3]}")
    except ValueError:
        logger.exception("failed with %s", {"password": NAMED[0]}, stack_info=True)
    logger.debug("a URL: %s, a value: %r", f"redis://:{IN_URLS[0]}@h", IN_ENVIRONMENT[0])
    logger.warning("misfit %s", IN_ENVIRONMENT[0], NAMED[1])


def main() -> None:
    """Run everything."""
    logging.basicConfig(filename=OUTPUT / "logged.txt", level=logging.DEBUG)
    logging.getLogger().addHandler(logging.StreamHandler())
    parser = argparse.ArgumentParser()
    parser.add_argument("--password")
    args = parser.parse_args(sys.argv[3:])
    config = load_config(SOURCE / "good.yaml", model=Config)
    blocking(config, args)
    config.wandb.in_process = True
    anyio.run(on_a_loop, config, args)
    log()
    refused()
    print("done", config)


if __name__ == "__main__":
    main()
