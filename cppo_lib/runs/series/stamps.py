"""Which steps of the series are up to date: by content, never by time stamps.

A step that has run to its end leaves `runs/<profile>/stamps/<step>.json`: its parameters, the commits of the hub models
that these name, and the SHA-256 of its code cells, of the library modules that its notebook imports, of what it read
from earlier steps and of what it left. It is up to date while all of that is still so. Nothing of a step's own is
deleted to run it again: what it has finished it finds, and a table stays until the next one is whole.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.errors import CPPOError
from cppo_lib.runs.dependencies import code_hash, modules_of
from cppo_lib.runs.parameters import Params

if TYPE_CHECKING:
    from cppo_lib.runs.series.plan import Plan, Run

FOLDER = "stamps"


def begun(params: Params, folder: Path, reads: Iterable[str]) -> dict[str, Any]:
    """What a step is about to be made from; `reads` are files of earlier steps, relative to `folder`."""
    return {
        "layout": notes.LAYOUT,
        "params": params.model_dump(mode="json"),
        "sources": _sources(params.notebook, params.benchmark),
        "reads": _hashes(folder, reads),
        "commits": _commits(params),
    }


def models(params: Params) -> list[str]:
    """The models that a step's parameters name, no step makes: hub ids, and folders from the repository's root."""
    named = [getattr(params, key, None) for key in ("base_model", "policy", "planner_policy", "gate_model")]
    own = [
        name for name in named if name and name not in ("scratch", *paths.MADE_POLICIES) and not name.startswith("arm:")
    ]
    return [paths.policy_source(params.profile, name) for name in own]


def _commits(params: Params) -> dict[str, str]:
    if not (names := models(params)):
        return {}
    from cppo_lib.model import hub_models  # takes a second, and most profiles name no model

    return {name: commit for name in names if (commit := hub_models.known_commit(name))}


def finished(stamp: Path, before: dict[str, Any], folder: Path, leaves: Iterable[str]) -> None:
    """Write the stamp of a step that has run to its end. Raises CPPOError when it has not left what it should."""
    hashes = _hashes(folder, leaves)
    if missing := [name for name, value in hashes.items() if value is None]:
        raise CPPOError(f"the notebook ended without writing {', '.join(missing)}")
    store.write_json(stamp, before | {"leaves": hashes})


def pending(plan: Plan) -> dict[str, str]:
    """The steps that are out of date, in the order of the plan, each with the reason in words.

    Raises:
        ParameterError: a notebook is missing.
    """
    found: dict[str, str] = {}
    for name in plan.order:
        run = plan.runs[name]
        first = [before.name for before in plan.before(run) if before.name in found]
        if reasons := _changes(plan, run) + ([f"comes after {', '.join(first)}"] if first else []):
            found[name] = "; ".join(reasons)
    return {name: found[name] for name in plan.runs if name in found}


def _changes(plan: Plan, run: Run) -> list[str]:
    try:
        stamp = store.read_json(plan.folder / run.stamp)
        old, leaves = {**stamp["params"]}, stamp["leaves"]
        files = {**stamp["sources"], **stamp["reads"], **stamp["commits"]}
    except (OSError, CPPOError, KeyError, TypeError):
        return ["it has not run to its end"]
    if stamp.get("layout") != notes.LAYOUT:
        return ["made by another version of the suite, whose code had other addresses: it begins anew"]
    now = begun(run.params, plan.folder, plan.reads(run))
    new, files_now = now["params"], {**now["sources"], **now["reads"], **now["commits"]}
    keys = [key for key in (*new, *old) if new.get(key) != old.get(key)]
    changed = [f"{key} (was {old.get(key)!r}, is {new.get(key)!r})" for key in dict.fromkeys(keys)]
    changed += sorted(name for name in files.keys() | files_now.keys() if files.get(name) != files_now.get(name))
    reasons = [f"changed: {', '.join(changed)}"] if changed else []
    left = _hashes(plan.folder, run.done)
    missing = [name for name in run.done if left[name] is None]
    # An executed notebook is for reading: one that was saved again by hand is no reason to run a step.
    other = [name for name in run.leaves if name not in missing and left[name] != leaves.get(name)]
    reasons += [f"missing: {', '.join(missing)}"] if missing else []
    if not missing and (wrong := store.damage(plan.folder / run.done[0])):
        return [*reasons, wrong]
    return reasons + ([f"not as this step left it: {', '.join(other)}"] if other else [])


@functools.cache
def _sources(notebook: str, benchmark: str) -> dict[str, str]:
    files = {paths.show(path): store.file_sha256(path) for path in modules_of(notebook, benchmark)}
    return {f"code cells of notebooks/{notebook}.ipynb": code_hash(notebook), **files}


def _hashes(folder: Path, names: Iterable[str]) -> dict[str, str | None]:
    return {name: store.file_sha256(folder / name) if (folder / name).is_file() else None for name in names}
