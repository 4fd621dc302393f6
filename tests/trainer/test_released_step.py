"""CPPO as its authors released it: their functions' outputs, and a step against a loop that shares no code with it."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import pytest
import torch
from released import named
from small_policy import WORLD, Paid

from cppo_lib.data.benchmarks import crossroads
from cppo_lib.model import policy as model
from cppo_lib.reward.plan_following import MethodProbe
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.rollout.replies import normalise
from cppo_lib.trainer.advantages import grpo_population
from cppo_lib.trainer.objective import Objective, grpo_config
from cppo_lib.verifier import Verifier

RELEASED = Objective(
    "cppo", 4, 2, "own", "tuple", 1.0, 1.0, 4, 12, 8,
    group_rule="grpo_population", loss_mean="rows", cut="left_out",
    temperature=0.7, planner_temperature=0.9, logprobs_at="one",
)  # fmt: skip
FAITHFUL = Objective("cppo", 4, 2, "followed", "method", 1.0, 1.0, 4, 12, 8, temperature=0.8)
PROBLEMS = 2


def make(objective: Objective, folder: Path, verifier: Verifier, out: Path, trainer=Paid, **settings):
    policy, tokenizer = model.load_policy(folder, dtype="float32")
    args = grpo_config(
        objective,
        output_dir=str(out),
        problems_per_step=PROBLEMS,
        vllm=False,
        **{
            "microbatches": 1,
            "max_steps": 1,
            "learning_rate": 1.0,
            "optim": "sgd",
            "max_grad_norm": 0.0,
            "beta": 0.0,
            "seed": 3,
            "save_strategy": "no",
            "report_to": [],
            "use_cpu": True,
            "bf16": False,
            "gradient_checkpointing": False,
            "disable_tqdm": True,
            **settings,
        },
    )
    return trainer(
        model=policy,
        tokenizer=tokenizer,
        args=args,
        problems=crossroads.world(*WORLD)["train"],
        style=PromptStyle("brief", tokenizer),
        objective=objective,
        verifier=verifier,
        probe=MethodProbe(verifier),
    )


# --- the authors' functions ---------------------------------------------------------------------


@pytest.mark.parametrize("row", named("advantages"))
def test_advantages_are_those_of_the_release(row):
    got = grpo_population(torch.tensor(row["rewards"], dtype=torch.float64))
    assert got.tolist() == pytest.approx(row["advantages"], abs=1e-6)


class Given(Paid):
    """Its model's log-probabilities are given, so that the loss can be held to theirs."""

    logps: torch.Tensor

    def _get_per_token_logps_and_entropies(self, *args, **kwargs):
        return self.logps, torch.zeros_like(self.logps), None


@pytest.mark.parametrize("row", named("losses"))
def test_loss_and_gradient_are_those_of_the_release(row, policy_folder, verifier, tmp_path):
    trainer = make(RELEASED, policy_folder, verifier, tmp_path, trainer=Given, beta=row["kl_weight"])
    assert (trainer.epsilon_low, trainer.epsilon_high) == (row["clip"], row["clip"])
    trainer.logps = torch.tensor([row["new"]], requires_grad=True)
    trainer.current_gradient_accumulation_steps = 1
    ids = torch.ones(1, len(row["new"]), dtype=torch.long)
    inputs = {"prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": ids}
    given = {name: torch.tensor([row[key]]) for name, key in (("old", "old"), ("ref", "ref"))}
    loss = trainer._compute_loss(
        trainer.model,
        inputs
        | {f"{name}_per_token_logps": value for name, value in given.items()}
        | {"advantages": torch.tensor([row["advantage"]]), "row_weight": torch.ones(1)}
        | {"num_items_in_batch": ids.sum()},
    )
    loss.backward()
    assert loss.item() == pytest.approx(row["loss"], abs=1e-6)
    assert trainer.logps.grad[0].tolist() == pytest.approx(row["grad"], abs=1e-6)


# --- a step -------------------------------------------------------------------------------------


