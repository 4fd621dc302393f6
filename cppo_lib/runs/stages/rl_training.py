"""One RL run from its parameters: build the trainer, resume if there is something to resume, leave the results.

A run's folder `runs/<profile>/03_rl_training/<arm>.s<seed>/` holds

    metrics.jsonl    one line per optimiser step; the columns are described in `trainer.step_log.METRICS`
    rollouts/        Parquet tables of all attempts of a step, at the first step and at every checkpoint
    checkpoints/     full state (weights, optimiser, random numbers, data order), the last one only (`checkpoints`)
    policy/          the trained policy, written at the end
    summary.json     written last: its presence means that the run is finished

A run that was killed continues from its last checkpoint and, on a CPU, ends with the same bits as one that was not.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import fields
from pathlib import Path

import torch

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.data.problem import ProblemFile
from cppo_lib.errors import MissingArtefactError, ParameterError
from cppo_lib.model import policy as models
from cppo_lib.model.adapters import with_role_adapters
from cppo_lib.reward import plan_following
from cppo_lib.reward.gate_llm import LLMGate
from cppo_lib.reward.gate_rules import THRESHOLD
from cppo_lib.reward.gate_verbaliser import VerbaliserGate
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import dependencies
from cppo_lib.runs.parameters import RLTraining
from cppo_lib.runs.stages import data_prep
from cppo_lib.trainer import checkpoints
from cppo_lib.trainer.cppo_trainer import CPPOTrainer
from cppo_lib.trainer.objective import Objective, grpo_config
from cppo_lib.trainer.step_log import StepLog

TOTALS = ("planner_tokens", "solver_tokens", "programs", "verifier_s", "generate_s", "train_s")
FINAL = ("r_out", "j", "r_plan", "r_solver", "followed", "duplicate_rate")


def train(cfg: RLTraining) -> Path:
    """Run (or continue) one RL arm and return its folder; a finished run is returned as it is.

    Raises:
        MissingArtefactError: problems, start policy or the gate's model are not there.
        ParameterError: parameters that do not fit each other, the benchmark or the machine.
        ModelError: the start policy or the gate's model cannot be loaded, or the first is an adapter of another rank.
        TrainingError: the gradient of a step is not finite.
        CPPOError: something cannot be written, as on a full disk; started again, the run goes on.
        IsolationError: the verifier cannot run programs safely, or too many of a step got no verdict (IE).
    """
    if cfg.engine == "vllm" and not torch.cuda.is_available():
        raise ParameterError("engine: vllm trains on a GPU only, and there is none: set engine: hf")
    problems = data_prep.read_split(cfg.profile, cfg.benchmark, "train")
    start = store.policy_source(cfg.profile, cfg.policy, cfg.seed)
    folder = paths.stage_dir(cfg.profile, "03_rl_training", f"{cfg.arm}.s{cfg.seed}")
    commits = models.commits(start)
    if cfg.gate_model is not None:
        commits |= models.commits(paths.policy_source(cfg.profile, cfg.gate_model, cfg.seed))
    store.resumable_dir(folder, dependencies.fingerprint(cfg, _inputs(cfg), commits))
    if store.finished(folder):
        log.info(f"{paths.show(folder)} is finished; delete it to train again")
        return folder
    dtype = models.training_dtype(cfg.lora_rank)
    model, tokenizer = models.load_policy(start, dtype=dtype, trainable=True)
    adapt = with_role_adapters if cfg.sharing == "base" else models.with_adapter
    model = adapt(model, rank=cfg.lora_rank, seed=cfg.seed)
    style = PromptStyle(cfg.prompt_style, tokenizer)
    short = short_problems(cfg, problems, style)
    # Before TRL's configuration, which may ask that models be split over processes: the gate is each process's own.
    scorer = open_scorer(cfg)
    objective = Objective(**cfg.model_dump(include={field.name for field in fields(Objective)}))
    started = time.perf_counter()
    verifier_opened = plan_following.open_verifier(
        paths.verdicts_path(cfg.profile),
        total_cpu_s=plan_following.TRAINING_CPU_S,
        all_tests=cfg.outcome_reward == "fraction",
    )
    with verifier_opened as verifier:
        args = models.on_one_gpu(
            grpo_config(
                objective,
                output_dir=str(folder / "checkpoints" / checkpoints.BEGUN),
                problems_per_step=cfg.problems_per_step,
                microbatches=cfg.microbatches,
                vllm=cfg.engine == "vllm",
                max_steps=cfg.steps,
                save_steps=cfg.checkpoint_every,
                seed=cfg.seed,
                temperature=cfg.temperature,
                learning_rate=cfg.learning_rate,
                beta=cfg.beta,
                entropy_coef=cfg.entropy_coef,
                gradient_checkpointing=cfg.gradient_checkpointing,
                **models.device_settings(model),
            )
        )
        trainer = CPPOTrainer(
            model=model,
            tokenizer=tokenizer,
            args=args,
            problems=short,
            style=style,
            objective=objective,
            verifier=verifier,
            probe=plan_following.method_probe(cfg.benchmark, verifier),
            scorer=None if scorer is None else scorer.to(args.device),
        )
        trainer.add_callback(StepLog(trainer, folder, cfg.arm, cfg.checkpoint_every))
        checkpoints.run(trainer, folder / "metrics.jsonl")
    models.save_policy(model, tokenizer, folder / "policy")
    rows = store.read_jsonl(folder / "metrics.jsonl")
    last = rows[-10:]
    values = {
        "steps": len(rows),
        "wall_s": time.perf_counter() - started,
        "totals": {key: sum(row[key] for row in rows) for key in TOTALS},
        "last_ten_steps": {key: sum(row[key] for row in last) / len(last) for key in FINAL if last[0][key] is not None},
        "commits": commits,
        "weights": models.weights_type(start, dtype),
        "prompts": style.record(),
        "problems": {
            "drawn_from": len(short),
            "in_split": len(problems),
            "draws": cfg.steps * cfg.problems_per_step,
        },
    }
    artefacts = [folder / "policy", folder / "metrics.jsonl"]
    notes.write_summary(folder, cfg, values=values, artefacts=artefacts, inputs=_inputs(cfg))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder


def open_scorer(cfg: RLTraining) -> VerbaliserGate | LLMGate | None:
    """The frozen model of `gate: trained` or `gate: llm` with its tau, on the CPU; None for `rules`.

    Raises:
        MissingArtefactError: 02b_gate has trained no gate, or 02_planner_sft not made the `gate_model`.
        ParameterError: the gate was refused.
        ModelError: the model cannot be loaded.
    """
    if cfg.gate == "llm":
        assert cfg.gate_model is not None  # RLTraining has checked it
        source = store.policy_source(cfg.profile, cfg.gate_model, cfg.seed)
        return LLMGate(source, THRESHOLD if cfg.tau is None else cfg.tau)
    if cfg.gate == "rules":
        return None
    stage = paths.runs_root() / cfg.profile / "02b_gate"
    summary = store.read_json(paths.require(stage / "summary.json", notebook="02b_gate"))
    if not (stage / "gate").is_dir():
        raise MissingArtefactError(
            f"{paths.show(stage / 'gate')} is missing: gate: trained needs one, so set epochs above 0 and run "
            "notebooks/02b_gate.ipynb again"
        )
    gate = summary["gate"]
    if not (gate["accepted"] or gate["accept_refused"]):
        missed = ", ".join(
            f"its {key.replace('_', ' ')} is {each['is']:.3f} and must be at least {each['least']}"
            for key, each in gate["missed"].items()
        )
        raise ParameterError(
            f"{paths.show(stage / 'gate')} was refused in validation: {missed}; train it on more or better labels, for "
            "more epochs or at another tau, or set accept_refused: true in 02b_gate"
        )
    tau = gate["tau"] if cfg.tau is None else cfg.tau
    return VerbaliserGate(store.checked(stage / "gate"), gate["prompt_style"], gate["max_length"], tau)


def short_problems(cfg: RLTraining, problems: ProblemFile, style: PromptStyle) -> ProblemFile:
    """The problems whose planner prompt has at most `max_prompt_tokens` tokens; says how many those are.

    Raises ParameterError when fewer than `problems_per_step` are left.
    """
    lengths = map(len, style.encode([style.planner(problem, cfg.k) for problem in problems]))
    kept = problems.chosen(index for index, length in enumerate(lengths) if length <= cfg.max_prompt_tokens)
    if len(kept) < cfg.problems_per_step:
        raise ParameterError(
            f"problems_per_step={cfg.problems_per_step}, but the train split has {len(problems)} problems, "
            f"{len(kept)} of them with a planner prompt of at most max_prompt_tokens={cfg.max_prompt_tokens}"
        )
    if len(kept) < len(problems):
        log.info(f"{len(kept)} of {len(problems)} problems have at most {cfg.max_prompt_tokens} prompt tokens")
    return kept


def _inputs(cfg: RLTraining) -> list[Path]:
    """What the run reads of this profile: the training problems and the stages whose models it takes."""
    stages = paths.runs_root() / cfg.profile
    made = ["02_planner_sft"] if cfg.uses_sft else []
    made += ["02b_gate"] if cfg.gate == "trained" else []
    return [stages / "01_data_prep" / cfg.benchmark / "train.jsonl", *(stages / name / "summary.json" for name in made)]
