"""What the page's server answers, to whom it answers, and how it ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from keisei import SessionManager, SessionMember
from keisei.cli import ui as _ui  # noqa: F401 - registers the command
from keisei.cli.program import app
from keisei.dashboard import serving
from keisei.errors import MissingExtraError
from tests.conftest import MakeConfig
from tests.support.logged_runs import Log, line
from tests.support.page import TOKEN, Served
from tests.support.runs import Runs

HOSTILE = "<img src=x onerror=alert(1)></script>"
TURNED = "\N{RIGHT-TO-LEFT OVERRIDE}gnp"


@pytest.mark.requirement("LOOK-3")
def test_runs_are_listed_by_the_query_language(page: Served) -> None:
    """The list takes the queries, the columns and the order of `keisei ls`."""
    found = page.get("/api/runs", {"q": "loss.last>150", "columns": "loss.last,env.seed"})
    assert [row["name"] for row in found["rows"]] == ["second"]
    assert found["rows"][0]["extra"] == [198.0, None]
    assert (found["counts"], found["total"]) == ({"completed": 1}, 1)
    found = page.get("/api/runs", {"sort": "-name", "limit": "1"})
    assert ([row["name"] for row in found["rows"]], found["total"]) == (["second"], 2)


@pytest.mark.parametrize(
    ("path", "query", "status", "says"),
    [
        ("/api/runs", {"q": "statsu:failed"}, 400, "character 1"),
        ("/api/runs", {"sort": "colour"}, 400, "no column"),
        ("/api/run/nobody", {}, 404, "nobody"),
        ("/api/run/..", {}, 404, ""),
        ("/api/series", {"run": "../runs/first", "metric": "loss"}, 404, "no run"),
        ("/api/series", {"run": "first", "metric": "loss", "x": "row"}, 400, "step or time"),
        ("/api/series", {"run": "first", "metric": "loss", "width": "inf"}, 400, "no number"),
        ("/api/series", {"run": "first", "metric": ["m"] * 201}, 400, "200 lines"),
        ("/api/series", {"run": ["first"] * 51, "metric": "m"}, 400, "50 runs"),
        ("/api/compare", {"run": ["first"] * 51}, 400, "50 runs"),
        ("/api/compare", {"run": ["first", "../runs/second"]}, 404, "no run"),
        ("/api/run/first/log", {"part": "../../first/training"}, 400, "no part"),
        ("/api/follow", {"run": "first", "log": "1", "part": "a/b"}, 400, "no part"),
        ("/api/run/nobody/usage", {}, 404, "nobody"),
        ("/api/run/nobody/verdict", {}, 404, "nobody"),
    ],
)
def test_what_is_wrong_is_said(
    page: Served, path: str, query: dict[str, str | list[str]], status: int, says: str
) -> None:
    """A query that is none, a run that is not there and a number that is none are said."""
    if not says:
        assert page.ask(path, query)[0] == status
        return
    answered, problem = page.problem(path, query)
    assert (answered, says in problem) == (status, True), problem


def test_a_chart_has_its_range_and_its_smoothing(page: Served) -> None:
    """What is drawn is asked for by run, metric, axis, range and width; several runs at once."""
    query: dict[str, str | list[str]] = {"run": ["first", "second"], "metric": "loss"}
    one, two = page.read(query | {"from": "10", "to": "20", "smooth": "0.5"})
    assert (one["run"], two["run"]) == ("first", "second")
    assert (one["xs"][0], one["xs"][-1]) == (9, 21)
    assert two["ys"][1] == 20.0
    assert len(one["smooth"]["xs"]) == len(one["xs"])
    assert (one["count"], one["last"]) == (100, 99.0)
    assert page.get("/api/metrics", query)["metrics"] == ["loss"]
    assert page.read(query | {"metric": "nothing"})[0]["count"] == 0
    assert page.read(query | {"x": "time"})[0]["xs"][0] == 0


def test_one_run_has_its_config_with_origins_and_its_log(page: Served, root: Path) -> None:
    """The page of a run has what `keisei show` has; secrets stay hidden in the log."""
    with open(root / "first" / "training.log", "a", encoding="utf-8") as log:
        log.write("token=sk-ant-REDACTED\n")
        log.write(f"{HOSTILE}\x1b[31m{TURNED}\n")
    run = page.get("/api/run/first")
    values = {one["key"]: one["value"] for one in run["config"]}
    assert values["logging.log_dir"] == str(root)
    assert run["status"] == "completed"
    *_, secret, hostile = page.get("/api/run/first/log")["lines"]
    assert "abcdefghij" not in secret
    assert hostile == f"{HOSTILE}\x1b[31m{TURNED}"


def test_media_are_named_and_sent_as_what_they_are(page: Served, make_config: MakeConfig) -> None:
    """Texts come by their names, as files to be saved; no other file can be asked for."""
    with SessionManager(make_config(), run_name="shown") as session:
        session.log_metrics({"loss": 1.0}, 0)
        session.log_text("said", HOSTILE, step=3)
    (said,) = page.get("/api/run/shown/media")["media"]
    assert (said["name"], said["kind"], said["step"]) == ("said", "text", 3)
    status, headers, body = page.ask(f"/api/run/shown/media/{said['file']}")
    assert (status, body.decode()) == (200, HOSTILE)
    assert headers["content-type"].startswith("text/plain")
    assert headers["content-disposition"] == "attachment"
    for wrong in ("../session.json", "..%2f..%2fsession.json", f"{said['file']}.bak", "aa/bb"):
        assert page.ask(f"/api/run/shown/media/{wrong}")[0] == 404
    assert page.ask(f"/api/run/shown/media/{said['file']}", headers={"Authorization": ""})[0] == 403


def test_a_part_is_read_by_its_name(page: Served, make_config: MakeConfig) -> None:
    """What a member has logged is asked for by its role: rows, log lines and media."""
    with (
        SessionManager(make_config(), run_name="crowd") as session,
        SessionMember(session.handle(), role="rollout-1") as member,
    ):
        session.log_metrics({"loss": 1.0}, 1)
        member.log_metrics({"reward": 7.0}, 3)
        member.log_text("answer", "forty-two", step=3)
    assert page.get("/api/run/crowd")["parts"] == ["rollout-1"]
    (line,) = page.read({"run": "crowd", "metric": "reward", "part": "rollout-1"})
    assert (line["xs"], line["ys"]) == ([3], [7.0])
    assert page.read({"run": "crowd", "metric": "reward"})[0]["ys"] == []
    (media,) = page.get("/api/run/crowd/media", {"part": "rollout-1"})["media"]
    assert media["name"] == "answer"


def test_metrics_are_asked_for_by_any_name(page: Served, log: Log) -> None:
    """As the body of a request, which holds what no address can; no more of it than is bounded."""
    name = "m" * 100_000
    log("long", [({name: 1.0, "a\ud800": 2.0}, 1)])
    page.read({"run": "long", "metric": "m"})
    status, found = page.post("/api/series?run=long", [name, "a\ud800"])
    assert status == 200
    assert [one["ys"] for one in found["series"]] == [[1.0], [2.0]]
    bodies: list[object] = [{}, [1], ["m"] * 201]
    for body in bodies:
        assert page.post("/api/series?run=long", body)[0] == 400
    assert page.post("/api/series?run=nobody", ["m"])[0] == 404


def test_what_a_run_has_used_is_read(page: Served, make_config: MakeConfig) -> None:
    """Time by phase, cost, and nothing where nothing was measured."""
    config = make_config(monitoring={"phases": True}, training={"total_timesteps": 1000})
    with SessionManager(config, run_name="paid") as session:
        with session.phase("evaluation"):
            session.log_metrics({"loss": 1.0}, 1)
        session.log_metrics({"loss": 1.0}, 2)
        session.log_cost(2.5, "judge")
    found = page.get("/api/run/paid/usage")
    assert found["time"]["throughput"]["time_to_go_s"] is None  # it has ended
    assert "evaluation" in found["time"]["seconds"]
    assert (found["cost"]["totals"], found["lag"]) == ({"USD": "2.50"}, None)
    assert found["problems"] == {}


def test_a_run_is_judged_against_the_tagged_ones(page: Served, root: Path) -> None:
    """The verdict is against the runs that have the tag `baseline`, and nothing without one."""
    assert page.get("/api/run/first/verdict")["against"] == []
    assert page.post("/api/run/second/labels", {"add": ["baseline"]})[0] == 200
    found = page.get("/api/run/first/verdict")
    assert found["against"] == ["second"]
    (verdict,) = found["verdicts"]
    assert (verdict["metric"], verdict["outcome"] != "worse") == ("loss", True)
    assert page.get("/api/run/second/verdict")["against"] == []


def test_runs_are_compared_by_subject(page: Served) -> None:
    """In what runs differ is what `keisei compare` says."""
    parts = page.get("/api/compare", {"run": ["first", "second"]})["parts"]
    assert parts["metrics"]["loss"] == [99.0, 198.0]
    assert parts["run"]["status"] == ["completed", "completed"]
    assert parts["config"] == {}


def test_labels_are_changed_and_refused(page: Served, root: Path) -> None:
    """Tags and notes are those of the run's directory; a tag that is none changes nothing."""
    status, now = page.post("/api/run/first/labels", {"add": ["ppo", "best"], "note": HOSTILE})
    assert (status, now) == (200, {"tags": ["best", "ppo"], "note": HOSTILE})
    status, now = page.post("/api/run/first/labels", {"remove": ["best"]})
    assert now["tags"] == ["ppo"]
    assert page.get("/api/runs", {"q": "tag:ppo"})["total"] == 1
    wrongs: list[object] = [
        {"add": ["a,b"]},
        {"add": "ppo"},
        {"note": 7},
        [],
        {"note": "x" * 20_000},
    ]
    for wrong in wrongs:
        assert page.post("/api/run/first/labels", wrong)[0] == 400
    assert '"ppo"' in (root / "first" / "labels.json").read_text(encoding="utf-8")


