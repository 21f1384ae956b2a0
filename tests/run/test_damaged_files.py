"""Damaged files on resume: set aside under a name of their own, said, and rebuilt."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from typing import Any

import pytest

from keisei import SessionInUseError
from keisei import SessionManager as Manager
from keisei.run.session_file import SessionRecord
from tests.conftest import MakeConfig


def damaged(record: bytes, seed: int) -> list[bytes]:
    """Give a record cut at every seventh byte, and with one bit flipped at 200 places."""
    chance = random.Random(seed)
    cut = [record[:length] for length in range(0, len(record), 7)]
    flipped = []
    for _ in range(200):
        at, bit = chance.randrange(len(record)), chance.randrange(8)
        flipped.append(record[:at] + bytes([record[at] ^ 1 << bit]) + record[at + 1 :])
    return cut + flipped


@pytest.mark.requirement("DIR-7", "DIR-8", "ID-4")
@pytest.mark.parametrize("status", ["completed", "running"])
def test_a_damaged_record_never_stops_the_next_start(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: str
) -> None:
    """It is read where it still is a record, else kept as `.corrupt` and rebuilt from the log."""
    caplog.set_level(logging.WARNING)
    config, run = make_config(), tmp_path / "runs" / "r"
    with Manager(config, run_name="r") as first:
        whole_log = Path(first.log_file_path).read_bytes()
    record = SessionRecord.model_validate_json((run / "session.json").read_bytes())
    owner = record.owner.model_copy(update={"pid": 2**22 + 1})  # nobody's
    record = record.model_copy(update={"status": status, "owner": owner, "ended_at": None})
    counts = {"set aside": 0, "read": 0, "refused": 0}
    for number, text in enumerate(damaged(record.text(), seed=7)):
        (run / "session.json").write_bytes(text)
        (run / "training.log").write_bytes(whole_log)
        for kept in run.glob("*.corrupt*"):
            kept.unlink()
        caplog.clear()
        session = Manager(config, run_name="r")
        try:
            session.setup_directories()
        except SessionInUseError:
            # Of a process on another host none can tell whether it lives.
            read = SessionRecord.parsed(text)
            assert status == "running"
            assert read is not None
            assert read.owner.host != record.owner.host
            counts["refused"] += 1
            continue
        assert session.finalize_session() == "completed"
        attempt = session.get_session_summary()["attempt"]
        kept = run / "session.json.corrupt"
        if kept.exists():
            assert kept.read_bytes() == text
            assert "session.json.corrupt" in caplog.text
            assert (session.session_id, attempt) == (first.session_id, 2), (number, text)
            counts["set aside"] += 1
        else:
            read = SessionRecord.parsed(text)
            assert read is not None, text
            assert (session.session_id, attempt) == (read.session_id, read.attempt + 1), text
            assert read.attempt >= 1
            counts["read"] += 1
    print(f"damaged records ({status}): {counts}")
    assert counts["set aside"] > 150
    assert counts["read"] > 50


ODD_RECORDS = {
    "without an id": {"session_id": "no ulid"},
    "of no attempt": {"attempt": 0},
    "of an attempt before": {"attempt": -3},
}


@pytest.mark.requirement("DIR-7", "ID-4")
@pytest.mark.parametrize("change", ODD_RECORDS.values(), ids=ODD_RECORDS)
def test_a_record_that_cannot_be_this_runs_is_a_damaged_one(
    make_config: MakeConfig, tmp_path: Path, change: dict[str, Any]
) -> None:
    """A record with no ULID or no attempt is set aside like a torn one."""
    with Manager(make_config(), run_name="r") as first:
        pass
    place = tmp_path / "runs" / "r" / "session.json"
    odd = SessionRecord.model_validate_json(place.read_bytes()).model_copy(update=change).text()
    place.write_bytes(odd)
    with Manager(make_config(), run_name="r") as second:
        pass
    assert place.with_name("session.json.corrupt").read_bytes() == odd
    assert second.session_id == first.session_id
    assert second.get_session_summary()["attempt"] == 2


@pytest.mark.requirement("DIR-7")
def test_what_was_set_aside_earlier_is_never_overwritten(
    make_config: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each damaged record gets a name of its own, also beside links and directories."""
    run = tmp_path / "runs" / "r"
    names = [f"session.json.corrupt{tail}" for tail in ("", "-2", "-3", "-4", "-5")]
    run.mkdir(parents=True)
    (run / names[1]).symlink_to(tmp_path / "nowhere")
    (run / names[3]).mkdir()
    for number, name in enumerate([names[0], names[2], names[4]]):
        torn = b'{"session_id": "0%d' % number
        (run / "session.json").write_bytes(torn)
        caplog.clear()
        with Manager(make_config(), run_name="r"):
            pass
        assert (run / name).read_bytes() == torn
        assert f"{name}'" in caplog.text
    assert (run / names[0]).read_bytes() == b'{"session_id": "00'
    assert (run / names[1]).is_symlink()
    assert (run / names[3]).is_dir()


@pytest.mark.requirement("DIR-8", "CFG-3")
@pytest.mark.parametrize(
    "text", [b"", b"{", b"\0" * 4096, b"\xff\xfe{}", b'{"env": {"se', b"[1]\n"]
)
def test_a_damaged_config_is_kept_as_it_is(make_config: MakeConfig, text: bytes) -> None:
    """The attempt's copy of an effective config has its bytes, whatever they are."""
    with Manager(make_config(), run_name="r") as session:
        pass
    config = Path(session.run_artifact_dir, "effective_config.json")
    whole = config.read_bytes()
    config.write_bytes(text)
    with Manager(make_config(), run_name="r"):
        pass
    assert config.with_name("effective_config.attempt-1.json").read_bytes() == text
    assert config.read_bytes() == whole
