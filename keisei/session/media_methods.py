"""What a session and a member of its run keep besides numbers: images, tables, files and the like.

Each call takes a copy of what it is given, or its path, and returns; a thread of the session's
encodes it, writes it to the run's `media/`, and names it in the journal.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from os import PathLike
from typing import Any

from keisei.errors import MediaError
from keisei.journal.values import exact_step
from keisei.journal.writer import Journal
from keisei.media.images import take_image
from keisei.media.names import check_name
from keisei.media.text import take_file, take_text
from keisei.media.values import Taken
from keisei.session.recorder import Recorder

Path = str | PathLike[str]


class MediaMethods:
    """What a session and a member keep besides numbers; plain calls, from the loop or a thread.

    Each of them raises:

    - MediaError, which also is a TypeError and a ValueError: an argument makes no sense; the
      message names it;
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
