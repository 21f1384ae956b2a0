"""What a session keeps besides numbers: once by its content, named in the journal once it is."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import matplotlib
import numpy as np
import pytest

from keisei import (
    AsyncSessionManager,
    AsyncSessionMember,
    NotReadyError,
    SessionEndedError,
    SessionManager,
    SessionMember,
)
from keisei.errors import MediaError
from keisei.journal.reader import Media, read_run
from tests.conftest import MakeConfig
from tests.support.pixels import read_png
from tests.support.storms import repetitions

_ = matplotlib.__version__  # it looks at its own directory, once, when a figure is first pickled
PIXELS = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)


async def media(directory: str, *args: Any, **kwargs: Any) -> list[Media]:
    """Read what a run keeps, off the loop."""
    return await anyio.to_thread.run_sync(lambda: read_run(directory).media(*args, **kwargs))


def kept_files(directory: str) -> list[Path]:
    """Return the files below a run's `media/`."""
    return [path for path in Path(directory, "media").rglob("*") if path.is_file()]


@pytest.mark.requirement("MEDIA-1")
async def test_media_are_kept_and_named_when_flush_returns(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    """Kind, name, step, caption and file of each are known, in the order of the calls."""
    path = tmp_path / "notes.md"
    path.write_text("# notes")
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        session.log_metrics({"loss": 1.0}, step=1)
        session.log_image("samples/cat", PIXELS, step=1, caption="a cat")
        session.log_text("completion", "Once upon a time", step=1)
        session.log_file("notes", path)
        await session.flush()
        found = await media(session.run_artifact_dir)
        assert [(one.kind, one.name, one.step, one.caption) for one in found] == [
            ("image", "samples/cat", 1, "a cat"),
            ("text", "completion", 1, None),
            ("file", "notes", None, None),
        ]
        assert found[0].about == {"width": 4, "height": 4}
        assert found[2].about == {"file_name": "notes.md"}
        for one in found:
            data = await anyio.Path(one.path).read_bytes()
            assert hashlib.sha256(data).hexdigest() == one.digest
            assert len(data) == one.size
        assert np.array_equal(read_png(await anyio.Path(found[0].path).read_bytes()), PIXELS)
        assert await anyio.Path(found[1].path).read_text() == "Once upon a time"
        assert [one.name for one in await media(session.run_artifact_dir, "notes")] == ["notes"]
        counts = session.get_session_summary()["media"]
        assert (counts["logged"], counts["kept"], counts["left_out"]) == (3, 3, 0)


@pytest.mark.requirement("MEDIA-1")
async def test_every_kind_is_kept_from_the_loop(make_config: MakeConfig) -> None:
    """Figures, video, audio, histograms and tables, too, and nothing of it blocks the loop."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1, 1))
    figure.add_subplot().plot([1, 2])
    async with AsyncSessionManager(make_config()) as session:
        session.log_figure("figure", figure, 1)
        session.log_video("video", np.zeros((3, 16, 16, 3), np.uint8), 1, fps=10)
        session.log_audio("audio", np.zeros(100), 1, rate=8000)
        session.log_histogram("samples", np.arange(10), 1)
        session.log_histogram("counts", counts=[1, 2], edges=[0, 1, 2])
        session.log_table("table", [["a", PIXELS]], 1, columns=["text", "picture"])
        await session.flush()
        found = await media(session.run_artifact_dir)
        assert [(one.kind, Path(one.path).suffix) for one in found] == [
            ("figure", ".png"),
            ("video", ".mp4"),
            ("audio", ".wav"),
            ("histogram", ".json"),
            ("histogram", ".json"),
            ("table", ".json"),
        ]
        table = json.loads(await anyio.Path(found[5].path).read_bytes())
        picture = Path(session.run_artifact_dir, "media", table["rows"][0][1]["file"])
        assert np.array_equal(read_png(await anyio.Path(picture).read_bytes()), PIXELS)


def test_the_blocking_face_and_its_end_keep_what_was_logged(make_config: MakeConfig) -> None:
    """What is still queued when the block is left is kept before the session has ended."""
    with SessionManager(make_config(), run_name="r") as session:
        for step in range(20):
            session.log_image("i", np.full((50, 50), step, np.uint8), step)
        directory = session.run_artifact_dir
    assert [one.step for one in read_run(directory).media()] == list(range(20))
    mode = {oct(path.stat().st_mode & 0o777) for path in kept_files(directory)}
    assert mode == {"0o600"}


async def test_an_array_may_be_overwritten_at_once(make_config: MakeConfig) -> None:
    """Each call has what the array held then."""
    pixels = np.zeros((8, 8), np.uint8)
    async with AsyncSessionManager(make_config()) as session:
        for step in range(10):
            pixels[:] = step
            session.log_image("i", pixels, step)
        directory = session.run_artifact_dir
    for one in await media(directory):
        assert read_png(await anyio.Path(one.path).read_bytes())[0, 0, 0] == one.step


async def test_a_thing_is_kept_once_by_its_content(make_config: MakeConfig, tmp_path: Path) -> None:
    """The same thing under two names and a copy of it by path are one file; a path is copied."""
    path = tmp_path / "a.txt"
    path.write_text("same")
    async with AsyncSessionManager(make_config()) as session:
        session.log_text("a", "same")
        session.log_text("b", "same", step=3)
        session.log_file("c", path)
        await session.flush()
        directory = session.run_artifact_dir
        found = await media(directory)
        assert [one.name for one in found] == ["a", "b", "c"]
        assert len({one.path for one in found}) == 1
        assert await anyio.to_thread.run_sync(lambda: len(kept_files(directory))) == 1
        path.write_text("other")
        assert await anyio.Path(found[2].path).read_text() == "same"


async def test_members_keep_media_too(make_config: MakeConfig) -> None:
    """A member's stand in the run's directory, and are read as its part's."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        async with AsyncSessionMember(session.handle(), role="rollout-1") as member:
            member.log_image("episode", PIXELS, step=2)
            await member.flush()
            (one,) = await media(session.run_artifact_dir, part="rollout-1")
            assert (one.name, one.step) == ("episode", 2)
        assert await media(session.run_artifact_dir) == []


def test_members_of_scripts_keep_media_until_their_end(make_config: MakeConfig) -> None:
    """The limits come with the handle."""
    config = make_config(media={"largest_file": 100})
    with SessionManager(config, run_name="r") as session:
        with SessionMember(session.handle(), role="a") as member:
            member.log_text("short", "x" * 100)
            member.log_text("long", "x" * 101)
        found = read_run(session.run_artifact_dir).media(part="a")
        assert [one.name for one in found] == ["short"]


async def test_what_cannot_be_kept_is_counted_and_said_once(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A path that leads nowhere, a pipe, a bomb, what is too large: the training goes on."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "bad.png").write_bytes(b"no image")
    config = make_config(media={"largest_file": 1000, "largest_total": 1500})
    async with AsyncSessionManager(config) as session:
        for _ in range(3):
            session.log_file("gone", tmp_path / "gone")
        session.log_file("pipe", tmp_path / "pipe")
        session.log_image("bad", tmp_path / "bad.png")
        session.log_file("large", bytes(1001))
        session.log_file("first", bytes(1000))
        session.log_file("beyond", b"x" * 501)
        session.log_file("again", bytes(1000))
        await session.flush()
        found = await media(session.run_artifact_dir)
        assert [one.name for one in found] == ["first"]
        counts = session.get_session_summary()["media"]
        assert (counts["logged"], counts["kept"], counts["left_out"]) == (9, 1, 8)
    said = [one.getMessage() for one in caplog.records if "media" in one.getMessage()]
    assert len([text for text in said if "'gone'" in text]) == 1
    assert [text for text in said if "'large'" in text and "media.largest_file" in text]
    assert [text for text in said if "'beyond'" in text and "media.largest_total" in text]


async def test_a_call_out_of_its_time_is_refused(make_config: MakeConfig) -> None:
    """Before the directories are there, and after the end, as metrics are."""
    session = AsyncSessionManager(make_config())
    with pytest.raises(NotReadyError, match=r"log_image\(\)"):
        session.log_image("i", PIXELS)
    async with session:
        session.log_text("t", "x")
    with pytest.raises(SessionEndedError, match=r"log_text\(\)"):
        session.log_text("t", "x")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("../x", PIXELS), MediaError),
        (("i", PIXELS.astype(int)), MediaError),
        (("i", PIXELS, 1.5), TypeError),
        (("i", PIXELS, 1, 3), MediaError),
    ],
)
async def test_a_wrong_argument_raises_and_keeps_nothing(
    make_config: MakeConfig, arguments: tuple[Any, ...], error: type[Exception]
) -> None:
    """The errors are raised at the call."""
    async with AsyncSessionManager(make_config()) as session:
        with pytest.raises(error):
            session.log_image(*arguments)
        assert session.get_session_summary()["media"] is None


