"""The files for Kubernetes, and what `--cluster kubernetes` asks for, against the schemas."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import dask.config
import jsonschema
import pytest
import yaml

from tasks.cluster_kubernetes import cluster_spec
from tasks.parameters import Execution

operator = pytest.importorskip(
    "dask_kubernetes", reason="dask-kubernetes is missing: pip install '.[kubernetes]'"
)
FOLDER = Path(__file__).parents[2] / "deployments" / "kubernetes"
CLUSTERS = sorted(FOLDER.glob("cluster*.yaml"))
CRD = "operator/deployment/helm/dask-kubernetes-operator/crds/daskcluster.yaml"


def _strict(schema: Any) -> Any:
    """Return a schema that refuses names which it does not list, as misspelt ones are."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _strict(value) for key, value in schema.items()}
    if "properties" in made and not made.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    if made.pop("x-kubernetes-int-or-string", False):
        made.pop("type", None)
    return made


def validate(value: Any, schema: dict[str, Any]) -> None:
    """Raise unless a value fits; `jsonschema.validate` would examine the large schema each time."""
    for error in jsonschema.Draft7Validator(schema).iter_errors(value):
        raise error


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Return the operator's schema of a DaskCluster."""
    definition = yaml.safe_load((Path(operator.__file__).parent / CRD).read_text())
    found = _strict(definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
    for name in ("apiVersion", "kind", "metadata"):  # every object has them
        found["properties"].setdefault(name, {})
    found["properties"]["metadata"] = {}
    return dict(found)


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.name)
def test_a_cluster_fits_the_operator(path: Path, schema: dict[str, Any]) -> None:
    cluster = yaml.safe_load(path.read_text())
    validate(cluster, schema)
    selector = cluster["spec"]["scheduler"]["service"]["selector"]
    assert selector["dask.org/cluster-name"] == cluster["metadata"]["name"]
    assert f"tcp://{cluster['metadata']['name']}-scheduler:8786" in path.read_text()


def test_a_misspelt_name_would_be_noticed(schema: dict[str, Any]) -> None:
    cluster = yaml.safe_load(CLUSTERS[0].read_text())
    broken = copy.deepcopy(cluster)
    container = broken["spec"]["worker"]["spec"]["containers"][0]
    container["recources"] = container.pop("resources")
    with pytest.raises(jsonschema.ValidationError, match="recources"):
        validate(broken, schema)


def test_the_job_runs_a_pod_that_kubernetes_takes(schema: dict[str, Any]) -> None:
    kubernetes = pytest.importorskip("kubernetes.client")
    job = yaml.safe_load((FOLDER / "job.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert set(job["spec"]) <= set(kubernetes.V1JobSpec.attribute_map.values())
    pod = schema["properties"]["spec"]["properties"]["worker"]["properties"]["spec"]
    validate(job["spec"]["template"]["spec"], pod)


def test_gpus_have_a_worker_each_that_computes_on_it() -> None:
    cluster = yaml.safe_load((FOLDER / "cluster-gpu.yaml").read_text())
    (worker,) = cluster["spec"]["worker"]["spec"]["containers"]
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert {"name": "TILTFLOW_DEVICE", "value": "cuda"} in worker["env"]
    assert "--resources=GPU=1" in worker["command"]


def test_what_a_run_asks_for_fits_the_operator_and_starts_dask_in_our_image(
    schema: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import dask_kubernetes.operator  # sets Dask's own image as the default  # noqa: F401

    one, other = (cluster_spec(Execution(workers=3, memory="4GiB")) for _ in range(2))
    validate(one, schema)
    assert one["metadata"]["name"] != other["metadata"]["name"]
    assert one["spec"]["worker"]["replicas"] == 3
    for part in ("worker", "scheduler"):
        (container,) = one["spec"][part]["spec"]["containers"]
        assert container["image"] == "tiltflow"
        assert container["command"][:2] == ["dask", part]  # the image's own command is tiltflow
        assert "args" not in container
    (worker,) = one["spec"]["worker"]["spec"]["containers"]
    assert worker["resources"]["limits"] == {"cpu": "2", "memory": "4096Mi"}
    selector = one["spec"]["scheduler"]["service"]["selector"]
    assert selector["dask.org/cluster-name"] == one["metadata"]["name"]
    with dask.config.set({"kubernetes.image": "registry/tiltflow:1"}):
        made = cluster_spec(Execution())
        assert made["spec"]["worker"]["spec"]["containers"][0]["image"] == "registry/tiltflow:1"


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.name)
def test_a_run_takes_the_file_that_dasks_setting_names(path: Path) -> None:
    with dask.config.set({"kubernetes.custom-cluster-spec": str(path)}):
        made = cluster_spec(Execution(workers=7))
    expected = yaml.safe_load(path.read_text())
    name = made["metadata"]["name"]
    assert name.startswith("tiltflow-")
    expected["metadata"]["name"] = name
    expected["spec"]["scheduler"]["service"]["selector"]["dask.org/cluster-name"] = name
    expected["spec"]["worker"]["replicas"] = 7
    assert made == expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            None,
            r"cluster\.yaml: no such file or directory: correct the file, or Dask's setting kub",
        ),
        ("spec: [1", r"cluster\.yaml: .*: correct the file"),
        ("just words", r"cluster\.yaml: no metadata: write a DaskCluster"),
        ("metadata: {}", r"cluster\.yaml: no spec\.scheduler\.service\.selector: write a DaskCl"),
    ],
)
def test_a_file_that_describes_no_cluster_is_told_of(
    tmp_path: Path, text: str | None, told: str
) -> None:
    from tasks import cluster
    from tasks.errors import WrongParameter

    path = tmp_path / "cluster.yaml"
    if text is not None:
        path.write_text(text)
    with (
        dask.config.set({"kubernetes.custom-cluster-spec": str(path)}),
        pytest.raises(WrongParameter, match=told) as refused,
        cluster.opened(Execution(cluster="kubernetes")),
    ):
        pass
    assert "kubectl" not in str(refused.value)


def test_without_a_cluster_there_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tasks import cluster
    from tasks.errors import WrongParameter

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with (
        pytest.raises(WrongParameter, match=r"cluster 'kubernetes': .*kubectl get daskclusters"),
        cluster.opened(Execution(cluster="kubernetes")),
    ):
        pass
