"""Prints what TensorBoard's two servers of data have of a directory of runs, as JSON.

It is a program of its own, since gRPC and TensorBoard leave threads and processes behind.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tensorboard.backend.event_processing.data_ingester import LocalDataIngester
from tensorboard.context import RequestContext
from tensorboard.data import server_ingester
from tensorboard.util.grpc_util import ChannelCredsType

EVERYTHING = {"scalars": 0, "text": 0}


def by_python(logdir: str) -> Any:
    """Return the provider that serves with `--load_fast=false`."""
    flags = argparse.Namespace(
        logdir=logdir,
        logdir_spec=None,
        samples_per_plugin=EVERYTHING,
        purge_orphaned_data=True,
        max_reload_threads=1,
        reload_multifile=False,
        reload_multifile_inactive_secs=0,
        detect_file_replacement=None,
        reload_interval=0,
        reload_task="blocking",
    )
    ingester = LocalDataIngester(flags)
    ingester.start()
    return ingester.data_provider


def by_data_server(logdir: str, last_text: str) -> Any:
    """Return the provider that serves by default, once it has loaded what was written last."""
    binary = server_ingester.get_server_binary()
    with tempfile.TemporaryDirectory() as directory:
        port_file = Path(directory, "port")
        command = [
            binary.path,
            f"--logdir={logdir}",
            "--reload=once",
            "--samples-per-plugin=scalars=all,text=all",
            "--port=0",
            f"--port-file={port_file}",
            "--die-after-stdin",
        ]
        subprocess.Popen(command, stdin=subprocess.PIPE)  # ends with this program
        give_up = time.monotonic() + 20
        while not (port_file.exists() and port_file.read_text().endswith("\n")):
            assert time.monotonic() < give_up, "the data server does not start"
            time.sleep(0.005)
        address = f"localhost:{int(port_file.read_text())}"
    provider = server_ingester.ExistingServerDataIngester(
        address, channel_creds_type=ChannelCredsType.LOCAL
    ).data_provider
    while last_text not in str(texts(provider)):
        assert time.monotonic() < give_up, "the data server does not load the runs"
        time.sleep(0.005)
    return provider


def scalars(provider: Any) -> dict[str, dict[str, list[Any]]]:
    """Return steps and values by run and tag."""
    found = provider.read_scalars(
        RequestContext(), experiment_id="", plugin_name="scalars", downsample=10_000
    )
    return {
        run: {tag: [(point.step, point.value) for point in points] for tag, points in tags.items()}
        for run, tags in found.items()
    }


def texts(provider: Any) -> dict[str, list[Any]]:
    """Return steps and texts by tag, of all runs."""
    found = provider.read_tensors(
        RequestContext(), experiment_id="", plugin_name="text", downsample=10_000
    )
    return {
        tag: [(point.step, point.numpy.item().decode()) for point in points]
        for tags in found.values()
        for tag, points in tags.items()
    }


if __name__ == "__main__":
    logdir, last_text = sys.argv[1:]
    providers = {"python": by_python(logdir)}
    with suppress(server_ingester.NoDataServerError):  # it has no build for this system
        providers["data server"] = by_data_server(logdir, last_text)
    print(json.dumps({name: [scalars(p), texts(p)] for name, p in providers.items()}))
