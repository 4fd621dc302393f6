"""A training step whose gradient is not a number stops the run before it touches the weights."""

from __future__ import annotations

import math
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from cppo_lib.errors import TrainingError


class FiniteSteps(TrainerCallback):
    """For every trainer of the suite: clipping makes one such number all of them, and no later step mends that.

    Not under DeepSpeed, which steps by itself before a trainer's callbacks are asked.
    """

    def on_pre_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: nn.Module | None = None,
        **_: Any,
    ) -> None:
        """Raises TrainingError."""
        assert model is not None  # the trainer hands it to its callbacks
        gradients = [weight.grad for weight in model.parameters() if weight.grad is not None]
        if not math.isfinite(nn.utils.get_total_norm(gradients)):
            raise TrainingError(
                f"step {state.global_step + 1} of {state.max_steps} has a gradient that is not finite, so training "
                "stopped before it changed the weights: the same run goes on from its last checkpoint; if it stops "
                "here again, begin anew with a lower learning_rate or another start policy"
            )
