"""Supervised training: pretraining the tiny base model and fine-tuning a planner on valid tuples.

Both stages are TRL's SFTTrainer on prompt-completion rows with the loss on completion tokens only; they differ in
their rows. The tiny base model learns to write programs, directly and by a named method. Planner SFT adds plans of K
distinct methods (valid tuples), plans of one method, and replays the base model's rows so that nothing is forgotten.
A pretrained model needs no first stage, and learns the tuples and programs of its own that worked (`distil`).
With `gate_steps` the gate's classifier is trained after them; what the gates say of held-out tuples is recorded.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import ParameterError
from cppo_lib.model import policy as models
from cppo_lib.model import tiny
from cppo_lib.reward import gate_quality
from cppo_lib.reward.gate_classifier import TrainedGate, train_classifier
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import sources
from cppo_lib.runs.parameters import PlannerSFT
from cppo_lib.runs.stages import data_prep, gate_records
from cppo_lib.trainer import checkpoints, distil
from cppo_lib.trainer.sft_rows import SFTRow, crossroads_rows

PLAN_REPLAY = 6  # a plan is the hardest thing to learn here: K tokens that must not repeat


def train_planner(cfg: PlannerSFT) -> Path:
    """Make `sft/` (and for `scratch`, before it, `base/`) below `runs/<profile>/02_planner_sft`, last `summary.json`.

    With `gate_steps`, `gate/` comes after it; `gate_decisions.parquet` (`cppo_lib.runs.stages.gate_records`) comes in
    any case. Each finished model is kept when the run is started again, and an unfinished stage continues from its last
    checkpoint. With a LoRA rank, `sft/` and `gate/` hold adapters.

    Raises:
        MissingArtefactError: the corpus or the records to distil are not there.
        ParameterError: a benchmark without a corpus, more methods per plan than the corpus lists, or too few tuples
            for a classifier.
        DatasetError: nothing to distil.
        ModelError: the base model cannot be loaded.
        CPPOError: something cannot be written, as on a full disk; started again, the stage goes on.
    """
    rows, inputs = training_rows(cfg)
    inputs = [*inputs, *(paths.require(file, notebook="01_data_prep") for file in gate_quality.held_out_files(cfg))]
    folder = paths.stage_dir(cfg.profile, "02_planner_sft")
    scratch = cfg.base_model == "scratch"
    commits = {} if scratch else models.commits(paths.policy_source(cfg.profile, cfg.base_model))
    store.resumable_dir(folder, sources.fingerprint(cfg, inputs, commits))
    if store.finished(folder):
        log.info(f"{paths.show(folder)} is finished; delete it to train again")
        return folder
    started = time.perf_counter()
    if scratch and not (folder / "base").is_dir():
        _pretrain(cfg, rows, folder)
    start = str(folder / "base") if scratch else store.policy_source(cfg.profile, cfg.base_model)
    if not (folder / "sft").is_dir():
        model, tokenizer = models.load_policy(start, dtype=models.training_dtype(cfg.lora_rank), trainable=True)
        model = models.with_adapter(model, rank=cfg.lora_rank, seed=cfg.seed)
        replay = PLAN_REPLAY - 1 if cfg.distil_from is None else 0
        plans = [row for row in rows if row.kind == "plan"]
        schedule = Schedule(cfg.sft_steps, cfg.sft_batch, cfg.sft_lr)
        _fit(model, tokenizer, rows + replay * plans, "sft", schedule, cfg, folder)
    if cfg.gate_steps and not (folder / "gate").is_dir():
        # The tiny base model has never read a list of methods; its planner has.
        train_classifier(folder / "sft" if scratch else start, gate_quality.learnt_tuples(cfg, rows), cfg, folder)
    _judge_gates(cfg, rows, folder)
    model, tokenizer = models.load_policy(folder / "sft")
    notes.write_summary(
        folder,
        cfg,
        values={
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "tokens": len(tokenizer),
            "rows": len(rows),
            "prompts": PromptStyle(cfg.prompt_style, tokenizer).record(),
            "wall_s": time.perf_counter() - started,
            "commits": commits,
            "weights": models.weights_type(start, models.training_dtype(cfg.lora_rank)),
        },
        artefacts=[folder / name for name in ("base", "sft", "gate", gate_records.FILE) if (folder / name).exists()],
        inputs=inputs,
    )
    return folder


def _judge_gates(cfg: PlannerSFT, rows: list[SFTRow], folder: Path) -> None:
    """Record what the rules, and the classifier where there is one, say of held-out tuples."""
    if (folder / gate_records.FILE).exists():
        return
    found = gate_quality.held_out_examples(cfg, rows)
    records = gate_quality.decisions(found, "rules", None)
    if cfg.gate_steps:
        scorer = TrainedGate(folder / "gate", cfg.prompt_style)
        records += gate_quality.decisions(
            found, "trained", scorer.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        )
    store.write_parquet(folder / gate_records.FILE, gate_records.frame_of(records))


def training_rows(cfg: PlannerSFT) -> tuple[list[SFTRow], list[Path]]:
    """The supervised rows of planner SFT, and the files they come from. Raises as `train_planner`."""
    # The brief style needs no tokenizer; a pretrained model's own is needed for its chat template.
    scratch = cfg.base_model == "scratch"
    base = None if scratch else store.policy_source(cfg.profile, cfg.base_model)
    style = PromptStyle(cfg.prompt_style, None if base is None else models.load_tokenizer(base))
    if cfg.distil_from is not None:
        records = distil.records_file(cfg)
        problems = data_prep.read_split(cfg.profile, cfg.benchmark, "train")
        return distil.distilled_rows(store.read_parquet(records), problems, style), [records]
    if cfg.benchmark != "crossroads":
        raise ParameterError(
            f"benchmark {cfg.benchmark!r} has no training corpus: name the evaluation to distil in distil_from, or "
            "take benchmark: crossroads"
        )
    path = paths.runs_root() / cfg.profile / "01_data_prep" / cfg.benchmark / "corpus.jsonl"
    corpus = store.read_jsonl(store.checked(paths.require(path, notebook="01_data_prep")))
    longest = min(len(entry["plan"]) for entry in corpus)
    largest = max([cfg.k, *cfg.also_k])
    if largest > longest:
        raise ParameterError(f"k={largest}, but the corpus lists {longest} methods per plan; choose k: {longest}")
    return crossroads_rows(corpus, style, cfg.k, cfg.also_k), [path]


def _pretrain(cfg: PlannerSFT, rows: list[SFTRow], folder: Path) -> None:
    # PlannerSFT has checked that all of these are given for `scratch`.
    assert cfg.vocab_size and cfg.hidden_size and cfg.layers and cfg.heads
    assert cfg.pretrain_steps is not None and cfg.pretrain_batch and cfg.pretrain_lr
    texts = [row.prompt + row.completion for row in rows]
    tokenizer = tiny.build_tokenizer(texts, cfg.vocab_size)
    model = tiny.build_model(tokenizer, hidden_size=cfg.hidden_size, layers=cfg.layers, heads=cfg.heads, seed=cfg.seed)
    programs = [row for row in rows if row.kind in ("direct", "solver")]
    schedule = Schedule(cfg.pretrain_steps, cfg.pretrain_batch, cfg.pretrain_lr)
    _fit(model, tokenizer, programs, "base", schedule, cfg, folder)


class MetricsLog(TrainerCallback):
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
        row = {"stage": self.stage, "step": state.global_step, "loss": float(logs["loss"])}
        row |= {"token_accuracy": float(logs["mean_token_accuracy"])}
        store.append_jsonl(self.path, [row])
        log.info(
            f"{self.stage} step {state.global_step}/{state.max_steps} loss {row['loss']:.3f} "
            f"token accuracy {row['token_accuracy']:.3f}"
        )


@dataclass(frozen=True)
class Schedule:
    """How long a stage trains: optimiser steps, sequences per step, peak learning rate."""

    steps: int
    batch: int
    learning_rate: float


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[SFTRow],
    stage: str,
    schedule: Schedule,
    cfg: PlannerSFT,
    folder: Path,
) -> None:
    """Train on rows and save the model as `folder/stage`, resuming from a checkpoint when there is one."""
    steps = schedule.steps
    begun = folder / "checkpoints" / stage / checkpoints.BEGUN
    args = SFTConfig(
        output_dir=str(begun),
        max_steps=steps,
        per_device_train_batch_size=schedule.batch // cfg.microbatches,
        gradient_accumulation_steps=cfg.microbatches,
        learning_rate=schedule.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=min(20, steps // 10),
        adam_beta2=0.98,
        weight_decay=0.01,
        max_length=None,
        logging_steps=max(1, steps // 20),
        save_steps=max(1, steps // 4),
        seed=cfg.seed,
        gradient_checkpointing=cfg.gradient_checkpointing,
        **models.device_settings(model),
    )
    dataset = Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in rows])
    trainer = SFTTrainer(
        model=model,
        args=models.on_one_gpu(args),
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[MetricsLog(folder / "metrics.jsonl", stage)],
    )
    if steps:
        checkpoints.run(trainer, folder / "metrics.jsonl", stage)
    models.save_policy(model, tokenizer, folder / stage)
    shutil.rmtree(begun.parent, ignore_errors=True)
