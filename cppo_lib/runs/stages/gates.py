"""The gate that a training run asks for: which frozen model, if any, decides its condition (4)."""

from __future__ import annotations

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import MissingArtefactError
from cppo_lib.model import policy as models
from cppo_lib.reward.gate_classifier import TrainedGate
from cppo_lib.reward.gate_llm import LLMGate
from cppo_lib.runs.parameters import RLTraining


def commits(cfg: RLTraining) -> dict[str, str]:
    """The commits of the hub models of `gate: llm`. Raises as `open_scorer`."""
    if cfg.gate_model is None:
        return {}
    return models.commits(paths.policy_source(cfg.profile, cfg.gate_model, cfg.seed))


def open_scorer(cfg: RLTraining) -> TrainedGate | LLMGate | None:
    """The model of `gate: trained` or `gate: llm`, on the CPU; None for `rules`.

    Raises:
        MissingArtefactError: 02_planner_sft has trained no classifier, or not made the `gate_model`.
        ModelError: the model cannot be loaded.
    """
    if cfg.gate == "llm":
        assert cfg.gate_model is not None  # RLTraining has checked it
        return LLMGate(store.policy_source(cfg.profile, cfg.gate_model, cfg.seed))
    if cfg.gate == "rules":
        return None
    stage = paths.runs_root() / cfg.profile / "02_planner_sft"
    paths.require(stage / "summary.json", notebook="02_planner_sft")
    if not (stage / "gate").is_dir():
        raise MissingArtefactError(
            f"{paths.show(stage / 'gate')} is missing: gate: trained needs a classifier, so set gate_steps above 0 and "
            "run notebooks/02_planner_sft.ipynb again"
        )
    return TrainedGate(store.checked(stage / "gate"), cfg.prompt_style)
