"""What a session and a member of its run keep besides numbers: images, tables, files and the like.

Each call takes a copy of what it is given, or its path, and returns; a thread of the session's
encodes it, writes it to the run's `media/`, and names it in the journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

from keisei.errors import MediaError
from keisei.journal.values import exact_step
from keisei.journal.writer import Journal
from keisei.media.audio import take_audio
from keisei.media.figures import take_figure
from keisei.media.histograms import take_histogram
from keisei.media.images import take_image
from keisei.media.names import check_name
from keisei.media.tables import take_table
from keisei.media.text import take_file, take_text
from keisei.media.values import Taken
from keisei.media.video import take_video
from keisei.session.recorder import Recorder

Path = str | PathLike[str]


class MediaMethods:
    """What a session and a member keep besides numbers; plain calls, from the loop or a thread.

    Each of them raises:

    - MediaError, which also is a TypeError and a ValueError: an argument makes no sense; the
      message names it;
    - MissingExtraError: what encodes it is not installed; the message names the extra;
    - TypeError: the step is not whole;
    - NotReadyError, SessionEndedError, ForkedSessionError, as `log_metrics` does.

    What fails later (a path that cannot be read, a limit of the config's section `media`, a disk
    that is full) is logged, and counted in the summary. `flush` waits for what was logged before.
    """

    _recorder: Recorder

    def log_image(
        self,
        name: str,
        image: object,
        step: int | None = None,
        caption: str | None = None,
    ) -> None:
        """Keep an image: as a PNG, or as the file that it is.

        Args:
            name: its name, such as ``samples/cat``.
            image: an array of pixels, of the shape (height, width) or (height, width, channels)
                with 1, 3 or 4 channels, uint8 or floats from 0 to 1, which is copied; an image of
                PIL's, which is copied; the path of a PNG, JPEG, GIF, WebP or BMP, which is read
                soon after; or the bytes of such a file. An SVG is kept as a file: it may hold a
                script.
            step: the training step, if it has one.
            caption: what is to be said of it.
        """
        self._keep("log_image()", name, step, caption, lambda: take_image(image))

    def log_figure(
        self, name: str, figure: object, step: int | None = None, caption: str | None = None
    ) -> None:
        """Keep a figure: one of matplotlib's as a PNG, one of plotly's as plotly's JSON.

        A figure of matplotlib's is copied by its pickle, and drawn by the thread; one that does
        not pickle is drawn at the call. You may change or close it at once.

        Args:
            name: its name.
            figure: a figure of matplotlib's or of plotly's.
            step: the training step, if it has one.
            caption: what is to be said of it.
        """
        self._keep("log_figure()", name, step, caption, lambda: take_figure(figure))

    def log_video(
        self,
        name: str,
        video: object,
        step: int | None = None,
        caption: str | None = None,
        *,
        fps: float | None = None,
        format: Literal["mp4", "gif"] = "mp4",
    ) -> None:
        """Keep a video: the file that it is, or frames, encoded.

        Frames need ``keisei[media]``: ``mp4`` PyAV, ``gif`` PIL; else MissingExtraError is raised.

        Args:
            name: its name.
            video: a path; or frames, an array of the shape (frames, height, width) or (frames,
                height, width, channels) of pixels as `log_image` takes them, or a sequence of such
                images. It is copied.
            step: the training step, if it has one.
            caption: what is to be said of it.
            fps: how many frames there are in a second, where frames are given.
            format: what frames become.
        """
        self._keep("log_video()", name, step, caption, lambda: take_video(video, fps, format))

    def log_audio(
        self,
        name: str,
        audio: object,
        step: int | None = None,
        caption: str | None = None,
        *,
        rate: int | None = None,
    ) -> None:
        """Keep audio: the file that it is, or samples, as a WAV of 16 bits.

        Args:
            name: its name.
            audio: a path; or samples, of the shape (samples) or (samples, channels), int16 or
                floats from -1 to 1. They are copied.
            step: the training step, if it has one.
            caption: what is to be said of it.
            rate: how many samples there are in a second, where samples are given.
        """
        self._keep("log_audio()", name, step, caption, lambda: take_audio(audio, rate))

    def log_histogram(
        self,
        name: str,
        samples: object = None,
        step: int | None = None,
        caption: str | None = None,
        *,
        counts: Sequence[float] | None = None,
        edges: Sequence[float] | None = None,
        bins: int = 64,
    ) -> None:
        """Keep a histogram: of samples, or of counts.

        Args:
            name: its name.
            samples: numbers in any shape, which are copied; those that are not finite are counted
                apart.
            step: the training step, if it has one.
            caption: what is to be said of it.
            counts: instead of samples, how many there are in each bin; with
            edges: the edges of the bins, one more than there are counts.
            bins: into how many bins of one width samples are counted.
        """
        self._keep(
            "log_histogram()",
            name,
            step,
            caption,
            lambda: take_histogram(samples, counts, edges, bins),
        )

    def log_table(
        self,
        name: str,
        rows: Iterable[Sequence[object] | Mapping[str, object]],
        step: int | None = None,
        caption: str | None = None,
        *,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Keep a table, such as sampled completions with their rewards; secrets are hidden.

        Args:
            name: its name.
            rows: sequences of cells, or mappings of columns to cells. A cell is a text, a number,
                a flag, ``None``, or an image as `log_image` takes it, a path apart.
            step: the training step, if it has one.
            caption: what is to be said of it.
            columns: the names of the columns; without it, the keys of mappings.
        """
        self._keep("log_table()", name, step, caption, lambda: take_table(rows, columns))

    def log_text(
        self,
        name: str,
        text: str,
        step: int | None = None,
        caption: str | None = None,
        *,
        redact: bool = True,
    ) -> None:
        """Keep a text, such as a sampled completion.

        Args:
            name: its name.
            text: the text.
            step: the training step, if it has one.
            caption: what is to be said of it.
            redact: whether secrets in it are hidden; `False` keeps what only looks like one.
        """
        self._keep("log_text()", name, step, caption, lambda: take_text(text, redact=redact))

    def log_file(
        self,
        name: str,
        file: bytes | Path,
        step: int | None = None,
        caption: str | None = None,
    ) -> None:
        """Keep a file of any kind; trackers that have artifacts get it as one.

        Args:
            name: its name.
            file: its path, which is read soon after: leave it as it is until `flush` returns; or
                its bytes.
            step: the training step, if it has one.
            caption: what is to be said of it.
        """
        self._keep("log_file()", name, step, caption, lambda: take_file(file, name))

    def _keep(
        self,
        call: str,
        name: str,
        step: int | None,
        caption: str | None,
        take: Callable[[], Taken],
    ) -> None:
        journal = self._open_journal(call)
        self._recorder.stop.check()
        if caption is not None and not isinstance(caption, str):
            raise MediaError(f"caption: must be a string, not {type(caption).__name__}")
        said: dict[str, Any] = {"name": check_name(name), "step": exact_step(step)}
        if caption:
            said["caption"] = str.__str__(caption)[:_LONGEST_CAPTION]
        said |= {"time": time.time(), "at": journal.position().seq}
        self._recorder.media.put(take(), said)

    def _open_journal(self, call: str) -> Journal:
        """Return the journal, where something may be logged.

        Raises:
            RuntimeError: nothing may: it is too early, or too late, or this is a fork.
        """
        raise NotImplementedError


_LONGEST_CAPTION = 10_000  # characters
