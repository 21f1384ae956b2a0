"""`keisei plot`: what a run has logged, drawn in the terminal and to pictures."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from keisei.cli import plot as _plot  # noqa: F401 - registers the command
from keisei.cli.program import app
from keisei.journal.reader import read_run
from keisei.reports.series import keys_of, read_series
from tests.conftest import MakeConfig
from tests.support.logged_runs import Log, Row, line, log_with

HOSTILE = "[red]日本\n\x1b[31m\u202ekey $x_1$ <b>&"


@pytest.fixture
def log(make_config: MakeConfig) -> Log:
    """A function that makes runs of the rows that it is given."""
    return log_with(make_config)


def plot(*arguments: object, **environ: str) -> Result:
    """Run the command in this process."""
    words = ["plot", "--root", "runs", *map(str, arguments)]
    return CliRunner().invoke(app, words, env={"COLUMNS": "80", **environ})


def program(*words: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
    """Run the program, which says at its end what it has imported of what it should not."""
    text = (
        "import sys, keisei.cli\n"
        "try: keisei.cli.main()\n"
        "finally: print({*sys.modules} & {'matplotlib', 'numpy', 'pandas', 'wandb'}, "
        "file=sys.stderr)"
    )
    command = [sys.executable, "-c", text, *words]
    return subprocess.run(command, env={**os.environ, **environ}, capture_output=True, check=True)


def pixels(path: Path) -> Any:
    """Decode a PNG: rows of pixels of red, green, blue and alpha, each from 0 to 1."""
    from matplotlib.image import imread

    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    return imread(path)


def near(found: Any, colour: tuple[int, int, int]) -> Any:
    """Tell which pixels have a colour."""
    return (abs(found[:, :, :3] - [part / 255 for part in colour]) < 0.05).all(axis=2)


def texts(path: Path) -> list[str]:
    """Give the texts of an SVG, which must be XML."""
    root = ET.parse(path).getroot()
    return ["".join(node.itertext()) for node in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_line_that_rises_goes_from_the_lower_left_to_the_upper_right(log: Log) -> None:
    """In the terminal, without colour codes where it is no terminal, and no wider than it."""
    log("r", line(range(100)))
    done = plot("r")
    assert done.exit_code == 0
    rows = done.stdout.splitlines()
    assert rows[0] == "r, by step"
    assert rows[1] == "loss"
    drawn = [row for row in rows[2:] if "│" in row or "┤" in row]
    first = [next((i for i, c in enumerate(row) if c >= "\u2801"), None) for row in drawn]
    assert first == sorted(first, reverse=True)  # type: ignore[type-var]
    assert len(set(first)) == len(drawn)
    assert max(map(len, rows)) <= 80
    assert any(row.split() == ["0", "20", "40", "60", "80"] for row in rows)
    assert "\x1b" not in done.stdout


def test_in_a_terminal_it_has_colours_and_its_width(log: Log) -> None:
    """Charts stand side by side where there is room; progress is told on stderr."""
    log("r", [({"loss": step, "学習率": -step}, step) for step in range(100)])
    for width, beside in ((60, False), (120, True)):
        done = plot("r", FORCE_COLOR="1", TERM="xterm-256color", COLUMNS=str(width))
        assert "reading r: 0 rows" in done.stderr
        shown = done.stdout
        rows = re.sub("\x1b\\[[0-9;]*m", "", shown).splitlines()
        assert "\x1b[36m" in shown
        assert "\x1b" not in "".join(rows)
        assert width - 30 < max(map(cell_len, rows)) <= width
        assert any("loss" in row and "学習率" in row for row in rows) == beside


def test_where_only_ascii_can_be_shown_ascii_is_drawn(log: Log) -> None:
    """Marks take the place of dots, and nothing is escaped in between."""
    log("r", line(range(100)))
    done = program("plot", "r", "-r", "runs", PYTHONIOENCODING="ascii", COLUMNS="60")
    text = done.stdout.decode("ascii")
    assert done.stderr.strip() == b"set()"
    assert text.count("*") > 50
    assert "\\" not in text


def test_lines_that_colour_cannot_tell_apart_have_marks(log: Log) -> None:
    """Two runs in a pipe: each has its mark in the legend, and both are there."""
    log("a", line(range(50)))
    log("b", line(range(50), -1.0))
    done = plot("a", "--with", "b")
    assert "* a   o b" in done.stdout
    chart = done.stdout.split("loss\n")[1]
    assert chart.count("*") > 20 < chart.count("o")


def test_a_picture_shows_the_line_where_it_is(log: Log, tmp_path: Path) -> None:
    """A PNG of some size: white, with the line of its colour from corner to corner."""
    log("r", line(range(1000)))
    done = plot("r", "-o", tmp_path / "x.png")
    assert done.exit_code == 0, done.stderr
    assert "1 metric drawn to" in done.stdout
    found = pixels(tmp_path / "x.png")
    assert found.shape == (750, 1350, 4)
    blue = near(found, (0x00, 0x72, 0xB2))
    places = [(int(column.argmax()), i) for i, column in enumerate(blue.T) if column.any()]
    assert len(places) > 900
    assert places[0][0] > places[len(places) // 2][0] > places[-1][0]
    assert near(found, (255, 255, 255)).mean() > 0.9
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "runs", "x.png"]


def test_a_gap_is_left_where_a_number_is_none(log: Log, tmp_path: Path) -> None:
    """NaN and infinities are said, and no line crosses their place."""
    odd = {500: math.nan, 501: math.inf, 502: -math.inf, 503: 10**400}
    rows: list[Row] = [
        ({"loss": odd.get(step, math.nan if 450 < step < 550 else 1.0)}, step)
        for step in range(1000)
    ]
    log("r", rows)
    done = plot("r", "-o", tmp_path / "x.png")
    assert done.exit_code == 0, done.stderr
    blue = near(pixels(tmp_path / "x.png"), (0x00, 0x72, 0xB2)).any(axis=0)
    drawn = [i for i, there in enumerate(blue) if there]
    breaks = [(a, b) for a, b in pairwise(drawn) if b - a > 1]
    assert len(breaks) == 1
    assert 90 < breaks[0][1] - breaks[0][0] < 140
    assert "loss: 96 NaN, 3 infinite not drawn" in plot("r").stdout


def test_an_svg_has_its_texts_as_texts(log: Log, tmp_path: Path) -> None:
    """Title, metrics, axis and legend; names are neither markup nor mathematics."""
    log("a", [({"loss": 1.0, HOSTILE: 2.0}, 1), ({"loss": 2.0, HOSTILE: 1.0}, 2)])
    log("b", line(range(3)))
    done = plot("a", "--with", "b", "--smooth", "0.5", "-o", tmp_path / "x.svg")
    assert done.exit_code == 0, done.stderr
    found = texts(tmp_path / "x.svg")
    assert {"a · b", "loss", "step", "a, as logged", "b, smoothed 0.5"} <= set(found)
    assert "[red]日本\\n\\x1b[31m\\u202ekey $x_1$ <b>&" in found


def test_long_names_are_not_cut_off_in_a_picture(log: Log, tmp_path: Path) -> None:
    """The title and the legend of several runs leave a margin on both sides."""
    from matplotlib import image

    names = [f"20260131-093015-eqkh-seed{number}-k3v9x2" for number in range(5)]
    for name in names:
        log(name, line(range(9)))
    others = [part for name in names[1:] for part in ("--with", name)]
    assert plot(names[0], *others, "--smooth", "0.5", "-o", tmp_path / "x.png").exit_code == 0
    pixels = image.imread(tmp_path / "x.png")
    assert pixels[:, :4].min() == pixels[:, -4:].min() == 1.0  # white


def test_hostile_names_never_reach_the_terminal_raw(log: Log) -> None:
    """Neither as escape sequences nor as rich's markup; long ones are cut in their middle."""
    log("r", [({HOSTILE: 1.0, "x" * 500: 2.0}, 1)])
    done = plot("r")
    assert done.exit_code == 0
    assert not set("\x1b\u202e") & set(done.stdout)
    assert "[red]日本\\n\\x1b[31m\\u202ekey $x_1$ <b>&" in done.stdout
    assert "xx…xx" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    missing = plot("r", HOSTILE + "!")
    assert (missing.exit_code, missing.stderr.count("\n")) == (2, 1)
    assert not set("\x1b\u202e") & set(missing.stderr)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["r", "los"], "there is no metric 'los': there is 'loss'"),
        (["r", "eval/*"], "there is no metric 'eval/*': there is 'loss'"),
        (["nobody"], "there is no run 'nobody' under"),
        (["r", "--with", "nobody"], "there is no run 'nobody' under"),
        (["a\0b"], "there is no run 'a\\x00b'"),
        (["empty"], "no metrics have been logged in empty"),
        (["r", "-o", "x.jpg"], "'x.jpg': a picture's name ends in .png or .svg"),
        (["r", "-o", "x"], "'x': a picture's name ends in .png or .svg"),
        (["r", "-o", "nowhere/x.png"], "there is no directory for 'nowhere/x.png'"),
        (["r", "-o", "dir.png"], "'dir.png' is not a file"),
        (["r", "-o", "text.png"], "'text.png' is not a PNG: it is left as it is"),
        (["r", "-o", "text.svg"], "'text.svg' is not a SVG: it is left as it is"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_one_line(
    log: Log, tmp_path: Path, arguments: list[str], said: str
) -> None:
    """On stderr, with exit status 2, and whatever stands there stays as it is."""
    log("r", line(range(3)))
    log("empty", [])
    (tmp_path / "dir.png").mkdir()
    for name in ("text.png", "text.svg"):
        (tmp_path / name).write_text("my notes")
    done = plot(*arguments)
    assert done.exit_code == 2
    assert done.stdout == ""
    assert done.stderr.startswith("keisei plot: ")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "text.png").read_text() == "my notes"


