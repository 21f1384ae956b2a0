"""A line at the cursor gives way to what is written, and leaves the streams as they were."""

from __future__ import annotations

import io
import logging

from keisei.console.terminal_line import TerminalLine

ERASE = "\r\x1b[K"


class Stream(io.StringIO):
    """One of the streams of a terminal, which share a list of what comes out."""

    def __init__(self, out: list[str]) -> None:
        super().__init__()
        self.out = out

    def write(self, text: str) -> int:
        """Keep it."""
        self.out.append(text)
        return len(text)


def test_it_gives_way_to_what_either_stream_writes() -> None:
    """It is erased before a print or a log record, of whoever had the stream before."""
    out: list[str] = []
    err, std = Stream(out), Stream(out)
    handler = logging.StreamHandler(err)
    line = TerminalLine([err, std])
    line.show("10%", 20)
    assert out == [" " * 19 + ERASE + "10%"]  # what was begun before keisei looked wraps
    print("a", file=std)
    handler.emit(logging.makeLogRecord({"msg": "b"}))
    line.show("20%", 20)
    line.show("30%", 20)
    assert out[1:] == [ERASE, "a", "\n", "b\n", ERASE + "20%", ERASE + "30%"]
    line.close()
    print("c", file=std)
    assert out[7:] == [ERASE, "c", "\n"]
    assert not {"write"} & (err.__dict__.keys() | std.__dict__.keys())


def test_it_waits_while_a_line_is_being_written() -> None:
    """A prompt, a bar of tqdm's: until that stream has ended it, whatever the other writes."""
    out: list[str] = []
    err, std = Stream(out), Stream(out)
    line = TerminalLine([err, std])
    std.write("really? ")
    err.write("a warning\n")
    line.show("10%", 20)
    assert out == ["really? ", "a warning\n"]
    std.write("yes\n")
    std.write("")
    line.show("10%", 20)
    assert out[2:] == ["yes\n", "", ERASE + "10%"]
    line.close()


def test_who_replaces_write_behind_it_keeps_that() -> None:
    """Giving the streams back removes nobody else's method, and lets all through."""
    out: list[str] = []
    err = Stream(out)
    line = TerminalLine([err])
    ours = err.write
    err.__dict__["write"] = lambda text: ours(text.upper())
    line.show("10%", 20)
    line.close()
    err.write("a\n")
    assert out[1:] == [ERASE, "A\n"]


def test_a_forked_child_writes_as_if_there_were_none() -> None:
    """It takes no lock, which another thread of the parent may have held."""
    out: list[str] = []
    err = Stream(out)
    line = TerminalLine([err])
    line.show("10%", 20)
    line.forget()
    err.write("a\n")
    assert out[1:] == ["a\n"]


def test_python_s_own_streams_can_be_used() -> None:
    """`print` and `writelines` find the method that took the place of theirs."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="utf-8")
    line = TerminalLine([stream])
    line.show("10%", 4)
    print("a", file=stream)
    stream.writelines(["b\n"])
    line.show("20%", 4)
    line.close()
    stream.flush()
    assert raw.getvalue().decode() == f"   {ERASE}10%{ERASE}a\nb\n{ERASE}20%{ERASE}"


def test_a_stream_that_takes_no_attributes_is_written_to_all_the_same() -> None:
    """What others write to it is not seen: the line stays until the next one."""

    class Slotted:
        __slots__ = ("out",)

        def __init__(self) -> None:
            self.out: list[str] = []

        def write(self, text: str) -> int:
            self.out.append(text)
            return len(text)

        def flush(self) -> None:
            pass

    stream = Slotted()
    line = TerminalLine([stream])  # type: ignore[list-item]
    line.show("10%", 4)
    stream.write("a\n")
    line.close()
    assert stream.out == [f"   {ERASE}10%", "a\n", ERASE]
