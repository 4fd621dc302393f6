"""A small profile for tests of the gates: problems of crossroads, a start policy and a classifier, in one folder."""

from __future__ import annotations

from pathlib import Path

import small_policy

from cppo_lib.artefacts import paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import config
from cppo_lib.runs.parameters import PlannerSFT
from cppo_lib.runs.stages.planner_sft import schedule_of
from cppo_lib.trainer import gate_training
from cppo_lib.trainer.sft_data import crossroads_rows, planned_tuples


def planner_sft(profile: str = "smoke", **changes: object) -> PlannerSFT:
    cfg = config.load_params(paths.root() / "params" / profile / "02_planner_sft.yaml", **changes)
    assert isinstance(cfg, PlannerSFT)
    return cfg


def tuples():
    """Valid tuples of the small world's corpus."""
    rows = crossroads_rows(crossroads.world(*small_policy.WORLD)["corpus"], PromptStyle("brief", None), 4)
    return planned_tuples(rows)


def train_classifier(base: Path, cfg: PlannerSFT, folder: Path) -> Path:
    """`folder/gate`: a classifier that starts from `base`, trained as the stage does."""
    schedule = schedule_of(cfg, cfg.gate_steps, gate_training.BATCH, cfg.sft_lr)
    options = {"prompt_style": cfg.prompt_style, "lora_rank": cfg.lora_rank}
    return gate_training.train_classifier(base, tuples(), schedule, folder, **options)


def add_classifier(stage: Path, steps: int = 4) -> Path:
    """`stage/gate`: a classifier that starts from `stage/sft`."""
    return train_classifier(stage / "sft", planner_sft(gate_steps=steps, sft_lr=5e-3), stage)


def add_policy(stage: Path) -> None:
    """`stage/sft` and a summary, as if planner SFT had run."""
    small_policy.save(stage / "sft")
    store.write_json(stage / "summary.json", {})
