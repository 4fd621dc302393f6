"""The gate J_psi: labelled tuples, training, acceptance, and what it says of tuples that it has not learnt from.

The folder `runs/<profile>/02b_gate/` holds

    labels.jsonl             the labels that were made here (`cppo_lib.reward.gate_records`); none with a file of labels
    gate/                    the model of the best epoch; gate_metrics.jsonl logs the losses and validations
    gate_decisions.parquet   decisions on tuples to be tested on, and gate_outcomes.parquet, where planner SFT was
                             evaluated, scores beside what its solver achieved (`cppo_lib.reward.gate_quality`)
    summary.json             written last, with `gate`: was it accepted, which measures missed their least value

A gate is accepted if its validation reaches AUC, balanced accuracy, precision and recall (`min_auc` and so on; Li et
al. 2026, authors' code at 8e5ea8a4). One that is refused is kept, and 03_rl_training does not train with it.

    python -m cppo_lib.runs.stages.gate_training ask --profile laptop --gate-model Qwen/Qwen2.5-Coder-0.5B-Instruct
    python -m cppo_lib.runs.stages.gate_training label --profile laptop --gate-model MODEL --out labels.jsonl

The first asks a chat model about a profile's held-out tuples, for its row in the table of gates (T8): it writes
`gate_decisions.<model>.parquet` beside the stage's own decisions, and a new run of the stage takes it away. The second
lets it label the tuples that planner SFT learns and their corruptions, for the parameter `labels`. Both cost minutes,
so no run of the series does it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import CPPOError, ParameterError
from cppo_lib.model import open_engine
from cppo_lib.model import policy as models
from cppo_lib.reward import gate_quality, gate_records
from cppo_lib.reward.gate_llm import LLMGate
from cppo_lib.reward.gate_quality import Example
from cppo_lib.reward.gate_records import CORRUPTION, Label, label_of
from cppo_lib.reward.gate_rules import THRESHOLD, Candidate, Scorer
from cppo_lib.reward.gate_verbaliser import VerbaliserGate
from cppo_lib.reward.plan_following import violation
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import config, dependencies
from cppo_lib.runs.parameters import FROZEN, GateTraining, PlannerSFT
from cppo_lib.runs.stages import data_prep, planner_sft
from cppo_lib.trainer import gate_training, sft
from cppo_lib.trainer.sft_data import planned_tuples

NOTEBOOK = "02b_gate"
LABELS = "labels.jsonl"
VIOLATIONS = {
    "repeated": "harmful duplicate",
    "paraphrased": "harmful duplicate",
    "other_problem": "wrong task",
    "garbled": "filler",
}
"""The corruptions of `gate_quality` in the rubric's words."""


@dataclass(frozen=True)
class Material:
    """What a gate is made of: labels to learn from, tuples to be tested on, and the files that both come from."""

    labels: list[Label]
    held_out: list[Example]
    inputs: list[Path]


def train(cfg: GateTraining) -> Path:
    """Train the gate (or go on with it), say whether it is accepted, and return its folder.

    Raises:
        MissingArtefactError: problems, planner SFT or the base model are not there.
        DatasetError: labels that cannot be used, with file and line; too few problems with both classes.
        ParameterError: tuples of one method, or of one problem.
        ModelError: the base model cannot be loaded or has no token for an answer.
        CPPOError: something cannot be written, as on a full disk; started again, the stage goes on.
    """
    folder, start = paths.stage_dir(cfg.profile, NOTEBOOK), None
    commits: dict[str, str] = {}
    if cfg.epochs:
        start = store.policy_source(cfg.profile, cfg.base_model)
        commits = models.commits(start)
    evaluated = _evaluations(cfg)
    inputs = [*_inputs(cfg), *evaluated]
    store.resumable_dir(folder, dependencies.fingerprint(cfg, inputs, commits))
    if store.finished(folder):
        log.info(f"{paths.show(folder)} is finished; delete it to train again")
        return folder
    started = time.perf_counter()
    found = material(cfg)
    values: dict[str, Any] = {"commits": commits, "labels": len(found.labels)}
    if start is not None:
        labels, validation = gate_records.split(found.labels, cfg.seed)
        if cfg.labels is None and not (folder / LABELS).exists():
            gate_records.write_labels(folder / LABELS, found.labels)
        if not (folder / "gate").is_dir():
            _train(cfg, start, labels, validation, folder)
        values["gate"] = verdict(cfg, gate_training.best_epoch(folder / gate_training.METRICS))
        values["rows"] = {"train": len(labels), "validation": len(validation)}
        log.info(f"gate {sentence(values['gate'])}")
    _record(cfg, found.held_out, evaluated, folder)
    values["wall_s"] = time.perf_counter() - started
    made = [folder / name for name in (LABELS, "gate", gate_quality.RECORDS, gate_quality.OUTCOMES)]
    notes.write_summary(folder, cfg, values=values, artefacts=[path for path in made if path.exists()], inputs=inputs)
    return folder


