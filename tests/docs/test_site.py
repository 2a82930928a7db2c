"""The documentation builds, its links hold, and it needs nothing from the network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import doc_pages
import pytest
import reference
import yaml
from patience import PATIENCE

from tasks.parameters import Execution

pytest.importorskip("mkdocs", reason="MkDocs is missing: pip install -e '.[docs]'")
pytest.importorskip("material", reason="mkdocs-material is missing: pip install -e '.[docs]'")
FETCHED = re.compile(r"""<(?:script|img|link|iframe)\b[^>]*?\b(?:src|href)=["']?(https?:|//)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the built site; warnings are errors."""
    out = tmp_path_factory.mktemp("docs") / "site"
    done = build(doc_pages.ROOT, out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def build(checkout: Path, out: Path) -> subprocess.CompletedProcess[str]:
    """Build the site; with ``--quiet`` MkDocs would not count warnings as errors."""
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", str(out)],
        cwd=checkout,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_every_page_is_there(site: Path) -> None:
    own = [page.relative_to(doc_pages.ROOT / "docs") for page in doc_pages.pages()[:-2]]
    for page in [*own, *(Path("reference") / name for name in reference.pages())]:
        assert (site / page).with_suffix(".html").is_file(), page
    assert (site / "deployments" / "index.html").is_file()
    assert not (site / "hooks").exists()


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        own = re.sub(r'<link rel="?(?:canonical|edit)[^>]*>', "", text)
        assert not FETCHED.search(own), page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?https?:", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.parametrize("link", ["nowhere.md", "ctf.md#nowhere"])
def test_a_broken_link_is_an_error(tmp_path: Path, link: str) -> None:
    (tmp_path / "docs").mkdir()
    settings = yaml.safe_load((doc_pages.ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    for pages in ("hooks", "nav"):
        del settings[pages]
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(settings))
    (tmp_path / "docs" / "index.md").write_text(f"# Home\n\n[there]({link})\n")
    (tmp_path / "docs" / "ctf.md").write_text("# CTF\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert link in done.stderr


def test_pictures_are_small() -> None:
    for path in (doc_pages.ROOT / "docs" / "images").iterdir():
        assert path.stat().st_size < 150_000, path


def test_the_reference_has_every_parameter_with_its_meaning() -> None:
    page = reference.pages()["parameters.md"]
    for _, model in [*reference.models().values(), ("", Execution)]:
        for name, field in model.model_fields.items():
            row = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
            assert field.description, name
            assert row.count(" | ") >= 3


def test_the_reference_tells_range_unit_and_default() -> None:
    page = reference.pages()["parameters.md"]
    assert "| `max_resolution` | high-resolution end of the fit \\[Å\\] | number > 0 | 5 |" in page
    assert "| 2 numbers | 4,4 |" in page
    assert "| `measure`, `1`, `-1` | `measure` |" in page
