"""What is remembered about an artefact: its hash, and the commit, versions, parameters and inputs that it came from.

A note is `<name>.meta.json` beside an artefact, or the `summary.json` of the run that made it.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cppo_lib.artefacts import paths
from cppo_lib.artefacts.store import file_sha256, plain, write_json

LAYOUT = 2
"""Raised when the library's modules move: what was made under another one had its code at other addresses."""
PACKAGES = ("cppo-lib", "torch", "transformers", "trl", "numpy", "pandas", "pyarrow", "scipy")
_STARTED = datetime.datetime.now(datetime.UTC).isoformat("T", "seconds")


def params_sha256(params: Mapping[str, Any]) -> str:
    """Hex SHA-256 of typed values in sorted order, so the YAML's layout does not matter."""
    text = json.dumps(dict(params), sort_keys=True, default=plain)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def git_state() -> dict[str, Any]:
    """`{"commit": sha or None, "dirty": bool or None}`; None outside a git checkout.

    What a run writes into figures/ does not make the code that ran another one.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(paths.root()), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", ".", ":!figures"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def provenance(params: Any, inputs: Iterable[Path] = ()) -> dict[str, Any]:
    """What an artefact came from, as JSON values.

    Args:
        params: a parameter model of `cppo_lib.runs.config`, or a plain mapping.
        inputs: files and folders that were read; each is hashed.
    """
    values = params.model_dump(mode="json") if hasattr(params, "model_dump") else dict(params)
    return {
        **git_state(),
        "layout": LAYOUT,
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "gpu": _gpu(),
        "params": values,
        "params_sha256": params_sha256(values),
        "inputs": {paths.show(path): file_sha256(path) for path in inputs},
        "seed": values.get("seed"),
        "started": _STARTED,
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _gpu() -> str | None:
    """The name of the GPU that torch sees in this process; None without one, or where nothing imported torch."""
    torch = sys.modules.get("torch")
    with contextlib.suppress(RuntimeError):  # a GPU that others have filled: what was made is not lost for its name
        return torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else None
    return None


def write_meta(path: Path, params: Any, inputs: Iterable[Path] = (), **values: Any) -> Path:
    """Write hash, size and provenance of the artefact at `path`, and further values, to `<path>.meta.json`."""
    note = paths.meta_path(path)
    return write_json(note, {**provenance(params, inputs), **values, **_written([path], note)})


def write_summary(
    folder: Path,
    params: Any,
    *,
    values: Mapping[str, Any],
    artefacts: Iterable[Path],
    inputs: Iterable[Path] = (),
) -> Path:
    """Write `<folder>/summary.json`, which says that a notebook's run is complete; write it last.

    The series watches this one file, so it holds the hash of every artefact (files or folders): a
    later notebook re-runs when what it reads has changed.

    Args:
        folder: the run's folder.
        params: its parameter model.
        values: what the run found (JSON values), such as the final metrics.
        artefacts: what the run wrote.
        inputs: what it read.
    """
    note = folder / "summary.json"
    return write_json(note, {**values, **_written(list(artefacts), note), "provenance": provenance(params, inputs)})


def _written(artefacts: Sequence[Path], note: Path) -> dict[str, Any]:
    """What a note says of the artefacts: hashes, and sizes in bytes by the path from the note (`runs` can be moved)."""
    return {
        "artefacts": {paths.show(path): file_sha256(path) for path in artefacts},
        "bytes": {os.path.relpath(path, note.parent): paths.size_of(path) for path in artefacts},
    }
