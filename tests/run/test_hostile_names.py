"""Hostile names: a table of classes, every way a name gets in, and a fuzz against an oracle."""

from __future__ import annotations

import argparse
import enum
import os
import random
import string
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keisei import AppConfig, AsyncSessionManager, InvalidRunNameError, SessionManager
from keisei.config.schema import LoggingConfig

DEVICES = ["CON", "PRN", "AUX", "NUL"] + [f"{s}{n}" for s in ("COM", "LPT") for n in range(10)]

HOSTILE: dict[str, list[Any]] = {
    "path traversal": [
        ".", "..", "...", "../a", "../../etc/passwd", "a/../b", "a/..", "./a", "a/./b", "a..b",
        "..a", "a..", "..\\a", "a\\..\\..\\b", ".../...//", "....//a", "a/../../../../../../x",
    ],
    "absolute paths and homes": [
        "/", "/a", "/etc/passwd", "//a", "/dev/null", "/proc/self/mem", "~", "~/a", "~root",
        "~root/.ssh", "$HOME/a", "%USERPROFILE%", "file:///etc/passwd",
    ],
    "drive letters and UNC": [
        "C:", "C:a", "C:\\", "C:\\Windows", "c:/a", "\\\\host\\share", "//host/share",
        "\\\\?\\C:\\a", "\\\\.\\COM1", "\\\\.\\pipe\\a", "a:stream", "a::$DATA",
        "run:Zone.Identifier",
    ],
    "separators": [
        "a/b", "a/", "a\\b", "a\\", "\\a", "a//b", "a;b", "a:b", "a|b", "a,b", "a\u2215b",
        "a\u2044b", "a\u29f8b", "a\uff0fb", "a\uff3cb", "a\u2216b",
    ],
    "control characters": [
        "a\nb", "\n", "a\n", "\na", "a\rb", "a\tb", "a\x0bb", "a\x0cb", "a\x1b[31mb", "a\x7f",
        "a\x08b", "a\x85b", "a\x9bb", "a\x1ab", "\x01", "a\r\nb",
    ],
    "NUL": ["\0", "a\0", "\0a", "a\0b", "a\0/../b", "run\0.txt", "a" * 127 + "\0"],
    "look-alikes and invisible characters": [
        "\u0430dmin", "\u212aelvin", "\u0131", "r\u00fcn", "e\u0301", "\uff41", "\uff0e\uff0e",
        "\u2024\u2024", "\u202eabc", "a\u202eb", "\u2066a\u2069", "a\u200bb", "a\u200d", "\ufeffa",
        "a\u00a0b", "\u3000", "a\u2028b", "a\u2029b", "\u0661\u0662", "\u00b2", "\u540d\u524d",
        "\U0001f600", "\U0001f600" * 120, "a\u0300" * 60, "\U000e0041", "\ud800", "a\udfff",
        "\udc2e\udc2e", "\ufffe", "\U0010ffff",
    ],
    "Windows devices": [
        *DEVICES, *[name.lower() for name in DEVICES],
        "Con", "nUl", "cOM1", "AUX.txt", "con.tar.gz", "COM9.log", "lpt0.", "PRN.a.b", "NUL .txt",
        "CON ", "COM\u00b9", "COM\u00b2.txt", "LPT\u00b3", "CONIN$", "CONOUT$", "CLOCK$", "nul:",
    ],
    "dots and spaces at the ends": [
        " ", "  ", " a", "a ", "a b", "a.", "a.b.", ".", "a. ", "a .", "a.b. .", "\ta", "a\t",
    ],
    "lengths": ["a" * 129, "a" * 255, "a" * 256, "a" * 4097, "a" * 1_000_000, "a." * 64, "0" * 129],
    "shell and format": [
        "$HOME", "${IFS}", "`id`", "$(id)", "a&b", "a&&b", "a'b", 'a"b', "a>b", "a<b", "a*", "a?",
        "[a]", "{a,b}", "!", "!!", "#a", "a#b", "(a)", "a=b", "a+b", "a@b", "a^b", "{name}", "{0}",
        "{self.__class__}", "%s", "%n", "%(a)s", "{{7*7}}", "<script>", "' OR '1'='1", "a;DROP",
    ],
    "encodings": [
        "%2e%2e%2f", "..%2f", "%2e", "a%2fb", "a%00b", "%252e", "..%c0%af", "%u002e", "a%20b",
        "&#46;", "\\x2e\\x2e", "\\u002e", "http://a", "a?b=c", "a%0ab", "=?utf-8?q?a?=",
    ],
    "leading marks": [".a", ".hidden", ".git", "-", "-rf", "--help", "-a", "_", "_a", "__init__"],
    "wrong types": [
        0, 5, 1.5, True, False, float("nan"), b"bytes", b"", bytearray(b"a"), ["a"], [], ("a",),
        {"a": 1}, {}, {"a"}, object(), Path("a"), len, AppConfig, ..., 10**5000, range(3),
    ],
}  # fmt: skip
LEGAL = [
    "a", "A", "0", "9", "run", "RUN", "my-run_2.final", "a" * 127, "a" * 128, "x.y.z", "a-", "a_",
    "0.1", "1e-3", "a.-_b", "20260131-093015-482913-seed7-k3v9x2mq", "CONSOLE", "com10", "COM",
    "lpt", "lpt10", "nulls", "aux-1", "aux_", "conin", "a.con", "x.nul.y", "COM1-a", "acon",
    "session.json", "models", "a.tmp", "a.lnk", "e-1", "None", "null", "true", "NaN", "a.b-c_d",
    "Z" * 64 + ".z",
]  # fmt: skip


