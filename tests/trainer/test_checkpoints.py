"""Trainings that are killed, run out of disk or find damaged checkpoints end as those that were left alone.

Each has moved its weights before its first checkpoint, since one that equals the start would prove nothing.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gate_world
import pytest
import small_policy
import torch
from safetensors.torch import load_file

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import CPPOError
from cppo_lib.model import policy as model
from cppo_lib.runs import config
from cppo_lib.runs.stages import data_prep
from cppo_lib.runs.stages import planner_sft as sft
from cppo_lib.runs.stages import rl_training as training
from cppo_lib.trainer import checkpoints

SMOKE = paths.root() / "params" / "smoke"


def rl(runs: Path, **changes: object) -> None:
    small = {"steps": 4, "checkpoint_every": 2, "problems_per_step": 1, "learning_rate": 0.01, **changes}
    training.train(config.load_params(SMOKE / "03_rl_training.cppo.yaml", policy=str(runs / "start"), **small))


def planner(runs: Path) -> None:
    small = {"pretrain_steps": 2, "sft_steps": 8, "hidden_size": 16, "pretrain_batch": 4, "sft_batch": 4}
    sft.train_planner(gate_world.planner_sft(**small))


def gate(runs: Path) -> None:
    if not (runs / "gate" / "gate").exists():
        gate_world.train_gate(runs / "start", runs / "gate")


@dataclasses.dataclass(frozen=True)
class Training:
    """One that saves checkpoints at steps 2 and 4: how it is run, and where it leaves what."""

    run: Callable[[Path], None]
    log: str
    checkpoints: str
    start: str
    result: str
    weights: str = "model.safetensors"

    def end(self, runs: Path) -> tuple[bytes, list[dict[str, Any]]]:
        """The weights it has left, and its log but for seconds."""
        rows = store.read_jsonl(runs / self.log)
        timeless = [{key: value for key, value in row.items() if not key.endswith("_s")} for row in rows]
        return (runs / self.result / self.weights).read_bytes(), timeless


ARM, STAGE = "smoke/03_rl_training/cppo.s0", "smoke/02_planner_sft"
RL = Training(rl, f"{ARM}/metrics.jsonl", f"{ARM}/checkpoints", "start", f"{ARM}/policy")
SFT = Training(planner, f"{STAGE}/metrics.jsonl", f"{STAGE}/checkpoints/sft", f"{STAGE}/base", f"{STAGE}/sft")
GATE = Training(gate, "gate/gate_metrics.jsonl", "gate/checkpoints/gate", "start", "gate/gate")
each_training = pytest.mark.parametrize("name", ["rl", "sft", "gate"])
TRAININGS = {"rl": RL, "sft": SFT, "gate": GATE}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A runs folder with problems and a start policy."""
    folder = tmp_path_factory.mktemp("world")
    small_policy.save(folder / "start")
    sizes = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPPO_RUNS", str(folder))
        data_prep.prepare(config.load_params(SMOKE / "01_data_prep.yaml", options=sizes | {"hidden_tests": 2}))
    return folder


