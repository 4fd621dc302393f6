"""Checkpoints of every trainer: which one is whole, training on from it, and a full disk.

A checkpoint is written below `checkpoints/begun/`, sealed with the hashes of its files and the log up to its step, and
then takes the place of the one before. So one that a kill or a full disk interrupts is never trained on from.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from cppo_lib.artefacts import paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import CPPOError, TrainingError

BEGUN, SEAL = "begun", "whole.json"


def run(trainer: Trainer, log: Path, stage: str | None = None) -> None:
    """Train to the last step, from the newest whole checkpoint if there is one.

    A run that was stopped ends with the weights and the log of one that was not. What the trainer prints is left to
    its own callbacks.

    Args:
        trainer: its `output_dir` is the folder `BEGUN` of the run's checkpoints.
        log: JSON lines that the trainer's callbacks append to; rows of steps after the checkpoint are dropped.
        stage: what this training's rows have as `stage`, where the log holds those of others too.

    Raises:
        TrainingError: the gradient of a step is not finite.
        CPPOError: a checkpoint cannot be written, as on a full disk.
    """
    begun = Path(str(trainer.args.output_dir))
    shutil.rmtree(begun, ignore_errors=True)
    last = newest_whole(begun.parent)
    _cut(log, last, stage)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(FiniteSteps())
    trainer.add_callback(_Seal(log))
    try:
        if last is not None and _step(last) >= trainer.args.max_steps:
            trainer._load_from_checkpoint(str(last))  # `train` makes a step before it asks whether there is one to make
        else:
            trainer.train(resume_from_checkpoint=None if last is None else str(last))
    except (OSError, RuntimeError, SafetensorError) as error:
        if not any(begun.glob(f"{PREFIX_CHECKPOINT_DIR}-*")):
            raise
        raise _unsaved(trainer, error) from error


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint that is what was sealed, or None; newer ones are removed, with a line for each."""
    found = [path for path in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.name.rpartition("-")[2].isdigit()]
    for checkpoint in sorted(found, key=_step, reverse=True):
        if not (fault := _fault(checkpoint)):
            log.info(f"resuming after step {_step(checkpoint)}")
            return checkpoint
        log.info(f"{paths.show(checkpoint)} is not whole ({fault}): it is left out and removed")
        shutil.rmtree(checkpoint)
    if found:
        log.info("no checkpoint is whole: training begins anew")
    return None


def _step(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _fault(checkpoint: Path) -> str:
    """What is wrong with a checkpoint; empty: nothing."""
    if not (checkpoint / SEAL).is_file():
        return "writing it was interrupted"
    try:
        sealed = store.read_json(checkpoint / SEAL)
    except CPPOError:
        return f"{SEAL} is damaged"
    wrong = [name for name, digest in sealed.items() if store.file_sha256(checkpoint / name) != digest]
    return f"missing or damaged: {', '.join(wrong)}" if wrong else ""


def _cut(log: Path, last: Path | None, stage: str | None) -> None:
    """Let the log say what it said at the checkpoint; without one, nothing of this training."""
    if last is not None:
        store.write_text(log, (last / log.name).read_text(encoding="utf-8"))
        return
    rows = store.read_jsonl(log) if log.exists() else []
    others = [row for row in rows if row.get("stage", stage) != stage]
    store.write_text(log, "".join(json.dumps(row) + "\n" for row in others))


class FiniteSteps(TrainerCallback):
    """A step whose gradient is not a number stops the run before it touches the weights.

    For every trainer of the suite: clipping makes one such number all of them, and no later step mends that. Not under
    DeepSpeed, which steps by itself before a trainer's callbacks are asked.
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


class _Seal(TrainerCallback):
    """Seals each checkpoint that the trainer has written, gives it its place, and removes the one before."""

    def __init__(self, log: Path) -> None:
        self.log = log

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        name = f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        begun, place = Path(str(args.output_dir), name), Path(str(args.output_dir)).with_name(name)
        shutil.copyfile(self.log, begun / self.log.name)
        files = sorted(path for path in begun.rglob("*") if path.is_file())
        store.write_json(begun / SEAL, {str(path.relative_to(begun)): store.file_sha256(path) for path in files})
        store.place(begun, place)
        for older in place.parent.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            if older != place:
                shutil.rmtree(older)


def _unsaved(trainer: Trainer, error: Exception) -> CPPOError:
    """The one-line error for a checkpoint that could not be written; what was written of it is removed."""
    begun = Path(str(trainer.args.output_dir))
    shutil.rmtree(begun, ignore_errors=True)
    step = trainer.state.global_step
    place = begun.with_name(f"{PREFIX_CHECKPOINT_DIR}-{step}")
    if isinstance(error, OSError) and error.errno not in paths.FULL:
        return paths.unwritable(place, error)
    reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
    # Weights and their two moments (AdamW), which are nearly all of a checkpoint.
    policy: Any = trainer.model
    trained = [weight for weight in policy.parameters() if weight.requires_grad]
    size = sum(weight.numel() * (weight.element_size() + 8) for weight in trained)
    disk = paths.disk_of(begun)
    free, needed = (f"{count / 2**20:.1f} MiB" for count in (shutil.disk_usage(disk).free, size))
    return CPPOError(
        f"cannot write {paths.show(place)} ({reason}): the disk at {disk} has {free} free and a checkpoint takes about "
        f"{needed}: make room there, then start again: training goes on from its last checkpoint"
    )
