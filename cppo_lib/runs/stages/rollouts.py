"""What an RL run and the audit before it have in common: their problems, their gate, and what they read."""

from __future__ import annotations

from pathlib import Path

from cppo_lib.artefacts import paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.data.problem import ProblemFile
from cppo_lib.errors import MissingArtefactError, ParameterError
from cppo_lib.model import policy as models
from cppo_lib.reward.gate_llm import LLMGate
from cppo_lib.reward.gate_rules import THRESHOLD
from cppo_lib.reward.gate_verbaliser import VerbaliserGate
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs.parameters import TrainingRollouts


def open_scorer(cfg: TrainingRollouts) -> VerbaliserGate | LLMGate | None:
    """The frozen model of `gate: trained` or `gate: llm` with its tau, on the CPU; None for `rules`.

    Raises:
        MissingArtefactError: 02b_gate has trained no gate, or 02_planner_sft not made the `gate_model`.
        ParameterError: the gate was refused.
        ModelError: the model cannot be loaded.
    """
    if cfg.gate == "llm":
        assert cfg.gate_model is not None  # the parameters have been checked
        source = store.policy_source(cfg.profile, cfg.gate_model, cfg.seed)
        return LLMGate(source, THRESHOLD if cfg.tau is None else cfg.tau)
    if cfg.gate == "rules":
        return None
    stage = paths.runs_root() / cfg.profile / "02b_gate"
    summary = store.read_json(paths.require(stage / "summary.json", notebook="02b_gate"))
    if not (stage / "gate").is_dir():
        raise MissingArtefactError(
            f"{paths.show(stage / 'gate')} is missing: gate: trained needs one, so set epochs above 0 and run "
            "notebooks/02b_gate.ipynb again"
        )
    gate = summary["gate"]
    if not (gate["accepted"] or gate["accept_refused"]):
        missed = ", ".join(
            f"its {key.replace('_', ' ')} is {each['is']:.3f} and must be at least {each['least']}"
            for key, each in gate["missed"].items()
        )
        raise ParameterError(
            f"{paths.show(stage / 'gate')} was refused in validation: {missed}; train it on more or better labels, for "
            "more epochs or at another tau, or set accept_refused: true in 02b_gate"
        )
    tau = gate["tau"] if cfg.tau is None else cfg.tau
    return VerbaliserGate(store.checked(stage / "gate"), gate["prompt_style"], gate["max_length"], tau)


def short_problems(cfg: TrainingRollouts, problems: ProblemFile, style: PromptStyle, key: str) -> ProblemFile:
    """The problems whose planner prompt has at most `max_prompt_tokens` tokens; says how many those are.

    Raises ParameterError when fewer are left than the parameter called `key` asks for.
    """
    asked = getattr(cfg, key)
    lengths = map(len, style.encode([style.planner(problem, cfg.k) for problem in problems]))
    kept = problems.chosen(index for index, length in enumerate(lengths) if length <= cfg.max_prompt_tokens)
    if len(kept) < asked:
        raise ParameterError(
            f"{key}={asked}, but the train split has {len(problems)} problems, "
            f"{len(kept)} of them with a planner prompt of at most max_prompt_tokens={cfg.max_prompt_tokens}"
        )
    if len(kept) < len(problems):
        log.info(f"{len(kept)} of {len(problems)} problems have at most {cfg.max_prompt_tokens} prompt tokens")
    return kept


def inputs_of(cfg: TrainingRollouts) -> list[Path]:
    """What the run reads of this profile: the training problems and the stages whose models it takes."""
    stages = paths.runs_root() / cfg.profile
    made = ["02_planner_sft"] if cfg.uses_sft else []
    made += ["02b_gate"] if cfg.gate == "trained" else []
    arm = cfg.policy.removeprefix("arm:")
    made += [] if arm == cfg.policy else [f"03_rl_training/{arm}.s{cfg.seed}"]
    return [stages / "01_data_prep" / cfg.benchmark / "train.jsonl", *(stages / name / "summary.json" for name in made)]


def commits_of(cfg: TrainingRollouts, policy: str) -> dict[str, str]:
    """The commits of the hub models that a run takes: of its start policy and of the model that its gate asks."""
    asked = {} if cfg.gate_model is None else models.commits(paths.policy_source(cfg.profile, cfg.gate_model, cfg.seed))
    return models.commits(policy) | asked
