"""A local S3 server for tests."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator

import boto3
import fsspec
import pytest

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "for-tests",
    "AWS_SECRET_ACCESS_KEY": "for-tests",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextlib.contextmanager
def s3_bucket() -> Iterator[str]:
    """Serve on a free loopback port while the context is open; yields the URL of a bucket.

    The environment points there meanwhile, also that of processes started in between.
    """
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0)
    logging.getLogger("werkzeug").setLevel(logging.WARNING)  # a line a request
    server.start()
    host, port = server.get_host_and_port()
    settings = {**ENVIRONMENT, "AWS_ENDPOINT_URL": f"http://{host}:{port}"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        boto3.client("s3").create_bucket(Bucket="runs")
        yield "s3://runs"
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        fsspec.filesystem("s3").clear_instance_cache()
        server.stop()