async def test_a_resume_supersedes_media_as_it_does_rows(make_config: MakeConfig) -> None:
    """What was logged behind the step that is restored is left behind, whenever it was written."""
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        for step in range(6):
            session.log_metrics({"loss": 1.0}, step)
            session.log_text("t", f"first {step}", step)
        directory = session.run_artifact_dir
    async with AsyncSessionManager(make_config(), run_name="r") as session:
        session.resume_at(2)
        for step in range(3, 5):
            session.log_metrics({"loss": 2.0}, step)
            session.log_text("t", f"second {step}", step)
    found = await media(directory)
    assert [(one.attempt, one.step) for one in found] == [(1, 0), (1, 1), (1, 2), (2, 3), (2, 4)]
    everything = await media(directory, include_superseded=True)
    left = [(one.attempt, one.step) for one in everything if one.superseded]
    assert left == [(1, 3), (1, 4), (1, 5)]


async def test_the_same_name_and_step_of_a_later_attempt_counts(make_config: MakeConfig) -> None:
    """Where no resume says where it goes on, only what is logged again is superseded."""
    for text in ("one", "two"):
        async with AsyncSessionManager(make_config(), run_name="r") as session:
            session.log_text("t", text, 7)
            session.log_text(f"only {text}", text, 7)
            session.log_text("stepless", text)
            directory = session.run_artifact_dir
    found = [(one.attempt, one.name) for one in await media(directory)]
    assert found == [
        (1, "only one"), (1, "stepless"), (2, "t"), (2, "only two"), (2, "stepless"),
    ]  # fmt: skip


