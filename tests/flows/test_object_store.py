"""A project in object storage, through the command line and real workers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from buckets import BUCKET, keys, s3_server, upload

from tasks.formats.mrc import read_volume
from tasks.locks import holder_of, locked
from tasks.result import Result
from tasks.store import parse_project

pytestmark = pytest.mark.usefixtures("prefect_server")
Command = Callable[..., Any]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    """Return a client of a server with an empty bucket."""
    with s3_server() as made:
        yield made


@pytest.fixture
def project(client: Any, tiltflow: Command, tiny_data: Path, request: Any) -> str:
    """Return a project of its own in the bucket, both series imported."""
    url = f"s3://{BUCKET}/{request.node.name}/p.zarr"
    gain = ("--gain", tiny_data / "gain.mrc")
    assert tiltflow("import", url, "--mdoc", tiny_data / "*.mdoc", *gain).code == 0
    return url


def test_a_series_is_processed_shown_and_exported(
    client: Any, tiltflow: Command, project: str, finished_project: str, tmp_path: Path
) -> None:
    of_one = ("--series", "TS_01")
    ended = tiltflow("run", project, *of_one, "--until", "motion", "--workers", "2")
    assert (ended.code, ended.err) == (0, "")
    ours, theirs = (parse_project(p).series("TS_01") for p in (project, finished_project))
    motion = ours.current("main", "motion")
    assert motion.key == theirs.pointer("main", "motion")
    np.testing.assert_allclose(
        motion.images()[:], theirs.current("main", "motion").images()[:], rtol=1e-4, atol=1e-3
    )
    # What takes minutes comes from a project on the disk: its results have the same names.
    prefix = project.removeprefix(f"s3://{BUCKET}/")
    upload(client, Path(finished_project), prefix, {"zarr.json", "TS_01/zarr.json", motion.path})
    thin = ("--alignment", "coarse", "--thickness", "300", "--halves", "views")
    ended = tiltflow("reconstruct", project, *of_one, *thin, "--workers", "2")
    assert (ended.code, ended.err) == (0, "")
    assert "tomogram" in tiltflow("status", project).out
    assert tiltflow("show", project, "TS_01").code == 0
    assert tiltflow("report", project, "--out", tmp_path / "report").code == 0
    assert "data:image/svg" in (tmp_path / "report" / "report.html").read_text()
    assert tiltflow("export", project, "--to", "mrc", "--out", tmp_path / "mrc", *of_one).code == 0
    volume = ours.current("main", "reconstruct").array("0")[:]
    exported = read_volume(tmp_path / "mrc" / "TS_01_rec.mrc")
    np.testing.assert_array_equal(exported.data, volume)
    assert tiltflow("prune", project, "--yes").code == 0
    left = keys(client, f"{prefix}/TS_01/")
    assert not [name for name in left if "/locks/" in name or "/unit/" in name]
    assert any(name.startswith(f"{prefix}/{motion.path}/images/") for name in left)


def test_an_interrupted_run_goes_on(
    tiltflow: Command, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = ("--cluster", "threads", "--workers", "1")
    marked: list[str] = []
    whole = Result.mark_unit

    def mark(result: Result, name: str, report: Any) -> Any:
        if len(marked) == 3:
            raise KeyboardInterrupt
        marked.append(name)
        return whole(result, name, report)

    def run() -> int:
        return int(
            tiltflow("run", project, "--until", "motion", *threads, "--series", "TS_02").code
        )

    with monkeypatch.context() as patch:
        patch.setattr(Result, "mark_unit", mark)
        assert run() == 130
    series = parse_project(project).series("TS_02")
    assert series.pointer("main", "motion") is None
    before = set(marked)
    monkeypatch.setattr(Result, "mark_unit", lambda *a: (marked.append(a[1]), whole(*a))[1])
    assert run() == 0
    assert series.current("main", "motion").complete()
    assert len(before) == 3
    assert not before & set(marked[3:])


def test_two_processes_do_not_make_the_same(project: str) -> None:
    series = parse_project(project).series("TS_01")
    order: list[str] = []
    waits = threading.Event()

    def second() -> None:
        with locked(series, "thing", lambda _: waits.set()):
            order.append("second")

    with locked(series, "thing"):
        assert "process" in str(holder_of(series, "thing"))
        thread = threading.Thread(target=second)
        thread.start()
        assert waits.wait(30)
        order.append("first")
    thread.join(30)
    assert order == ["first", "second"]
    assert holder_of(series, "thing") is None


# -- what is refused ----------------------------------------------------------------------------


class Denies(BaseHTTPRequestHandler):
    """A server that knows nobody."""

    def do_GET(self) -> None:
        body = b"<Error><Code>InvalidAccessKeyId</Code><Message>Who are you?</Message></Error>"
        self.send_response(403)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


def test_a_wrong_bucket_or_nothing_in_it_is_one_line(tiltflow: Command, client: Any) -> None:
    for command in ("status", "run"):
        ended = tiltflow(command, "s3://nobodys/p.zarr")
        assert ended.complaint == (
            "tiltflow: s3://nobodys/p.zarr: refused (NoSuchBucket): make the bucket, or correct "
            "its name"
        )
        ended = tiltflow(command, f"s3://{BUCKET}/other.zarr")
        assert f"s3://{BUCKET}/other.zarr: no project there" in ended.complaint


def test_an_import_into_a_wrong_bucket_is_one_line(
    tiltflow: Command, client: Any, tiny_data: Path
) -> None:
    ended = tiltflow("import", "s3://nobodys/p.zarr", "--mdoc", tiny_data / "TS_01*.mdoc")
    assert "NoSuchBucket" in ended.complaint
    assert "make the bucket" in ended.complaint


def test_wrong_credentials_are_one_line(
    tiltflow: Command, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), Denies) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
        ended = tiltflow("status", f"s3://{BUCKET}/p.zarr")
        server.shutdown()
    assert ended.complaint == (
        f"tiltflow: s3://{BUCKET}/p.zarr: access denied (InvalidAccessKeyId): check the "
        "credentials, e.g. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )


def test_other_urls_and_plain_http_are_one_line(
    tiltflow: Command, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = tiltflow("status", "s4://b/p.zarr")
    assert "s4://b/p.zarr: " in ended.complaint
    assert "a URL such as s3://BUCKET/NAME.zarr" in ended.complaint
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    ended = tiltflow("status", f"s3://{BUCKET}/p.zarr")
    assert "set AWS_ALLOW_HTTP=true" in ended.complaint
