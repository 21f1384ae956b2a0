"""Rank 0's side of a checkpoint of several ranks: it waits for their shards, and takes them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple

from keisei._io.directories import OpenDirectory
from keisei.checkpoints.content import Facts
from keisei.checkpoints.layout import MANIFEST, checkpoint_name, removing_name
from keisei.checkpoints.manifest import FileEntry, Manifest
from keisei.checkpoints.meeting import (
    OUTCOME,
    Ranks,
    late,
    met,
    pauses,
    read_note,
    text_of,
    write_note,
)
from keisei.checkpoints.opening import (
    digest_file,
    is_named,
    read_manifest,
    within,
)
from keisei.checkpoints.shards import FAILED, READY, WRITING, shard_name
from keisei.checkpoints.staging import remove_unused
from keisei.errors import CheckpointError, describe


class Led(NamedTuple):
    """What rank 0 commits of all ranks.

    Attributes:
        directory: where all of them write.
        temporary: its name.
        gather: waits for the others, and returns the manifests of their shards with the texts;
            it gets the algorithm of the checkpoint's digests.
    """

    directory: OpenDirectory
    temporary: str
    gather: Callable[[str], list[tuple[Manifest, bytes]]]


@contextmanager
def led(models: OpenDirectory, facts: Facts, ranks: Ranks) -> Iterator[Led]:
    """Open what all ranks write into, for rank 0 to commit it in a `with` block; it blocks.

    Where it is not renamed at the block's end, the others are told so, and what rank 0 has in it
    is removed.

    Args:
        models: the run's models directory.
        facts: what the manifest says.
        ranks: rank 0, and how many there are.
    """
    with met(models, facts, ranks) as (directory, temporary):

        def gather(algorithm: str) -> list[tuple[Manifest, bytes]]:
            _wait_for_all(models, temporary, facts, ranks)
            others = range(1, ranks.world_size)
            return [_take(directory, rank, facts, ranks, algorithm) for rank in others]

        outcome = {"standing": checkpoint_name(facts.step)}
        try:
            yield Led(directory, temporary, gather)
        except BaseException as exc:
            outcome = {"error": describe(exc)}
            raise
        finally:
            if is_named(models, temporary, directory):
                _end(models, directory, temporary, outcome)
    with suppress(OSError):
        _remove_replaced(models, temporary)


def _wait_for_all(models: OpenDirectory, temporary: str, facts: Facts, ranks: Ranks) -> None:
    """Wait until every rank's shard is ready.

    Raises:
        CheckpointError: one has failed, or has not come in time.
    """
    give_up, pause = time.monotonic() + ranks.timeout, pauses()
    others = range(1, ranks.world_size)
    while True:
        # Opened anew: a network's file system looks no more than once at one that stays open.
        with models.inside(temporary) as directory:
            there = set(directory.names())
            for rank in others:
                if shard_name(rank, FAILED) in there:
                    said = read_note(directory, shard_name(rank, FAILED)) or {}
                    raise CheckpointError(f"rank {rank} has failed: {said.get('error')}")
        missing = [rank for rank in others if shard_name(rank, READY) not in there]
        if not missing:
            return
        if time.monotonic() > give_up:
            raise late(models, ranks, missing)
        ranks.check()
        time.sleep(next(pause))


def _take(
    directory: OpenDirectory, rank: int, facts: Facts, ranks: Ranks, algorithm: str
) -> tuple[Manifest, bytes]:
    """Take a shard that is ready, from now on for good; return its manifest, and the text of it."""
    name = shard_name(rank)
    try:
        directory.replace(shard_name(rank, READY), name)
    except FileNotFoundError:
        raise CheckpointError(f"rank {rank} has given up") from None
    with directory.inside(name) as inner:
        manifest, _ = read_manifest(inner)
        of_this = (manifest.run, manifest.attempt, manifest.step, manifest.rank)
        if of_this != (facts.run, facts.attempt, facts.step, rank):
            raise CheckpointError(f"the shard of rank {rank} is another save's")
        for entry in manifest.files:
            with within(inner, entry.name) as (above, last):
                if above.stat(last).st_size != entry.size:
                    raise CheckpointError(f"the shard of rank {rank} is not whole: {entry.name}")
        text = text_of(inner, MANIFEST)
        if manifest.algorithm == algorithm:
            return manifest, text
        digested = []  # by another algorithm: xxhash is installed there, or here, alone
        for entry in manifest.files:
            with within(inner, entry.name) as (above, last):
                size, digest = digest_file(above, last, algorithm)
                digested.append(FileEntry(entry.name, size, digest))
        return manifest.model_copy(update={"files": digested}), text


def _end(
    models: OpenDirectory, directory: OpenDirectory, temporary: str, outcome: dict[str, str]
) -> None:
    """Write for the others how it has ended, and remove what is rank 0's."""
    marks = tuple(f".{mark}" for mark in (WRITING, READY, FAILED))
    try:
        for name in directory.names():
            if not name.endswith(marks):
                directory.remove_tree(name)
        write_note(directory, OUTCOME, outcome)
    except OSError:
        with suppress(OSError):  # they see that it is gone
            models.replace(temporary, removing_name(temporary[1:], secrets.token_hex(8)))


def _remove_replaced(models: OpenDirectory, temporary: str) -> None:
    """Remove the final model that has changed places with the new one."""
    if not models.holds(temporary):
        return
    with models.inside(temporary) as directory:
        is_told = directory.holds(OUTCOME)
    if not is_told:
        remove_unused(models, temporary)
