"""Planner SFT: pretraining the tiny base model, and fine-tuning a planner on valid tuples.

Both are trainings on prompt-completion rows and differ in their rows. The tiny base model learns to write programs,
directly and by a named method. Planner SFT adds plans of K distinct methods (valid tuples), plans of one method, and
replays the base model's rows so that nothing is forgotten. A pretrained model needs no first stage, and learns the
tuples and programs of its own that worked (`cppo_lib.trainer.sft_data`).
"""

from __future__ import annotations

import time
from pathlib import Path

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import ParameterError
from cppo_lib.model import policy as models
from cppo_lib.model import tiny
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import dependencies
from cppo_lib.runs.parameters import PlannerSFT
from cppo_lib.runs.stages import data_prep
from cppo_lib.trainer import sft
from cppo_lib.trainer.gold import gold_rows
from cppo_lib.trainer.sft_data import SFTRow, crossroads_rows, distilled_rows

PLAN_REPLAY = 6  # a plan is the hardest thing to learn here: K tokens that must not repeat


def train_planner(cfg: PlannerSFT) -> Path:
    """Make `sft/` (and for `scratch`, before it, `base/`) below `runs/<profile>/02_planner_sft`, last `summary.json`.

    Each finished model is kept when the run is started again, and an unfinished stage continues from its last
    checkpoint. With a LoRA rank, `sft/` holds an adapter.

    Raises:
        MissingArtefactError: the corpus or the records to distil are not there.
        ParameterError: a benchmark without a corpus, or more methods per plan than the corpus lists.
        DatasetError: nothing to distil.
        ModelError: the base model cannot be loaded.
        CPPOError: something cannot be written, as on a full disk; started again, the stage goes on.
    """
    rows, inputs = training_rows(cfg)
    folder = paths.stage_dir(cfg.profile, "02_planner_sft")
    scratch = cfg.base_model == "scratch"
    commits = {} if scratch else models.commits(paths.policy_source(cfg.profile, cfg.base_model))
    store.resumable_dir(folder, dependencies.fingerprint(cfg, inputs, commits))
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
        schedule = schedule_of(cfg, cfg.sft_steps, cfg.sft_batch, cfg.sft_lr)
        sft.fit(model, tokenizer, rows + replay * plans, schedule, folder, "sft")
    model, tokenizer = models.load_policy(folder / "sft")
    made = [folder / name for name in ("base", "sft")]
    notes.write_summary(
        folder,
        cfg,
        values={
            "parameters": sum(weight.numel() for weight in model.parameters()),
            "tokens": len(tokenizer),
            "rows": len(rows),
            "prompts": PromptStyle(cfg.prompt_style, tokenizer, plan_format=cfg.plan_format).record(),
            "wall_s": time.perf_counter() - started,
            "commits": commits,
            "weights": models.weights_type(start, models.training_dtype(cfg.lora_rank)),
        },
        artefacts=[path for path in made if path.exists()],
        inputs=inputs,
    )
    return folder


def training_rows(cfg: PlannerSFT) -> tuple[list[SFTRow], list[Path]]:
    """The supervised rows of planner SFT, and the files they come from. Raises as `train_planner`."""
    # The brief style needs no tokenizer; a pretrained model's own is needed for its chat template.
    scratch = cfg.base_model == "scratch"
    base = None if scratch else store.policy_source(cfg.profile, cfg.base_model)
    tokenizer = None if base is None else models.load_tokenizer(base)
    style = PromptStyle(cfg.prompt_style, tokenizer, plan_format=cfg.plan_format)
    if cfg.distil_from is not None:
        name = paths.records_name(cfg.benchmark, "train", cfg.distil_from, cfg.seed)
        made = paths.runs_root() / cfg.profile / "04_evaluation" / f"{name}.parquet"
        records = paths.require(made, notebook="04_evaluation")
        problems = data_prep.read_split(cfg.profile, cfg.benchmark, "train")
        return distilled_rows(store.read_parquet(records), problems, style), [records]
    if cfg.gold is not None:
        known = {problem.id for problem in data_prep.stream_split(cfg.profile, cfg.benchmark, "train")}
        return gold_rows(path := paths.root() / cfg.gold, style, cfg.k, known), [path]
    if cfg.benchmark != "crossroads":
        raise ParameterError(
            f"benchmark {cfg.benchmark!r} has no training corpus: name the evaluation to distil in distil_from or a "
            "file of tuples in gold, or take benchmark: crossroads"
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
    schedule = schedule_of(cfg, cfg.pretrain_steps, cfg.pretrain_batch, cfg.pretrain_lr)
    sft.fit(model, tokenizer, programs, schedule, folder, "base")


def schedule_of(cfg: PlannerSFT, steps: int, batch: int, learning_rate: float) -> sft.Schedule:
    """How one of the stage's trainings goes."""
    return sft.Schedule(steps, batch, learning_rate, cfg.microbatches, cfg.gradient_checkpointing, cfg.seed)
