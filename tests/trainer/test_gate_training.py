"""The gate's training: the best epoch is kept, the loss is that of the tuples however they are batched."""

from __future__ import annotations

from pathlib import Path

import gate_world
import pytest
import small_policy
import torch
from safetensors.torch import load_file
from torch.nn.functional import binary_cross_entropy_with_logits

from cppo_lib.artefacts import store
from cppo_lib.model import policy as models
from cppo_lib.reward import gate_quality
from cppo_lib.reward.gate_records import split
from cppo_lib.reward.gate_verbaliser import Verbaliser, VerbaliserGate
from cppo_lib.trainer import gate_training, sft


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_policy.save(tmp_path_factory.mktemp("policy") / "tiny", steps=20)


def validated(folder: Path) -> list[dict[str, float]]:
    return [row for row in store.read_jsonl(folder / gate_training.METRICS) if "epoch" in row]


def test_each_epoch_is_validated_and_the_best_one_is_kept(start, tmp_path, monkeypatch):
    """Told that the second of three epochs is the best, it keeps the weights that end after the second."""
    measures = gate_quality.measures
    told = iter([0.6, 0.9, 0.9])
    monkeypatch.setattr(gate_quality, "measures", lambda *given: measures(*given) | {"average_precision": next(told)})
    saved, save = [], models.save_policy

    def hooked(model, tokenizer, folder):
        save(model, tokenizer, folder)
        saved.append(load_file(folder / "model.safetensors"))

    monkeypatch.setattr(models, "save_policy", hooked)
    folder = gate_world.train_gate(start, tmp_path, epochs=3)
    rows = validated(tmp_path)
    assert [row["epoch"] for row in rows] == [1, 2, 3] and [row["step"] for row in rows] == [2, 4, 6]
    assert gate_training.best_epoch(tmp_path / gate_training.METRICS)["epoch"] == 2
    kept = load_file(folder / "model.safetensors")
    assert len(saved) == 2 and all(torch.equal(kept[name], weight) for name, weight in saved[1].items())
    assert any(not torch.equal(kept[name], weight) for name, weight in saved[0].items())
    assert not (tmp_path / "best").exists() and not (tmp_path / "checkpoints").exists()


def test_the_log_has_the_measures_of_the_gate_that_is_saved(start, tmp_path):
    folder = gate_world.train_gate(start, tmp_path, epochs=1, steps=10, tau=0.3)
    _, validation = split(gate_world.labels(), 0)
    scores = torch.tensor(VerbaliserGate(folder, "brief", 256, 0.3).scores([one.candidate for one in validation]))
    valid = torch.tensor([one.valid for one in validation])
    (row,) = validated(tmp_path)
    assert row["recall"] == pytest.approx((scores > 0.3)[valid].float().mean().item())
    pairs = scores[valid][:, None] - scores[~valid]
    assert row["auc"] == pytest.approx((pairs > 0).float().mean().item(), abs=1e-3)


@pytest.mark.parametrize("microbatches", [1, 3])
def test_the_first_loss_is_the_binary_cross_entropy_of_the_step_whatever_its_micro_batches(
    start, tmp_path, microbatches
):
    learnt, validation = split(gate_world.labels(), 0)
    learnt = learnt[:12]
    schedule = sft.Schedule(1, 12, 1e-3, microbatches, False, 0)
    given = {"prompt_style": "brief", "max_length": 256, "tau": 0.5, "lora_rank": 0}
    gate_training.train_gate(start, learnt, validation, schedule, tmp_path, epochs=1, **given)
    (row,) = [row for row in store.read_jsonl(tmp_path / gate_training.METRICS) if "loss" in row]
    policy, tokenizer = models.load_policy(start)
    scores = Verbaliser(tokenizer, "brief", 256)
    p = torch.tensor(scores.scores(policy.eval(), scores.encode([one.candidate for one in learnt])))
    target = torch.tensor([float(one.valid) for one in learnt])
    assert row["loss"] == pytest.approx(binary_cross_entropy_with_logits(p.logit(), target).item(), abs=1e-4)
