"""An object store on this machine, as S3 is: moto's server, in a thread."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

BUCKET = "keisei-tests"
_KEYS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}


@contextmanager
def object_store() -> Iterator[str]:
    """Yield the URL of an empty bucket; the environment says where its server is."""
    import boto3
    import s3fs
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        where = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        with patch.dict("os.environ", {**_KEYS, **where}):
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            s3fs.S3FileSystem.clear_instance_cache()  # those know an earlier server
            yield f"s3://{BUCKET}/runs"
    finally:
        server.stop()
