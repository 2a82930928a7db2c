"""The Dask cluster that `--cluster kubernetes` asks the Dask operator for."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

import dask.config
import dask.utils

from kernels.threads import VARIABLE as THREADS
from tasks.cluster_start import MEMORY_LIMITS
from tasks.errors import WrongParameter, one_line
from tasks.parameters import Execution

DASKS_OWN_IMAGE = "ghcr.io/dask/dask"  # dask-kubernetes' default, which has no tiltflow
IMAGE = "tiltflow"
SETTING = "kubernetes.custom-cluster-spec"
MEMORY = 8_000_000_000  # bytes of a worker
CORES = 2
PORTS = {"tcp-comm": 8786, "http-dashboard": 8787}


def cluster_spec(execution: Execution) -> dict[str, Any]:
    """Return the DaskCluster to be made: that of a file, or one of its own.

    A file named by Dask's setting ``kubernetes.custom-cluster-spec``
    (``DASK_KUBERNETES__CUSTOM_CLUSTER_SPEC``), such as deployments/kubernetes/cluster.yaml, is
    taken as it is but for name and number of workers; image, ``kubernetes.resources`` and
    ``kubernetes.env`` are settings of Dask's, too. The name is new, so that no run takes, or
    removes, the cluster of another.

    Raises
    ------
    WrongParameter
        If the file cannot be read, or what is given is not the description of a cluster.
    """
    given = dask.config.get(SETTING, None)
    source = given if isinstance(given, str) else f"Dask's setting {SETTING}"
    if isinstance(given, str):
        given = _read(given)
    spec: dict[str, Any] = given or _own(execution)
    name = f"tiltflow-{uuid.uuid4().hex[:8]}"
    _part(source, spec, "metadata")["name"] = name
    selector = _part(source, spec, "spec", "scheduler", "service", "selector")
    selector["dask.org/cluster-name"] = name
    worker = _part(source, spec, "spec", "worker")
    if execution.workers is not None:
        worker["replicas"] = execution.workers
    return spec


def _read(path: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(Path(path).expanduser().read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise WrongParameter(
            f"{path}: {one_line(error).removeprefix(f'{path}: ')}: correct the file, or Dask's "
            f"setting {SETTING} that names it"
        ) from error


def _part(source: str, spec: Any, *names: str) -> dict[str, Any]:
    """Return a part of a cluster's description, which must be there."""
    part = spec
    for name in names:
        part = part.get(name) if isinstance(part, dict) else None
    if not isinstance(part, dict):
        raise WrongParameter(
            f"{source}: no {'.'.join(names)}: write a DaskCluster, as in "
            "deployments/kubernetes/cluster.yaml"
        )
    return part


def _own(execution: Execution) -> dict[str, Any]:
    image = str(dask.config.get("kubernetes.image", IMAGE))
    if image.startswith(DASKS_OWN_IMAGE):
        image = IMAGE
    memory = dask.utils.parse_bytes(execution.memory or MEMORY)
    quantity = f"{memory // 2**20}Mi"
    resources = dask.config.get("kubernetes.resources", None) or {
        "requests": {"cpu": str(CORES), "memory": quantity},
        "limits": {"cpu": str(CORES), "memory": quantity},
    }
    env = {THREADS: str(CORES), "OMP_NUM_THREADS": str(CORES)}
    env |= {f"DASK_{k.upper().replace('.', '__')}": str(v) for k, v in MEMORY_LIMITS.items()}
    env |= dask.config.get("kubernetes.env", None) or {}
    common = {"image": image, "env": [{"name": k, "value": str(v)} for k, v in env.items()]}
    ports = [{"name": k, "containerPort": n, "protocol": "TCP"} for k, n in PORTS.items()]
    # `command`, not `args`: the image's own command is tiltflow.
    worker = "dask worker --name $(DASK_WORKER_NAME) --nthreads 1 --no-dashboard --memory-limit"
    return {
        "apiVersion": "kubernetes.dask.org/v1",
        "kind": "DaskCluster",
        "metadata": {},
        "spec": {
            "worker": {
                "replicas": 1,
                "spec": {
                    "containers": [
                        {
                            **common,
                            "name": "worker",
                            "command": [*worker.split(), str(memory)],
                            "resources": resources,
                        }
                    ]
                },
            },
            "scheduler": {
                "spec": {
                    "containers": [
                        {
                            **common,
                            "name": "scheduler",
                            "command": ["dask", "scheduler"],
                            "ports": ports,
                        }
                    ]
                },
                "service": {
                    "type": "ClusterIP",
                    "selector": {"dask.org/component": "scheduler"},
                    "ports": [
                        {"name": k, "port": n, "targetPort": k, "protocol": "TCP"}
                        for k, n in PORTS.items()
                    ],
                },
            },
        },
    }
