"""What an RL run leaves of its steps: `metrics.jsonl`, recorded rollouts, and lines for people."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cppo_lib.artefacts import store
from cppo_lib.artefacts.progress import log

if TYPE_CHECKING:
    from cppo_lib.trainer.cppo_trainer import CPPOTrainer

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
    "distinct_methods": "share of tuples whose programs implement K different methods, by the probe of methods",
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
    "programs": "programs verified in the step (G * K per problem)",
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
    """

    def __init__(self, trainer: CPPOTrainer, folder: Path, arm: str, every: int) -> None:
        self.trainer, self.folder, self.arm, self.every = trainer, folder, arm, every
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
        stats, step = self.trainer.step_stats, state.global_step
        wall = time.perf_counter() - self._started
        values = {
            **stats,
            "step": step,
            "loss": float(logs["loss"]),
            "grad_norm": float(logs["grad_norm"]),
            "wall_s": wall,
            "train_s": wall - stats["generate_s"] - stats["verifier_s"],
        }
        store.append_jsonl(self.folder / "metrics.jsonl", [{key: values.get(key) for key in METRICS}])
        if step == 1 or step % self.every == 0:
            rows = self.trainer.scores.attempt_rows()
            store.write_parquet(self.folder / "rollouts" / f"step_{step:05d}.parquet", rows)
        cut = [key for key in CUT if (values.get(key) or 0.0) >= MUCH]
        if time.perf_counter() - self._printed > 10 or step in (1, state.max_steps):
            self._printed = time.perf_counter()
            shown = [f"{key} {values[key]:.3f}" for key in (*SHOWN, *cut) if values.get(key) is not None]
            log.info(f"{self.arm} step {step}/{state.max_steps} {' '.join(shown)} {wall:.1f} s")
        for key in cut if step == 1 else ():  # such replies are hardly ever paid, and no reward says why
            tokens, what = getattr(self.trainer.objective, CUT[key]), key.removesuffix("_cut")
            log.info(f"warning: {values[key]:.0%} of the {what} of step 1 were cut at {CUT[key]}={tokens}: raise it")
