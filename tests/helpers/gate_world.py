"""A small profile for tests of the gates: problems of crossroads, a start policy and a trained gate, in one folder."""

from __future__ import annotations

from pathlib import Path

import small_policy

from cppo_lib.artefacts import paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.reward.gate_quality import examples
from cppo_lib.reward.gate_records import Label, label_of, split
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import config
from cppo_lib.runs.parameters import GateTraining, PlannerSFT
from cppo_lib.trainer import gate_training, sft
from cppo_lib.trainer.sft_data import crossroads_rows, planned_tuples


def planner_sft(profile: str = "smoke", **changes: object) -> PlannerSFT:
    cfg = config.load_params(paths.root() / "params" / profile / "02_planner_sft.yaml", **changes)
    assert isinstance(cfg, PlannerSFT)
    return cfg


def gate_params(profile: str = "smoke", **changes: object) -> GateTraining:
    cfg = config.load_params(paths.root() / "params" / profile / "02b_gate.yaml", **changes)
    assert isinstance(cfg, GateTraining)
    return cfg


def tuples() -> list[Candidate]:
    """Valid tuples of the small world's corpus."""
    rows = crossroads_rows(crossroads.world(*small_policy.WORLD)["corpus"], PromptStyle("brief", None), 4)
    return planned_tuples(rows)


def labels() -> list[Label]:
    """Those tuples and their corruptions, labelled."""
    found = examples(tuples(), seed=0)
    return [label_of(one.candidate, one.valid, None, "catalogue" if one.valid else "corruption") for one in found]


def train_gate(
    base: Path, folder: Path, *, epochs: int = 2, steps: int = 2, lr: float = 5e-3, **changes: object
) -> Path:
    """`folder/gate`: a gate that starts from `base`, trained for so many epochs of so many steps each."""
    learnt, validation = split(labels(), 0)
    batch = -(-len(learnt) // steps)
    schedule = sft.Schedule(epochs * steps, batch, lr, 1, False, 0)
    given = {"prompt_style": "brief", "max_length": 256, "tau": 0.5, "lora_rank": 0} | changes
    return gate_training.train_gate(base, learnt, validation, schedule, folder, epochs=epochs, **given)


def add_gate(stage: Path, base: Path, **gate: object) -> Path:
    """`stage/gate` and a summary, as if 02b_gate had run and accepted it."""
    train_gate(base, stage, epochs=1)
    known = {"accepted": True, "missed": {}, "tau": 0.5, "max_length": 256, "prompt_style": "brief"}
    store.write_json(stage / "summary.json", {"gate": known | {"accept_refused": False} | gate})
    return stage / "gate"


def add_policy(stage: Path) -> None:
    """`stage/sft` and a summary, as if planner SFT had run."""
    small_policy.save(stage / "sft")
    store.write_json(stage / "summary.json", {})