def _train(cfg: GateTraining, start: str, labels: list[Label], validation: list[Label], folder: Path) -> None:
    steps = cfg.epochs * gate_training.steps_of(labels, cfg.batch)
    schedule = sft.Schedule(steps, cfg.batch, cfg.learning_rate, cfg.microbatches, cfg.gradient_checkpointing, cfg.seed)
    options = cfg.model_dump(include={"epochs", "prompt_style", "max_length", "tau", "lora_rank"})
    gate_training.train_gate(start, labels, validation, schedule, folder, **options)


def verdict(cfg: GateTraining, best: dict[str, Any]) -> dict[str, Any]:
    """What the summary says of a gate: how to ask it, its validation, and which measures missed their least value."""
    missed = {key: {"is": best[key], "least": least} for key, least in cfg.least.items() if not best[key] >= least}
    return {
        "accepted": not missed,
        "missed": missed,
        "validation": {key: best[key] for key in ("epoch", *gate_quality.MEASURES)},
        **cfg.model_dump(include={"tau", "max_length", "prompt_style", "accept_refused"}),
    }


def sentence(gate: dict[str, Any]) -> str:
    """A verdict in words."""
    if gate["accepted"]:
        return "accepted"
    missed = gate["missed"].items()
    return "refused: " + "; ".join(f"{key.replace('_', ' ')} {x['is']:.3f}, at least {x['least']}" for key, x in missed)


# --- labels -------------------------------------------------------------------------------------


def material(cfg: GateTraining) -> Material:
    """Labels and tuples to be tested on. Raises as `train`."""
    if cfg.labels is not None:
        labels = gate_records.read_labels(paths.root() / cfg.labels, cfg.k, _known(cfg))
        _, validation = gate_records.split(labels, cfg.seed)
        kinds = ["valid" if label.valid else label.violation or "invalid" for label in validation]
        held = [Example(label.candidate, kind) for label, kind in zip(validation, kinds, strict=True)]
        return Material(labels, held, _inputs(cfg))
    planner, learnt, held_out = _tuples(cfg)
    labels = []
    if cfg.epochs:
        source = "catalogue" if cfg.benchmark == "crossroads" else "distilled"
        for example in gate_quality.examples(learnt, seed=cfg.seed):
            wrong = VIOLATIONS.get(example.kind)
            labels.append(label_of(example.candidate, example.valid, wrong, source if example.valid else CORRUPTION))
        labels += _sampled(cfg, planner, learnt)
        labels = gate_records.usable(labels, LABELS)
    return Material(labels, held_out, _inputs(cfg))


def _tuples(cfg: GateTraining) -> tuple[PlannerSFT, list[Candidate], list[Example]]:
    """Planner SFT's parameters and valid tuples, and tuples to be tested on: none where nothing can be made of them."""
    planner = _planner(cfg.profile)
    learnt = planned_tuples(planner_sft.training_rows(planner)[0], planner.plan_format)
    if cfg.benchmark == "crossroads":
        dev = data_prep.read_split(cfg.profile, cfg.benchmark, "dev")
        held = gate_quality.catalogue_tuples(dev, cfg.k, cfg.seed)
    else:
        learnt, held = gate_quality.kept_apart(learnt)
    learnt = [one for one in learnt if len(one.methods) == cfg.k]
    enough = cfg.k > 1 and len({gate_quality.group_of(one.problem) for one in held}) > 1
    return planner, learnt, gate_quality.examples(held, seed=cfg.seed, held_out=True) if enough else []


def _planner(profile: str) -> PlannerSFT:
    """The parameters that planner SFT ran with."""
    summary = store.read_json(paths.require(_summary(profile, "02_planner_sft"), notebook="02_planner_sft"))
    params = config.validate(PlannerSFT, summary["provenance"]["params"], where=f"{profile}/02_planner_sft")
    assert isinstance(params, PlannerSFT)
    return params


