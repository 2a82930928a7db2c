"""The Dask cluster that `--cluster kubernetes` asks the Dask operator for."""

from __future__ import annotations

import uuid
from typing import Any

import dask.config
import dask.utils

from kernels.threads import VARIABLE as THREADS
from tasks.cluster_start import MEMORY_LIMITS
from tasks.parameters import Execution

DASKS_OWN_IMAGE = "ghcr.io/dask/dask"  # dask-kubernetes' default, which has no tiltflow
IMAGE = "tiltflow"
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
    """
    given = dask.config.get("kubernetes.custom-cluster-spec", None)
    if isinstance(given, str):
        import yaml

        with open(given) as file:
            given = yaml.safe_load(file)
    spec: dict[str, Any] = given or _own(execution)
    spec["metadata"]["name"] = name = f"tiltflow-{uuid.uuid4().hex[:8]}"
    spec["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] = name
    if execution.workers is not None:
        spec["spec"]["worker"]["replicas"] = execution.workers
    return spec


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