def test_nobody_is_answered_without_the_token(page: Served) -> None:
    """Another's token, another host's name and a page of another origin are refused."""
    none = {"Authorization": ""}
    local = f"127.0.0.1:{page.port}"
    for headers in (
        {"Authorization": ""},
        {"Authorization": "Bearer somebody-elses-token"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Host": f"evil.example:{page.port}"},
        {"Host": "127.0.0.1:1"},
        {"Host": f"[::ffff:127.0.0.1]:{page.port}"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"},
    ):
        for path, body in (("/api/runs", None), ("/api/run/first/labels", {"note": "mine"})):
            assert page.ask(path, body=body, headers=headers)[0] == 403, headers
    own = {"Origin": f"http://{local}", "Sec-Fetch-Site": "same-origin"}
    assert page.ask("/api/runs", headers=own)[0] == 200
    assert page.get("/api/run/first")["note"] is None
    assert page.ask("/", {"token": "somebody-elses-token"}, headers=none)[0] == 403
    assert page.ask("/", {"token": TOKEN}, headers=none)[0] == 200
    assert page.ask("/", headers={"Host": f"evil.example:{page.port}"})[0] == 403


def test_the_page_runs_no_script_but_its_own(page: Served) -> None:
    """Each answer has the policy; the page has no script and no style in it, and is small."""
    total = 0
    for name in sorted(path.name for path in Path(serving.__file__).parent.glob("static/*")):
        status, headers, body = page.ask(f"/static/{name}", headers={"Authorization": ""})
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        total += len(body)
        text = body.decode()
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", text)
        assert "://" not in text.replace("http://www.w3.org/", "")
    html = page.ask("/")[2].decode()
    assert not re.search(r"<style|<script[^>]*>[^<]|\son\w+=|style=", html)
    assert total < 150_000
    assert page.ask("/static/..%2fapp.py")[0] == 404


def test_a_live_run_is_followed(page: Served, make_config: MakeConfig) -> None:
    """A stream says that a run is there, how many rows it has, and that it has ended."""
    with page.follow({"sort": "name"}) as runs:
        assert next(runs)["order"] == ["first", "second"]
        with SessionManager(make_config(), run_name="third") as session:
            news = next(one for one in runs if "third" in one["order"])
            assert (
                next(row for row in news["rows"] if row["name"] == "third")["status"] == "running"
            )
            with page.follow({"run": "third", "log": "1"}) as one:
                assert next(one)["runs"][0]["status"] == "running"
                session.log_metrics({"loss": 1.0}, 5)
                assert next(n for n in one if n["runs"][0].get("rows"))["runs"][0]["step"] == 5
                session.log_session_info(lambda line: None)
                session.finalize_session("completed")
                end = next(n for n in one if n["runs"][0]["status"] == "completed")
                assert end["runs"][0]["rows"] == 1
        found = next(n for n in runs if any(row["status"] == "completed" for row in n["rows"]))
        assert found["counts"]["completed"] == 3


def test_a_run_that_vanishes_is_said(page: Served, root: Path) -> None:
    """A run that is removed while it is looked at is gone, and the others stay."""
    import shutil

    with page.follow({"run": ["first", "second"]}) as runs:
        next(runs)
        shutil.rmtree(root / "first")
        gone = next(n for n in runs if n["runs"][0]["status"] == "gone")
        assert gone["runs"][1]["status"] == "completed"
    assert page.problem("/api/series", {"run": "first", "metric": "loss"})[0] == 404
    shutil.rmtree(root)
    assert page.problem("/api/runs", {"q": ""})[0] == 500


def test_a_killed_run_is_not_shown_as_running(page: Served, root: Path, log: Log) -> None:
    """Whether an owner lives is looked up, as `keisei ls` does."""
    runs = Runs(root, lambda **sections: pytest.fail("not needed"))
    runs.killed("victim")
    log("after", line(range(2)))
    found = page.get("/api/runs", {"q": "status:died"})
    assert [row["name"] for row in found["rows"]] == ["victim"]


def serve(root: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start `keisei ui`."""
    command = [sys.executable, "-m", "keisei", "ui", "--root", str(root), "--no-browser"]
    return subprocess.Popen(
        [*command, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, serving.TOKEN_VARIABLE: TOKEN},
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT for one process")
def test_it_ends_at_once_although_it_is_followed(root: Path) -> None:
    """The address is printed, a port in use is said, and Ctrl-C ends it within seconds.

    Neither a stream nor a body that never comes holds it, and nothing is printed about them.
    """
    taken = serving.bound("127.0.0.1", 0)
    port = taken.getsockname()[1]
    server = serve(root, "--port", str(port))
    assert server.stdout is not None
    assert server.stderr is not None
    try:
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=(.+)", _until_address(server))
        assert found is not None
        assert (int(found[1]) > port, found[2]) == (True, TOKEN)
        with Served(int(found[1])).follow({"run": "first"}) as runs:
            next(runs)
            slow = socket.create_connection(("127.0.0.1", int(found[1])))
            slow.sendall(
                f"POST /api/run/first/labels HTTP/1.1\r\nHost: 127.0.0.1:{found[1]}\r\n"
                f"Authorization: Bearer {TOKEN}\r\nContent-Length: 50\r\n\r\n{{".encode()
            )
            begun = time.monotonic()
            server.send_signal(signal.SIGINT)
            server.wait(20)
            assert time.monotonic() - begun < 15
            slow.close()
        assert server.returncode == 130
        assert server.stderr.read().strip() == (
            f"keisei ui: port {port} is in use: this is {found[1]}"
        )
    finally:
        taken.close()
        server.kill()
        server.communicate()


def _until_address(server: subprocess.Popen[str]) -> str:
    assert server.stdout is not None
    for text in server.stdout:
        if "token=" in text:
            return text.strip()
    raise AssertionError("it has ended")


def test_what_cannot_be_served_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No such root, an address of another machine, a short token: one line, and status 2."""

    def refused(*arguments: str) -> str:
        done = CliRunner().invoke(app, ["ui", "--no-browser", "--port", "0", *arguments])
        assert done.exit_code == 2, done.output
        return done.output

    assert "cannot be listed" in refused("--root", str(tmp_path / "nowhere"))
    assert "cannot be listened at" in refused("--root", str(tmp_path), "--host", "192.0.2.1")
    monkeypatch.setenv(serving.TOKEN_VARIABLE, "short")
    assert "16 letters" in refused("--root", str(tmp_path))


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where starlette is not installed, the error names what brings it."""
    monkeypatch.setitem(sys.modules, "starlette", None)
    with pytest.raises(MissingExtraError, match=r"keisei\[ui\]"):
        serving.check_extra()
    assert threading.active_count()
