"""Every CUDA source compiles, on machines without a GPU too."""

import importlib.util
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from kernels import arrays

NAMES = sorted(
    path.name.removesuffix(".cu")
    for path in (files("kernels") / "cuda").iterdir()
    if path.name.endswith(".cu")
)
HAS_NVRTC = importlib.util.find_spec("cuda.core") if importlib.util.find_spec("cuda") else None


def test_there_are_sources():
    assert "backproject" in NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_source_needs_no_header_and_no_shared_memory(name):
    # So that NVRTC, nvcc and g++ (tests/kernels/cuda_on_cpu) all take it as it is.
    source = arrays.cuda_source(name)
    assert "#include" not in source
    assert "__shared__" not in source
    assert "__syncthreads" not in source
    assert 'extern "C" __global__ void' in source


@pytest.mark.parametrize("name", NAMES)
def test_a_source_is_run_on_the_cpu_by_some_test(name):
    tests = [path.read_text() for path in Path(__file__).parent.glob("test_*.py")]
    assert any(f'cuda_on_cpu("{name}")' in text for text in tests)


@pytest.mark.parametrize("name", NAMES)
def test_a_source_compiles_with_nvcc(name, tmp_path):
    compiler = shutil.which("nvcc")
    if compiler is None:
        pytest.skip("nvcc is not installed")
    source = tmp_path / f"{name}.cu"
    source.write_text(arrays.cuda_source(name))
    command = [compiler, "-cubin", "-arch=sm_90", "-std=c++17", source]
    done = subprocess.run(
        [*command, "-o", tmp_path / f"{name}.cubin"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr


@pytest.mark.parametrize("name", NAMES)
def test_a_source_compiles_with_nvrtc(name):
    if not HAS_NVRTC:
        pytest.skip("cuda.core is not installed")
    from cuda.core import Program, ProgramOptions

    options = ProgramOptions(std="c++17", arch="sm_90")
    assert Program(arrays.cuda_source(name), "c++", options).compile("cubin").code


@pytest.mark.parametrize("name", NAMES)
def test_a_source_builds_for_the_cpu(name, cuda_on_cpu):
    assert cuda_on_cpu(name)
