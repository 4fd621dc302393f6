"""Planner and solver with an adapter each: they start alike, are trained apart, resume, and act in their own role."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import small_policy
import torch
from safetensors.torch import load_file

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import ModelError
from cppo_lib.model import policy as model
from cppo_lib.model.adapters import ROLES, has_roles, role_policy, use_role, with_role_adapters
from cppo_lib.model.decoding import PARTS, Draw, sample
from cppo_lib.model.hf_engine import HFEngine
from cppo_lib.runs import config
from cppo_lib.runs.parameters import Evaluation, RLTraining
from cppo_lib.runs.stages import data_prep, evaluation
from cppo_lib.runs.stages import rl_training as training
from cppo_lib.trainer.batching import compact

FOLDER = paths.root() / "params" / "ablations"
SMALL = {"steps": 4, "problems_per_step": 1, "group_size": 4, "checkpoint_every": 2, "learning_rate": 0.01}
SMALL |= {"unreadable": "direct", "cut": "kept"}  # so that every step has programs


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return small_policy.save(tmp_path_factory.mktemp("policy") / "tiny", steps=100)


@pytest.fixture
def prepared(start: Path, runs: Path) -> Path:
    """A runs folder with problems and a start policy."""
    sizes = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
    data_prep.prepare(config.load_params(FOLDER / "01_data_prep.yaml", options=sizes | {"hidden_tests": 2}))
    sft = runs / "ablations" / "02_planner_sft"
    sft.mkdir(parents=True)
    (sft / "sft").symlink_to(start)
    store.write_json(sft / "summary.json", {})
    return runs


@pytest.fixture(autouse=True)
def paid(monkeypatch):
    monkeypatch.setattr(training, "CPPOTrainer", small_policy.Paid)


def trained(**changes: object) -> Path:
    cfg = config.load_params(FOLDER / "03_rl_training.two_adapters.yaml", **{**SMALL, **changes})
    assert isinstance(cfg, RLTraining)
    return training.train(cfg)


def adapter(run: Path, role: str) -> dict[str, torch.Tensor]:
    return load_file(run / "policy" / role / "adapter_model.safetensors")


def updates(run: Path, role: str) -> float:
    """Size of what the adapter adds; 0 as long as it was not trained."""
    return max(float(weight.abs().max()) for name, weight in adapter(run, role).items() if "lora_B" in name)


def test_adapters_start_alike_and_stay_trainable_in_either_role(start):
    policy, _ = model.load_policy(start, dtype="float32", trainable=True)
    assert not has_roles(policy)
    adapted = with_role_adapters(policy, rank=2, seed=0)
    assert has_roles(adapted) and set(adapted.peft_config) == set(ROLES)
    for role in ROLES:
        use_role(adapted, role)
        assert adapted.active_adapter == role
        weights = {name: weight for name, weight in adapted.named_parameters() if weight.requires_grad}
        assert len(weights) == sum("lora_" in name for name, _ in adapted.named_parameters())
    for name, weight in weights.items():
        assert torch.equal(weight, weights[name.replace(".solver.", ".planner.")])


def test_an_adapter_of_sft_is_what_both_start_from(start, tmp_path):
    policy, tokenizer = model.load_policy(start, dtype="float32", trainable=True)
    adapted = model.with_adapter(policy, rank=2, seed=0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    model.save_policy(adapted, tokenizer, tmp_path / "sft")
    again, _ = model.load_policy(tmp_path / "sft", trainable=True)
    model.save_policy(with_role_adapters(again, rank=2, seed=1), tokenizer, tmp_path / "both")
    wanted = load_file(tmp_path / "sft" / "adapter_model.safetensors")
    for role in ROLES:
        found = load_file(tmp_path / "both" / role / "adapter_model.safetensors")
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
    with pytest.raises(ModelError, match="rank 2: set lora_rank: 2"):
        with_role_adapters(model.load_policy(tmp_path / "sft", trainable=True)[0], rank=4, seed=0)


@pytest.mark.parametrize(("still", "moved"), [ROLES, ROLES[::-1]])
def test_a_role_without_weight_in_the_loss_keeps_its_adapter(prepared, still, moved):
    run = trained(steps=2, **{f"{still}_weight": 0.0})
    assert updates(run, still) == 0 and updates(run, moved) > 1e-3


def test_both_are_trained_resume_to_the_same_bits_and_act_in_their_role(prepared, monkeypatch):
    straight = trained()
    metrics = store.read_jsonl(straight / "metrics.jsonl")
    weights = {role: adapter(straight, role) for role in ROLES}
    assert all(updates(straight, role) > 1e-3 for role in ROLES)
    straight.rename(straight.with_name("straight"))

    append = store.append_jsonl

    def stop(file: Path, rows: list[dict[str, object]]) -> None:
        append(file, rows)
        if rows[0].get("step") == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.store, "append_jsonl", stop)
        trained()
    for role in ROLES:
        saved = load_file(straight / "checkpoints" / "checkpoint-2" / role / "adapter_model.safetensors")
        assert any(weight.abs().max() > 1e-3 for name, weight in saved.items() if "lora_B" in name)
    resumed = trained()
    timeless = [{key: value for key, value in row.items() if not key.endswith("_s")} for row in metrics]
    again = store.read_jsonl(resumed / "metrics.jsonl")
    assert [{key: row[key] for key in wanted} for row, wanted in zip(again, timeless, strict=True)] == timeless
    for role in ROLES:
        found = adapter(resumed, role)
        assert all(torch.equal(weight, found[name]) for name, weight in weights[role].items())

    cfg = config.load_params(FOLDER / "04_evaluation.two_adapters.yaml", limit=2, tuples=1, unreadable="direct")
    assert isinstance(cfg, Evaluation)
    asked: list[HFEngine] = []
    generate = HFEngine.generate
    monkeypatch.setattr(HFEngine, "generate", lambda self, *a, **b: asked.append(self) or generate(self, *a, **b))
    records = pd.read_parquet(evaluation.evaluate(cfg))
    assert len(asked) == 2  # plans, then programs
    for engine, role in zip(asked, ROLES, strict=True):
        own = model.load_policy(resumed / "policy" / role, dtype="float32")[0].state_dict()
        assert all(torch.equal(weight, own[name]) for name, weight in engine.model.state_dict().items())
    assert any(not torch.equal(weight, own[name]) for name, weight in asked[0].model.state_dict().items())
    assert len(records) == 2 * cfg.k and records["planner_tokens"].gt(0).any()


def test_a_saved_role_is_a_policy_by_itself(prepared):
    run = trained(steps=2)
    prompt, draws = [[5, 6, 7]], torch.zeros(1, 8, PARTS)
    for role in ROLES:
        policy, tokenizer = model.load_policy(role_policy(str(run / "policy"), role))
        assert len(sample(policy, prompt, draws, draw=Draw(0.0), end_ids=[tokenizer.eos_token_id], pad_id=1)[0]) > 0
    assert role_policy("some/hub-id", "planner") == "some/hub-id"


def test_microbatches_hold_rows_of_one_role():
    rows = {
        "prompt_ids": torch.arange(1, 7)[:, None],
        "prompt_mask": torch.ones(6, 1, dtype=torch.long),
        "completion_ids": torch.arange(11, 17)[:, None],
        "completion_mask": torch.ones(6, 1, dtype=torch.long),
        "advantages": torch.ones(6),
        "role": torch.tensor([0, 1, 1, 1, 1, 1]),
    }
    for parts in (2, 3, 6):
        halves = [
            {key: value[part] for key, value in rows.items()} for part in torch.tensor_split(torch.arange(6), parts)
        ]
        dealt, kept = compact(halves)
        assert kept == 6 and len(dealt) == parts
        assert all(len(part["role"]) and len(set(part["role"].tolist())) == 1 for part in dealt)
        found = sorted(
            (int(row), int(role)) for part in dealt for row, role in zip(part["prompt_ids"], part["role"], strict=True)
        )
        assert found == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]
