"""MkDocs hook: pages that are written by the code itself, so that they are never out of date.

``reference/`` comes from the parameter models and the command line, ``deployments/`` from the
folder of that name, whose files its README links to.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]  # the checkout's own packages come first

import reference  # noqa: E402


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the generated pages and the files of deployments/."""
    for name, text in reference.pages().items():
        files.append(File.generated(config, f"reference/{name}", content=text))
    for path in sorted((ROOT / "deployments").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    return files