async def test_secrets_in_texts_and_captions_are_hidden(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless the caller says that a text only looks like one."""
    monkeypatch.setenv("MY_API_KEY", "canary-5cb1a7e2f9")
    async with AsyncSessionManager(make_config()) as session:
        session.log_text("t", "the key is canary-5cb1a7e2f9", caption="canary-5cb1a7e2f9")
        session.log_text("kept", "the key is canary-5cb1a7e2f9", redact=False)
        await session.flush()
        hidden, kept = await media(session.run_artifact_dir)
        assert "canary" not in await anyio.Path(hidden.path).read_text()
        assert "canary" not in str(hidden.caption)
        assert "canary" in await anyio.Path(kept.path).read_text()


@pytest.mark.parametrize("policy", ["wait", "drop_oldest", "latest"])
async def test_a_full_queue_never_holds_the_loop(make_config: MakeConfig, policy: str) -> None:
    """On a loop the oldest are dropped and counted, whatever the policy; the last one is kept."""
    config = make_config(media={"queue": 10_000}, journal={"when_full": policy})
    async with AsyncSessionManager(config) as session:
        queue = session._recorder.media
        held, entered = threading.Event(), threading.Event()
        keep = queue._store.keep

        def hung(content: Any) -> Any:
            entered.set()
            held.wait(30)
            return keep(content)

        queue._store.keep = hung  # type: ignore[method-assign]
        for step in range(5):
            session.log_file("f", bytes([step]) * 4096, step)
            if not step:
                await anyio.to_thread.run_sync(entered.wait)
        held.set()
        await session.flush()
        counts = session.get_session_summary()["media"]
        assert counts["dropped"] == counts["logged"] - counts["kept"] > 0
        assert counts["queued"] == 0
        found = await media(session.run_artifact_dir)
        assert [one.step for one in found][-1] == 4


def test_a_script_waits_for_room(make_config: MakeConfig) -> None:
    """With the policy `wait`, nothing is dropped off the loop."""
    with SessionManager(make_config(media={"queue": 10_000}), run_name="r") as session:
        for step in range(50):
            session.log_file("f", bytes([step]) * 4096, step)
        directory = session.run_artifact_dir
    assert [one.step for one in read_run(directory).media()] == list(range(50))


async def test_an_end_says_what_it_has_left_out(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that hangs holds the end no longer than its deadline."""
    async with AsyncSessionManager(make_config()) as session:
        queue = session._recorder.media
        held = threading.Event()
        queue._store.keep = lambda content: held.wait(30)  # type: ignore[assignment, method-assign, return-value]
        session.log_text("first", "x")
        session.log_text("second", "x")
        with caplog.at_level(logging.ERROR):
            await anyio.to_thread.run_sync(queue.close, 0.1)
        held.set()
    assert any("2 media are left out" in one.getMessage() for one in caplog.records)


def test_forged_events_lead_nowhere(make_config: MakeConfig, tmp_path: Path) -> None:
    """A run from somebody else names nothing outside its own `media/`, by no symlink either."""
    with SessionManager(make_config(), run_name="r") as session:
        session.log_text("t", "x")
        session.flush()
        directory = session.run_artifact_dir
        (one,) = read_run(directory).media()
        sound = {"kind": "text", "name": "t", "step": None, "time": 1.0, "at": 0, "size": 1}
        for file in ("../../etc/passwd", "ab/" + "a" * 64 + "/../x", "/etc/passwd", 3, "ab/x"):
            session.log_event("keisei/media", {**sound, "file": file, "digest": "a" * 64})
        session.log_event("keisei/media", [1])
        session.log_event("keisei/media", {"kind": "text"})
        session.flush()
        assert read_run(directory).media() == [one]
        os.rename(one.path, tmp_path / "elsewhere")
        os.symlink(tmp_path / "elsewhere", one.path)
        assert read_run(directory).media() == []


VICTIM = """
import sys
import numpy as np
from keisei import AppConfig, SessionManager
config = AppConfig.model_validate({"logging": {"log_dir": sys.argv[1]}})
with SessionManager(config, run_name="r") as session:
    chance = np.random.default_rng()
    step = 0
    while True:
        session.log_image("i", chance.integers(0, 255, (300, 300, 3), dtype=np.uint8), step)
        session.log_text("t", str(chance.random()) * 1000, step)
        if step % 5 == 4:
            session.flush()
            print(step, flush=True)
        step += 1
"""


def check_killed_run(root: Path, seconds: float) -> int:
    """Kill a run that logs media, and check what a reader has of it; return how many it has."""
    command = [sys.executable, "-c", VICTIM, str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        flushed = int(process.stdout.readline())
        threading.Event().wait(seconds)
        process.kill()
        flushed = max([flushed, *map(int, process.stdout.read().split("\n")[:-1])])
    run = read_run(root / "r")
    named = [event for event in run.events() if event.name == "keisei/media"]
    found = run.media()
    assert len(found) == len(named) >= 2 * (flushed + 1)
    for one in found:
        assert hashlib.sha256(Path(one.path).read_bytes()).hexdigest() == one.digest
    return len(found)


def test_a_killed_run_names_no_file_that_is_missing(tmp_path: Path) -> None:
    """Whatever was flushed is there, and every name that a reader sees leads to a whole file."""
    for number in range(2):
        assert check_killed_run(tmp_path / str(number), 0.05 * number)


@pytest.mark.storm
def test_runs_killed_at_any_instant_name_no_file_that_is_missing(tmp_path: Path) -> None:
    """The same, many times, at random instants."""
    chance = np.random.default_rng(7)
    for number in range(repetitions(100)):
        assert check_killed_run(tmp_path / str(number), float(chance.uniform(0, 0.3)))


def test_the_event_is_plain_json(make_config: MakeConfig) -> None:
    """Anybody can read it: the file below `media/`, its size and digest, and the rest."""
    with SessionManager(make_config(), run_name="r") as session:
        session.log_image("i", PIXELS, 3)
        directory = session.run_artifact_dir
    (event,) = [e for e in read_run(directory).events() if e.name == "keisei/media"]
    data = json.loads(json.dumps(event.data))
    assert data["file"] == f"{data['digest'][:2]}/{data['digest']}.png"
    assert Path(directory, "media", data["file"]).stat().st_size == data["size"]
    assert (data["kind"], data["name"], data["step"], data["at"]) == ("image", "i", 3, -1)
