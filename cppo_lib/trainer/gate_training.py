"""Training of the gate (`cppo_lib.reward.gate_verbaliser`) on labelled tuples (`cppo_lib.reward.gate_records`).

Two-way cross entropy over the logits of the two answers, all weights or a LoRA adapter, validation after each epoch;
the weights of the epoch with the best average precision are kept (Li et al. 2026, authors' code at 8e5ea8a4).
Departure: the learning rate warms up and falls as in planner SFT (`sft.Schedule`); theirs is not said to.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cppo_lib.artefacts import store
from cppo_lib.artefacts.progress import log
from cppo_lib.model import policy as models
from cppo_lib.reward import gate_quality
from cppo_lib.reward.gate_records import Label
from cppo_lib.reward.gate_verbaliser import Verbaliser
from cppo_lib.rollout.prompts import StyleName
from cppo_lib.trainer import checkpoints, sft

METRICS = "gate_metrics.jsonl"


def steps_of(labels: Sequence[Label], batch: int) -> int:
    """Optimiser steps of an epoch."""
    return math.ceil(len(labels) / batch)


def train_gate(
    base: str | Path,
    labels: Sequence[Label],
    validation: Sequence[Label],
    schedule: sft.Schedule,
    folder: Path,
    *,
    epochs: int,
    prompt_style: StyleName,
    max_length: int,
    tau: float,
    lora_rank: int,
) -> Path:
    """Train and save the best epoch's gate as `folder/gate`, resuming if it was begun; `gate_metrics.jsonl` logs it.

    Args:
        base: a causal language model, which reads plain text.
        schedule: `steps` are `epochs` times `steps_of`.
        tau: threshold of the decisions that the log's balanced accuracy, precision and recall are of.

    Raises:
        ModelError: the base model cannot be loaded, its tokenizer has no token for an answer, or `max_length` is too
            small for the question.
        CPPOError: something cannot be written, as on a full disk; started again, the training goes on.
    """
    model, tokenizer = models.load_policy(base, dtype=models.training_dtype(lora_rank), trainable=True)
    model = models.with_adapter(model, rank=lora_rank, seed=schedule.seed)
    verbaliser = Verbaliser(tokenizer, prompt_style, max_length)
    rows = [
        {"input_ids": ids, "labels": int(label.valid)}
        for ids, label in zip(verbaliser.encode([one.candidate for one in labels]), labels, strict=True)
    ]
    trainer = GateTrainer(
        verbaliser,
        model=model,
        args=models.on_one_gpu(TrainingArguments(**schedule.arguments(folder, "gate", model, saves=epochs))),
        train_dataset=Dataset.from_list(rows),
    )
    best = folder / "best"
    trainer.add_callback(sft.LossLog(folder / METRICS, "gate"))
    trainer.add_callback(Validation(verbaliser, validation, schedule.steps // epochs, tau, folder / METRICS, best))
    checkpoints.run(trainer, folder / METRICS, "gate")
    store.place(best, folder / "gate")
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder / "gate"


def best_epoch(metrics: Path) -> dict[str, Any]:
    """The validation row of the epoch that was kept: the first of the highest average precision."""
    return max(_validated(metrics), key=lambda row: row["average_precision"])


def _validated(metrics: Path) -> list[dict[str, Any]]:
    return [row for row in (store.read_jsonl(metrics) if metrics.exists() else []) if "epoch" in row]


class GateTrainer(Trainer):
    """transformers' Trainer with the verbaliser's loss."""

    def __init__(self, verbaliser: Verbaliser, **arguments: Any) -> None:
        self._verbaliser = verbaliser
        super().__init__(data_collator=self._collated, **arguments)
        self.model_accepts_loss_kwargs = False  # it would count tokens and not tuples, the first of which predicts none

    def _collated(self, rows: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
        ids, mask = self._verbaliser.batch([row["input_ids"] for row in rows], torch.device("cpu"))
        return {"input_ids": ids, "attention_mask": mask, "labels": torch.tensor([row["labels"] for row in rows])}

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The mean cross entropy of fail (0) and pass (1); the Trainer takes the mean over micro-batches."""
        logits = self._verbaliser.logits(model, inputs["input_ids"], inputs["attention_mask"])
        return cross_entropy(logits, inputs["labels"])


class Validation(TrainerCallback):
    """After each epoch: scores the validation tuples, logs their measures, saves the model if it is the best so far.

    What was best before is read from the log, which a resumed training cuts at its checkpoint.
    """

    def __init__(
        self, verbaliser: Verbaliser, labels: Sequence[Label], every: int, tau: float, metrics: Path, place: Path
    ) -> None:
        self._verbaliser, self._every, self._tau = verbaliser, every, tau
        self._metrics, self._place = metrics, place
        self._rows = verbaliser.encode([label.candidate for label in labels])
        self._valid = np.array([label.valid for label in labels])

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: Any = None,
        **_: Any,
    ) -> None:
        """Raises CPPOError when the model cannot be written."""
        if state.global_step % self._every:
            return
        model.eval()
        scores = np.array(self._verbaliser.scores(model, self._rows))
        model.train()
        found = gate_quality.measures(self._valid, scores, scores > self._tau)
        before = [row["average_precision"] for row in _validated(self._metrics)]
        epoch = state.global_step // self._every
        store.append_jsonl(self._metrics, [{"stage": "gate", "step": state.global_step, "epoch": epoch, **found}])
        log.info(f"gate epoch {epoch} " + " ".join(f"{key.replace('_', ' ')} {found[key]:.3f}" for key in found))
        if found["average_precision"] > max(before, default=-math.inf):
            models.save_policy(model, self._verbaliser.tokenizer, self._place)
