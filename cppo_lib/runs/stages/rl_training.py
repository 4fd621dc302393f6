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
from cppo_lib.errors import ModelError, ParameterError
from cppo_lib.model import policy as models
from cppo_lib.model.adapters import with_role_adapters
from cppo_lib.reward import plan_following
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import dependencies
from cppo_lib.runs.parameters import RLTraining
from cppo_lib.runs.stages import data_prep
from cppo_lib.runs.stages.rollouts import commits_of, inputs_of, open_scorer, short_problems
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
        ModelError: the start policy or the gate's model cannot be loaded, the first is an adapter of another rank, or
            its chat template begins a thought.
        TrainingError: the gradient of a step is not finite.
        CPPOError: something cannot be written, as on a full disk; started again, the run goes on.
        IsolationError: the verifier cannot run programs safely, or too many of a step got no verdict (IE).
    """
    if cfg.engine == "vllm" and not torch.cuda.is_available():
        raise ParameterError("engine: vllm trains on a GPU only, and there is none: set engine: hf")
    problems = data_prep.read_split(cfg.profile, cfg.benchmark, "train")
    start = store.policy_source(cfg.profile, cfg.policy, cfg.seed)
    folder = paths.stage_dir(cfg.profile, "03_rl_training", f"{cfg.arm}.s{cfg.seed}")
    commits = commits_of(cfg, start)
    store.resumable_dir(folder, dependencies.fingerprint(cfg, inputs_of(cfg), commits))
    if store.finished(folder):
        log.info(f"{paths.show(folder)} is finished; delete it to train again")
        return folder
    dtype = models.training_dtype(cfg.lora_rank)
    # An adapter is trained further as one, or merged where all weights are trained.
    model, tokenizer = models.load_policy(start, dtype=dtype, trainable=cfg.lora_rank > 0)
    if not cfg.lora_rank:
        model.requires_grad_(True)  # merging leaves weights frozen
    adapt = with_role_adapters if cfg.sharing == "base" else models.with_adapter
    model = adapt(model, rank=cfg.lora_rank, seed=cfg.seed)
    style = PromptStyle(cfg.prompt_style, tokenizer, cfg.program_rule, cfg.plan_format)
    if style.record()["thoughts_left_open"]:
        raise ModelError(
            f"the chat template of {cfg.policy!r} begins a thought although it is asked not to, so that limits on "
            "tokens would cut plans and programs before they begin: name a model whose template can leave thoughts out"
        )
    short = short_problems(cfg, problems, style, "problems_per_step")
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
                learning_rate=cfg.learning_rate,
                weight_decay=cfg.weight_decay,
                max_grad_norm=cfg.max_grad_norm or 0.0,  # transformers' word for: not clipped
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
        every, patience = cfg.checkpoint_every, cfg.patience
        log_of_steps = StepLog(trainer, folder, cfg.arm, every, patience=patience, patience_from=cfg.patience_from)
        trainer.add_callback(log_of_steps)
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
    notes.write_summary(folder, cfg, values=values, artefacts=artefacts, inputs=inputs_of(cfg))
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return folder
