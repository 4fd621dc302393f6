"""Which parameter files a profile has: those in its folder, or those of another profile, with another model.

A folder that holds `profile.yaml` alone is the profile that this names, with its hub ids and model folders replaced:

    like: paper
    model: Qwen/Qwen3.5-4B-Base

So there is one file for each backbone, and what they have in common stands once. Results land in `runs/<profile>/`.
"""

from __future__ import annotations

from pathlib import Path

from cppo_lib.artefacts import paths
from cppo_lib.errors import ParameterError
from cppo_lib.runs import config

FILE = "profile.yaml"
KEYS = ("like", "model")


def parameter_files(profile: str) -> tuple[list[Path], str]:
    """The parameter files of a profile, in order, and the model that replaces theirs; empty for none.

    Raises:
        ParameterError: no such profile, or a `profile.yaml` that cannot be read.
    """
    folder = paths.root() / "params" / profile
    own = _files(folder)
    if not (folder / FILE).is_file():
        if not own:
            raise ParameterError(
                f"params/{profile} holds no parameter files to run; choose PROFILE from {', '.join(known())}"
            )
        return own, ""
    if own:
        raise ParameterError(f"{paths.show(folder / FILE)}: {own[0].name} stands beside it; delete one of them")
    like, model = read(folder / FILE)
    return _files(folder.parent / like), model


def read(path: Path) -> tuple[str, str]:
    """The profile that a `profile.yaml` is like, and its model. Raises ParameterError."""
    values = config.read_yaml(path)
    for key in (*KEYS, *values):
        if key not in KEYS or not isinstance(values.get(key), str) or not values[key]:
            raise ParameterError(
                f"{paths.show(path)}: key {key!r}; a profile.yaml has the keys like and model, as text"
            )
    like = values["like"]
    if not _files(path.parent.parent / like):
        choice = ", ".join(name for name in known() if name != path.parent.name)
        raise ParameterError(f"{paths.show(path)}: key 'like' is {like!r}; choose from {choice}")
    return like, values["model"]


def known() -> list[str]:
    """The profiles that can be run."""
    return sorted(
        {path.parent.name for name in ("0*.yaml", FILE) for path in (paths.root() / "params").glob(f"*/{name}")}
    )


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.yaml")) if path.name not in (config.PUBLISHED, FILE)]