class Odd(Exception):
    """What a hostile object raises."""


class Unspeakable:
    """Has no text, no truth and no equal."""

    def __repr__(self) -> str:
        raise Odd

    def __eq__(self, other: object) -> bool:
        raise Odd

    def __bool__(self) -> bool:
        raise Odd

    __hash__ = None  # type: ignore[assignment]


class Sly(str):
    """A text that says of itself what its checker wants to hear."""

    def __contains__(self, key: object) -> bool:
        return False

    def endswith(self, *args: Any) -> bool:
        return False

    def partition(self, sep: str) -> tuple[str, str, str]:
        return ("fine", "", "")


def by_argument(name: Any) -> AsyncSessionManager[Any]:
    """Name a session by the constructor's argument."""
    return AsyncSessionManager(AppConfig(), run_name=name)


def by_blocking_argument(name: Any) -> SessionManager[Any]:
    """Name a session by the argument of the blocking face."""
    return SessionManager(AppConfig(), None, name)


def by_namespace(name: Any) -> AsyncSessionManager[Any]:
    """Name a session by the program's arguments."""
    return AsyncSessionManager(AppConfig(), argparse.Namespace(run_name=name))


def by_object(name: Any) -> SessionManager[Any]:
    """Name a session by some object's attribute."""
    return SessionManager(AppConfig(), SimpleNamespace(run_name=name))


def by_mapping(name: Any) -> AsyncSessionManager[Any]:
    """Name a session by a mapping."""
    return AsyncSessionManager(AppConfig(), {"run_name": name})


def by_config(name: Any) -> AsyncSessionManager[Any]:
    """Name a session by its config, past the config's own checks."""
    section = LoggingConfig.model_construct(run_name=name)
    return AsyncSessionManager(AppConfig.model_construct(logging=section))


WAYS: list[Callable[[Any], Any]] = [
    by_argument, by_blocking_argument, by_namespace, by_object, by_mapping, by_config,
]  # fmt: skip


def check_refusal(error: InvalidRunNameError, name: object) -> None:
    """A refusal is short, plain ASCII, quotes the name escaped, and says what is legal."""
    message = str(error)
    assert isinstance(error, ValueError)
    assert message.isascii(), message
    assert message.isprintable(), ascii(message)
    assert len(message) < 500, (len(message), message)
    assert "1 to 128 of the characters" in message
    if isinstance(name, str):
        bare = str.maketrans("", "", "\\'\"")  # which kind of quotes stands around it is open
        assert ascii(name[:5]).translate(bare) in message.translate(bare)


def tree(top: Path) -> dict[str, tuple[int, int, int]]:
    """Give everything under a directory, with inode, size and time of change."""
    found = {}
    for path in [top, *top.rglob("*")]:
        stat = path.lstat()
        found[str(path)] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    return found


