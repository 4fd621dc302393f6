"""The reward-density audit: before a joint run, is there anything to learn from?

The authors' fourth stage. The policy that the joint run will start from writes tuples and programs as in training, and
nothing is trained. From the rates (`cppo_lib.reward.density`) follows a verdict: `go`; `unsure`, which is said and goes
on; or `no-go`, which stops the arms that wait for it, unless `go_on` says otherwise.

Writes `runs/<profile>/03a_audit/s<seed>/`: `attempts.parquet`, `rates.json`, and last `summary.json`, which a run that
was stopped by its verdict lacks: it is looked at again when it is started again.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import AuditError
from cppo_lib.model.adapters import ROLES, open_roles
from cppo_lib.reward import plan_following
from cppo_lib.reward.density import Verdict, density, verdict
from cppo_lib.reward.gate_rules import gated
from cppo_lib.reward.score import Scores, score
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.rollout.two_stage import rollout
from cppo_lib.runs import dependencies
from cppo_lib.runs.parameters import Audit
from cppo_lib.runs.stages import data_prep
from cppo_lib.runs.stages.rollouts import commits_of, inputs_of, open_scorer, short_problems


def audit(cfg: Audit) -> Path:
    """Look at the policy that a joint run starts from; returns the folder of what was found.

    Raises:
        AuditError: the verdict is `no-go`, and `go_on` is not set.
        MissingArtefactError: problems, policy or the gate's model are not there.
        ParameterError: too few problems have a short enough prompt.
        ModelError: the policy or the gate's model cannot be loaded.
        IsolationError: the verifier cannot run programs safely, or too many got no verdict.
    """
    policy = store.policy_source(cfg.profile, cfg.policy, cfg.seed)
    folder = paths.stage_dir(cfg.profile, cfg.notebook, f"s{cfg.seed}")
    inputs, commits = inputs_of(cfg), commits_of(cfg, policy)
    store.resumable_dir(folder, dependencies.fingerprint(cfg, inputs, commits))
    if store.finished(folder):
        log.info(f"{paths.show(folder)} is finished; delete it to look again")
        return folder
    started = time.perf_counter()
    scores = sampled(cfg, policy)
    shape = (cfg.problems, cfg.group_size)
    facts = (scores.r_plan, scores.valid, scores.readable)
    rates = density(*(fact.view(shape) for fact in facts))
    found = verdict(rates)
    said = {"verdict": found.word, "reasons": list(found.reasons)}
    made = [
        store.write_parquet(folder / "attempts.parquet", scores.attempt_rows()),
        store.write_json(folder / "rates.json", {"rates": rates, **said}),
    ]
    log.info(f"verdict: {found.word}; " + " ".join(f"{name} {rate:.3f}" for name, rate in rates.items()))
    _heed(cfg, found)
    values = {"rates": rates, **said, "wall_s": time.perf_counter() - started, "commits": commits}
    notes.write_summary(folder, cfg, values=values, artefacts=made, inputs=inputs)
    return folder


def sampled(cfg: Audit, policy: str) -> Scores:
    """`group_size` tuples for each of the problems, with their programs, verified and rewarded: nothing is trained."""
    verifier_opened = plan_following.open_verifier(
        paths.verdicts_path(cfg.profile), total_cpu_s=plan_following.TRAINING_CPU_S
    )
    options = cfg.model_dump(include={"temperature", "top_p", "top_k", "batch_size", "seed"})
    opened = open_roles(cfg.engine, dict.fromkeys(ROLES, policy), **options)
    with verifier_opened as verifier, opened as (solver, planner, tokenizer):
        style = PromptStyle(cfg.prompt_style, tokenizer, cfg.program_rule, cfg.plan_format)
        train = data_prep.read_split(cfg.profile, cfg.benchmark, "train")
        problems = short_problems(cfg, train, style, "problems")
        members = rollout(
            [problem for problem in problems[: cfg.problems] for _ in range(cfg.group_size)],
            "tuple",
            cfg.k,
            style=style,
            generate=partial(solver.generate, also_end=style.program_ends),
            generate_plans=partial(planner.generate, temperature=cfg.planner_temperature),
            max_plan_tokens=cfg.max_plan_tokens,
            max_program_tokens=cfg.max_program_tokens,
            solver_prompt=cfg.solver_prompt,
            unreadable=cfg.unreadable,
            seed=cfg.seed,
        )
        return score(gated(members, open_scorer(cfg)), verifier, None)


def _heed(cfg: Audit, found: Verdict) -> None:
    reasons = "; ".join(found.reasons)
    if found.word == "no-go" and not cfg.go_on:
        raise AuditError(f"no-go: {reasons}. To train all the same, set go_on: true")
    if found.word != "go":
        log.warning(f"WARNING: {found.word}: {reasons}")
