"""Supervised training: pretraining the tiny base model and fine-tuning a planner on valid tuples.

Both stages are TRL's SFTTrainer on prompt-completion rows with the loss on completion tokens only; they differ in
their rows. The base model learns to write programs, directly and by a named method. Planner SFT adds plans of K
distinct methods (valid tuples), plans of one method, and replays the base model's rows so that nothing is forgotten.
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
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint
from trl.trainer.sft_config import SFTConfig
from trl.trainer.sft_trainer import SFTTrainer

from cppo_lib import model as models
from cppo_lib import paths, sources, store
from cppo_lib.benchmarks.crossroads_methods import FAMILIES
from cppo_lib.errors import ParameterError
from cppo_lib.parameters import PlannerSFT
from cppo_lib.problems import Problem, Test
from cppo_lib.prompts import PromptStyle, render_tuple

PLAN_REPLAY = 6  # a plan is the hardest thing to learn here: K tokens that must not repeat


@dataclass(frozen=True)
class SFTRow:
    """One supervised example: `kind` is direct, solver, plan (K methods) or plan1 (one method)."""

    kind: str
    prompt: str
    completion: str


def crossroads_rows(corpus: Sequence[dict[str, Any]], style: PromptStyle, k: int) -> list[SFTRow]:
    """Render corpus rows as supervised examples, four per corpus row, one of each kind.

    Direct programs and one-method plans follow the popularity q of the methods; solver rows name each method
    equally often, so that the solver can follow any of them. Plans list the first k methods of the row's plan, always
    in the order of the family's catalogue: one spelling for each tuple instead of k!, so that a policy gradient tells
    tuples apart and not spellings.
    """
    families = {family.name: family for family in FAMILIES}
    rows = []
    for entry in corpus:
        programs = {method.name: method.program for method in families[entry["family"]].methods}
        problem = Problem("corpus", "crossroads", entry["statement"], (Test("", ""),))
        popular, uniform = entry["popular"], entry["uniform"]
        chosen = [name for name in programs if name in entry["plan"][:k]]
        rows += [
            SFTRow("direct", style.direct(problem), programs[popular]),
            SFTRow("solver", style.solver(problem, uniform), programs[uniform]),
            SFTRow("plan", style.planner(problem, k), render_tuple(chosen)),
            SFTRow("plan1", style.planner(problem, 1), render_tuple([popular])),
        ]
    return rows


def train_planner(cfg: PlannerSFT) -> Path:
    """Make `base/` and `sft/` below `runs/<profile>/02_planner_sft`, and last `summary.json`.

    Each finished model is kept when the run is started again, and an unfinished stage continues from its last
    checkpoint.

    Raises:
        MissingArtefactError: the corpus is not there.
        ParameterError: a benchmark without a corpus, or more methods per plan than the corpus lists.
    """
    rows = _rows(cfg)
    folder = paths.stage_dir(cfg.profile, "02_planner_sft")
    store.resumable_dir(folder, sources.fingerprint(cfg, [_corpus(cfg)]))
    if (folder / "summary.json").exists():
        store.progress(f"{paths.show(folder)} is finished; delete it to train again")
        return folder
    started = time.perf_counter()
    if not (folder / "base").is_dir():
        if cfg.base_model == "scratch":
            _pretrain(cfg, rows, folder)
        else:
            models.save_policy(*models.load_policy(cfg.base_model), folder / "base")
    if not (folder / "sft").is_dir():
        model, tokenizer = models.load_policy(folder / "base", dtype="float32")
        plans = [row for row in rows if row.kind == "plan"]
        _fit(model, tokenizer, rows + (PLAN_REPLAY - 1) * plans, "sft", cfg, folder)
    model, tokenizer = models.load_policy(folder / "sft")
    store.write_summary(
        folder,
        cfg,
        values={
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "tokens": len(tokenizer),
            "rows": len(rows),
            "wall_s": time.perf_counter() - started,
        },
        artefacts=[folder / "base", folder / "sft"],
        inputs=[_corpus(cfg)],
    )
    return folder


def _corpus(cfg: PlannerSFT) -> Path:
    if cfg.benchmark != "crossroads":
        raise ParameterError(
            f"benchmark {cfg.benchmark!r} has no training corpus: planner SFT needs benchmark: crossroads"
        )
    path = paths.runs_root() / cfg.profile / "01_data_prep" / cfg.benchmark / "corpus.jsonl"
    return paths.require(path, notebook="01_data_prep")


def _rows(cfg: PlannerSFT) -> list[SFTRow]:
    corpus = store.read_jsonl(_corpus(cfg))
    longest = min(len(entry["plan"]) for entry in corpus)
    if cfg.k > longest:
        raise ParameterError(f"k={cfg.k}, but the corpus lists {longest} methods per plan; choose k: {longest}")
    # The brief style needs no tokenizer; a pretrained model's own is needed for its chat template.
    tokenizer = None if cfg.base_model == "scratch" else models.load_tokenizer(cfg.base_model)
    return crossroads_rows(corpus, PromptStyle(cfg.prompt_style, tokenizer), cfg.k)


def _pretrain(cfg: PlannerSFT, rows: list[SFTRow], folder: Path) -> None:
    texts = [row.prompt + row.completion for row in rows]
    tokenizer = models.build_tokenizer(texts, cfg.vocab_size)
    model = models.build_model(
        tokenizer, hidden_size=cfg.hidden_size, layers=cfg.layers, heads=cfg.heads, seed=cfg.seed
    )
    programs = [row for row in rows if row.kind in ("direct", "solver")]
    _fit(model, tokenizer, programs, "base", cfg, folder)


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
        store.progress(
            f"{self.stage} step {state.global_step}/{state.max_steps} loss {row['loss']:.3f} "
            f"token accuracy {row['token_accuracy']:.3f}"
        )


def _fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[SFTRow],
    stage: str,
    cfg: PlannerSFT,
    folder: Path,
) -> None:
    """Train on rows and save the model as `folder/stage`, resuming from a checkpoint when there is one."""
    pretraining = stage == "base"
    steps = cfg.pretrain_steps if pretraining else cfg.sft_steps
    checkpoints = folder / "checkpoints" / stage
    gpu = torch.cuda.is_available()
    args = SFTConfig(
        output_dir=str(checkpoints),
        max_steps=steps,
        per_device_train_batch_size=cfg.pretrain_batch if pretraining else cfg.sft_batch,
        learning_rate=cfg.pretrain_lr if pretraining else cfg.sft_lr,
        lr_scheduler_type="cosine",
        warmup_steps=min(20, steps // 10),
        adam_beta2=0.98,
        weight_decay=0.01,
        logging_steps=max(1, steps // 20),
        save_steps=max(1, steps // 4),
        save_total_limit=1,
        seed=cfg.seed,
        bf16=gpu,
        use_cpu=not gpu,
        gradient_checkpointing=False,
        dataloader_pin_memory=gpu,
        disable_tqdm=True,
        report_to=[],
    )
    dataset = Dataset.from_list([{"prompt": row.prompt, "completion": row.completion} for row in rows])
    trainer = SFTTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        processing_class=tokenizer,
        callbacks=[MetricsLog(folder / "metrics.jsonl", stage)],
    )
    trainer.remove_callback(PrinterCallback)  # MetricsLog prints what a reader needs
    if steps:
        checkpoint = get_last_checkpoint(str(checkpoints)) if checkpoints.is_dir() else None
        trainer.train(resume_from_checkpoint=checkpoint)
    models.save_policy(model, tokenizer, folder / stage)
    shutil.rmtree(checkpoints, ignore_errors=True)
