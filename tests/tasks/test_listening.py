"""Who may reach the workers: this machine alone, or who has the certificate."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dask.config
import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tasks import cluster
from tasks.errors import WrongParameter
from tasks.parameters import Execution
from tasks.scatter import Unit, scatter


def test_a_local_cluster_listens_on_the_loopback_alone() -> None:
    with cluster.opened(Execution(cluster="local", workers=1)) as running:
        assert cluster.worker_count(running) == 1
        process = psutil.Process()
        family = [process, *process.children(recursive=True)]
        sockets = [one for each in family for one in each.net_connections()]
        heard = {one.laddr.ip for one in sockets if one.status == "LISTEN"}
    assert heard == {"127.0.0.1"}


def certified(folder: Path) -> Path:
    """Make a certificate that signs itself, and its key."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tiltflow")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime(2020, 1, 1))
        .not_valid_after(datetime(2100, 1, 1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "key.pem").write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    return folder


def variables(folder: Path) -> dict[str, str]:
    """Return the variables that docs/how-to/security.md tells to set."""
    start = "DASK_DISTRIBUTED__COMM__TLS__"
    own = {
        f"{start}{who}__{what}": str(folder / f"{what.lower()}.pem")
        for who in ("SCHEDULER", "WORKER", "CLIENT")
        for what in ("CERT", "KEY")
    }
    return own | {f"{start}CA_FILE": str(folder / "cert.pem")}


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a certificate."""
    return certified(tmp_path_factory.mktemp("tls") / "ours")


@pytest.fixture(scope="module")
def address(certificate: Path) -> Iterator[str]:
    """Start a scheduler and a worker that speak TLS, as the docs say; return where."""
    file = certificate / "scheduler.json"
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path)} | variables(
        certificate
    )

    def start(*arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", *arguments, "--host", "tls://127.0.0.1"]
        with (certificate / f"{arguments[0]}.log").open("wb") as log:
            return subprocess.Popen(
                [*command, "--no-dashboard", "--scheduler-file", str(file)],
                env=environment,
                cwd=certificate,
                stdout=log,
                stderr=log,
            )

    processes = [start("distributed.cli.dask_scheduler", "--port", "0")]
    try:
        deadline = time.monotonic() + 120
        while not file.exists():
            assert processes[0].poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        processes.append(start("distributed.cli.dask_worker", "--nthreads", "1", "--no-nanny"))
        yield str(json.loads(file.read_text())["address"])
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


def shown(folder: Path) -> Any:
    """Let this process show the certificate of a folder."""
    values = variables(folder).items()
    return dask.config.set({name[5:].lower().replace("__", "."): value for name, value in values})


def double(number: int) -> int:
    return 2 * number


def test_units_run_on_a_cluster_that_speaks_tls(certificate: Path, address: str) -> None:
    assert address.startswith("tls://127.0.0.1:")
    with shown(certificate), cluster.opened(Execution(cluster=address)) as running:
        cluster.client_of(running).wait_for_workers(1, timeout=120)
        units = [Unit(str(i), (i,)) for i in range(3)]
        assert {unit.name: found for unit, found in scatter(double, units, running)} == {
            "0": 0,
            "1": 2,
            "2": 4,
        }
        cluster._clients.pop(address).close()


def test_who_has_no_certificate_is_told_so(address: str) -> None:
    with pytest.raises(WrongParameter, match="no certificate to show there: set DASK_DISTRIB"):
        cluster.client_of(Execution(cluster=address))


def test_who_has_another_certificate_is_not_let_in(address: str, tmp_path: Path) -> None:
    with (
        shown(certified(tmp_path / "theirs")),
        dask.config.set({"distributed.comm.timeouts.connect": "2s"}),
        pytest.raises(cluster.SchedulerLost),
    ):
        cluster.client_of(Execution(cluster=address))
