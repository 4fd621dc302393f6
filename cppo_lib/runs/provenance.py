"""Where an artefact comes from: the run that wrote it, its parameter file, and whether it is still the same file.

Every artefact of the series has its provenance beside it (`notes.write_meta`: `<name>.meta.json`) or in the
`summary.json` of its run's folder. This module reads both into one form. Tables take the base model of a method from
it, their sidecars the runs, and `cppo_lib.runs.trace` the whole chain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cppo_lib.artefacts import paths, store
from cppo_lib.runs import config
from cppo_lib.runs.parameters import MODELS

State = Literal["unchanged", "CHANGED", "MISSING"]
_NAMES: dict[str, tuple[str, ...]] = {
    "01_data_prep": ("benchmark",),
    "03_rl_training": ("arm",),
    "04_evaluation": ("benchmark", "split", "method"),
}
"""What tells the parameter files of one notebook in a profile apart."""
_GIVEN = {"seed", "seeds"}
"""Values that the series gives beside a parameter file."""


@dataclass(frozen=True)
class Origin:
    """The run that wrote an artefact.

    Attributes:
        path: the artefact.
        notebook: which notebook wrote it.
        params: the parameters it ran with, as they were recorded.
        inputs: the files it read, each with its SHA-256 at the time.
        commit: of the repository; None outside a checkout. `dirty`: with uncommitted changes.
        gpu: the name of the GPU it ran on, if any.
        sources: data that the run took from elsewhere, as 01_data_prep records it.
    """

    path: Path
    notebook: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    commit: str | None
    dirty: bool | None
    gpu: str | None
    sources: tuple[Mapping[str, Any], ...] = ()

    @property
    def run_id(self) -> str:
        """The name of the run below `runs/<profile>`, such as `03_rl_training/cppo.s0`."""
        key = ".".join(str(self.params[name]) for name in _NAMES.get(self.notebook, ()) if name in self.params)
        seeded = self.notebook in ("03_rl_training", "04_evaluation") and "seed" in self.params
        return "/".join(part for part in (self.notebook, f"{key}.s{self.params['seed']}" if seeded else key) if part)

    @property
    def file(self) -> ParameterFile | None:
        """Its parameter file, if the profile still has one."""
        return parameter_file(self.notebook, self.params)


@dataclass(frozen=True)
class ParameterFile:
    """A parameter file beside a run of old: `changed` names the keys that hold another value now."""

    path: Path
    changed: tuple[str, ...]


def origin_of(path: Path) -> Origin | None:
    """The origin of a record file, of a folder or file of a run, or of a run's `summary.json`; None without a note."""
    notebook = next((part for part in reversed(path.parts) if part in MODELS), None)
    beside = path.with_name(path.name + ".meta.json")
    if notebook is None:
        return None
    if beside.is_file():
        return _read(path, notebook, store.read_json(beside))
    for folder in path.parents:
        if (folder / "summary.json").is_file():
            summary = store.read_json(folder / "summary.json")
            return _read(path, notebook, summary["provenance"], summary.get("sources", []))
        if folder.name == notebook:
            break
    return None


def _read(path: Path, notebook: str, record: Mapping[str, Any], sources: Sequence[Mapping[str, Any]] = ()) -> Origin:
    commit, dirty = record["commit"], record["dirty"]
    return Origin(path, notebook, record["params"], record["inputs"], commit, dirty, record.get("gpu"), tuple(sources))


def parameter_file(notebook: str, params: Mapping[str, Any]) -> ParameterFile | None:
    """The parameter file of a run with these values; None where the profile has none of that name.

    Raises:
        ParameterError: the file is not a valid one any more.
    """
    names = _NAMES.get(notebook, ())
    for path in sorted((paths.root() / "params" / str(params.get("profile"))).glob(f"{notebook}*.yaml")):
        values = config.load_params(path).model_dump(mode="json")
        if all(values[name] == params.get(name) for name in names):
            changed = [key for key, value in params.items() if key not in _GIVEN and values.get(key, value) != value]
            return ParameterFile(path, tuple(sorted(changed)))
    return None


def state_of(path: Path, sha256: str) -> State:
    """Does the file or folder on disk have the hash that was recorded?"""
    if not path.exists():
        return "MISSING"
    return "unchanged" if store.file_sha256(path) == sha256 else "CHANGED"


def located(recorded: str) -> Path:
    """The file behind a path as artefacts record it: from the repository root, or absolute."""
    return paths.root() / recorded


def base_model(record: Path) -> str:
    """The model that a record's policy was made from: a hub id, a folder, or `scratch` for the tiny one.

    Raises:
        MissingArtefactError: the runs before this one have left no summary.
    """
    params = store.read_json(paths.require(record.with_name(record.name + ".meta.json"), notebook="04_evaluation"))
    return _base_of(params["params"])


def _base_of(params: Mapping[str, Any]) -> str:
    policy, runs = str(params["policy"]), paths.runs_root() / str(params["profile"])
    if policy in paths.MADE_POLICIES:
        summary = paths.require(runs / "02_planner_sft" / "summary.json", notebook="02_planner_sft")
        return str(store.read_json(summary)["provenance"]["params"]["base_model"])
    if policy.startswith("arm:"):
        folder = runs / "03_rl_training" / f"{policy.removeprefix('arm:')}.s{params['seed']}"
        summary = paths.require(folder / "summary.json", notebook="03_rl_training")
        return _base_of(store.read_json(summary)["provenance"]["params"])
    return policy