def test_a_picture_that_fails_leaves_the_old_one(
    log: Log, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing half is left, and a picture of the same kind is replaced."""
    log("r", line(range(3)))
    assert plot("r", "-o", "x.png").exit_code == 0
    old = (tmp_path / "x.png").read_bytes()

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        done = plot("r", "--log-y", "-o", "x.png")
    assert done.exit_code == 2
    assert "No space left on device" in done.stderr
    assert (tmp_path / "x.png").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "runs", "x.png"]
    assert plot("r", "--log-y", "-o", "x.png").exit_code == 0
    assert (tmp_path / "x.png").read_bytes() != old


def test_without_keys_all_metrics_are_drawn_up_to_a_number(log: Log) -> None:
    """What is left out is named, and comes when it is asked for by name or pattern."""
    log("r", [({f"m{i:02}": i * step for i in range(12)}, step) for step in range(5)])
    done = plot("r")
    assert [word for word in done.stdout.split("\n") if word in {"m00", "m08", "m09"}] == [
        "m00",
        "m08",
    ]
    assert "left out, to be drawn by name: m09, m10, m11" in done.stdout
    some = plot("r", "m1*", "m03").stdout
    assert [word for word in some.split("\n") if word.startswith("m")] == ["m03", "m10", "m11"]


@pytest.mark.parametrize(
    ("arguments", "steps", "said"),
    [
        ([], [5, 6, 7], "by step"),
        ([], [None, None, None], "by row"),
        (["--x", "row"], [5, 6, 7], "by row"),
        (["--x", "time"], [5, 6, 7], "by time since the first row, s"),
    ],
)
def test_x_is_the_step_where_there_is_one(
    log: Log, arguments: list[str], steps: list[int | None], said: str
) -> None:
    """Else the row's number, or what was asked for."""
    log("r", [({"loss": 1.0}, step) for step in steps])
    assert f"r, {said}\n" in plot("r", *arguments).stdout


def test_a_logarithmic_axis_leaves_out_what_it_cannot_show(log: Log, tmp_path: Path) -> None:
    """Nothing at or below 0 is drawn, which is said; the labels are powers of ten."""
    rows: list[Row] = [({"loss": 10.0**-step}, step) for step in range(7)]
    log("r", [*rows, ({"loss": 0.0}, 7), ({"loss": -1.0}, 8)])
    done = plot("r", "--log-y")
    assert "loss: 2 not above 0 not drawn" in done.stdout
    assert "0.01 ┤" in done.stdout
    assert plot("r", "--log-y", "-o", tmp_path / "x.svg").exit_code == 0
    assert "2 not above 0 not drawn" in texts(tmp_path / "x.svg")


def test_numbers_of_any_size_are_drawn_or_said(log: Log) -> None:
    """Nothing that a row can hold makes the command fail."""
    pairs = [
        (5e-324, 1e-323),
        (-1e299, 1e299),
        (1e308, 1.0),
        (0.1, 0.1),
        (10**400, 1),
        (True, -0.0),
    ]
    log("r", [({f"m{i}": pair[step] for i, pair in enumerate(pairs)}, step) for step in (0, 1)])
    done = plot("r")
    assert (done.exit_code, done.stderr) == (0, "")
    assert "m2: 1 too large not drawn\nm4: 1 infinite not drawn\n" in done.stdout
    done = plot("r", "-o", "x.png")
    assert (done.exit_code, done.stderr) == (0, "")


def test_torn_and_damaged_journals_are_drawn_without_what_is_lost(log: Log) -> None:
    """Half a block at the end, as a crash leaves it, is nobody's reason to draw nothing."""
    run = log("r", line(range(200)))
    with (run / "metrics.1.journal").open("r+b") as file:
        file.truncate(file.seek(0, os.SEEK_END) - 200)
    assert keys_of(read_run(run)) == ["loss"]
    (series,) = read_series(read_run(run), ["loss"], "step", lambda rows: None).values()
    assert 100 < len(series.points.xs) < 200
    assert plot("r").exit_code == 0


def test_the_program_starts_without_what_only_pictures_need() -> None:
    """Its help imports neither matplotlib nor numpy, pandas or wandb."""
    done = program("--help")
    assert b"tail" in done.stdout
    assert done.stderr.strip() == b"set()"


def test_without_matplotlib_the_extra_is_named(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a picture needs it."""
    log("r", line(range(3)))
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    done = plot("r", "-o", "x.png")
    assert done.exit_code == 2
    assert done.stderr == 'keisei plot: a picture needs matplotlib: pip install "keisei[plot]"\n'
    assert plot("r").exit_code == 0
