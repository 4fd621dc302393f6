"""A tiny policy for tests of training, fitted to a few programs and plans, and a trainer with rewards for any text."""

from __future__ import annotations

from pathlib import Path

import torch
from fitting import fit

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.model import policy as model
from cppo_lib.model import tiny
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.trainer.cppo_trainer import CPPOTrainer
from cppo_lib.trainer.sft_data import crossroads_rows

WORLD = (3, 1, 1, 6, 1, 0)  # arguments of crossroads.world


def save(folder: Path, *, also_k: tuple[int, ...] = (), steps: int = 60) -> Path:
    """Save the policy in `folder`; with `also_k` it has seen plans of those sizes too."""
    rows = crossroads_rows(crossroads.world(*WORLD)["corpus"], PromptStyle("brief", None), 4, also_k)
    tokenizer = tiny.build_tokenizer([row.prompt + row.completion for row in rows], 1000)
    policy = tiny.build_model(tokenizer, hidden_size=32, layers=1, heads=2, seed=0)
    texts = [row.prompt + row.completion + tokenizer.eos_token for row in rows if row.kind != "plan1"]
    fit(policy, tokenizer, texts, steps=steps, batches=4)
    model.save_policy(policy, tokenizer, folder)
    return folder


class Paid(CPPOTrainer):
    """Pays each row for its text: few of this policy's programs pass, and rewards of 0 would move no weight."""

    def _rewards(self, scores):
        return torch.tensor([sum(map(ord, sample.text)) % 7 / 7 for sample in scores.samples])
