"""One RL run from its parameters: build the trainer, resume if there is something to resume, leave the results.

A run's folder `runs/<profile>/03_rl_training/<arm>.s<seed>/` holds

    metrics.jsonl    one line per optimiser step; the columns are described in `METRICS`
    rollouts/        Parquet tables of all attempts of a step, at the first step and at every checkpoint
    checkpoints/     full state (weights, optimiser, random numbers, data order), the last one only (`checkpoints`)
    policy/          the trained policy, written at the end
    summary.json     written last: its presence means that the run is finished

A run that was killed continues from its last checkpoint and, on a CPU, ends with the same bits as one that was not.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from trl.trainer.grpo_config import GRPOConfig

from cppo_lib.artefacts import paths, store
from cppo_lib.data.problem import ProblemFile
from cppo_lib.errors import ParameterError
from cppo_lib.model import policy as models
from cppo_lib.model.adapters import with_role_adapters
from cppo_lib.reward import plan_following as judging
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import sources
from cppo_lib.runs.parameters import RLTraining
from cppo_lib.runs.stages import data_prep, gates
from cppo_lib.trainer import checkpoints
from cppo_lib.trainer.cppo_trainer import CPPOTrainer
from cppo_lib.trainer.finite import FiniteSteps
from cppo_lib.trainer.objective import Objective

METRICS = {
    "step": "optimiser step, from 1",
    "r_out": "share of members with at least one accepted attempt (direct arms: of blocks of K samples)",
    "j": "share of tuples that pass the gate",
    "j_rules": "share of tuples that pass the gate's rules, whatever its model says of them",
    "gate_precision": "share of accepted tuples that name K different methods that the problem has; null where nobody "
    "knows (all benchmarks but crossroads), or none was accepted",
    "r_plan": "mean planner reward, J * R_out unless `reward` says otherwise",
    "r_solver": "share of accepted attempts, mean r_k",
    "followed": "share of attempts whose program implements the method that the slot was given",
    "duplicate_rate": "share of tuples that the gate refuses for a repeated method",
    "distinct_methods": "share of tuples whose programs implement K different methods, by the judge of methods",
    "distinct_programs": "different programs per member, mean",
    "public_only": "share of attempts that pass all public tests and fail a hidden one; null where a failing program "
    "was not run on every public test",
    "planner_entropy": "entropy of the G plans for a problem, nats, from their counts (at most ln G)",
    "solver_entropy": "entropy of the G * K programs for a problem, nats, from their counts (at most ln G K)",
    "plans_cut": "share of plans that max_plan_tokens cut off, so that methods may be missing",
    "programs_cut": "share of programs that max_program_tokens cut off",
    "rule_k": "k of the advantage rule",
    "loss": "TRL's loss before the step",
    "grad_norm": "gradient norm before clipping",
    "kept_rows": "rows run through the model after merging equal rows and dropping zero advantages",
    "planner_tokens": "planner tokens generated in the step",
    "solver_tokens": "solver tokens generated in the step",
    "programs": "programs judged in the step (G * K per problem)",
    "generate_s": "seconds of generation",
    "verifier_s": "seconds of judging, cache hits included",
    "train_s": "seconds of everything else in the step",
    "wall_s": "seconds of the step",
}


MUCH = 0.1
"""The share of plans or programs cut from which on a progress line says so."""
CUT = {"plans_cut": "max_plan_tokens", "programs_cut": "max_program_tokens"}


class StepLog(TrainerCallback):
    """Writes `metrics.jsonl` and the recorded rollouts, and prints a progress line now and then."""

    def __init__(self, folder: Path, arm: str, every: int) -> None:
        self.folder, self.arm, self.every = folder, arm, every
        self.trainer: CPPOTrainer | None = None
        self._started = self._printed = time.perf_counter()

    def on_step_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._started = time.perf_counter()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        if not logs or "loss" not in logs or not state.is_world_process_zero:
            return
        assert self.trainer is not None  # set right after the trainer is built
        stats = self.trainer.step_stats
        wall = time.perf_counter() - self._started
        values = {
            **stats,
            "step": state.global_step,
            "loss": float(logs["loss"]),
            "grad_norm": float(logs["grad_norm"]),
            "wall_s": wall,
            "train_s": wall - stats["generate_s"] - stats["verifier_s"],
        }
        store.append_jsonl(self.folder / "metrics.jsonl", [{key: values.get(key) for key in METRICS}])
        if state.global_step == 1 or state.global_step % self.every == 0:
            store.write_parquet(
                self.folder / "rollouts" / f"step_{state.global_step:05d}.parquet",
                self.trainer.attempt_rows(),
            )
        if time.perf_counter() - self._printed > 10 or state.global_step in (1, state.max_steps):
            self._printed = time.perf_counter()
            store.progress(self._line(values, state.max_steps))
        if state.global_step == 1:
            self._warn(values)

    def _warn(self, values: dict[str, Any]) -> None:
        """Say which limit on tokens cuts many replies: they are hardly ever paid, and no reward says why."""
        for key, limit in CUT.items():
            if (share := values.get(key) or 0.0) >= MUCH:
                assert self.trainer is not None
                tokens, what = getattr(self.trainer.objective, limit), key.removesuffix("_cut")
                store.progress(f"warning: {share:.0%} of the {what} of step 1 were cut at {limit}={tokens}: raise it")

    def _line(self, values: dict[str, Any], steps: int) -> str:
        shown = ("r_out", "j", "r_plan", "followed", "duplicate_rate", "r_solver")
        parts = [f"{key} {values[key]:.3f}" for key in shown if values.get(key) is not None]
        parts += [f"{key} {values[key]:.3f}" for key in CUT if (values.get(key) or 0.0) >= MUCH]
        return f"{self.arm} step {values['step']}/{steps} {' '.join(parts)} {values['wall_s']:.1f} s"


def objective_of(cfg: RLTraining) -> Objective:
    """The training objective that the parameters describe."""
    return Objective(
        algorithm=cfg.algorithm,
        k=cfg.k,
        group_size=cfg.group_size,
        credit=cfg.credit,
        solver_grouping=cfg.solver_grouping,
        planner_weight=cfg.planner_weight,
        solver_weight=cfg.solver_weight,
        rule_k=cfg.pkpo_k,
        max_plan_tokens=cfg.max_plan_tokens,
        max_program_tokens=cfg.max_program_tokens,
        rule_k_end=cfg.pkpo_k_end,
        reward=cfg.reward,
        outcome_reward=cfg.outcome_reward,
        solver_prompt=cfg.solver_prompt,
    )


def grpo_config(cfg: RLTraining, folder: Path, model: PreTrainedModel) -> GRPOConfig:
    """TRL's configuration of the run.

    Raises:
        ParameterError: the rows of a step do not divide into the micro-batches.
    """
    objective = objective_of(cfg)
    rows = cfg.problems_per_step * objective.rows_per_problem
    if rows % cfg.microbatches:
        raise ParameterError(
            f"microbatches={cfg.microbatches} does not divide the {rows} rows of a step: choose a divisor"
        )
    vllm: dict[str, Any] = {
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_importance_sampling_mode": "token_truncate",
    }
    return GRPOConfig(
        output_dir=str(folder / "checkpoints" / checkpoints.BEGUN),
        max_steps=cfg.steps,
        per_device_train_batch_size=rows // cfg.microbatches,
        gradient_accumulation_steps=cfg.microbatches,
        steps_per_generation=cfg.microbatches,
        num_generations=objective.rows_per_problem,
        max_completion_length=max(cfg.max_plan_tokens, cfg.max_program_tokens),
        temperature=cfg.temperature,
        top_p=1.0,
        top_k=0,
        learning_rate=cfg.learning_rate,
        lr_scheduler_type="constant",
        beta=cfg.beta,
        entropy_coef=cfg.entropy_coef,
        loss_type="dapo",
        num_iterations=1,
        logging_steps=1,
        save_steps=cfg.checkpoint_every,
        seed=cfg.seed,
        gradient_checkpointing=cfg.gradient_checkpointing,
        **(vllm if cfg.engine == "vllm" else {}),
        **models.device_settings(model),
    )


def train(cfg: RLTraining) -> Path:
    """Run (or continue) one RL arm and return its folder; a finished run is returned as it is.

    Raises:
        MissingArtefactError: problems, start policy or the gate's model are not there.
        ParameterError: parameters that do not fit each other, the benchmark or the machine.
        ModelError: the start policy or the gate's model cannot be loaded, or the first is an adapter of another rank.
        TrainingError: the gradient of a step is not finite.
        CPPOError: something cannot be written, as on a full disk; started again, the run goes on.
        IsolationError: the verifier cannot judge safely, or too many programs of a step got no verdict (IE).
    """
    if cfg.engine == "vllm" and not torch.cuda.is_available():
        raise ParameterError("engine: vllm trains on a GPU only, and there is none: set engine: hf")
    problems = data_prep.read_split(cfg.profile, cfg.benchmark, "train")
    start = store.policy_source(cfg.profile, cfg.policy, cfg.seed)
    folder = paths.stage_dir(cfg.profile, "03_rl_training", f"{cfg.arm}.s{cfg.seed}")
    commits = models.commits(start) | gates.commits(cfg)
    store.resumable_dir(folder, sources.fingerprint(cfg, _inputs(cfg), commits))
    if store.finished(folder):
        store.progress(f"{paths.show(folder)} is finished; delete it to train again")
        return folder
    model, tokenizer = models.load_policy(start, dtype=models.training_dtype(cfg.lora_rank), trainable=True)
    adapt = with_role_adapters if cfg.sharing == "base" else models.with_adapter
    model = adapt(model, rank=cfg.lora_rank, seed=cfg.seed)
    style = PromptStyle(cfg.prompt_style, tokenizer)
    short = short_problems(cfg, problems, style)
    # Before TRL's configuration, which may ask that models be split over processes: the gate is each process's own.
    scorer = gates.open_scorer(cfg)
    log = StepLog(folder, cfg.arm, cfg.checkpoint_every)
    started = time.perf_counter()
    verifier_opened = judging.open_verifier(
        cfg.profile, total_cpu_s=judging.TRAINING_CPU_S, all_tests=cfg.outcome_reward == "fraction"
    )
    with verifier_opened as verifier:
        args = models.on_one_gpu(grpo_config(cfg, folder, model))
        trainer = CPPOTrainer(
            model=model,
            tokenizer=tokenizer,
            args=args,
            problems=short,
            style=style,
            objective=objective_of(cfg),
            verifier=verifier,
            judge=judging.method_judge(cfg.benchmark, verifier),
            scorer=None if scorer is None else scorer.to(args.device),
            callbacks=[FiniteSteps(), log],
        )
        log.trainer = trainer
        trainer.remove_callback(PrinterCallback)  # StepLog prints what a reader needs
        checkpoints.run(trainer, folder / "metrics.jsonl")
    models.save_policy(model, tokenizer, folder / "policy")
    facts = {
        "commits": commits,
        "weights": models.weights_type(start, models.training_dtype(cfg.lora_rank)),
        "prompts": style.record(),
        "problems": {
            "drawn_from": len(short),
            "in_split": len(problems),
            "draws": cfg.steps * cfg.problems_per_step,
        },
    }
    _finish(cfg, folder, time.perf_counter() - started, facts)
    return folder


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
        store.progress(f"{len(kept)} of {len(problems)} problems have at most {cfg.max_prompt_tokens} prompt tokens")
    return kept


def _inputs(cfg: RLTraining) -> list[Path]:
    """What the run reads of this profile: the training problems and, where it takes a model of it, the SFT stage."""
    stages = paths.runs_root() / cfg.profile
    sft = [stages / "02_planner_sft" / "summary.json"] if cfg.uses_sft else []
    return [stages / "01_data_prep" / cfg.benchmark / "train.jsonl", *sft]


def _finish(cfg: RLTraining, folder: Path, wall_s: float, facts: dict[str, Any]) -> None:
    rows = store.read_jsonl(folder / "metrics.jsonl")
    totals = {
        key: sum(row[key] for row in rows)
        for key in (
            "planner_tokens",
            "solver_tokens",
            "programs",
            "verifier_s",
            "generate_s",
            "train_s",
        )
    }
    last = rows[-10:]
    final = {
        key: sum(row[key] for row in last) / len(last)
        for key in ("r_out", "j", "r_plan", "r_solver", "followed", "duplicate_rate")
        if last[0][key] is not None
    }
    store.write_summary(
        folder,
        cfg,
        values={"steps": len(rows), "wall_s": wall_s, "totals": totals, "last_ten_steps": final, **facts},
        artefacts=[folder / "policy", folder / "metrics.jsonl"],
        inputs=_inputs(cfg),
    )
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
