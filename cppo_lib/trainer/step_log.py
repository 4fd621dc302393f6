"""What an RL run leaves of its steps: `metrics.jsonl`, recorded rollouts, and lines for people."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cppo_lib.artefacts import store
from cppo_lib.artefacts.progress import log
from cppo_lib.reward.density import RATES

if TYPE_CHECKING:
    from cppo_lib.trainer.cppo_trainer import CPPOTrainer

METRICS = {
    "step": "optimiser step, from 1",
    "r_out": "share of members with at least one accepted attempt (direct arms: of blocks of K samples)",
    **RATES,
    "j_rules": "share of tuples that pass the gate's rules, whatever its model says of them",
    "gate_precision": "share of accepted tuples that name K different methods that the problem has; null where nobody "
    "knows (all benchmarks but crossroads), or none was accepted",
    "r_plan": "mean planner reward, J * R_out unless `reward` says otherwise",
    "r_solver": "share of accepted attempts, mean r_k",
    "followed": "share of attempts whose program implements the method that the slot was given",
    "duplicate_rate": "share of tuples that the gate refuses for a repeated method",
    "distinct_methods": "share of tuples whose programs implement K different methods, by the probe of methods",
    "distinct_programs": "different programs per member, mean",
    "public_only": "share of attempts that pass all public tests and fail a hidden one; null where a failing program "
    "was not run on every public test",
    "planner_entropy": "entropy of the G plans for a problem, nats, from their counts (at most ln G)",
    "solver_entropy": "entropy of the G * K programs for a problem, nats, from their counts (at most ln G K)",
    "planner_signal": "share of tuples whose plan has an advantage other than 0",
    "solver_signal": "share of attempts that have an advantage other than 0",
    "moved": "how far the trained weights are from those of the start: norm of the difference, as a share of the norm "
    "of the start; null where each process holds a part of them (FSDP, DeepSpeed)",
    "plans_cut": "share of plans that max_plan_tokens cut off, so that methods may be missing",
    "programs_cut": "share of programs that max_program_tokens cut off",
    "rule_k": "k of the advantage rule",
    "loss": "TRL's loss before the step",
    "grad_norm": "gradient norm before clipping",
    "kept_rows": "rows run through the model after merging equal rows and dropping zero advantages",
    "planner_tokens": "planner tokens generated in the step",
    "solver_tokens": "solver tokens generated in the step",
    "programs": "programs verified in the step (at most G * K per problem)",
    "generate_s": "seconds of generation",
    "verifier_s": "seconds of verifying, cache hits included",
    "train_s": "seconds of everything else in the step",
    "wall_s": "seconds of the step",
}
SHOWN = ("r_out", "j", "r_plan", "followed", "duplicate_rate", "r_solver")
CUT = {"plans_cut": "max_plan_tokens", "programs_cut": "max_program_tokens"}
MUCH = 0.1
"""The share of plans or programs cut from which on a progress line says so."""


class StepLog(TrainerCallback):
    """Writes `metrics.jsonl` and the recorded rollouts, and prints a progress line now and then.

    Args:
        trainer: whose steps are logged.
        folder: where to.
        arm: the run's name in progress lines.
        every: steps between rollouts that are recorded, beside those of the first step.
        patience: training stops after so many steps without a higher share of valid tuples; None: never.
        patience_from: the share that it asks for before.
    """

    def __init__(
        self,
        trainer: CPPOTrainer,
        folder: Path,
        arm: str,
        every: int,
        *,
        patience: int | None = None,
        patience_from: float = 0.0,
    ) -> None:
        self.patience, self.patience_from = patience, patience_from
        self.trainer, self.folder, self.arm, self.every = trainer, folder, arm, every
        self._started = self._printed = time.perf_counter()
        # Before a checkpoint is loaded into them, so that a resumed run measures from the same place.
        parted = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
        self._start = None if parted else [weight.cpu().clone() for weight in _trained(trainer)]

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
        stats, step = self.trainer.step_stats, state.global_step
        wall = time.perf_counter() - self._started
        values = {
            **stats,
            "step": step,
            "loss": float(logs["loss"]),
            "grad_norm": float(logs["grad_norm"]),
            "moved": None if self._start is None else _distance(_trained(self.trainer), self._start),
            "wall_s": wall,
            "train_s": wall - stats["generate_s"] - stats["verifier_s"],
        }
        store.append_jsonl(self.folder / "metrics.jsonl", [{key: values.get(key) for key in METRICS}])
        if step == 1 or step % self.every == 0:
            rows = self.trainer.scores.attempt_rows()
            store.write_parquet(self.folder / "rollouts" / f"step_{step:05d}.parquet", rows)
        control.should_training_stop |= self._idle()
        cut = [key for key in CUT if (values.get(key) or 0.0) >= MUCH]
        if time.perf_counter() - self._printed > 10 or step in (1, state.max_steps):
            self._printed = time.perf_counter()
            shown = [f"{key} {values[key]:.3f}" for key in (*SHOWN, *cut) if values.get(key) is not None]
            log.info(f"{self.arm} step {step}/{state.max_steps} {' '.join(shown)} {wall:.1f} s")
        for key in cut if step == 1 else ():  # such replies are hardly ever paid, and no reward says why
            tokens, what = getattr(self.trainer.objective, CUT[key]), key.removesuffix("_cut")
            log.info(f"warning: {values[key]:.0%} of the {what} of step 1 were cut at {CUT[key]}={tokens}: raise it")

    def _idle(self) -> bool:
        """Has the share of valid tuples, once high enough, not risen for `patience` steps? From the log, as resumed."""
        if self.patience is None:
            return False
        shares = [row["j"] for row in store.read_jsonl(self.folder / "metrics.jsonl")]
        before, latest = shares[: -self.patience], shares[-self.patience :]
        idle = bool(before) and max(before) >= max(self.patience_from, *latest)
        if idle:
            log.info(f"{self.arm}: no higher share of valid tuples for {self.patience} steps, so training stops")
        return idle


def _trained(trainer: CPPOTrainer) -> list[Tensor]:
    """The weights that are trained."""
    model: Any = trainer.model
    return [weight.detach() for weight in model.parameters() if weight.requires_grad]


def _distance(weights: list[Tensor], start: list[Tensor]) -> float:
    """Norm of the difference, as a share of the norm of the start, which is on the CPU."""
    moved = torch.stack([(new.cpu() - old).norm() for new, old in zip(weights, start, strict=True)]).norm()
    return float(moved / torch.stack([old.norm() for old in start]).norm())
