"""Training of the gate's classifier (`cppo_lib.reward.gate_classifier`): valid tuples against corrupted ones.

As many of the one as of the other (`cppo_lib.reward.gate_quality.examples`). All weights are trained, or a LoRA adapter
where SFT trains one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from transformers import DataCollatorWithPadding, Trainer, TrainingArguments

from cppo_lib.errors import ModelError
from cppo_lib.model import policy as models
from cppo_lib.reward.gate_classifier import text_of
from cppo_lib.reward.gate_quality import KINDS, examples
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.prompts import PromptStyle, StyleName
from cppo_lib.trainer import sft

BATCH = 32  # tuples per optimiser step


def train_classifier(
    base: str | Path,
    tuples: Sequence[Candidate],
    schedule: sft.Schedule,
    folder: Path,
    *,
    prompt_style: StyleName,
    lora_rank: int,
) -> Path:
    """Train on valid tuples and their corruptions and save the classifier as `folder/gate`, resuming if it was begun.

    Raises:
        ParameterError: too few tuples, or all of one problem.
        ModelError: the base model cannot be loaded or made a classifier of.
        CPPOError: something cannot be written, as on a full disk; started again, the training goes on.
    """
    if (Path(base) / models.ADAPTER).is_file():
        raise ModelError(f"the gate's classifier cannot start from an adapter ({base}): merge it, or set gate_steps: 0")
    model, tokenizer = models.load_classifier(base, dtype=models.training_dtype(lora_rank), seed=schedule.seed)
    model = models.with_adapter(model, rank=lora_rank, seed=schedule.seed, task="SEQ_CLS")
    style, rows = PromptStyle(prompt_style, tokenizer), []
    found = examples(tuples, seed=schedule.seed)
    texts = style.encode([text_of(style, example.candidate) for example in found])
    for example, ids in zip(found, texts, strict=True):
        row = {"input_ids": ids, "labels": [float(example.valid)]}
        rows += [row] * (len(KINDS) if example.valid else 1)  # as many valid as corrupted ones
    trainer = Trainer(
        model=model,
        args=models.on_one_gpu(TrainingArguments(**schedule.arguments(folder, "gate", model, saves=2))),
        train_dataset=Dataset.from_list(rows),
        data_collator=DataCollatorWithPadding(tokenizer),
    )
    sft.train(trainer, model, tokenizer, folder / "gate", folder / "gate_metrics.jsonl")
    return folder / "gate"
