"""Supervised training on prompt-completion rows: TRL's SFTTrainer with the loss on completion tokens only."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from cppo_lib.artefacts import store
from cppo_lib.artefacts.progress import log
from cppo_lib.model import policy as models
from cppo_lib.trainer import checkpoints
from cppo_lib.trainer.sft_data import SFTRow


@dataclass(frozen=True)
class Schedule:
    """How a supervised training goes: a short warm-up to the peak learning rate, then a cosine.

    Attributes:
        steps: optimiser steps, of `batch` sequences each.
        microbatches: forward-backward passes per step.
        seed: of the order of the rows.
    """

    steps: int
    batch: int
    learning_rate: float
    microbatches: int
    gradient_checkpointing: bool
    seed: int

    def arguments(self, folder: Path, name: str, model: PreTrainedModel, *, saves: int) -> dict[str, Any]:
        """Those of transformers' trainers, for a training of `folder/name` with so many checkpoints."""
        return dict(
            output_dir=str(folder / "checkpoints" / name / checkpoints.BEGUN),
            max_steps=self.steps,
            per_device_train_batch_size=max(1, self.batch // self.microbatches),
            gradient_accumulation_steps=self.microbatches,
            learning_rate=self.learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=min(20, self.steps // 10),
            adam_beta2=0.98,
            weight_decay=0.01,
            logging_steps=max(1, self.steps // 20),
            save_steps=max(1, self.steps // saves),
            seed=self.seed,
            gradient_checkpointing=self.gradient_checkpointing,
            **models.device_settings(model),
        )


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[SFTRow],
    schedule: Schedule,
    folder: Path,
    name: str,
) -> None:
    """Train on rows and save the model as `folder/name`, resuming from a checkpoint when there is one."""
    trainer = SFTTrainer(
        model=model,
        args=models.on_one_gpu(SFTConfig(max_length=None, **schedule.arguments(folder, name, model, saves=4))),
        train_dataset=Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in rows]),
        processing_class=tokenizer,
    )
    train(trainer, model, tokenizer, folder / name, folder / "metrics.jsonl")


def train(
    trainer: Trainer, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, place: Path, metrics: Path
) -> None:
    """Run the supervised trainer of a model to its end, resuming from a checkpoint, and save the model at `place`."""
    trainer.add_callback(LossLog(metrics, place.name))
    if trainer.args.max_steps:
        checkpoints.run(trainer, metrics, place.name)
    models.save_policy(model, tokenizer, place)
    shutil.rmtree(Path(str(trainer.args.output_dir)).parent, ignore_errors=True)


class LossLog(TrainerCallback):
    """Appends one JSON line per logged step and shows it as a progress line."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage = path, stage

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return
        row = {"loss": float(logs["loss"])}
        if "mean_token_accuracy" in logs:
            row["token_accuracy"] = float(logs["mean_token_accuracy"])
        store.append_jsonl(self.path, [{"stage": self.stage, "step": state.global_step, **row}])
        shown = " ".join(f"{key.replace('_', ' ')} {value:.3f}" for key, value in row.items())
        log.info(f"{self.stage} step {state.global_step}/{state.max_steps} {shown}")
