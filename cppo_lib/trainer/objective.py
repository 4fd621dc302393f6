"""What a training run optimises, and whether the installed TRL and the batch geometry can carry it."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Literal

from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from cppo_lib.errors import ParameterError
from cppo_lib.rollout.prompts import SolverPrompt
from cppo_lib.trainer.advantages import SolverGrouping

# TRL internals that this class overrides or calls, with the parameters it relies on.
_TRL_SIGNATURES = {
    "_generate_single_turn": [
        "self",
        "prompt_ids",
        "images",
        "multimodal_fields",
        "num_generations",
    ],
    "_generate_and_score_completions": ["self", "inputs"],
    "_calculate_rewards": ["self", "inputs", "prompts", "completions", "completion_ids_list"],
    "_prepare_inputs": ["self", "generation_batch"],
    "_compute_loss": ["self", "model", "inputs"],
    "_get_per_token_logps_and_entropies": [
        "self",
        "model",
        "input_ids",
        "attention_mask",
        "logits_to_keep",
        "batch_size",
    ],
}


@dataclass(frozen=True)
class Objective:
    """What a training run optimises.

    Attributes:
        algorithm: `cppo`, or the name of a rule in `advantages.ADVANTAGE_RULES` for a direct arm.
        k: attempts per tuple; group_size: members G per problem.
        credit: solver credit (a name of `rewards.SOLVER_CREDITS`) or `frozen` for planner-only RL.
        solver_grouping: which attempts a solver attempt is compared with.
        planner_weight, solver_weight: w_P and w_S.
        rule_k: the k of the advantage rule (PKPO's k); rule_k_end: the k it is annealed to, None to keep it.
        max_plan_tokens, max_program_tokens: limits on new tokens.
        reward: the planner's reward (a name of `rewards.PLANNER_REWARDS`).
        outcome_reward: r_k is 0 or 1 (`binary`), or the share of tests passed (`fraction`).
        solver_prompt: the solver is told its `method`, or only its number in the tuple (`slot`).

    Except for K none of this is stated in the abstract; the values in the parameter files are our defaults.
    """

    algorithm: str
    k: int
    group_size: int
    credit: str
    solver_grouping: SolverGrouping
    planner_weight: float
    solver_weight: float
    rule_k: int
    max_plan_tokens: int
    max_program_tokens: int
    rule_k_end: int | None = None
    reward: str = "product"
    outcome_reward: Literal["binary", "fraction"] = "binary"
    solver_prompt: SolverPrompt = "method"

    def k_at(self, step: int, steps: int) -> int:
        """The rule's k in optimiser step `step` (from 0) of `steps`: each k on the way has an equal share of them."""
        if self.rule_k_end is None:
            return self.rule_k
        distance = self.rule_k_end - self.rule_k
        passed = step * (abs(distance) + 1) // steps
        return self.rule_k + (passed if distance > 0 else -passed)

    @property
    def planned(self) -> bool:
        return self.algorithm == "cppo"

    @property
    def procedure(self) -> Literal["direct", "tuple"]:
        return "tuple" if self.planned else "direct"

    @property
    def block(self) -> int:
        """Rows per member."""
        return self.k + 1 if self.planned else self.k

    @property
    def rows_per_problem(self) -> int:
        return self.group_size * self.block


def check_trl() -> None:
    """Raise ParameterError when the installed TRL does not have the internals this class builds on."""
    for name, expected in _TRL_SIGNATURES.items():
        method = getattr(GRPOTrainer, name, None)
        found = list(inspect.signature(method).parameters) if method else None
        if found is None or found[: len(expected)] != expected:
            raise ParameterError(
                f"TRL's GRPOTrainer.{name} has parameters {found}, expected {expected}: install trl>=1.16,<1.17"
            )


def check_geometry(args: GRPOConfig, objective: Objective) -> None:
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
            "region weights are exact for loss_type='dapo', num_iterations=1 and one optimiser step per "
            "generation (gradient_accumulation_steps == steps_per_generation) only"
        )