@pytest.fixture
def confined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory eight levels deep; nothing up from there changes meanwhile."""
    deep = tmp_path.joinpath(*"12345678")
    deep.mkdir(parents=True)
    monkeypatch.chdir(deep)
    before = tree(tmp_path)
    yield deep
    assert tree(tmp_path) == before


@pytest.mark.requirement("ID-3")
def test_every_hostile_name_is_refused_and_every_legal_one_taken(confined: Path) -> None:
    """Each name of the table gets its verdict through every way in, and no disk is touched."""
    judged = 0
    for names in HOSTILE.values():
        for name in names:
            for way in WAYS:
                try:
                    taken = way(name)
                except InvalidRunNameError as error:
                    check_refusal(error, name)
                else:
                    pytest.fail(f"{way.__name__}({name!a:.80}) is taken as {taken.run_name}")
            judged += 1
    for name in LEGAL:
        assert [way(name).run_name for way in WAYS] == [name] * len(WAYS)
        judged += 1
    classes = len(HOSTILE) + 1
    print(f"names judged rightly: {judged} in {classes} classes")
    assert judged >= 150
    assert classes >= 12


@pytest.mark.requirement("DIR-3", "ID-3")
def test_a_legal_name_is_exactly_one_directory_under_its_root(tmp_path: Path) -> None:
    """Whatever is legal makes one directory of that name, and nothing beside it."""
    for number, name in enumerate(LEGAL):
        root = tmp_path / "roots" / str(number)
        config = AppConfig.model_validate({"logging": {"log_dir": root}})
        session = SessionManager(config, run_name=name)
        session.setup_directories()
        assert session.finalize_session() == "completed"
        assert os.listdir(root) == [name]
        assert session.run_artifact_dir == str(root / name)
    assert len(os.listdir(tmp_path / "roots")) == len(LEGAL)


@pytest.mark.requirement("ID-3")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_an_object_that_cannot_be_shown_or_compared_is_refused(
    confined: Path, way: Callable[[Any], Any]
) -> None:
    """A name whose own methods raise is one more wrong type, and none of its errors gets out."""
    with pytest.raises(InvalidRunNameError, match="Unspeakable") as caught:
        way(Unspeakable())
    check_refusal(caught.value, None)


@pytest.mark.requirement("ID-3")
@pytest.mark.parametrize("name", ["a..b", "a.", "CON", "nul.txt"])
def test_a_text_cannot_talk_its_checker_round(confined: Path, name: str) -> None:
    """A subclass of `str` is judged by its characters, not by its methods."""
    with pytest.raises(InvalidRunNameError):
        by_argument(Sly(name))


def test_a_name_is_plain_text_wherever_it_came_from() -> None:
    """An enum member that is a text names the run by its value, in messages too."""

    class Stage(str, enum.Enum):  # noqa: UP042 - the older kind, whose format is not its value
        """Names of runs."""

        FIRST = "first-run"

    for way in WAYS:
        named = way(Stage.FIRST).run_name
        assert type(named) is str
        assert f"{named}" == "first-run"


def lawful(name: str) -> bool:
    """The rule, told once more in other words: characters are walked, no pattern is matched."""
    letters = set(string.ascii_letters + string.digits)
    if not 1 <= len(name) <= 128 or name[0] not in letters or name[-1] == ".":
        return False
    previous = ""
    for character in name:
        if character not in letters and character not in "._-":
            return False
        if character == previous == ".":
            return False
        previous = character
    stem = name.split(".")[0].lower()
    if len(stem) == 4 and stem[:3] in ("com", "lpt"):
        return not stem[3].isdigit()
    return stem not in ("con", "prn", "aux", "nul")


def mutated(chance: random.Random, name: str) -> str:
    """Change a name in one of the ways that break checkers."""
    odd = [
        ".",
        "..",
        "/",
        "\\",
        "\0",
        "\n",
        " ",
        "-",
        "_",
        "%2e",
        ":",
        "$",
        "\u0430",
        "\ud800",
        "9",
    ]
    at = chance.randint(0, len(name))
    kind = chance.randrange(8)
    if kind == 0:
        return name[:at] + chance.choice(odd) + name[at:]
    if kind == 1:
        return name[:at] + name[at + 1 :]
    if kind == 2:
        return name.swapcase()
    if kind == 3:
        return name + chance.choice(odd)
    if kind == 4:
        return chance.choice(DEVICES) + name[:at]
    if kind == 5:
        return chance.choice(DEVICES).title() + "." + name
    if kind == 6:
        return (name * 130)[: chance.choice([1, 127, 128, 129, 200])]
    return "".join(chance.choice(string.printable) for _ in range(chance.randint(1, 12)))


def fuzzed(seed: int, count: int) -> Iterator[str]:
    """Give names: mutations of legal and of hostile ones, and random characters of all Unicode."""
    chance = random.Random(seed)
    known = [*LEGAL, *[n for names in HOSTILE.values() for n in names if isinstance(n, str)]]
    known = [name for name in known if len(name) < 300]
    fine = string.ascii_letters + string.digits + "._-"
    for number in range(count):
        if number % 4 == 0:
            name = mutated(chance, chance.choice(LEGAL))
        elif number % 4 == 1:
            name = mutated(chance, mutated(chance, chance.choice(known)))
        elif number % 4 == 2:
            name = "".join(chance.choice(fine) for _ in range(chance.randint(1, 130)))
        else:
            top = chance.choice([0x80, 0x3000, 0x110000])
            name = "".join(chr(chance.randrange(top)) for _ in range(chance.randint(1, 8)))
        yield name or "a"


@pytest.mark.requirement("ID-3")
def test_ten_thousand_fuzzed_names_get_the_oracles_verdict(confined: Path) -> None:
    """The constructor and an oracle of other make agree on every name."""
    verdicts = {True: 0, False: 0}
    config = AppConfig()
    for name in fuzzed(20260131, 10_000):
        try:
            taken = AsyncSessionManager(config, run_name=name).run_name == name
        except InvalidRunNameError as error:
            check_refusal(error, name)
            taken = False
        assert taken == lawful(name), ascii(name)
        verdicts[taken] += 1
    print(f"names fuzzed: 10000, {verdicts[True]} legal, {verdicts[False]} refused, 0 misjudged")
    assert sum(verdicts.values()) == 10_000
    assert min(verdicts.values()) > 1_000
