"""The gate's condition (4) by a classifier with weights psi: are all methods of a tuple plausible for the problem?

The profile's base model (for the tiny one its planner) with an output layer of one number reads the planner's prompt
and the tuple, and learns valid tuples (the plans of planner SFT) against corrupted ones
(`cppo_lib.reward.corruptions`), as many of the one as of the other.
All weights are trained, or a LoRA adapter where SFT trains one. During RL it is frozen. Trained by 02_planner_sft.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import torch
from datasets import Dataset
from transformers import (
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from cppo_lib.artefacts import store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import ModelError
from cppo_lib.model import policy as models
from cppo_lib.model.decoding import by_length, padded
from cppo_lib.reward.corruptions import KINDS, examples
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs.parameters import PlannerSFT
from cppo_lib.trainer import checkpoints

STEP = 32  # tuples per optimiser step
BATCH = 64  # tuples scored side by side


class TrainedGate:
    """Scores tuples with a trained classifier; a `gate.Scorer`.

    Args:
        folder: what `train_classifier` has saved.
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


def train_classifier(base: str | Path, tuples: Sequence[Candidate], cfg: PlannerSFT, folder: Path) -> Path:
    """Train on valid tuples and their corruptions and save the classifier as `folder/gate`, resuming if it was begun.

    Raises:
        ParameterError: too few tuples, or all of one problem.
        ModelError: the base model cannot be loaded or made a classifier of.
        CPPOError: something cannot be written, as on a full disk; started again, the training goes on.
    """
    if (Path(base) / models.ADAPTER).is_file():
        raise ModelError(f"the gate's classifier cannot start from an adapter ({base}): merge it, or set gate_steps: 0")
    model, tokenizer = models.load_classifier(base, dtype=models.training_dtype(cfg.lora_rank), seed=cfg.seed)
    model = models.with_adapter(model, rank=cfg.lora_rank, seed=cfg.seed, task="SEQ_CLS")
    style, rows = PromptStyle(cfg.prompt_style, tokenizer), []
    found = examples(tuples, seed=cfg.seed)
    texts = style.encode([text_of(style, example.candidate) for example in found])
    for example, ids in zip(found, texts, strict=True):
        row = {"input_ids": ids, "labels": [float(example.valid)]}
        rows += [row] * (len(KINDS) if example.valid else 1)  # as many valid as corrupted ones
    begun = folder / "checkpoints" / "gate" / checkpoints.BEGUN
    trainer = Trainer(
        model=model,
        args=models.on_one_gpu(_arguments(cfg, begun, model)),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorWithPadding(tokenizer),
        callbacks=[_GateLog(folder / "gate_metrics.jsonl")],
    )
    checkpoints.run(trainer, folder / "gate_metrics.jsonl")
    models.save_policy(model, tokenizer, folder / "gate")
    shutil.rmtree(begun.parent, ignore_errors=True)
    return folder / "gate"


def _arguments(cfg: PlannerSFT, begun: Path, model: PreTrainedModel) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(begun),
        max_steps=cfg.gate_steps,
        per_device_train_batch_size=max(1, STEP // cfg.microbatches),
        gradient_accumulation_steps=cfg.microbatches,
        learning_rate=cfg.sft_lr,
        lr_scheduler_type="cosine",
        warmup_steps=min(20, cfg.gate_steps // 10),
        adam_beta2=0.98,
        weight_decay=0.01,
        logging_steps=max(1, cfg.gate_steps // 20),
        save_steps=max(1, cfg.gate_steps // 2),
        seed=cfg.seed,
        gradient_checkpointing=cfg.gradient_checkpointing,
        **models.device_settings(model),
    )


class _GateLog(TrainerCallback):
    """Appends one JSON line per logged step and shows it as a progress line."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs and "loss" in logs:
            store.append_jsonl(self.path, [{"step": state.global_step, "loss": float(logs["loss"])}])
            log.info(f"gate step {state.global_step}/{state.max_steps} loss {float(logs['loss']):.3f}")