@pytest.fixture
def runs(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(world, tmp_path / "runs")
    monkeypatch.setenv("CPPO_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(training, "CPPOTrainer", small_policy.Paid)
    return tmp_path / "runs"


ENDS: dict[str, tuple[bytes, list[dict[str, Any]]]] = {}


def undisturbed(name: str, runs: Path) -> tuple[bytes, list[dict[str, Any]]]:
    """How the training ends that nobody disturbs; run once."""
    if name not in ENDS:
        TRAININGS[name].run(runs)
        ENDS[name] = TRAININGS[name].end(runs)
        for made in (ARM, STAGE, "gate"):
            shutil.rmtree(runs / made, ignore_errors=True)
    return ENDS[name]


@contextmanager
def at_step(step: int, act: Callable[[], None], *, stage: str = "sft") -> Iterator[None]:
    """Act when the training has logged this step, before it saves a checkpoint."""
    append = store.append_jsonl

    def hooked(path: Path, rows: list[dict[str, Any]]) -> None:
        append(path, rows)
        if not acted and rows[0]["step"] == step and rows[0].get("stage", stage) in (stage, "gate"):
            acted.append(step)
            act()

    acted: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "append_jsonl", hooked)
        yield


def kill() -> None:
    raise KeyboardInterrupt


def killed_at_step_3(one: Training, runs: Path) -> Path:
    """The checkpoint of step 2, which differs from the start."""
    with at_step(3, kill), pytest.raises(KeyboardInterrupt):
        one.run(runs)
    checkpoint = runs / one.checkpoints / "checkpoint-2"
    start, saved = (load_file(folder / "model.safetensors") for folder in (runs / one.start, checkpoint))
    assert any(not torch.equal(weight, saved[name]) for name, weight in start.items())
    return checkpoint


@each_training
def test_a_killed_training_goes_on_from_the_newest_whole_checkpoint_and_ends_when_it_is_at_its_end(
    name, runs, monkeypatch, capsys
):
    """Killed in its third step, and once more when all steps are made and its weights are not yet saved."""
    one, end = TRAININGS[name], undisturbed(name, runs)
    newer = killed_at_step_3(one, runs).with_name("checkpoint-3")
    newer.mkdir()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        place = store.place
        patch.setattr(store, "place", lambda made, path: kill() if path == runs / one.result else place(made, path))
        one.run(runs)
    told = capsys.readouterr().out
    assert "checkpoint-3 is not whole (writing it was interrupted): it is left out and removed" in told
    assert "resuming after step 2" in told and not newer.exists()
    one.run(runs)
    assert one.end(runs) == end
    assert f"resuming after step {end[1][-1]['step']}" in capsys.readouterr().out


def test_a_checkpoint_that_is_not_what_was_sealed_is_left_out(runs, capsys):
    end, checkpoint = undisturbed("gate", runs), killed_at_step_3(GATE, runs)
    whole = shutil.copytree(checkpoint, runs / "whole" / "checkpoint-1")
    weights = ["model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"]
    for name in (*weights, "trainer_state.json", checkpoints.SEAL):
        content = (whole / name).read_bytes()
        for damaged in (None, b"", content[:-9], content[:-9] + bytes(9)):
            newer = shutil.copytree(whole, whole.with_name("checkpoint-2"))
            (newer / name).unlink()
            if damaged is not None:
                (newer / name).write_bytes(damaged)
            assert checkpoints.newest_whole(whole.parent) == whole
            assert name in (told := capsys.readouterr().out) or "writing it was interrupted" in told
            assert "resuming after step 1" in told and not newer.exists()
    (checkpoint / "model.safetensors").write_bytes(b"torn")
    GATE.run(runs)
    assert GATE.end(runs) == end
    assert "no checkpoint is whole: training begins anew" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "full"), [("rl", "optimizer.pt"), ("sft", "trainer_state.json"), ("gate", "config.json")]
)
def test_a_training_that_met_a_full_disk_goes_on_when_there_is_space(name, full, runs):
    one, end = TRAININGS[name], undisturbed(name, runs)
    begun = runs / one.checkpoints / checkpoints.BEGUN / "checkpoint-4"

    def fill() -> None:
        begun.mkdir(parents=True)
        (begun / full).symlink_to("/dev/full")

    expected = r"^cannot write .*/checkpoint-4 \(.*\): the disk at /.* has .* MiB free .* takes about .* MiB: make room"
    with at_step(4, fill), pytest.raises(CPPOError, match=expected) as told:
        one.run(runs)
    assert "\n" not in str(told.value) and not begun.parent.exists()
    assert checkpoints.newest_whole(begun.parent.parent) == begun.parent.with_name("checkpoint-2")
    one.run(runs)
    assert one.end(runs) == end


def test_with_a_kl_term_an_adapter_goes_on_from_its_checkpoint_and_leaves_no_reference(runs):
    """The checkpoint holds a second adapter, the reference; transformers loads that one alone."""
    kl = dataclasses.replace(RL, run=lambda runs: rl(runs, lora_rank=2, beta=0.05), weights="adapter_model.safetensors")
    kl.run(runs)
    end, files = kl.end(runs), sorted(path.name for path in (runs / kl.result).iterdir())
    assert not [name for name in files if name == model.REFERENCE] and model.ADAPTER in files
    shutil.rmtree(runs / ARM)
    with at_step(3, kill), pytest.raises(KeyboardInterrupt):
        kl.run(runs)
    saved = runs / kl.checkpoints / "checkpoint-2"
    moved, start = (load_file(folder / kl.weights) for folder in (saved, saved / model.REFERENCE))
    assert moved.keys() == start.keys() and any(not torch.equal(weight, start[name]) for name, weight in moved.items())
    kl.run(runs)
    assert kl.end(runs) == end


@each_training
def test_of_several_gpus_one_is_taken_and_named(name, runs, monkeypatch, capsys):
    """What transformers counts, on a machine without any; it would train on twice the batch, and TRL refuses."""
    one, end, settings = TRAININGS[name], undisturbed(name, runs), model.device_settings
    monkeypatch.setattr(model, "device_settings", lambda policy: settings(policy) | {"use_cpu": False})
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    one.run(runs)
    assert one.end(runs) == end
    assert "2 GPUs are visible and training takes one, cpu: set CUDA_VISIBLE_DEVICES" in capsys.readouterr().out
