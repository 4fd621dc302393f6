"""CPPOTrainer against TRL: what must be equal is equal, and a resumed run ends with the same bits."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from small_policy import WORLD, Paid
from transformers import set_seed
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import ModelError, ParameterError
from cppo_lib.model import policy as model
from cppo_lib.reward.plan_following import MethodProbe
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.trainer import advantages
from cppo_lib.trainer.batching import compact
from cppo_lib.trainer.cppo_trainer import CPPOTrainer
from cppo_lib.trainer.objective import Objective
from cppo_lib.verifier import Verifier

CPPO = Objective("cppo", 4, 2, "followed", "method", 1.0, 1.0, 4, 12, 8)
GRPO = Objective("grpo", 4, 2, "own", "problem", 1.0, 1.0, 4, 12, 8)
STEPS, PROBLEMS = 3, 2


def config(objective: Objective, folder: Path, **changes) -> GRPOConfig:
    micro = changes.pop("microbatches", 1)
    return GRPOConfig(
        **{
            "output_dir": str(folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": PROBLEMS * objective.rows_per_problem // micro,
            "gradient_accumulation_steps": micro,
            "steps_per_generation": micro,
            "num_generations": objective.rows_per_problem,
            "max_completion_length": 8,
            "learning_rate": 1e-2,
            "lr_scheduler_type": "constant",
            "loss_type": "dapo",
            "beta": 0.0,
            "top_k": 0,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            "seed": 3,
            **changes,
        }
    )


def make(objective: Objective, policy_folder: Path, verifier: Verifier, out: Path, **changes) -> CPPOTrainer:
    policy, tokenizer = model.load_policy(policy_folder, dtype="float32")
    problems = crossroads.world(*WORLD)["train"][: changes.pop("problems", None)]
    return changes.pop("trainer", CPPOTrainer)(
        model=policy,
        tokenizer=tokenizer,
        args=config(objective, out, **changes),
        problems=problems,
        style=PromptStyle("brief", tokenizer),
        objective=objective,
        verifier=verifier,
        probe=MethodProbe(verifier) if objective.planned else None,
    )


def step(trainer: CPPOTrainer, rewards: torch.Tensor) -> dict[str, torch.Tensor]:
    """The batch of a step on the first problems, whose rows are paid these rewards."""
    trainer._rewards = lambda scores: rewards
    rows = [row for row in list(trainer.train_dataset)[:PROBLEMS] for _ in range(trainer.objective.rows_per_problem)]
    return trainer._generate_and_score_completions(rows)


def losses(trainer: GRPOTrainer) -> list[float]:
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


def gradients(trainer: GRPOTrainer) -> list[float]:
    """Gradient norms; on-policy losses are near 0 however much is learnt."""
    return [row["grad_norm"] for row in trainer.state.log_history if "grad_norm" in row]


def weights(trainer: GRPOTrainer) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def test_grpo_arm_equals_trl_step_for_step(policy_folder, verifier, tmp_path):
    """Planner and gate switched off, the trainer is TRL's GRPOTrainer: same losses, same weights.

    By plain gradient descent: Adam's steps are as long for a gradient that is only rounding, so they tell a processor
    that adds up in another order from a wrong gradient less well.
    """
    plain = {"optim": "sgd", "learning_rate": 1.0}
    ours = make(GRPO, policy_folder, verifier, tmp_path / "ours", **plain)
    before = weights(ours)
    ours.own_sampling = False  # TRL's own generation, so that both draw the same programs
    ours.train()

    policy, tokenizer = model.load_policy(policy_folder, dtype="float32")
    style = PromptStyle("brief", tokenizer)
    problems = crossroads.world(*WORLD)["train"]

    def accepted(completions: list[str], problem: list[int], **_: object) -> list[float]:
        pairs = [(problems[i], text) for i, text in zip(problem, completions, strict=True)]
        return [float(result.passed) for result in verifier.verify_many(pairs)]

    trl = GRPOTrainer(
        model=policy,
        reward_funcs=[accepted],
        args=config(GRPO, tmp_path / "trl", **plain),
        train_dataset=Dataset.from_list([{"prompt": style.direct(p), "problem": i} for i, p in enumerate(problems)]),
        processing_class=tokenizer,
    )
    trl.train()

    assert any(abs(loss) > 1e-4 for loss in losses(trl)), "a run without signal would prove nothing"
    assert losses(ours) == pytest.approx(losses(trl), abs=1e-5)
    assert not torch.allclose(weights(trl), before, atol=1e-2)
    assert torch.allclose(weights(ours), weights(trl), atol=1e-5)


@pytest.mark.parametrize("microbatches", [1, 4])
def test_microbatches_do_not_change_the_step(policy_folder, verifier, tmp_path, microbatches):
    one = {"trainer": Paid, "max_steps": 1}
    whole = make(CPPO, policy_folder, verifier, tmp_path / "whole", **one)
    before = weights(whole)
    whole.train()
    split = make(CPPO, policy_folder, verifier, tmp_path / "split", **one, microbatches=microbatches)
    split.train()
    assert not torch.allclose(weights(whole), before, atol=1e-3), "a run without signal would prove nothing"
    assert torch.allclose(weights(whole), weights(split), atol=1e-4)
    whole, split = ([row["program"] for row in trainer.scores.attempt_rows()] for trainer in (whole, split))
    assert whole == split


def test_programs_are_drawn_by_step_problem_and_member(policy_folder, verifier, tmp_path):
    trainer, rows = make(CPPO, policy_folder, verifier, tmp_path), CPPO.rows_per_problem

    def drawn(problems, step):
        trainer.state.global_step = step
        members = trainer._roll_out([problem for problem in problems for _ in range(CPPO.group_size)])
        return [sample.completion.ids for member in members for sample in (*member.plans, *member.attempts)]

    first, second = trainer.problems[:2]
    state = torch.get_rng_state()
    both = drawn([first, second], 0)
    assert len({str(both[at : at + CPPO.block]) for at in range(0, rows, CPPO.block)}) == CPPO.group_size
    assert drawn([second, first], 0) == both[rows:] + both[:rows]
    assert drawn([first], 0) == both[:rows] != drawn([first], 1)
    assert torch.equal(torch.get_rng_state(), state)


ANNEALED = dataclasses.replace(GRPO, algorithm="pkpo", pkpo_k=4, pkpo_k_end=1)


@pytest.mark.parametrize("objective", [CPPO, ANNEALED], ids=["cppo", "annealed"])
def test_resume_is_bit_identical(policy_folder, verifier, tmp_path, objective):
    """An annealed k is that of the step, also in a run that begins in the middle."""
    straight = make(objective, policy_folder, verifier, tmp_path / "straight", trainer=Paid, max_steps=4)
    straight.train()
    cut = {"trainer": Paid, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    first = make(objective, policy_folder, verifier, tmp_path / "cut", **cut)
    first.train()
    second = make(objective, policy_folder, verifier, tmp_path / "cut", trainer=Paid, max_steps=4)
    second.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-2"))
    assert losses(second)[-2:] == losses(straight)[-2:]
    assert min(gradients(straight)) > 1e-3, "a run without signal would prove nothing"
    assert torch.equal(weights(straight), weights(second))
    assert second.step_stats["rule_k"] == (1 if objective is ANNEALED else 4)


@pytest.mark.parametrize("step", [2, 3], ids=["between epochs", "within the second"])
def test_resume_is_bit_identical_after_the_first_epoch(policy_folder, verifier, tmp_path, step):
    """Four problems, two steps of two: each epoch has its own order, which no checkpoint holds."""
    short = {"trainer": Paid, "problems": 2 * PROBLEMS, "max_steps": 5}
    straight = make(CPPO, policy_folder, verifier, tmp_path, **short, save_strategy="steps", save_steps=1)
    straight.train()
    resumed = make(CPPO, policy_folder, verifier, tmp_path, **short)
    resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    assert min(gradients(straight)) > 1e-3, "a run without signal would prove nothing"
    assert losses(resumed) == losses(straight)
    assert torch.equal(weights(straight), weights(resumed))


def test_completions_end_at_further_tokens_whoever_samples(policy_folder, verifier, tmp_path):
    trainer = make(GRPO, policy_folder, verifier, tmp_path)
    prompts = [trainer._tokenizer(trainer.style.direct(problem))["input_ids"] for problem in trainer.problems[:4]]
    places = [(number,) for number in range(4)]
    for own in (True, False):
        trainer.own_sampling = own
        set_seed(5)
        plain = [completion.ids for completion in trainer._complete(prompts, 8, places, role="solver")]
        further = [next(row[1] for row in plain if len(row) > 3)]
        set_seed(5)
        completions = trainer._complete(prompts, 8, places, role="solver", also_end=further)
        ended = [completion.ids for completion in completions]
        cuts = [next((at for at, token in enumerate(row, start=1) if token in further), len(row)) for row in plain]
        assert ended == [row[:cut] for row, cut in zip(plain, cuts, strict=True)] != plain


def test_annealed_k_has_an_equal_share_of_the_steps():
    assert [ANNEALED.k_at(step, 8) for step in range(8)] == [4, 4, 3, 3, 2, 2, 1, 1]
    rising = dataclasses.replace(ANNEALED, pkpo_k=1, pkpo_k_end=3)
    assert [rising.k_at(step, 4) for step in range(4)] == [1, 1, 2, 3]
    assert {GRPO.k_at(step, 4) for step in range(4)} == {4}
    assert ANNEALED.k_at(0, 1) == 4


def test_log_probabilities_of_sampled_programs_are_those_of_the_policy(policy_folder, verifier, tmp_path):
    """Against one plain forward pass per sampled row, without padding."""
    objective = dataclasses.replace(GRPO, algorithm="unlikeliness")
    trainer = make(objective, policy_folder, verifier, tmp_path)
    rewards = torch.tensor([1.0, 1, 0, 1, 1, 0, 1, 1] * PROBLEMS)
    batch, expected = step(trainer, rewards), []
    for sample in trainer.scores.samples:
        ids = torch.tensor([sample.prompt_ids + sample.completion.ids])
        with torch.no_grad():
            logps = trainer.model(ids).logits.log_softmax(-1)[0, :-1]
        tail = range(len(sample.prompt_ids) - 1, ids.shape[1] - 1)
        expected.append(sum(logps[at, ids[0, at + 1]].item() for at in tail))
    assert trainer._sequence_logps(batch).tolist() == pytest.approx(expected, abs=1e-3)
    shaped = advantages.unlikely(rewards.view(PROBLEMS, -1), torch.tensor(expected).view(PROBLEMS, -1))
    assert batch["advantages"].tolist() == pytest.approx(advantages.grpo(shaped).flatten().tolist(), abs=1e-4)


def test_entropy_bonus_counts_every_row_and_enters_the_loss(policy_folder, verifier, tmp_path):
    plain = make(GRPO, policy_folder, verifier, tmp_path / "plain", max_steps=1)
    plain.train()
    bonus = make(GRPO, policy_folder, verifier, tmp_path / "bonus", max_steps=1, entropy_coef=0.5)
    bonus.train()
    assert "kept_rows" in plain.step_stats and "kept_rows" not in bonus.step_stats
    assert len(bonus._buffered_inputs[0]["advantages"]) == PROBLEMS * GRPO.rows_per_problem
    [entropy] = [row["entropy"] for row in bonus.state.log_history if "entropy" in row]
    assert entropy > 0.1
    assert losses(bonus)[0] == pytest.approx(losses(plain)[0] - 0.5 * entropy, abs=1e-4)
    assert not torch.equal(weights(plain), weights(bonus))


def test_frozen_solver_gets_no_gradient_rows(policy_folder, verifier, tmp_path):
    trainer = make(dataclasses.replace(CPPO, credit="frozen"), policy_folder, verifier, tmp_path, max_steps=1)
    rewards = torch.tensor([1.0, 1, 0, 0, 0, 0.0, 0, 0, 0, 0] * PROBLEMS)
    scaled = step(trainer, rewards)["advantages"].view(-1, 5)
    assert (scaled[:, 1:] == 0).all() and (scaled[:, 0] != 0).all()


def test_region_weights_make_the_loss_a_sum_of_role_means(policy_folder, verifier, tmp_path):
    """sum(A * tokens) / N over all rows equals w_P * planner mean + w_S * solver mean of the unscaled advantages."""
    objective = dataclasses.replace(CPPO, planner_weight=2.0, solver_weight=0.5, solver_grouping="problem")
    trainer = make(objective, policy_folder, verifier, tmp_path, max_steps=1)
    rewards = torch.tensor([1.0, 1, 0, 0, 1, 0, 0, 1, 0, 0] * PROBLEMS)
    batch = step(trainer, rewards)
    tokens = batch["completion_mask"].sum(dim=1)
    folded = (batch["advantages"] * tokens).sum() / tokens.sum()
    blocks, counts = rewards.view(-1, 2, 5), tokens.view(-1, 2, 5)
    planner, solver = advantages.cppo_advantages(blocks[..., 0], blocks[..., 1:])
    expected = 2.0 * (planner * counts[..., 0]).sum() / counts[..., 0].sum()
    expected += 0.5 * (solver * counts[..., 1:]).sum() / counts[..., 1:].sum()
    assert folded == pytest.approx(expected.item(), abs=1e-5)


def chunk(prompts: list[list[int]], completions: list[list[int]], values: list[float]) -> dict[str, torch.Tensor]:
    def padded(rows: list[list[int]], width: int, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        fill = [[0] * (width - len(r)) for r in rows]
        ids = [f + r if left else r + f for f, r in zip(fill, rows, strict=True)]
        masks = [([0] * len(f), [1] * len(r)) for f, r in zip(fill, rows, strict=True)]
        ones = [f + r if left else r + f for f, r in masks]
        return torch.tensor(ids), torch.tensor(ones)

    prompt_ids, prompt_mask = padded(prompts, 4, True)
    completion_ids, completion_mask = padded(completions, 3, False)
    return {
        "prompt_ids": prompt_ids,
        "prompt_mask": prompt_mask,
        "completion_ids": completion_ids,
        "completion_mask": completion_mask,
        "advantages": torch.tensor(values),
        "num_items_in_batch": torch.tensor(99),
    }


def test_compact_merges_drops_sorts_and_trims():
    rows = chunk([[5, 6, 7], [5], [5, 6, 7], [8]], [[1, 2], [3], [1, 2], [4]], [0.5, 0.0, 0.25, -1.0])
    [part], kept = compact([rows])
    assert kept == 2
    assert part["advantages"].tolist() == [-1.0, 0.75]  # the short row first, equal rows added up
    assert part["prompt_ids"].tolist() == [[0, 0, 8], [5, 6, 7]]
    assert part["completion_ids"].tolist() == [[4, 0], [1, 2]]
    assert part["num_items_in_batch"].item() == 99


def test_compact_adds_the_weights_of_equal_rows_and_averages_their_advantages():
    """With a KL term a row of zero advantage counts; one of zero weight does not."""
    rows = chunk([[5], [5], [6], [7]], [[1, 2], [1, 2], [3], [4]], [1.0, -0.5, 0.0, 2.0])
    [part], kept = compact([rows | {"row_weight": torch.tensor([2.0, 1.0, 3.0, 0.0])}])
    assert kept == 2
    assert part["completion_ids"].tolist() == [[3, 0], [1, 2]]
    assert part["row_weight"].tolist() == [3.0, 3.0]
    assert part["advantages"].tolist() == [0.0, 0.5]  # (2 * 1 - 1 * 0.5) / 3


def test_compact_fills_empty_microbatches_with_silent_rows():
    rows = chunk([[5], [6]], [[1], [2]], [0.0, 0.0])
    parts, kept = compact([rows, rows, rows])
    assert kept == 0 and len(parts) == 3
    assert all(len(part["advantages"]) == 1 and part["advantages"].item() == 0 for part in parts)
    one = chunk([[5, 6, 7], [6]], [[1, 2, 3], [2, 3]], [0.5, 0.0])
    parts, kept = compact([one, chunk([[8]], [[4]], [0.0])])
    assert kept == 1
    assert [part["completion_ids"].tolist() for part in parts] == [[[2]], [[1, 2, 3]]]  # the filler is one token long
    assert [part["prompt_ids"].tolist() for part in parts] == [[[6]], [[5, 6, 7]]]
    assert [part["advantages"].tolist() for part in parts] == [[0.0], [0.5]]


def test_followed_credit_without_a_probe_is_refused(policy_folder, verifier, tmp_path):
    policy, tokenizer = model.load_policy(policy_folder)
    with pytest.raises(ParameterError, match="judges plan-following"):
        CPPOTrainer(
            model=policy,
            tokenizer=tokenizer,
            args=config(CPPO, tmp_path),
            problems=crossroads.world(*WORLD)["train"],
            style=PromptStyle("brief", tokenizer),
            objective=CPPO,
            verifier=verifier,
            probe=None,
        )


def test_weights_of_half_precision_are_refused(policy_folder, verifier, tmp_path):
    coarse, tokenizer = model.load_policy(policy_folder, dtype="bfloat16")
    given = {"tokenizer": tokenizer, "args": config(GRPO, tmp_path), "problems": [], "verifier": verifier}
    with pytest.raises(ModelError, match="are bfloat16, in which a small update is lost: load them as float32"):
        CPPOTrainer(model=coarse, style=PromptStyle("brief", tokenizer), objective=GRPO, probe=None, **given)


def test_the_kl_is_to_the_policy_that_training_starts_from_wherever_it_was_read(policy_folder, verifier, tmp_path):
    """As of a model into which an adapter was merged: its folder holds other weights."""
    policy, tokenizer = model.load_policy(policy_folder, dtype="float32")
    with torch.no_grad():
        policy.get_input_embeddings().weight.add_(0.1)
    given = {"tokenizer": tokenizer, "problems": crossroads.world(*WORLD)["train"], "verifier": verifier}
    trainer = CPPOTrainer(
        model=policy, args=config(GRPO, tmp_path, beta=0.1), style=PromptStyle("brief", tokenizer), objective=GRPO,
        probe=None, **given,
    )  # fmt: skip
    pairs = zip(trainer.ref_model.parameters(), policy.parameters(), strict=True)
    assert all(torch.equal(reference, weight) for reference, weight in pairs)


WARM_UP = dataclasses.replace(CPPO, algorithm="planner", credit="frozen", reward="gate")


def test_the_warm_up_trains_plans_alone_for_their_validity(policy_folder, verifier, tmp_path):
    trainer = make(WARM_UP, policy_folder, verifier, tmp_path, max_steps=2, microbatches=2)
    before = weights(trainer)
    trainer.train()
    assert WARM_UP.block == 1 and len(trainer.scores.samples) == PROBLEMS * WARM_UP.group_size
    assert trainer.scores.r_plan.tolist() == [float(member.valid) for member in trainer.scores.members]
    rows = trainer.scores.attempt_rows()
    assert len(rows) == PROBLEMS * WARM_UP.group_size * 4 and {row["program"] for row in rows} == {None}
    assert trainer.step_stats["programs"] == trainer.step_stats["solver_tokens"] == 0
    assert not torch.equal(weights(trainer), before)


def test_samples_that_the_limit_has_ended_are_left_out_or_kept(policy_folder, verifier, tmp_path):
    short = dataclasses.replace(CPPO, max_plan_tokens=3, max_program_tokens=4, max_total_tokens=60)
    released = dataclasses.replace(short, cut="left_out")
    rewards = torch.arange(2.0 * PROBLEMS * CPPO.block)
    for objective in (short, released):
        trainer = make(objective, policy_folder, verifier, tmp_path, beta=0.1)
        batch = step(trainer, rewards)
        samples = trainer.scores.samples
        ended = [sample.completion.ids[-1] in trainer.eos_token_ids for sample in samples]
        assert [not sample.completion.cut for sample in samples] == ended
        assert 0 < sum(ended) < len(ended)
        assert max(len(s.prompt_ids) + len(s.completion.ids) for s in samples) <= 60
        counted = (batch["row_weight"] > 0).tolist()
        assert counted == (ended if objective is released else [True] * len(ended))
    pairs = [pair for member in trainer.scores.members for pair in zip(member.attempts, member.programs, strict=True)]
    assert {bool(program) for sample, program in pairs if sample.completion.cut} == {False}
    assert not any(member.parsed.methods for member in trainer.scores.members if member.plans[0].completion.cut)


def test_wrong_geometry_is_refused(policy_folder, verifier, tmp_path):
    with pytest.raises(ParameterError, match="num_generations"):
        make(CPPO, policy_folder, verifier, tmp_path, num_generations=5)


def test_model_folder_without_weights_is_refused(policy_folder, tmp_path):
    (tmp_path / "config.json").write_text((policy_folder / "config.json").read_text())
    with pytest.raises(model.ModelError, match="no model weights"):
        model.load_policy(tmp_path)


def test_saved_tokenizer_loads_back_as_it_was(policy_folder):
    _, loaded = model.load_policy(policy_folder)
    assert loaded.tokenize("Find the middle\n1. mean\n2. mode").count("Ċ2.Ġ") == 1
    assert json.loads((policy_folder / "tokenizer.json").read_text())["model"]["type"] == "BPE"
    set_seed(0)