def contrast(rewards: list[float], *, population: bool) -> list[float]:
    n, mean = len(rewards), sum(rewards) / len(rewards)
    if max(rewards) == min(rewards):
        return [0.0] * n
    spread = (sum((r - mean) ** 2 for r in rewards) / (n if population else n - 1)) ** 0.5
    return [(r - mean) / (spread + (1e-8 if population else 1e-4)) for r in rewards]


def plain_advantages(trainer: Paid) -> list[float]:
    """Row by row, [plan, program 1..K] of each member: two tuples a problem, side by side."""
    objective, rewards = trainer.objective, trainer._rewards(trainer.scores).tolist()
    released, block = objective is RELEASED, objective.block
    found = [0.0] * len(rewards)
    for first in range(0, len(rewards), 2 * block):
        plans = [first, first + block]
        groups = [plans]
        if released:
            groups += [[plan + 1 + slot for slot in range(4)] for plan in plans]
        else:
            same = defaultdict(list)
            for plan in plans:
                for slot, method in enumerate(trainer.scores.members[plan // block].strategies):
                    same[normalise(method or "")].append(plan + 1 + slot)
            groups += [group for group in same.values() if len(group) > 1]
        for group in groups:
            for row, value in zip(group, contrast([rewards[i] for i in group], population=released), strict=True):
                found[row] = value
    return found


def logps(policy, sample, temperature: float) -> torch.Tensor:
    """Of one completion's tokens, alone in a batch."""
    ids = torch.tensor([sample.prompt_ids + sample.completion.ids])
    logits = policy(input_ids=ids).logits[0, len(sample.prompt_ids) - 1 : -1] / temperature
    return logits.log_softmax(dim=-1).gather(-1, ids[0, len(sample.prompt_ids) :].unsqueeze(-1)).squeeze(-1)


def plain_gradient(trainer: Paid, policy, reference, beta: float) -> torch.Tensor:
    """The gradient of the step's loss, one row at a time: no batch, no padding, no merging of rows."""
    objective, samples = trainer.objective, trainer.scores.samples
    released = objective is RELEASED
    temperature = 1.0 if released else objective.temperature
    rows = [i for i, sample in enumerate(samples) if not (released and sample.completion.cut)]
    plans = [i for i in rows if i % objective.block == 0]
    lengths = {
        True: sum(len(samples[i].completion.ids) for i in plans),
        False: sum(len(samples[i].completion.ids) for i in rows if i not in plans),
    }
    advantages = plain_advantages(trainer)
    policy.zero_grad()
    for i in rows:
        new = logps(policy, samples[i], temperature)
        with torch.no_grad():
            distance = logps(reference, samples[i], temperature)
        distance = distance - new
        each = -torch.exp(new - new.detach()) * advantages[i] + beta * (distance.exp() - 1 - distance)
        # Released: the mean over rows of each row's mean. Ours: the mean over planner tokens and that over solver's.
        share = each.mean() / len(rows) if released else each.sum() / lengths[i in plans]
        share.backward()
    return torch.cat([weight.grad.flatten() for weight in policy.parameters()])


@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("objective", [RELEASED, FAITHFUL], ids=["released", "faithful"])
def test_a_step_is_that_of_a_plain_loop(objective, beta, policy_folder, verifier, tmp_path):
    trainer = make(objective, policy_folder, verifier, tmp_path, beta=beta, microbatches=4)
    reference, _ = model.load_policy(policy_folder, dtype="float32")
    with torch.no_grad():  # else the policy is its own reference, whose KL has no gradient
        torch.manual_seed(0)
        for weight in trainer.model.parameters():
            weight.add_(0.02 * torch.randn_like(weight))
    started, _ = model.load_policy(policy_folder, dtype="float32")
    started.load_state_dict(trainer.model.state_dict())
    before = torch.cat([weight.detach().flatten().clone() for weight in trainer.model.parameters()])
    trainer.train()
    taken = before - torch.cat([weight.detach().flatten() for weight in trainer.model.parameters()])
    expected = plain_gradient(trainer, started, reference, beta)
    assert expected.abs().max() > 1e-2, "a step without signal would prove nothing"
    assert torch.allclose(taken, expected, rtol=0, atol=1e-5), (taken - expected).abs().max()
    assert trainer.step_stats["kept_rows"] <= len(trainer.scores.samples)
