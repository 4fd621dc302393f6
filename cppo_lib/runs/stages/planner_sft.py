"""Planner SFT: pretraining the tiny base model, and fine-tuning a planner on valid tuples.

Both are trainings on prompt-completion rows and differ in their rows. The tiny base model learns to write programs,
directly and by a named method. Planner SFT adds plans of K distinct methods (valid tuples), plans of one method, and
replays the base model's rows so that nothing is forgotten. A pretrained model needs no first stage, and learns the
tuples and programs of its own that worked (`cppo_lib.trainer.sft_data`). With `gate_steps` the gate's classifier is
trained after them; what the gates say of held-out tuples is recorded.

    python -m cppo_lib.runs.stages.planner_sft --profile laptop --gate-model Qwen/Qwen2.5-Coder-0.5B-Instruct

asks a chat model about a profile's held-out tuples, for its row in the table of gates (T8). It costs minutes where the
stage's own gates cost nothing, so no run of the series does it. Writes `gate_decisions.<model>.parquet` beside the
stage's own decisions; a new run of the stage takes it away.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import CPPOError, ParameterError
from cppo_lib.model import policy as models
from cppo_lib.model import tiny
from cppo_lib.reward import gate_quality
from cppo_lib.reward.gate_classifier import TrainedGate
from cppo_lib.reward.gate_llm import LLMGate
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import config, dependencies
from cppo_lib.runs.parameters import PlannerSFT
from cppo_lib.runs.stages import data_prep
from cppo_lib.trainer import sft
from cppo_lib.trainer.gate_training import BATCH, train_classifier
from cppo_lib.trainer.sft_data import SFTRow, crossroads_rows, distilled_rows, planned_tuples

PLAN_REPLAY = 6  # a plan is the hardest thing to learn here: K tokens that must not repeat


def train_planner(cfg: PlannerSFT) -> Path:
    """Make `sft/` (and for `scratch`, before it, `base/`) below `runs/<profile>/02_planner_sft`, last `summary.json`.

    With `gate_steps`, `gate/` comes after it; `gate_decisions.parquet` (`cppo_lib.reward.gate_quality`) comes in any
    case. Each finished model is kept when the run is started again, and an unfinished stage continues from its last
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
    learnt, held_out, used = gate_tuples(cfg, rows)
    inputs += used
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
    if cfg.gate_steps and not (folder / "gate").is_dir():
        train_classifier(
            folder / "sft" if scratch else start,  # the tiny base model has never read a list of methods
            learnt,
            schedule_of(cfg, cfg.gate_steps, BATCH, cfg.sft_lr),
            folder,
            prompt_style=cfg.prompt_style,
            lora_rank=cfg.lora_rank,
        )
    if not (folder / gate_quality.RECORDS).exists():
        _record_gates(cfg, held_out, folder)
    model, tokenizer = models.load_policy(folder / "sft")
    made = [folder / name for name in ("base", "sft", "gate", gate_quality.RECORDS)]
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
    schedule = schedule_of(cfg, cfg.pretrain_steps, cfg.pretrain_batch, cfg.pretrain_lr)
    sft.fit(model, tokenizer, programs, schedule, folder, "base")


def schedule_of(cfg: PlannerSFT, steps: int, batch: int, learning_rate: float) -> sft.Schedule:
    """How one of the stage's trainings goes."""
    return sft.Schedule(steps, batch, learning_rate, cfg.microbatches, cfg.gradient_checkpointing, cfg.seed)


# --- gates --------------------------------------------------------------------------------------


def gate_tuples(cfg: PlannerSFT, rows: Sequence[SFTRow]) -> tuple[list[Candidate], list[Candidate], list[Path]]:
    """Valid tuples: those that the classifier may learn from, and others to test gates on; and the files of these.

    Raises:
        MissingArtefactError: the development problems are not there.
    """
    tuples = planned_tuples(rows, cfg.plan_format)
    if cfg.benchmark != "crossroads":
        return *gate_quality.kept_apart(tuples), []
    dev = data_prep.read_split(cfg.profile, cfg.benchmark, "dev")
    files = [data_prep.split_file(cfg.profile, cfg.benchmark, "dev")]
    return tuples, gate_quality.catalogue_tuples(dev, cfg.k, cfg.seed), files


def _held_out(cfg: PlannerSFT, tuples: Sequence[Candidate]) -> list[gate_quality.Example]:
    """Tuples to test gates on, with their corruptions; none where there is nothing to make these of."""
    enough = cfg.k > 1 and len({gate_quality.group_of(one.problem) for one in tuples}) > 1
    return gate_quality.examples(tuples, seed=cfg.seed, held_out=True) if enough else []


def _record_gates(cfg: PlannerSFT, tuples: Sequence[Candidate], folder: Path) -> None:
    """Record what the rules, and the classifier where there is one, say of held-out tuples."""
    found = _held_out(cfg, tuples)
    records = gate_quality.decisions(found, "rules", None)
    if cfg.gate_steps:
        scorer = TrainedGate(folder / "gate", cfg.prompt_style).to(_device())
        records += gate_quality.decisions(found, "trained", scorer)
    store.write_parquet(folder / gate_quality.RECORDS, gate_quality.frame_of(records))


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def ask_model(cfg: PlannerSFT, gate_model: str, limit: int) -> Path:
    """Write the decisions of a chat model on the profile's held-out tuples; returns the file.

    Args:
        limit: first problems to use; 0: all.

    Raises:
        ParameterError: the profile has no held-out tuples.
        MissingArtefactError, ModelError: 02_planner_sft has not finished, or the model cannot be asked.
    """
    summary = paths.require(
        paths.runs_root() / cfg.profile / "02_planner_sft" / "summary.json", notebook="02_planner_sft"
    )
    rows, inputs = training_rows(cfg)
    _, held_out, used = gate_tuples(cfg, rows)
    found = _held_out(cfg, held_out)
    if not found:
        raise ParameterError(f"profile {cfg.profile} has no held-out tuples: distil more tuples, of several problems")
    kept = list(dict.fromkeys(example.candidate.problem.id for example in found))[: limit or None]
    found = [example for example in found if example.candidate.problem.id in kept]
    source = store.policy_source(cfg.profile, gate_model, cfg.seed)
    name = Path(gate_model).name
    records = gate_quality.decisions(found, f"llm ({name})", LLMGate(source).to(_device()))
    path = summary.with_name(f"gate_decisions.{name}.parquet")
    store.write_parquet(path, gate_quality.frame_of(records))
    computed = models.weights_type(source, models.sampling_dtype())
    known = {"gate_model": gate_model, "commits": models.commits(source), "weights": computed}
    notes.write_meta(path, cfg, [*inputs, *used, summary], **known)
    return path


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when all is well, 1 after a one-line error on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m cppo_lib.runs.stages.planner_sft",
        description="Ask a chat model about the profile's held-out tuples.",
    )
    parser.add_argument("--profile", required=True)
    parser.add_argument("--gate-model", required=True, help="base, sft, a model folder or a hub id")
    parser.add_argument("--limit", type=int, default=0, help="first problems to use; 0: all")
    options = parser.parse_args(arguments)
    try:
        cfg = config.load_params(paths.root() / "params" / options.profile / "02_planner_sft.yaml")
        assert isinstance(cfg, PlannerSFT)
        path = ask_model(cfg, options.gate_model, options.limit)
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(gate_quality.rates(store.read_parquet(path)).round(3).to_string())
    print(paths.show(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
