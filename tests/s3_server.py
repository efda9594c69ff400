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
def no_credentials() -> Iterator[str]:
    """A machine without credentials while the context is open; yields the URL of a bucket."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ENVIRONMENT:
            patch.delenv(name, raising=False)
        patch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
        patch.setenv("AWS_CONFIG_FILE", os.devnull)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        try:
            yield "s3://runs"
        finally:
            fsspec.get_filesystem_class("s3").clear_instance_cache()


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
