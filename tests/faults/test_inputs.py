"""Raw files that vanish, are read-only, or lie where nobody would put them; disks that are full."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_runs import Zygote, content, marks, of_one

from flows.session import import_series
from tasks.export import export_series
from tasks.parameters import ImportParameters
from tasks.report import write_report
from tasks.store import parse_project

Fresh = Callable[[], str]
Mount = Callable[..., Path]


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    """Return the function that mounts something on a new folder, where this is allowed."""
    mounted: list[Path] = []

    def do(*options: str) -> Path:
        folder = tmp_path / f"mount-{len(mounted)}"
        folder.mkdir()
        done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"cannot mount: {done.stderr.strip()}")
        mounted.append(folder)
        return folder

    yield do
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def imported(data: Path, project: Path) -> str:
    import_series(
        str(project), ImportParameters(mdoc=str(data / "*.mdoc"), gain=str(data / "gain.mrc"))
    )
    return str(project)


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("unlink", "missing since the import: put it back"),
        pytest.param("truncate", "has 3000 bytes, had", marks=pytest.mark.long),
    ],
)
def test_a_movie_spoiled_in_mid_run_costs_its_series_until_it_is_back(
    zygote: Zygote,
    undisturbed: tuple[str, int],
    until: str | None,
    tiny_data: Path,
    tmp_path: Path,
    how: str,
    told: str,
) -> None:
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    project = imported(data, tmp_path / "p.zarr")
    series = parse_project(project).series("TS_01")
    victim = Path(series.imported().views[-1].movie.path)
    fault = {"at": 20, "how": how, "path": str(victim)}
    ended = zygote.run(project, until="motion", fault=fault)
    assert ended.code == 1
    assert ended.error.startswith(f"1 of 2 series failed: TS_01: {victim}: {told}")
    assert parse_project(project).series("TS_02").current("main", "motion").complete()
    marked = marks(project)
    assert marked
    shutil.copy2(tiny_data / "frames" / victim.name, victim)
    ended = zygote.run(project, until=until, series=["TS_01"])
    assert (ended.code, ended.error) == (0, "")
    assert not marked & set(ended.marked)
    assert series.pointer("main", "motion") == parse_project(undisturbed[0]).series(
        "TS_01"
    ).pointer("main", "motion")


def test_a_disk_that_is_really_full_goes_on_when_there_is_room(
    zygote: Zygote, undisturbed: tuple[str, int], until: str | None, fresh: Fresh, mount: Mount
) -> None:
    disk = mount("-t", "tmpfs", "-o", "size=1200k", "tmpfs")
    project = str(shutil.copytree(fresh(), disk / "p.zarr"))
    ended = zygote.run(project, until=until, series=["TS_01"])
    assert ended.code == 1
    assert "no space left on device" in ended.error
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)
    assert zygote.run(project, until=until, series=["TS_01"]).code == 0
    assert of_one(project) == of_one(undisturbed[0])


@pytest.mark.long
def test_read_only_movies_are_enough(
    zygote: Zygote, until: str | None, tiny_data: Path, tmp_path: Path, mount: Mount
) -> None:
    data = mount("--bind", str(shutil.copytree(tiny_data, tmp_path / "data")))
    subprocess.run(["mount", "-o", "remount,ro,bind", str(data)], check=True)
    with pytest.raises(OSError, match="Read-only"):
        (data / "new").touch()
    project = imported(data, tmp_path / "p.zarr")
    ended = zygote.run(project, until=until)
    assert (ended.code, ended.error) == (0, "")


def test_spaces_and_letters_of_all_kinds_in_paths(
    zygote: Zygote, undisturbed: tuple[str, int], until: str | None, tiny_data: Path, tmp_path: Path
) -> None:
    odd = tmp_path / "Kryo-Messungen äöü 測定 #1 (50%)"
    data = Path(shutil.copytree(tiny_data, odd / "tilt séries & movies"))
    project = imported(data, odd / "ein Projekt; é.zarr")
    ended = zygote.run(project, until=until, series=["TS_01"])
    assert (ended.code, ended.error) == (0, "")
    theirs = {name: value for name, value in of_one(undisturbed[0]).items() if name.count("/") > 1}
    ours = {name: value for name, value in of_one(project).items() if name.count("/") > 1}
    assert ours == theirs
    assert write_report(project, "main", odd / "Bericht ß").is_file() or until is not None
    if until is None:
        for program in ("imod", "aretomo", "mrc"):
            assert export_series(project, "TS_01", "main", program, odd / f"nach {program} →")


def test_a_project_of_a_read_only_disk_says_so(
    zygote: Zygote, until: str | None, fresh: Fresh, mount: Mount
) -> None:
    disk = mount("-t", "tmpfs", "tmpfs")
    project = str(shutil.copytree(fresh(), disk / "p.zarr"))
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    before = content(project)
    ended = zygote.run(project, until=until, series=["TS_01"])
    assert ended.code == 1
    assert "read-only file system" in ended.error
    assert os.fspath(disk) in ended.error
    assert content(project) == before
