"""Artefacts on disk: how they are written and what is remembered about them.

Everything that the notebooks make lies under one folder, `runs/<profile>/<stage>/` (its places are
those of `cppo_lib.paths`, reachable from here too). Three rules keep it trustworthy: a file appears
whole or not at all (written to `<name>.partial`, then renamed); a missing input names the notebook
that writes it; and each artefact may carry `<name>.meta.json` with the commit, versions,
parameters and input hashes that it came from.
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
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cppo_lib.errors import CPPOError
from cppo_lib.paths import (
    figures_dir,
    meta_path,
    policy_source,
    require,
    root,
    runs_root,
    show,
    stage_dir,
    unwritable,
    writable_dir,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = [
    "append_jsonl", "clock", "elapsed", "figures_dir", "file_sha256", "git_state", "params_sha256",
    "policy_source", "progress", "provenance", "read_json", "read_jsonl", "require",
    "resumable_dir", "root", "runs_root", "show", "stage_dir", "writable_dir", "write_figure",
    "write_json", "write_meta", "write_parquet", "write_summary", "write_text",
]  # fmt: skip
PACKAGES = ("cppo-lib", "torch", "transformers", "trl", "numpy", "pandas", "pyarrow", "scipy")
_STARTED = time.monotonic()


# --- whole files or none ----------------------------------------------------------------------


def _atomically(path: Path, write: Callable[[Path], object]) -> Path:
    """Let `write` fill `<path>.partial`, then rename it to `path`; on any error leave neither."""
    partial = path.with_name(path.name + ".partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(partial)
        partial.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()
    return path


def write_text(path: Path, text: str) -> Path:
    """Write UTF-8 text whole. Raises CPPOError when the folder cannot be written."""
    return _atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, value: Any) -> Path:
    """Write indented JSON whole; numpy scalars and paths are written as their plain values."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain) + "\n"
    return write_text(path, text)


def write_parquet(path: Path, rows: pd.DataFrame | Sequence[Mapping[str, Any]]) -> Path:
    """Write a table (a frame, or one mapping per row) as Parquet, whole and without an index."""
    import pandas as pd  # here, because the command line needs none of it and starts often

    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    return _atomically(path, lambda partial: frame.to_parquet(partial, index=False))


def write_figure(path: Path, figure: Figure, **options: Any) -> Path:
    """Write a matplotlib figure whole, in the format of `path`'s suffix (png, pdf, svg).

    `options` go to `Figure.savefig`, for example `dpi` or `bbox_inches`.
    """
    kind = path.suffix.removeprefix(".")
    return _atomically(path, lambda partial: figure.savefig(partial, format=kind, **options))


def read_json(path: Path) -> Any:
    """Read JSON. Raises CPPOError naming the file when it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise CPPOError(f"{show(path)} is not JSON ({error}): delete it and run again") from error


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return show(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def resumable_dir(folder: Path, fingerprint: str) -> Path:
    """A run's folder, emptied unless what it holds was begun under the same fingerprint.

    So a run goes on from its own checkpoints after a kill, and never from those of other
    parameters, other code or other inputs (`cppo_lib.sources.fingerprint`).
    """
    mark = folder / "fingerprint.txt"
    if mark.is_file() and mark.read_text(encoding="utf-8") == fingerprint:
        return writable_dir(folder)
    if folder.exists():
        shutil.rmtree(folder)
    writable_dir(folder)
    write_text(mark, fingerprint)
    return folder


# --- one line per event -----------------------------------------------------------------------


def append_jsonl(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Append rows as JSON lines and flush them to the disk, so a kill loses at most the last.

    A last line that an earlier kill tore is cut off first; otherwise the new row would join it.
    """
    text = "".join(json.dumps(row, ensure_ascii=False, default=_plain) + "\n" for row in rows)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a+b") as file:
            _drop_torn_line(file)
            file.write(text.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise unwritable(path, error) from error


def _drop_torn_line(file: BinaryIO) -> None:
    end = file.seek(0, os.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a torn last line (no newline at its end) is left out.

    Raises CPPOError naming file and line when any other line is not JSON.
    """
    whole, _, _ = path.read_text(encoding="utf-8", errors="replace").rpartition("\n")
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise CPPOError(f"{show(path)}:{number} is not JSON ({error}): delete the file and run again") from error
    return rows


# --- where it came from -----------------------------------------------------------------------


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file, or of a folder's files (names and contents, sorted by name)."""
    if path.is_file():
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    digest = hashlib.sha256()
    for file_path in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file_path.relative_to(path)}\0{file_sha256(file_path)}\n".encode())
    return digest.hexdigest()


def params_sha256(params: Mapping[str, Any]) -> str:
    """Hex SHA-256 of typed values in sorted order, so the YAML's layout does not matter."""
    text = json.dumps(dict(params), sort_keys=True, default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def git_state() -> dict[str, Any]:
    """`{"commit": sha or None, "dirty": bool or None}`; None outside a git checkout.

    What a run writes into figures/ does not make the code that ran another one.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(root()), *arguments], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", ".", ":!figures"))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def provenance(params: Any, inputs: Iterable[Path] = ()) -> dict[str, Any]:
    """What an artefact came from, as JSON values.

    Args:
        params: a parameter model of `cppo_lib.config`, or a plain mapping.
        inputs: files and folders that were read; each is hashed.
    """
    values = params.model_dump(mode="json") if hasattr(params, "model_dump") else dict(params)
    started = time.time() - (time.monotonic() - _STARTED)
    return {
        **git_state(),
        "packages": {name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "gpu": _gpu(),
        "params": values,
        "params_sha256": params_sha256(values),
        "inputs": {show(path): file_sha256(path) for path in inputs},
        "seed": values.get("seed"),
        "started": datetime.datetime.fromtimestamp(started, datetime.UTC).isoformat("T", "seconds"),
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


def write_meta(path: Path, params: Any, inputs: Iterable[Path] = ()) -> Path:
    """Write the provenance of the artefact at `path` to `<path>.meta.json`."""
    return write_json(meta_path(path), provenance(params, inputs))


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
    hashes = {show(path): file_sha256(path) for path in artefacts}
    summary = {**values, "artefacts": hashes, "provenance": provenance(params, inputs)}
    return write_json(folder / "summary.json", summary)


# --- progress ---------------------------------------------------------------------------------


def clock(seconds: float) -> str:
    """A duration as `1:05` or `2:03:04`."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def elapsed() -> str:
    """Time since this process imported the library, as `clock` writes it."""
    return clock(time.monotonic() - _STARTED)


def progress(message: str) -> None:
    """Print one line that the series shows while a notebook runs: `[cppo] 0:12 message`."""
    print(f"[cppo] {elapsed()} {message}", file=sys.stdout, flush=True)
