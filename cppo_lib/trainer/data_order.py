"""The order in which training sees the problems, the same for a run that was stopped as for one that was not."""

from __future__ import annotations

import torch
from trl.trainer.utils import RepeatSampler


class ResumableOrder(RepeatSampler):
    """TRL's sampler, with the permutation of an epoch found from the seed and the epoch's number.

    TRL's own draws one permutation per epoch from a generator that no checkpoint holds, so a run that is resumed in
    its second epoch would see the first one's order again. The orders themselves are TRL's.
    """

    def set_epoch(self, epoch: int) -> None:
        """Continue with the permutation of `epoch`, from 0; the trainer calls this before it iterates."""
        assert self.seed is not None  # TRL passes the run's own
        self.generator.manual_seed(self.seed)
        for _ in range(epoch):
            torch.randperm(self.num_samples, generator=self.generator)
