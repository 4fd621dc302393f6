"""CPPOTrainer: split-region GRPO on TRL's GRPOTrainer.

A training step on P problems, each with G group members, is `CPPOTrainer._generate_and_score_completions`:

1. roll out: a planner sample and K solver samples per member (`rollout`), and the gate's decision J (`gated`);
2. verify and score: verdicts r_k, R_out = max_k r_k, R_plan = J * R_out, solver credit (`reward.score`);
3. advantages: planner samples are compared with the G planner samples of the problem, solver samples with those that
   `solver_grouping` names (`advantages.cppo_advantages`);
4. weigh the rows, so that the loss is the mean over rows, or w_P * mean over planner tokens + w_S * mean over solver
   tokens (`advantages.row_weights`);
5. the batch goes to TRL's loss (`dapo`: token mean over the generation batch) and optimiser step.

The rows of a member stand side by side, [planner, solver 1..K], so that a group is `num_generations = G * (1 + K)`
rows in TRL's own geometry, and distribution, PEFT, vLLM and resume are TRL's. The warm-up (`planner`) has rows
[planner] only: R = J, and no program is written. Direct arms (GRPO, PKPO and the other rules of `advantages`) have rows
[solver 1..K] only: `num_generations = G * K`, one advantage rule over all of them.

Departure from plain TRL: `batching.compact` leaves out rows that cannot change the step and runs equal rows once. That
is exact for the on-policy token-mean loss, and is not done with an entropy bonus (TRL's: the mean entropy over all
tokens of the step) or with vLLM's importance weights. With a KL term a row's weight goes into TRL's `tool_mask`, which
multiplies the loss of each token, KL included; without one it stands in the advantage.
"""

from __future__ import annotations

import contextlib
import math
import time
import zlib
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from trl.models.utils import unwrap_model_for_generation
from trl.trainer.grpo_config import GRPOConfig
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import use_adapter

from cppo_lib.data.problem import Problem
from cppo_lib.errors import ModelError, ParameterError
from cppo_lib.model.adapters import ROLES, Role, has_roles, use_role
from cppo_lib.model.decoding import Draw, sample, uniform
from cppo_lib.model.engine import Completion, Place
from cppo_lib.model.kv_cache import group_heads
from cppo_lib.model.policy import REFERENCE
from cppo_lib.reward.density import density
from cppo_lib.reward.gate_rules import Scorer, gated
from cppo_lib.reward.plan_following import MethodProbe
from cppo_lib.reward.score import Scores, score, score_plans, statistics
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.rollout.replies import normalise
from cppo_lib.rollout.two_stage import Member, rollout
from cppo_lib.trainer import advantages
from cppo_lib.trainer.batching import ResumableOrder, compact
from cppo_lib.trainer.objective import Objective, check_geometry, check_trl
from cppo_lib.verifier import Verifier


