"""The gate's condition (4) by a classifier with weights psi: are all methods of a tuple plausible for the problem?

The profile's base model (for the tiny one its planner) with an output layer of one number reads the planner's prompt
and the tuple. 02_planner_sft trains it (`cppo_lib.trainer.gate_training`); during RL it is frozen.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch

from cppo_lib.model import policy as models
from cppo_lib.model.decoding import by_length, padded
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.prompts import PromptStyle

BATCH = 64  # tuples scored side by side


class TrainedGate:
    """Scores tuples with a trained classifier; a `gate_rules.Scorer`.

    Args:
        folder: what `gate_training.train_classifier` has saved.
        style_name: wording of the prompts it was trained with.

    Raises:
        ModelError: the folder does not hold a classifier.
    """

    def __init__(self, folder: Path, style_name: str) -> None:
        model, tokenizer = models.load_classifier(folder)
        self._model: Any = model.eval().requires_grad_(False)
        self._style = PromptStyle("brief" if style_name == "brief" else "instruct", tokenizer)
        self._pad_id = int(tokenizer.pad_token_id)

    def to(self, device: torch.device) -> Self:
        """Move the weights; returns this gate."""
        self._model.to(device)
        return self

    def scores(self, candidates: Sequence[Candidate]) -> list[float]:
        """How likely each tuple is valid; tuples of about one length are read side by side."""
        rows = self._style.encode([text_of(self._style, candidate) for candidate in candidates])
        found = [0.0] * len(rows)
        for batch in by_length(rows, BATCH):
            ids, mask = padded([rows[i] for i in batch], self._pad_id, self._model.device)
            with torch.no_grad():
                logits = self._model(input_ids=ids, attention_mask=mask).logits[:, 0]
            for i, score in zip(batch, logits.float().sigmoid().tolist(), strict=True):
                found[i] = score
        return found


def text_of(style: PromptStyle, candidate: Candidate) -> str:
    """What the classifier reads: the planner's prompt and the tuple as its completion."""
    return style.planner(candidate.problem, len(candidate.methods)) + style.plan(candidate.methods)
