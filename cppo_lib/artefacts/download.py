"""A file of a data set or model on the hub in the cache of huggingface_hub, whatever the connection does.

`hf_hub_download` by itself deletes a partial file when the connection stays down for some seconds or the process ends;
with files of more than a gigabyte that is an hour's work on a slow line. So the bytes are gathered here, next to where
the cache keeps them (`blobs/<checksum>.part`), gone on with in a later call, checked, and only then given to the cache.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

from cppo_lib.artefacts.store import file_sha256
from cppo_lib.errors import DatasetError

_SHA256 = re.compile(r"[0-9a-f]{64}")


def download(repo: str, name: str, revision: str, sha256: str | None = None, repo_type: str = "dataset") -> Path:
    """The file's path in the cache; nothing is sent when it is there and `revision` is a commit.

    Args:
        repo, name, revision: hub id, path in it, and branch, tag or commit.
        sha256: what the file must have; None: what the hub says, which it does for all large files.
        repo_type: `dataset` or `model`.

    Raises:
        DatasetError: what arrived has another checksum; it is deleted.
        Exceptions of huggingface_hub and httpx: the file is not in the cache and cannot be had.
    """
    known = hf_hub_download(repo, name, repo_type=repo_type, revision=revision, dry_run=True)
    if not known.is_cached:
        url = hf_hub_url(repo, name, repo_type=repo_type, revision=known.commit_hash)
        about = get_hf_file_metadata(url)
        if about.etag and _SHA256.fullmatch(about.etag):
            folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type=repo_type)
            _complete(url, folder / "blobs" / about.etag, about.size, sha256 or about.etag)
    return Path(hf_hub_download(repo, name, repo_type=repo_type, revision=known.commit_hash))


def hub_checksum(path: Path) -> str | None:
    """The SHA-256 that the hub gave for a cached file; None for a small file, which the cache names otherwise."""
    name = path.resolve().name
    return name if _SHA256.fullmatch(name) else None


def _complete(url: str, blob: Path, size: int | None, sha256: str) -> None:
    """Fill `<blob>.part` from where it ends, check it and rename it; another process that does so is waited for."""
    blob.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(blob.name + ".part")
    lock = part.with_suffix(".lock")
    with FileLock(lock):
        if blob.exists():
            return
        with part.open("ab") as sink:
            http_get(url, sink, resume_size=sink.tell(), headers=build_hf_headers(), expected_size=size)
        digest = file_sha256(part)
        if digest != sha256:
            part.unlink()
            raise DatasetError(
                f"{url} arrived with SHA-256 {digest[:12]}..., not {sha256[:12]}...: it was damaged on the way, or is "
                "not the file that is pinned; it was deleted here, get it again (data: make fetch-data)"
            )
        part.replace(blob)
    with suppress(OSError):
        lock.unlink()
