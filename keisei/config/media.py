"""The section of a config about media: images, files and the like that a run keeps."""

from typing import Annotated

from pydantic import Field

from keisei.config.section import Section


class MediaConfig(Section):
    """How much of the media that are logged is kept."""

    largest_file: Annotated[int, Field(ge=0)] = 256 * 2**20
    """The largest file that is kept, in bytes; a larger one is left out, counted and logged."""
    largest_total: Annotated[int, Field(ge=0)] = 32 * 2**30
    """How much a run's `media/` may hold, in bytes; what goes beyond it is left out."""
    queue: Annotated[int, Field(ge=1)] = 256 * 2**20
    """How much may wait in memory to be encoded and written, in bytes. When it is full,
    `journal.when_full` decides."""
