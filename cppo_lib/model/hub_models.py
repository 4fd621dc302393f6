"""Models of the hub, tied to a commit as data sets are.

A model's name is a folder, `org/name` (its branch `main`) or `org/name@revision` (a branch, tag or commit). What a
revision stands for is asked when it is first used and kept in `models.lock.json` in the folder of the runs, which every
later step follows: planner SFT, RL, the gate and evaluation have the same weights, a branch that moves changes none of
them, and once a model is here no network is needed. The commit is part of what a run is known by and is recorded beside
its results. To take a newer state, name its commit or delete the entry: what was made with the other one is made anew.

Files come through huggingface_hub and lie in its cache (`HF_HOME`); a download that was cut off is gone on with.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

import httpx
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from cppo_lib.artefacts import paths, store
from cppo_lib.artefacts.download import download
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import CPPOError, ModelError

LOCK = "models.lock.json"
PATIENCE_S = 10.0  # for the hub's answer about a revision
_WEIGHTS = ("model*.safetensors", "adapter_model.safetensors"), ("pytorch_model*.bin", "adapter_model.bin")
_CONFIGS = ("config.json", "adapter_config.json")
_OTHERS = ("*.json", "*.jinja", "*.txt", "*.model", "*.tiktoken")


@dataclass(frozen=True)
class HubModel:
    """A model on the hub: id, revision as it was named, the commit that it stands for, and the files to load."""

    repo: str
    revision: str
    commit: str
    files: tuple[str, ...]

    @property
    def name(self) -> str:
        """`org/name@revision`."""
        return f"{self.repo}@{self.revision}"


def find(name: str | Path) -> HubModel | None:
    """What a model's name stands for on the hub; None for a folder. Asks the hub only where the lock has no answer.

    Raises:
        ModelError: no such folder, model or revision, or the hub cannot be reached and the cache does not know it.
    """
    named = os.path.expanduser(name)
    if Path(named).is_dir():
        return None
    if Path(named).is_absolute() or named.startswith("."):
        raise ModelError(f"model folder {named} does not exist")
    repo, _, revision = named.partition("@")
    revision = revision or "main"
    lock = _read_lock()
    if (repo, revision) in lock:
        return lock[repo, revision]
    found = _ask(repo, revision)
    lock[repo, revision] = found
    store.write_json(_lock_path(), {"models": [asdict(lock[key]) for key in sorted(lock)]})
    log.info(f"{found.name} is commit {found.commit[:12]} from here on ({paths.show(_lock_path())})")
    return found


def folder_of(name: str | Path) -> Path:
    """The folder that holds a model's files, downloaded if need be. Raises ModelError as `find`."""
    model = find(name)
    if model is None:
        return Path(name).expanduser()
    with _hub_errors(model.repo, model.revision):
        return [download(model.repo, file, model.commit, repo_type="model") for file in model.files][0].parent


@functools.cache
def known_commit(name: str) -> str:
    """The commit of a model's name; empty for a folder, and where `find` has no answer. Asked once in a process."""
    try:
        model = find(name)
    except CPPOError:  # the run that needs the model will say so
        return ""
    return "" if model is None else model.commit


def moved(name: str) -> str | None:
    """A line for users where a branch stands for another commit now; None where it does not, or nobody answers."""
    model = find(name)
    if model is None:
        return None
    try:
        now = HfApi().model_info(model.repo, revision=model.revision, timeout=PATIENCE_S).sha
    except (httpx.HTTPError, OSError):
        return None
    if now in (None, model.commit):
        return None
    return (
        f"{model.name} is commit {str(now)[:12]} now; this goes on with {model.commit[:12]} (to take the new one, "
        f"delete its entry in {paths.show(_lock_path())})"
    )


def _ask(repo: str, revision: str) -> HubModel:
    """The commit and the files of a revision, from the hub, or from its cache where the hub cannot be reached."""
    with _hub_errors(repo, revision):
        try:
            info = HfApi().model_info(repo, revision=revision, timeout=PATIENCE_S)
            commit, names = str(info.sha), [each.rfilename for each in info.siblings or ()]
        except (httpx.HTTPError, OSError):
            configs = (try_to_load_from_cache(repo, file, revision=revision) for file in _CONFIGS)
            folder = next((Path(file).parent for file in configs if isinstance(file, str)), None)
            if folder is None:
                raise
            commit, names = folder.name, os.listdir(folder)
    weights = [chosen for patterns in _WEIGHTS if (chosen := _matching(names, patterns))]
    if not weights:
        raise ModelError(f"{repo}@{revision} on the hub holds no model weights (*.safetensors): name another model")
    return HubModel(repo, revision, commit, (*_matching(names, _OTHERS), *weights[0]))


def _matching(names: Iterable[str], patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The names that fit; not those in folders, where repositories keep the same weights in other formats."""
    return tuple(sorted(name for name in names if "/" not in name and any(fnmatch(name, each) for each in patterns)))


@contextmanager
def _hub_errors(repo: str, revision: str) -> Iterator[None]:
    """Raise ModelError, in one line, where the hub has no answer or cannot be reached."""
    try:
        yield
    except HFValidationError as error:
        raise ModelError(f"{repo!r} is neither a folder nor a hub id: name a local folder or a hub id") from error
    except (RepositoryNotFoundError, RevisionNotFoundError, EntryNotFoundError) as error:
        if not isinstance(error, LocalEntryNotFoundError):
            raise ModelError(
                f"the hub has no model {repo}@{revision}, or it is not public: name another revision (name@revision), "
                "a local folder, or give huggingface_hub a token that may read it"
            ) from error
        raise _unreachable(repo, revision, error) from error
    except (httpx.HTTPError, OSError) as error:
        raise _unreachable(repo, revision, error) from error


def _unreachable(repo: str, revision: str, error: Exception) -> ModelError:
    reason = (str(error.__cause__ or error).strip() or type(error).__name__).splitlines()[0]
    return ModelError(f"cannot load model {repo}@{revision} ({reason}): name a local folder or a reachable hub id")


# --- the lock -----------------------------------------------------------------------------------


def _lock_path() -> Path:
    return paths.runs_root() / LOCK


def _read_lock() -> dict[tuple[str, str], HubModel]:
    if not _lock_path().is_file():
        return {}
    try:
        entries = [HubModel(**entry) for entry in store.read_json(_lock_path())["models"]]
    except (KeyError, TypeError) as error:
        raise ModelError(f"{paths.show(_lock_path())} is damaged ({error!r}): delete it and run again") from error
    return {(entry.repo, entry.revision): entry for entry in entries}
