"""What a training run optimises, TRL's configuration for it, and whether the installed TRL can carry it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from cppo_lib.errors import ParameterError
from cppo_lib.model.adapters import Role
from cppo_lib.rollout.prompts import SolverPrompt
from cppo_lib.rollout.task import Unreadable
from cppo_lib.trainer.advantages import PLANNED, Cut, LogprobsAt, LossMean, SolverGrouping, rows_per_member

# TRL internals that CPPOTrainer overrides or calls, with the parameters it relies on.
_TRL_SIGNATURES = {
    "_generate": "self prompts",
    "_generate_single_turn": "self prompt_ids images multimodal_fields num_generations",
    "_generate_and_score_completions": "self inputs",
    "_prepare_inputs": "self generation_batch",
    "_compute_loss": "self model inputs",
    "_get_per_token_logps_and_entropies": "self model input_ids attention_mask logits_to_keep batch_size",
}
_VLLM: dict[str, Any] = {"use_vllm": True, "vllm_mode": "colocate", "vllm_importance_sampling_mode": "token_truncate"}


@dataclass(frozen=True)
class Objective:
    """What a training run optimises. *Released*: as in the authors' code at 8e5ea8a4.

    Attributes:
        algorithm: `cppo`; `planner` (the warm-up: plans alone, no program is written); or the name of a rule in
            `advantages.ADVANTAGE_RULES` for a direct arm.
        k: attempts per tuple; group_size: members G per problem.
        credit: solver credit (a name of `rewards.SOLVER_CREDITS`; released: own) or `frozen` for planner-only RL.
        solver_grouping: which attempts a solver attempt is compared with (released: those of its tuple).
        planner_weight, solver_weight: w_P and w_S.
        pkpo_k: the k of the advantage rule; pkpo_k_end: the k it is annealed to, None to keep it.
        max_plan_tokens, max_program_tokens: limits on new tokens.
        reward: the planner's reward (a name of `rewards.PLANNER_REWARDS`).
        outcome_reward: r_k is 0 or 1 (`binary`), or the share of tests passed (`fraction`).
        solver_prompt: the solver is told its `method`, or only its number in the tuple (`slot`).
        unreadable: what becomes of the slots of a tuple that could not be read in full (released: nothing).
        group_rule: the rule that turns rewards of a tuple's two roles into advantages (released: grpo_population).
        loss_mean: of what the loss is the mean (released: rows).
        cut: what becomes of samples that a limit has ended (released: left_out).
        max_total_tokens: limit on prompt and completion together; None: none (released: 4,096).
        temperature, planner_temperature: of the draws of programs (and plans; None: the same).
        top_p, top_k: of the draws; never those of the model's generation_config.json, which the released code applies.
        logprobs_at: the temperature of the loss's log-probabilities (released: one).
    """

    algorithm: str
    k: int
    group_size: int
    credit: str
    solver_grouping: SolverGrouping
    planner_weight: float
    solver_weight: float
    pkpo_k: int
    max_plan_tokens: int
    max_program_tokens: int
    pkpo_k_end: int | None = None
    reward: str = "product"
    outcome_reward: str = "binary"
    solver_prompt: SolverPrompt = "method"
    unreadable: Unreadable = "direct"
    group_rule: str = "grpo"
    loss_mean: LossMean = "regions"
    cut: Cut = "kept"
    max_total_tokens: int | None = None
    temperature: float = 1.0
    planner_temperature: float | None = None
    top_p: float = 1.0
    top_k: int = 0
    logprobs_at: LogprobsAt = "sampling"

    def k_at(self, step: int, steps: int) -> int:
        """The rule's k in optimiser step `step` (from 0) of `steps`: each k on the way has an equal share of them."""
        if self.pkpo_k_end is None:
            return self.pkpo_k
        distance = self.pkpo_k_end - self.pkpo_k
        passed = step * (abs(distance) + 1) // steps
        return self.pkpo_k + (passed if distance > 0 else -passed)

    @property
    def planned(self) -> bool:
        return self.algorithm in PLANNED

    @property
    def attempts(self) -> int:
        """Programs of a member: K, or none where plans are trained alone."""
        return self.block - self.planned

    @property
    def procedure(self) -> Literal["direct", "tuple"]:
        return "tuple" if self.planned else "direct"

    @property
    def block(self) -> int:
        """Rows per member."""
        return rows_per_member(self.algorithm, self.k)

    def temperature_of(self, role: Role) -> float:
        """The temperature at which the role's samples are drawn."""
        planner = self.planner_temperature
        return self.temperature if role == "solver" or planner is None else planner

    @property
    def rows_per_problem(self) -> int:
        return self.group_size * self.block


def grpo_config(
    objective: Objective, *, problems_per_step: int, microbatches: int, vllm: bool, **settings: Any
) -> GRPOConfig:
    """TRL's configuration: what the objective asks for, beside `settings` of `GRPOConfig`.

    Raises:
        ParameterError: the rows of a step do not divide into the micro-batches.
    """
    rows = problems_per_step * objective.rows_per_problem
    if rows % microbatches:
        raise ParameterError(f"microbatches={microbatches} does not divide the {rows} rows of a step: choose a divisor")
    return GRPOConfig(
        per_device_train_batch_size=rows // microbatches,
        gradient_accumulation_steps=microbatches,
        steps_per_generation=microbatches,
        num_generations=objective.rows_per_problem,
        max_completion_length=max(objective.max_plan_tokens, objective.max_program_tokens),
        # Of the loss's log-probabilities; draws have the objective's own.
        temperature=1.0 if objective.logprobs_at == "one" else objective.temperature,
        top_p=objective.top_p,
        top_k=objective.top_k,
        lr_scheduler_type="constant",
        loss_type="dapo",
        use_bias_correction_kl=False,  # TRL's default has another gradient than exp(d) - 1 - d, the released KL
        num_iterations=1,
        logging_steps=1,
        **(_VLLM if vllm else {}),
        **settings,
    )


def check_trl() -> None:
    """Raise ParameterError when the installed TRL does not have the internals that CPPOTrainer builds on."""
    for name, parameters in _TRL_SIGNATURES.items():
        method, expected = getattr(GRPOTrainer, name, None), parameters.split()
        found = list(inspect.signature(method).parameters) if method else None
        if found is None or found[: len(expected)] != expected:
            raise ParameterError(
                f"TRL's GRPOTrainer.{name} has parameters {found}, expected {expected}: install trl>=1.16,<1.17"
            )


def check_geometry(args: GRPOConfig, objective: Objective) -> None:
    """Raise ParameterError when the rows of a step do not divide into groups, or the loss is not the exact one."""
    expected = objective.rows_per_problem
    if args.num_generations != expected:
        raise ParameterError(f"num_generations is {args.num_generations}, expected G * rows per member = {expected}")
    local_rows = args.per_device_train_batch_size * (args.steps_per_generation or 1)
    if local_rows % objective.block:
        raise ParameterError(
            f"{local_rows} rows per process do not divide into members of {objective.block} rows: "
            "change problems_per_step"
        )
    one_step = args.gradient_accumulation_steps == args.steps_per_generation
    if args.loss_type != "dapo" or args.num_iterations != 1 or not one_step:
        raise ParameterError(
            "row weights are exact for loss_type='dapo', num_iterations=1 and one optimiser step per "
            "generation (gradient_accumulation_steps == steps_per_generation) only"
        )