def _sampled(cfg: GateTraining, planner: PlannerSFT, learnt: Sequence[Candidate]) -> list[Label]:
    """Plans of the SFT planner at temperature 1, labelled by crossroads' truth; what cannot be read is left out."""
    if not cfg.sampled:
        return []
    source = store.policy_source(cfg.profile, "sft")
    problems = [one.problem for one in learnt]
    with open_engine("hf", source, temperature=1.0, top_p=1.0, batch_size=256, seed=cfg.seed) as (engine, tokenizer):
        style = PromptStyle(planner.prompt_style, tokenizer, plan_format=planner.plan_format)
        longest = max(map(len, style.encode([style.plan(one.methods) for one in learnt])))
        asked = style.encode([style.planner(problem, cfg.k) for problem in problems])
        replies = engine.generate([ids for ids in asked for _ in range(cfg.sampled)], longest + 1)
    plans = [style.read_tuple(text, cfg.k) for text in style.decode([reply.ids for reply in replies])]
    labels = []
    for place, plan in enumerate(plans):
        if plan.complete:
            problem = problems[place // cfg.sampled]
            wrong = violation(problem, plan.methods)
            labels.append(label_of(Candidate(problem, plan.methods), not wrong, wrong or None, "sampled"))
    return labels


def _known(cfg: GateTraining) -> set[str]:
    """Ids of the problems that a gate may learn from: those of the training split and, in crossroads, of the corpus."""
    known = {problem.id for problem in data_prep.stream_split(cfg.profile, cfg.benchmark, "train")}
    if cfg.benchmark == "crossroads":
        known |= {row.problem.id for row in planner_sft.training_rows(_planner(cfg.profile))[0]}
    return known


# --- decisions ----------------------------------------------------------------------------------


def _record(cfg: GateTraining, held_out: Sequence[Example], evaluated: Sequence[Path], folder: Path) -> None:
    """Record what the rules, and the gate where one was trained, say of held-out and of evaluated tuples."""
    gates: dict[str, Scorer | None] = {"rules": None}
    if cfg.epochs:
        gate = VerbaliserGate(folder / "gate", cfg.prompt_style, cfg.max_length, cfg.tau)
        gates["trained"] = gate.to(_device())
    records = [row for name, scorer in gates.items() for row in gate_quality.decisions(held_out, name, scorer)]
    store.write_parquet(folder / gate_quality.RECORDS, gate_quality.frame_of(records))
    if evaluated:
        outcomes = pd.concat([_outcomes(cfg.profile, path, gates) for path in evaluated], ignore_index=True)
        store.write_parquet(folder / gate_quality.OUTCOMES, outcomes)


def _evaluations(cfg: GateTraining) -> list[Path]:
    """Recorded evaluations of planner SFT, whose solver is frozen, on problems that it was not trained on."""
    folder = paths.runs_root() / cfg.profile / "04_evaluation"
    files = sorted(folder.glob(f"*.*.{FROZEN}.s{cfg.seed}.parquet"))
    return [path for path in files if path.name.split(".")[1] != "train"]


def _outcomes(profile: str, path: Path, gates: dict[str, Scorer | None]) -> pd.DataFrame:
    """Each gate's score of the recorded tuples beside what came of them."""
    attempts = store.read_parquet(store.checked(path))
    benchmark, split = path.name.split(".")[:2]
    problems = {problem.id: problem for problem in data_prep.stream_split(profile, benchmark, split)}
    slots = attempts.dropna(subset=["valid"]).sort_values("slot").groupby(["problem_id", "tuple_index"], sort=True)
    tuples = slots.agg(methods=("strategy", tuple), valid=("valid", "all"), passed=("passed", "any")).reset_index()
    passed_rules = tuples[tuples["valid"]]
    asked = [Candidate(problems[name], methods) for name, methods in passed_rules[["problem_id", "methods"]].to_numpy()]
    found = []
    for gate, scorer in gates.items():
        scored = tuples.assign(benchmark=benchmark, split=split, gate=gate, score=0.0)
        scored.loc[tuples["valid"], "score"] = 1.0 if scorer is None else scorer.scores(asked)
        found.append(scored.drop(columns=["methods", "valid"]))
    return pd.concat(found)


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _summary(profile: str, stage: str) -> Path:
    return paths.runs_root() / profile / stage / "summary.json"


def _inputs(cfg: GateTraining) -> list[Path]:
    """What the labels, the start model and the tuples to be tested on come from."""
    data = paths.runs_root() / cfg.profile / "01_data_prep" / cfg.benchmark
    made = cfg.labels is None or cfg.benchmark == "crossroads" or cfg.base_model in paths.MADE_POLICIES
    found = [] if cfg.labels is None else [paths.root() / cfg.labels]
    found += [paths.require(_summary(cfg.profile, "02_planner_sft"), notebook="02_planner_sft")] if made else []
    split = "dev" if cfg.benchmark == "crossroads" and cfg.labels is None else "train"
    return [*found, data / f"{split}.jsonl"]


# --- the command line ---------------------------------------------------------------------------


def ask_model(cfg: GateTraining, gate_model: str, limit: int) -> Path:
    """Write the decisions of a chat model on the profile's held-out tuples; returns the file.

    Args:
        limit: first problems to use; 0: all.

    Raises:
        ParameterError: the profile has no held-out tuples.
        MissingArtefactError, ModelError: 02b_gate has not finished, or the model cannot be asked.
    """
    summary = paths.require(_summary(cfg.profile, NOTEBOOK), notebook=NOTEBOOK)
    found = material(cfg)
    if not found.held_out:
        raise ParameterError(f"profile {cfg.profile} has no held-out tuples: distil more tuples, of several problems")
    kept = list(dict.fromkeys(example.candidate.problem.id for example in found.held_out))[: limit or None]
    chosen = [example for example in found.held_out if example.candidate.problem.id in kept]
    source = store.policy_source(cfg.profile, gate_model, cfg.seed)
    name = Path(gate_model).name
    records = gate_quality.decisions(chosen, f"llm ({name})", LLMGate(source).to(_device()))
    path = summary.with_name(f"gate_decisions.{name}.parquet")
    store.write_parquet(path, gate_quality.frame_of(records))
    _note(path, cfg, gate_model, source, [*found.inputs, summary])
    return path


def label(cfg: GateTraining, gate_model: str, limit: int, out: Path) -> Path:
    """Write the tuples that planner SFT learns and their corruptions, as a chat model labels them; returns the file.

    The confidence of a label is |2 p - 1| for the model's score p: 0 where it could not decide.

    Raises:
        MissingArtefactError, ModelError: 02_planner_sft has not finished, or the model cannot be asked.
    """
    found = gate_quality.examples(_tuples(cfg)[1], seed=cfg.seed)
    kept = list(dict.fromkeys(example.candidate.problem.id for example in found))[: limit or None]
    found = [example for example in found if example.candidate.problem.id in kept]
    source = store.policy_source(cfg.profile, gate_model, cfg.seed)
    scores = LLMGate(source).to(_device()).scores([example.candidate for example in found])
    judge = f"judge {Path(gate_model).name}"
    gate_records.write_labels(
        out,
        (
            label_of(one.candidate, p > THRESHOLD, None, judge if one.valid else CORRUPTION, abs(2 * p - 1))
            for one, p in zip(found, scores, strict=True)
        ),
    )
    _note(out, cfg, gate_model, source, _inputs(cfg))
    return out


def _note(path: Path, cfg: GateTraining, gate_model: str, source: str, inputs: list[Path]) -> None:
    computed = models.weights_type(source, models.sampling_dtype())
    notes.write_meta(path, cfg, inputs, gate_model=gate_model, commits=models.commits(source), weights=computed)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when all is well, 1 after a one-line error on stderr."""
    parser = argparse.ArgumentParser(prog="python -m cppo_lib.runs.stages.gate_training")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, text in (
        ("ask", "ask a chat model about the profile's held-out tuples"),
        ("label", "let a chat model label tuples, for the parameter labels"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("--profile", required=True)
        command.add_argument("--gate-model", required=True, help="base, sft, a model folder or a hub id")
        command.add_argument("--limit", type=int, default=0, help="first problems to use; 0: all")
        if name == "label":
            command.add_argument("--out", type=Path, required=True, help="the file of labels")
    options = parser.parse_args(arguments)
    try:
        cfg = config.load_params(paths.root() / "params" / options.profile / f"{NOTEBOOK}.yaml")
        assert isinstance(cfg, GateTraining)
        if options.command == "label":
            path = label(cfg, options.gate_model, options.limit, options.out)
        else:
            path = ask_model(cfg, options.gate_model, options.limit)
            print(gate_quality.rates(store.read_parquet(path)).round(3).to_string())
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(paths.show(path))
    return 0


if __name__ == "__main__":
    sys.exit(main())
