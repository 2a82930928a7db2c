"""An S3 server on the loopback with one bucket."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

BUCKET = "tomograms"


@contextmanager
def s3_server() -> Iterator[Any]:
    """Start a server, set the environment for it, and yield boto3's client of it."""
    boto3 = pytest.importorskip("boto3", reason="moto is missing: pip install -e '.[dev]'")
    pytest.importorskip("obstore", reason="obstore is missing: pip install '.[cloud]'")
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # or a line for each request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_BUCKET"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ALLOW_HTTP", "true")
        patch.setenv("AWS_ACCESS_KEY_ID", "someone")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_REGION", "us-east-1")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        try:
            yield client
        finally:
            server.stop()


def keys(client: Any, prefix: str) -> list[str]:
    """Return the names of the objects under a prefix."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", ())]


def upload(client: Any, folder: Path, prefix: str, skip: set[str]) -> None:
    """Put the files of a folder under a prefix, but those that begin with one of `skip`."""
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not name.startswith(tuple(skip)):
            client.put_object(Bucket=BUCKET, Key=f"{prefix}/{name}", Body=path.read_bytes())