class CPPOTrainer(GRPOTrainer):
    """GRPO with a planner and a solver role; see the module's docstring.

    Args:
        model, tokenizer: the policy; both roles share its weights.
        args: TRL's configuration; `num_generations`, the loss type and the batch geometry must fit the objective.
        problems: the training problems.
        style: renders prompts.
        objective: what is optimised.
        verifier: runs programs.
        probe: finds the method a program implements, or None where a benchmark has no such probe.
        scorer: the gate's frozen model, of this process alone; None: the gate is its rules.

    Attributes:
        scores: this process's part of the latest step.
        step_stats: what is logged of the latest step; the names are those of `step_log.METRICS`.

    Raises:
        ParameterError: a TRL version or geometry that does not fit, or a credit that needs a probe there is not.
        ModelError: weights that are to be trained are of half precision.
    """

    scores: Scores

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        args: GRPOConfig,
        problems: Sequence[Problem],
        style: PromptStyle,
        objective: Objective,
        verifier: Verifier,
        probe: MethodProbe | None,
        scorer: Scorer | None = None,
    ) -> None:
        check_trl()
        check_geometry(args, objective)
        refuse_half_precision(model)
        if objective.planned and objective.credit == "followed" and probe is None:
            raise ParameterError(
                "credit 'followed' needs a benchmark that judges plan-following; choose own, marginal or frozen"
            )
        self.objective: Objective = objective
        self.problems, self.style = problems, style
        self.verifier, self.probe, self.scorer = verifier, probe, scorer
        self.step_stats: dict[str, Any] = {}
        rows = [{"prompt": style.direct(p), "problem": i} for i, p in enumerate(problems)]
        super().__init__(
            model=model,
            reward_funcs=[_paid],
            args=args,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        if self.ref_model is not None and not (self.is_fsdp_enabled or self.is_deepspeed_enabled):
            # TRL reads it from where the model says that it is from: without an adapter that was merged into it.
            self.ref_model.load_state_dict(model.state_dict())
        # Processes that hold parts of the weights must all take the same steps, which TRL's own generation sees to.
        self.own_sampling = not (self.use_vllm or self.is_fsdp_enabled or self.is_deepspeed_enabled)
        if objective.unreadable == "nothing" and not self.own_sampling and self.accelerator.num_processes > 1:
            raise ParameterError(
                "unreadable: nothing makes processes ask for different numbers of programs, which those that share "
                "weights or engines wait for: set unreadable: direct"
            )
        self.role_adapters = has_roles(model)
        if self.role_adapters and (self.accelerator.num_processes > 1 or not self.own_sampling):
            raise ParameterError("an adapter for each role is trained by one process: set sharing: all for several")

    # --- the step -----------------------------------------------------------------------------------------------

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """A training step up to its loss: from the problems of this process's rows to its part of the batch."""
        objective, gather = self.objective, self.accelerator.gather
        k = objective.k_at(self.state.global_step, self.args.max_steps)  # a resumed run knows its step too

        # 1. roll out, and the gate's decisions
        numbers = [row["problem"] for row in inputs[:: objective.block]]
        found = {number: self.problems[number] for number in {*numbers}}  # each is read once
        began = time.perf_counter()
        members = gated(self._roll_out([found[number] for number in numbers]), self.scorer)
        rolled_out = time.perf_counter()
        # 2. verify and score
        if objective.attempts:
            self.scores = score(
                members,
                self.verifier,
                self.probe if objective.planned else None,
                planner_reward=objective.reward,
                # A frozen solver is still given a reward, which its weight of 0 takes out of the loss.
                credit=objective.credit if objective.planned and objective.credit != "frozen" else "own",
                outcome_reward=objective.outcome_reward,
                solver_prompt=objective.solver_prompt,
            )
        else:
            self.scores = score_plans(members)
        self.step_stats = {"generate_s": rolled_out - began, "verifier_s": time.perf_counter() - rolled_out}

        batch = self._padded(inputs, rewards := self._rewards(self.scores))
        tokens = batch["completion_mask"].sum(dim=1)
        # 3. advantages, of the rows of all processes: a group may be spread over several
        rewards, tokens = gather(rewards.to(tokens.device)), gather(tokens)
        kept = gather(self._in_loss().to(tokens.device))
        shape = (-1, objective.group_size, objective.block)
        blocks = rewards.view(shape)
        planner_rows = torch.zeros_like(blocks, dtype=torch.bool)
        if objective.planned:
            planner_rows[..., 0] = True
            planner, solver = advantages.cppo_advantages(
                blocks[..., 0],
                blocks[..., 1:],
                solver_grouping=objective.solver_grouping,
                methods=gather(_method_ids(members).to(tokens.device)).view(-1, objective.group_size, objective.k),
                planner_rule=objective.group_rule,
                solver_rule=objective.group_rule,
            )
            gained = torch.cat([planner.unsqueeze(-1), solver], dim=-1).flatten()
        else:
            groups = rewards.view(-1, objective.rows_per_problem)
            if objective.algorithm == "unlikeliness":
                groups = advantages.unlikely(groups, gather(self._sequence_logps(batch)).view_as(groups))
            gained = advantages.get_rule(objective.algorithm)(groups, k=k).flatten()
        # 4. weigh the rows
        weights = advantages.row_weights(
            tokens,
            planner_rows.flatten(),
            loss_mean=objective.loss_mean,
            kept=kept,
            planner_weight=objective.planner_weight,
            solver_weight=0.0 if objective.planned and objective.credit == "frozen" else objective.solver_weight,
        )

        # 5. the batch
        own = slice(first := self.accelerator.process_index * len(inputs), first + len(inputs))
        if self.beta:
            batch["advantages"], batch["row_weight"] = gained[own], weights[own]
        else:
            batch["advantages"] = (gained * weights)[own]
        if self.role_adapters:
            roles = [0, *[1] * objective.k] * len(members)
            batch["role"] = torch.tensor(roles, device=gained.device)
        self.step_stats |= (
            self._means() | self._counts(tokens) | self._signal(blocks, gained.view(shape)) | {"rule_k": k}
        )
        return batch

    def _in_loss(self) -> Tensor:
        """(rows,) bool: rows that are in the loss. Not attempts that were not made, nor, if so wished, cut samples."""
        kept_cut = self.objective.cut == "kept"
        return torch.tensor([bool(s.completion.ids) and s.readable(kept_cut) for s in self.scores.samples])

    def _roll_out(self, problems: list[Problem]) -> list[Member]:
        """The members of this process, one per entry of `problems`."""
        objective = self.objective
        first = self.accelerator.process_index * len(problems)
        return rollout(
            problems,
            objective.procedure,
            objective.k,
            style=self.style,
            generate=partial(self._complete, role="solver", also_end=self.style.program_ends),
            generate_plans=partial(self._complete, role="planner"),
            max_plan_tokens=objective.max_plan_tokens,
            max_program_tokens=objective.max_program_tokens,
            solver_prompt=objective.solver_prompt,
            unreadable=objective.unreadable,
            solve=objective.attempts > 0,
            read_cut=objective.cut == "kept",
            numbers=[number % objective.group_size for number in range(first, first + len(problems))],
        )

    def _complete(
        self,
        prompt_ids: list[list[int]],
        limit: int,
        places: list[Place],
        *,
        role: Role,
        also_end: Sequence[int] = (),
    ) -> list[Completion]:
        ends = {*self.eos_token_ids, *also_end}
        if self.own_sampling:
            rows = self._sample(prompt_ids, limit, places, role, ends)
            logps = None
        else:
            with self._limits(limit, role):
                # Solver prompts all differ, so each asks for one generation (backends deduplicate prompts by this).
                rows, logps = self._generate_single_turn(prompt_ids, None, {}, 1)
        completions = []
        for number, (prompt, row) in enumerate(zip(prompt_ids, rows, strict=True)):
            room = limit if self.objective.max_total_tokens is None else self.objective.max_total_tokens - len(prompt)
            most = max(1, min(limit, room))
            # Cut here, since TRL's backends know one end token: the same draws as stopping there, only later.
            end = next((at + 1 for at, token in enumerate(row[:most]) if token in ends), None)
            stop = min(most, len(row)) if end is None else end
            completions.append(Completion(row[:stop], logps[number][:stop] if logps else None, cut=end is None))
        return completions

    def _sample(
        self, prompt_ids: list[list[int]], limit: int, places: list[Place], role: Role, ends: Collection[int]
    ) -> list[list[int]]:
        """What TRL does with `generate`, by our decoding; drawn by step and place, which a resumed run knows."""
        roots: list[Place] = [(self.args.seed, "step", self.state.global_step, *place) for place in places]
        checkpointing: Any = self.args.gradient_checkpointing_kwargs
        opened = unwrap_model_for_generation(
            self.model_wrapped, self.accelerator, gradient_checkpointing_kwargs=checkpointing
        )
        with opened as policy:
            group_heads(policy)
            if self.role_adapters:
                use_role(policy, role)
            return sample(
                policy,
                prompt_ids,
                uniform(roots, limit),
                draw=Draw(self.objective.temperature_of(role), self.objective.top_p, self.objective.top_k),
                end_ids=sorted(ends),
                pad_id=self._tokenizer.pad_token_id,
            )

    @contextlib.contextmanager
    def _limits(self, limit: int, role: Role) -> Iterator[None]:
        """Planner and solver have their own limits and temperatures; every backend reads these at each call."""
        holder: Any = self.vllm_generation if self.use_vllm else self.generation_config
        name = "max_completion_length" if self.use_vllm else "max_new_tokens"
        given = {name: limit, "temperature": self.objective.temperature_of(role)}
        before = {key: getattr(holder, key) for key in given}
        for key, value in given.items():
            setattr(holder, key, value)
        try:
            yield
        finally:
            for key, value in before.items():
                setattr(holder, key, value)

    def _rewards(self, scores: Scores) -> Tensor:
        """(rows,) the rewards of this process's rows."""
        return scores.rewards

    def _padded(self, inputs: list[dict[str, Any]], rewards: Tensor) -> dict[str, Any]:
        """TRL's tensors of the step, with what its loss takes beside ids: a KL term's and vLLM's log-probabilities.

        TRL is handed completions in place of generating them, and their rewards, which it logs.
        """
        samples = self.scores.samples
        logps = [sample.completion.logps for sample in samples]
        rolled_out = {
            "prompt_ids": [sample.prompt_ids for sample in samples],
            # TRL has no rows without tokens; one that stands for an attempt that was not made is not in the loss.
            "completion_ids": [sample.completion.ids or [self.eos_token_ids[0]] for sample in samples],
            "logprobs": logps if all(row is not None for row in logps) else None,
            "reward": rewards.tolist(),
        }
        self.rollout_func: Any = lambda prompts, trainer: rolled_out
        beta, self.beta = self.beta, 0.0  # the reference's log-probabilities are found later, for rows that are kept
        try:
            batch: dict[str, Any] = super()._generate_and_score_completions(inputs)
        finally:
            self.beta = beta
        return batch

    def _reference_logps(self, batch: dict[str, Any]) -> Tensor:
        """(rows, tokens) log-probabilities of the completions under the policy that training started from.

        As TRL finds them, but after equal rows were merged.
        """
        if self.ref_model is not None:
            return self._logps(self.ref_model, batch)
        bare = self.accelerator.unwrap_model(self.model)
        # Without the adapter, or with the one that training started from.
        with use_adapter(bare, REFERENCE if REFERENCE in bare.peft_config else None):
            return self._logps(self.model, batch)

    @torch.no_grad()
    def _logps(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """(rows, tokens) log-probabilities of the batch's completions under a model, without gradients."""
        logps, _, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1),
            torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1),
            batch["completion_ids"].size(1),
            batch_size=self.args.per_device_train_batch_size,
        )
        found: Tensor = logps
        return found

    def _sequence_logps(self, batch: dict[str, Any]) -> Tensor:
        """(rows,) log-probability of each row's completion under the policy that sampled it.

        TRL has them where it corrects for a sampler in another process. Elsewhere they cost a forward pass, without
        gradients, over all rows of the batch.
        """
        mask = batch["completion_mask"]
        if "old_per_token_logps" in batch:
            return (batch["old_per_token_logps"] * mask).sum(dim=1)
        return (self._logps(self.model, batch) * mask).sum(dim=1)

    def _means(self) -> dict[str, float]:
        """What is known of the step's members, as means over all processes."""
        local = statistics(self.scores)
        values = torch.tensor([list(local.values())], device=self.accelerator.device)
        means = self.accelerator.gather(values).mean(dim=0).tolist()
        return {name: value for name, value in zip(local, means, strict=True) if not math.isnan(value)}

    def _counts(self, tokens: Tensor) -> dict[str, int]:
        """Tokens and programs of all processes; `tokens`: (rows,)."""
        made = torch.tensor([sum(slot.made for slot in m.slots) if m.attempts else 0 for m in self.scores.members])
        counts = tokens.view(-1, self.objective.block)
        planner_tokens = int(counts[:, 0].sum()) if self.objective.planned else 0
        return {
            "planner_tokens": planner_tokens,
            "solver_tokens": int(counts.sum()) - planner_tokens,
            "programs": int(self.accelerator.gather(made.to(tokens.device)).sum()),
        }

    def _signal(self, rewards: Tensor, gained: Tensor) -> dict[str, float]:
        """Is there anything to learn from? Both (problems, G, block), of all processes."""
        objective, found = self.objective, {}
        if objective.planned:
            facts = torch.stack([self.scores.valid, self.scores.readable], dim=-1).to(rewards.device)
            valid, readable = self.accelerator.gather(facts).view(-1, objective.group_size, 2).unbind(dim=-1)
            found = density(rewards[..., 0], valid, readable)
            found["planner_signal"] = (gained[..., 0] != 0).float().mean().item()
            gained = gained[..., 1:]
        if objective.attempts:
            found["solver_signal"] = (gained != 0).float().mean().item()
        return found

    # --- TRL's other hooks --------------------------------------------------------------------------------------

    def _get_train_sampler(self, dataset: Dataset | None = None) -> ResumableOrder:
        trl: Any = super()._get_train_sampler(dataset)
        return ResumableOrder(
            trl.data_source, trl.mini_repeat_count, trl.batch_size, trl.repeat_count, trl.shuffle, trl.seed
        )

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        before = self._buffered_inputs
        inputs = super()._prepare_inputs(generation_batch)
        # With an entropy bonus every row counts, and vLLM's rows differ in their importance weights: nothing to merge.
        if self._buffered_inputs is before:
            return inputs
        if self.entropy_coef == 0.0 and not self.use_vllm:
            self._buffered_inputs, self.step_stats["kept_rows"] = compact(self._buffered_inputs)
        if self.beta:
            for chunk in self._buffered_inputs:
                chunk["ref_per_token_logps"] = self._reference_logps(chunk)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        if self.role_adapters:
            use_role(model, ROLES[int(inputs["role"][0])])
        if "row_weight" in inputs:
            inputs = {**inputs, "tool_mask": inputs["row_weight"].unsqueeze(1)}
        loss: Tensor = super()._compute_loss(model, inputs)
        return loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        policy: Any = model or self.model
        if self.role_adapters:  # transformers loads all but one of several adapters frozen
            use_role(policy, ROLES[0])
        elif REFERENCE in getattr(policy, "peft_config", ()):
            # Of several adapters transformers loads those in folders of their own; PEFT's `default` has none.
            policy.load_adapter(resume_from_checkpoint, "default", is_trainable=True)


def refuse_half_precision(model: PreTrainedModel) -> None:
    """Raise ModelError when weights that are to be trained are not float32 or better, as the released code refuses.

    An update of 5e-7 is below what bfloat16 resolves of a weight, so it would be lost.
    """
    coarse = {str(w.dtype).removeprefix("torch.") for w in model.parameters() if w.requires_grad and w.itemsize < 4}
    if coarse:
        raise ModelError(
            f"the weights that are to be trained are {', '.join(sorted(coarse))}, in which a small update is lost: "
            "load them as float32, or train an adapter (lora_rank)"
        )


def _paid(*, reward: list[float | None], **_: Any) -> list[float | None]:
    """TRL's reward function: the rewards that came with the rollout."""
    return reward


def _method_ids(members: Sequence[Member]) -> Tensor:
    """(members, K) integers that are equal where two slots name the same method, the same on every process."""
    names = [[normalise(method or "") for method in member.strategies] for member in members]
    return torch.tensor([[zlib.crc32(name.encode()) for name in row] for row in names])
