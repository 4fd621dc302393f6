"""Data files of the benchmarks: where they are, whether they are the right ones, and how to stream them.

A benchmark names its files in a `Dataset` constant: hub id, commit, and for each file its path, SHA-256 and number of
rows where these are known. A user's `source` is one of

- empty or the data set's own hub id: the commit that the constant pins, checksums and row counts enforced;
- `org/name@revision`: that revision instead (a branch, tag or commit), row counts enforced;
- another hub id: taken as it is, a user's own data in the same layout;
- a local folder (relative to the repository) that holds the files under the same relative names: taken as it is too;
  a file whose SHA-256 equals the pinned one is reported with the pinned revision, any other with none.

Files come through huggingface_hub and lie in its cache (`HF_HOME`). A download that was cut off goes on where it
stopped, also in a later run, and a file counts as there only after its SHA-256 fits: the pinned one, else the one the
hub gives for it. `python -m cppo_lib.runs.series.fetch` (`make fetch-data`) downloads ahead of time and writes
`data.lock.json` in the data folder (`$CPPO_DATA`, else `<repository>/data`): the commit that each revision stood for,
and checksum and rows of each file. `locate` follows that lock, so a branch that moves later changes nothing.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cppo_lib.artefacts import paths
from cppo_lib.artefacts.download import download, hub_checksum
from cppo_lib.artefacts.store import file_sha256
from cppo_lib.data.problem import Source
from cppo_lib.errors import DatasetError

LOCK = "data.lock.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[^\s@]+)?")

__all__ = [
    "Dataset", "HubFile", "LOCK", "Located", "check_rows", "data_root", "field", "locate", "read_jsonl", "read_lock",
    "read_parquet", "resolve",
]  # fmt: skip


class BrokenRow(DatasetError):
    """A row of the right form whose solutions or tests make no sense."""


@dataclass(frozen=True)
class HubFile:
    """A file of a data set: path within it, SHA-256 and number of rows at the pinned revision (None: not known)."""

    path: str
    sha256: str | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Dataset:
    """A data set on the hub: id, pinned revision, and the files of each split or release, in order."""

    repo: str
    revision: str
    files: Mapping[str, tuple[HubFile, ...]]


@dataclass(frozen=True)
class Located:
    """A file that is on this machine: where, from which origin and revision (empty: unknown), with which checksum.

    `official` says that it is meant to be the data set itself, so that its row counts can be relied on.
    """

    path: Path
    file: HubFile
    origin: str
    revision: str
    sha256: str
    official: bool

    def source(self, rows: int) -> Source:
        """The line of a load report for this file with the number of rows that were read."""
        return Source(self.origin, self.file.path, self.revision, self.sha256, rows)


# --- where a file is --------------------------------------------------------------------------


def locate(origin: str, file: HubFile, *, dataset: Dataset) -> Located:
    """The file on this machine, downloaded if need be, with its checksum verified.

    Args:
        origin: a `source` parameter, see the module's docstring.
        file: one of the data set's files.
        dataset: the data set that the benchmark pins.

    Raises:
        DatasetError: no such folder, file, data set or revision; the hub cannot be reached; a wrong checksum.
    """
    folder, repo, revision = resolve(origin, dataset)
    if folder is not None:
        path = folder / file.path
        if not path.is_file():
            raise DatasetError(
                f"{paths.show(folder)} lacks {file.path}: put it there, from "
                f"https://huggingface.co/datasets/{dataset.repo}/tree/{dataset.revision}"
            )
        digest = file_sha256(path)
        known = digest == file.sha256
        return Located(path, file, paths.show(folder), dataset.revision if known else "", digest, known)
    return _from_hub(repo, revision, file, dataset)


def resolve(origin: str, dataset: Dataset) -> tuple[Path | None, str, str]:
    """What `origin` names: (folder, "", "") or (None, hub id, revision).

    Raises:
        DatasetError: neither a folder nor the form of a hub id.
    """
    if not origin:
        return None, dataset.repo, dataset.revision
    folder = paths.root() / Path(origin).expanduser()
    if folder.is_dir():
        return folder, "", ""
    if not _HUB_ID.fullmatch(origin):
        raise DatasetError(f"source {origin!r} is neither a folder nor a hub id such as {dataset.repo}")
    repo, _, revision = origin.partition("@")
    return None, repo, revision or (dataset.revision if repo == dataset.repo else "main")


def _from_hub(repo: str, revision: str, file: HubFile, dataset: Dataset) -> Located:
    locked = read_lock().get((repo, revision, file.path), {})
    pinned = (repo, revision) == (dataset.repo, dataset.revision)
    expected = (file.sha256 if pinned else None) or locked.get("sha256")
    try:
        path = download(repo, file.path, locked.get("commit", revision), expected)
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        if isinstance(error, LocalEntryNotFoundError):
            raise _unreachable(repo, revision, file, dataset, error) from error
        raise DatasetError(
            f"the hub has no {file.path} in {repo}@{revision}, or it is not public: upstream has changed; name a "
            f"revision that has it (source: {repo}@<commit>) or a folder with the files"
        ) from error
    except (httpx.HTTPError, ConnectionError) as error:  # HfHubHTTPError is one of them
        raise _unreachable(repo, revision, file, dataset, error) from error
    except OSError as error:
        raise DatasetError(
            f"{repo}@{revision}, {file.path} cannot be kept in the cache {constants.HF_HUB_CACHE} ({error}): free some "
            "space, or set HF_HOME to a folder on a local disk that has it, and file locks"
        ) from error
    digest = file_sha256(path)
    expected = expected or hub_checksum(path)
    if expected and digest != expected:
        raise DatasetError(
            f"{path.resolve()} ({repo}@{revision}, {file.path}) has SHA-256 {digest[:12]}..., not {expected[:12]}...: "
            "the copy is damaged; delete it and run make fetch-data"
        )
    commit = path.parts[-len(Path(file.path).parts) - 1]
    return Located(path, file, repo, commit, digest, repo == dataset.repo)


def _unreachable(repo: str, revision: str, file: HubFile, dataset: Dataset, error: Exception) -> DatasetError:
    group = next((files for files in dataset.files.values() if file in files), (file,))
    names = ", ".join(each.path for each in group[:3]) + (f", ... ({len(group)} files)" if len(group) > 3 else "")
    reason = str(error.__cause__ or error).strip().splitlines()[0:1] or [type(error).__name__]
    return DatasetError(
        f"the hub cannot be reached for {repo}@{revision} ({reason[0]}): run make fetch-data where there is a "
        f"network, or put {names} into a folder, under these names, and give that folder as source"
    )


# --- checks -----------------------------------------------------------------------------------


def check_rows(located: Located, got: int, expected: int | None, what: str = "rows") -> None:
    """Compare a count with what the data set is known to have; a user's own data may have any.

    Raises:
        DatasetError: the counts differ; it says how, and what to do when upstream has changed.
    """
    if located.official and expected is not None and got != expected:
        found = f"{located.origin}@{located.revision}, {located.file.path}: {got} {what} where {expected} are known"
        raise DatasetError(
            f"{found}: upstream has changed; pin the revision that has {expected} in the parameter file (source: "
            f"{located.origin}@<commit>), or give a folder with the files as source to take them as they are"
        )


def data_root() -> Path:
    """The folder of `data.lock.json`: `$CPPO_DATA` when set, else `<repository>/data`."""
    chosen = os.environ.get("CPPO_DATA")
    return Path(chosen).expanduser().resolve() if chosen else paths.root() / "data"


def read_lock() -> dict[tuple[str, str, str], dict[str, Any]]:
    """The entries of `data.lock.json` by (hub id, revision asked for, file); empty when there is none.

    Raises:
        DatasetError: not a file that `make fetch-data` writes.
    """
    path = data_root() / LOCK
    if not path.is_file():
        return {}
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["files"]
        return {(each["origin"], each["revision"], each["file"]): each for each in entries}
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{paths.show(path)} is damaged ({error!r}): delete it, run make fetch-data") from error


# --- reading ----------------------------------------------------------------------------------


def read_parquet(path: Path, columns: Sequence[str], batch_rows: int = 16) -> Iterator[dict[str, Any]]:
    """Rows of a Parquet file in order, with these columns only, `batch_rows` of them in memory at a time.

    Raises:
        DatasetError: a column is missing, or the file is truncated or damaged (naming the row).
    """
    done = 0
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 20) as table:
            missing = [name for name in columns if name not in table.schema_arrow.names]
            if missing:
                raise DatasetError(
                    f"{paths.show(path)} has no column {', '.join(map(repr, missing))}; "
                    f"it has {', '.join(table.schema_arrow.names)}: not the file that is meant"
                )
            for batch in table.iter_batches(batch_rows, columns=list(columns), use_threads=False):
                for row in batch.to_pylist():
                    yield row
                    done += 1
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(
            f"{paths.show(path)}: row {done} cannot be read ({reason}): truncated or damaged; get the file again"
        ) from error


def read_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) for each line of a JSON lines file; blank lines are left out.

    Raises:
        DatasetError: a line is not a JSON object, as in a truncated file (naming the line).
    """
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            where = f"{paths.show(path)}: line {number}"
            try:
                row = json.loads(line)
            except ValueError as error:  # a JSON or a UTF-8 error
                raise DatasetError(
                    f"{where} is not JSON ({error}): truncated or damaged; get the file again"
                ) from error
            if not isinstance(row, dict):
                raise DatasetError(f"{where} is not a JSON object")
            yield number, row


def field(row: Mapping[str, Any], name: str, kind: type | tuple[type, ...], where: str) -> Any:
    """`row[name]`, which must be of `kind` (bool is no int). Raises DatasetError naming `where` and the field."""
    if name not in row:
        raise DatasetError(f"{where}: no field {name!r}; the row has {', '.join(row) or 'none'}")
    value = row[name]
    kinds = kind if isinstance(kind, tuple) else (kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(each.__name__ for each in kinds)
        raise DatasetError(f"{where}: field {name!r} is {type(value).__name__}, not {wanted}")
    return value
