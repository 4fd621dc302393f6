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
_GIVEN = {"seed", "seeds"}
"""Values that the series gives beside a parameter file."""


@dataclass(frozen=True)
class Origin:
    """The run that wrote an artefact.

    Attributes:
        run_id: the run's name below `runs/<profile>`, such as `03_rl_training/cppo.s0`.
        params: the parameters it ran with, as they were recorded.
        inputs: the files it read, each with its SHA-256 at the time.
        commit: of the repository; None outside a checkout. `dirty`: with uncommitted changes.
        gpu: the name of the GPU it ran on, if any.
        layout: of the library it ran with (`notes.LAYOUT`); None before layouts had numbers.
        sources: data that the run took from elsewhere, as 01_data_prep records it.
    """

    run_id: str
    params: Mapping[str, Any]
    inputs: Mapping[str, str]
    commit: str | None
    dirty: bool | None
    gpu: str | None
    layout: int | None
    sources: tuple[Mapping[str, Any], ...] = ()

    @property
    def file(self) -> ParameterFile | None:
        """Its parameter file, if the profile still has one."""
        return parameter_file(self.run_id, self.params)


@dataclass(frozen=True)
class ParameterFile:
    """A parameter file beside a run of old: `changed` names the keys that hold another value now."""

    path: Path
    changed: tuple[str, ...]


def origin_of(path: Path) -> Origin | None:
    """The origin of a record file, of a folder or file of a run, or of a run's `summary.json`; None without a note."""
    if paths.meta_path(path).is_file():
        return _read(path.with_suffix(""), store.read_json(paths.meta_path(path)))
    for folder in path.parents:
        if (folder / "summary.json").is_file():
            summary = store.read_json(folder / "summary.json")
            return _read(folder, summary["provenance"], summary.get("sources", []))
    return None


def _read(run: Path, record: Mapping[str, Any], sources: Sequence[Mapping[str, Any]] = ()) -> Origin | None:
    start = max((place for place, part in enumerate(run.parts) if part in MODELS), default=None)
    if start is None:
        return None
    facts = (record["params"], record["inputs"], record["commit"], record["dirty"], record.get("gpu"))
    return Origin("/".join(run.parts[start:]), *facts, record.get("layout"), tuple(sources))


def parameter_file(run_id: str, params: Mapping[str, Any]) -> ParameterFile | None:
    """The parameter file of a run with these values; None where the profile has none of that name.

    Raises:
        ParameterError: the file is not a valid one any more.
    """
    folder, notebook = paths.root() / "params" / str(params.get("profile")), run_id.split("/")[0]
    for path in sorted(folder.glob(f"{notebook}*.yaml")):
        file = config.load_params(path)
        if file.model_copy(update={"seed": params.get("seed", file.seed)}).run_id == run_id:
            values = file.model_dump(mode="json")
            changed = [key for key, value in params.items() if key not in _GIVEN and values.get(key, value) != value]
            return ParameterFile(path, tuple(sorted(changed)))
    return None


def state_of(path: Path, sha256: str) -> State:
    """Does the file or folder on disk have the hash that was recorded?"""
    if not path.exists():
        return "MISSING"
    return "unchanged" if store.file_sha256(path) == sha256 else "CHANGED"


def base_model(record: Path) -> str:
    """The model that a record's policy was made from: a hub id, a folder, or `scratch` for the tiny one.

    Raises:
        MissingArtefactError: the runs before this one have left no summary.
    """
    params = store.read_json(paths.require(paths.meta_path(record), notebook="04_evaluation"))
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
