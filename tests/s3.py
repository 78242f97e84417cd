"""An S3 server on the loopback device."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock
from urllib.request import Request, urlopen

import boto3
from moto.server import ThreadedMotoServer

from boldly.samples import s3

ACCOUNT = {"AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "not secret", "AWS_REGION": "us-east-1"}


@contextmanager
def bucket_of(folder: Path) -> Iterator[str]:
    """Yield the address of a bucket's folder with the files below a folder, while the server runs.

    The environment says where it is, as users say it.
    """
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    host, port = server.get_host_and_port()
    try:
        with mock.patch.dict(os.environ, {**ACCOUNT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}):
            s3._connect.cache_clear()
            # Servers of one process share what they hold: files of the tests before are not those of this one.
            with urlopen(Request(f"http://{host}:{port}/moto-api/reset", method="POST")):
                pass
            client = boto3.client("s3", region_name=ACCOUNT["AWS_REGION"])
            client.create_bucket(Bucket="brains")
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                client.upload_file(str(path), "brains", f"a study/{path.relative_to(folder)}")
            yield "s3://brains/a study"
    finally:
        s3._connect.cache_clear()
        server.stop()
