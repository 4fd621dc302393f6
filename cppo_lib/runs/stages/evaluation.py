"""Fixed-budget evaluation: exactly K verified programs per problem and tuple, T tuples per problem.

    python -m cppo_lib.runs.stages.evaluation params/tiny/04_evaluation.cppo.yaml [-p key=value ...]

Every method spends the same budget: K programs reach the hidden tests, whatever the plan looked
like, and none is filtered or retried. What they cost besides (planner tokens, seconds) is recorded.
The result is `runs/<profile>/04_evaluation/<benchmark>.<split>.<method>.s<seed>.parquet`, one row
per attempt (see `cppo_lib.evaluation.records`), with its provenance in `.meta.json` beside it.

Problems are evaluated in chunks, and each finished chunk is a Parquet file in the folder
`<...>.s<seed>.parts` until the last one is there. A restarted evaluation generates and verifies only
what is missing, and since an attempt's random numbers are those of its problem, tuple and slot
(`cppo_lib.model.engine`), it ends with the same attempts. Chunks made with other parameters, code, problems
or weights are discarded, and a line says so: whoever edits a parameter file expects the next run to
use it. Only `batch_size` may change (it changes no attempt, see docs/draws.md), so that an
evaluation that ran out of memory goes on with a smaller one.
Finished records that all of this still fits are left as they are; delete the file to evaluate again.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import clock, log
from cppo_lib.data.problem import Problem
from cppo_lib.data.registry import load_benchmark
from cppo_lib.errors import CPPOError, DamagedError, ParameterError
from cppo_lib.evaluation.estimators import pass_at_k
from cppo_lib.evaluation.records import Run, attempt_records, summary
from cppo_lib.model import policy as models
from cppo_lib.model.adapters import Role, open_roles
from cppo_lib.model.engine import Engine
from cppo_lib.reward import plan_following
from cppo_lib.reward.gate_rules import gated
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.rollout.two_stage import rollout
from cppo_lib.runs import config, dependencies
from cppo_lib.runs.parameters import Evaluation
from cppo_lib.runs.stages import data_prep
from cppo_lib.verifier import Verifier

PROMPTS = "prompts.json"  # beside the chunks: `PromptStyle.record`


def evaluate(cfg: Evaluation) -> Path:
    """Run one evaluation to its end and return the path of its records.

    With `tune_on`, the temperature is chosen first, by evaluations of that split.

    Raises:
        MissingArtefactError: the problems or the policy were not made yet; names the notebook.
        DamagedError: one of these is not what was written.
        ModelError: the policy cannot be loaded, or a prompt does not fit its context.
        IsolationError: the verifier cannot run programs safely, or more than 0.5% of the attempts got no
            verdict (IE).
    """
    if cfg.tune_on is not None:
        cfg = _tuned(cfg)
    problems, inputs = load_problems(cfg)
    policy = store.policy_source(cfg.profile, cfg.policy, cfg.seed)
    planner = policy if cfg.planner_policy is None else store.policy_source(cfg.profile, cfg.planner_policy, cfg.seed)
    inputs += [Path(name) for name in dict.fromkeys((policy, planner)) if Path(name).is_dir()]
    shown = paths.show(Path(policy)) if Path(policy).is_dir() else policy
    run = Run(cfg.profile, cfg.benchmark, cfg.split, cfg.method, shown, cfg.seed)
    final = paths.stage_dir(cfg.profile, cfg.notebook) / f"{run.name}.parquet"
    commits = models.commits(policy) | models.commits(planner)
    computed = models.weights_type(policy, models.sampling_dtype())
    drawn = cfg.model_copy(update={"batch_size": 0})  # which changes no attempt
    fingerprint = dependencies.fingerprint(drawn, inputs, commits)
    meta, folder = paths.meta_path(final), final.with_suffix(".parts")
    if wrong := store.damage(final, thorough=True):
        log.info(f"{wrong}: evaluating again")
    elif final.exists():
        if (before := store.read_json(meta).get("fingerprint")) == fingerprint:
            log.info(f"{paths.show(final)} is complete; delete it to evaluate again")
            return final
        log.warning(store.begins_anew(final, str(before), fingerprint))
    parts = _open_parts(folder, f"{fingerprint} {computed}")  # another machine's type would draw other programs
    order = {problem.id: place for place, problem in enumerate(problems)}
    _run_chunks(cfg, run, {"planner": planner, "solver": policy}, problems, order, parts)
    records = pd.concat([store.read_parquet(file) for file in sorted(parts.glob("*.parquet"))])
    store.write_parquet(final, records.sort_values("problem_id", key=lambda ids: ids.map(order), kind="stable"))
    facts = {"commits": commits, "weights": computed, "prompts": store.read_json(parts / PROMPTS)}
    notes.write_meta(final, cfg, inputs, fingerprint=fingerprint, **facts)
    shutil.rmtree(parts)
    return final


def load_problems(cfg: Evaluation) -> tuple[Sequence[Problem], list[Path]]:
    """The problems to evaluate, and the file they were read from (none for the loader below).

    What 01_data_prep prepared is used; HumanEval can also be evaluated straight from its wheel.
    """
    prepared = paths.runs_root() / cfg.profile / "01_data_prep" / cfg.benchmark / f"{cfg.split}.jsonl"
    if cfg.benchmark == "humaneval" and not prepared.exists():
        return load_benchmark("humaneval", cfg.split)[: cfg.limit or None], []
    return data_prep.read_split(cfg.profile, cfg.benchmark, cfg.split)[: cfg.limit or None], [prepared]


def _tuned(cfg: Evaluation) -> Evaluation:
    """`cfg` with the temperature of the highest pass@K on the tuning split, the lowest of equal ones.

    Each try is an evaluation with records of its own, `<method>-t<temperature>`, so it resumes like any other.
    """
    assert cfg.tune_on is not None
    benchmark, split = cfg.tune_on.split(".")
    given = {"benchmark": benchmark, "split": split, "limit": cfg.tune_limit, "tune_on": None, "tune_temperatures": []}
    scores: dict[float, float] = {}
    for temperature in sorted(cfg.tune_temperatures):
        name = f"{cfg.method}-t{temperature:g}".replace(".", "_")
        values = cfg.model_dump() | given | {"method": name, "temperature": temperature}
        records = evaluate(Evaluation.model_validate(values))
        scores[temperature] = pass_at_k(store.read_parquet(records))
    best = max(scores, key=lambda temperature: scores[temperature])
    listed = ", ".join(f"{temperature:g}: {score:.3f}" for temperature, score in scores.items())
    log.info(f"pass@{cfg.k} on {cfg.tune_on} by temperature: {listed}; {best:g} is taken")
    return cfg.model_copy(update={"temperature": best})


# --- chunks -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Evaluator:
    """What a chunk needs: the policy, the verifier, and who finds out what a program implements."""

    cfg: Evaluation
    run: Run
    engine: Engine
    planner: Engine  # the same, but for a planner of its own or an adapter for each role
    style: PromptStyle
    verifier: Verifier
    probe: plan_following.MethodProbe | None

    def records(self, problems: Sequence[Problem]) -> pd.DataFrame:
        """Roll out and verify a chunk."""
        cfg, started = self.cfg, time.perf_counter()
        rolled_out = rollout(
            [problem for problem in problems for _ in range(cfg.tuples)],
            cfg.procedure,
            cfg.k,
            style=self.style,
            generate=partial(self.engine.generate, also_end=self.style.program_ends),
            max_plan_tokens=cfg.max_plan_tokens,
            max_program_tokens=cfg.max_program_tokens,
            generate_plans=partial(self.planner.generate, temperature=cfg.planner_temperature),
            seed=cfg.seed,
            solver_prompt=cfg.solver_prompt,
            unreadable=cfg.unreadable,
        )
        members = gated(rolled_out)
        gen_s = time.perf_counter() - started
        results = plan_following.verify_members(members, self.verifier)
        methods = None if self.probe is None else self.probe.methods(members)
        return attempt_records(
            self.run,
            members,
            results,
            methods,
            procedure=cfg.procedure,
            style=self.style,
            tuples=cfg.tuples,
            gen_s=gen_s,
        )


def _run_chunks(
    cfg: Evaluation,
    run: Run,
    policies: Mapping[Role, str],
    problems: Sequence[Problem],
    order: Mapping[str, int],
    parts: Path,
) -> None:
    """Make the chunks of the problems that no file in `parts` has; a chunk's name is its first problem's number.

    `order` has the problems' numbers by their ids; the problems themselves are read chunk by chunk.
    """
    attempts = cfg.tuples * cfg.k * len(problems)
    done: list[pd.DataFrame] = [store.read_parquet(file) for file in parts.glob("*.parquet")]
    made = {name for frame in done for name in frame["problem_id"]}
    left = [number for name, number in order.items() if name not in made]
    if not left:
        return
    size = max(1, cfg.batch_size // (cfg.tuples * cfg.k))  # so that the programs of a chunk fill one batch
    chunks = [left[start : start + size] for start in range(0, len(left), size)]
    started, already, total = time.monotonic(), len(done), len(done) + len(chunks)
    before = f", {already} of them done before" if already else ""
    log.info(f"{run.name}: {attempts} attempts in {total} chunks{before}")
    options = cfg.model_dump(include={"temperature", "top_p", "top_k", "batch_size", "seed"})
    roles, verdicts = open_roles(cfg.engine, policies, **options), paths.verdicts_path(cfg.profile)
    with plan_following.open_verifier(verdicts) as verifier, roles as (engine, planner, tokenizer):
        style = PromptStyle(cfg.prompt_style, tokenizer, cfg.program_rule, cfg.plan_format)
        store.write_json(parts / PROMPTS, style.record())
        probe = plan_following.method_probe(cfg.benchmark, verifier)
        evaluator = _Evaluator(cfg, run, engine, planner, style, verifier, probe)
        for chunk in chunks:
            done.append(evaluator.records([problems[number] for number in chunk]))
            failed = [reason for frame in done for reason in frame.loc[frame["verdict"] == "IE", "reason"]]
            plan_following.check_internal_errors(failed, attempts)
            store.write_parquet(parts / f"{chunk[0]:05d}.parquet", done[-1])
            to_go = (time.monotonic() - started) / (len(done) - already) * (total - len(done))
            score = pass_at_k(pd.concat(done))
            log.info(
                f"{run.name}: chunk {len(done)} of {total}, pass@{cfg.k} {score:.3f} so far, about {clock(to_go)} left"
            )


def _open_parts(folder: Path, fingerprint: str) -> Path:
    """The folder of finished chunks: those of this very evaluation, no others."""
    before = len(list(folder.glob("*.parquet")))
    parts = store.resumable_dir(folder, fingerprint)
    if stale := before - len(list(parts.glob("*.parquet"))):
        log.info(f"discarded {stale} chunks of other parameters, code, problems or weights")
    for file in sorted(parts.glob("*.parquet")):
        try:
            store.read_parquet(file)
        except DamagedError:
            file.unlink()
            log.info(f"{paths.show(file)} is damaged: this chunk is evaluated again")
    return parts


# --- command line -------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when all is well, 1 after a one-line error on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m cppo_lib.runs.stages.evaluation", description="Evaluate a policy under a fixed budget."
    )
    parser.add_argument("file", type=Path, help="params/<profile>/04_evaluation[.<variant>].yaml")
    parser.add_argument("-p", dest="given", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args(arguments)
    try:
        cfg = config.load_params(options.file, **config.given_values(options.given, options.file))
        if not isinstance(cfg, Evaluation):
            raise ParameterError(f"{paths.show(options.file)} is for notebooks/{cfg.notebook}.ipynb")
        records = evaluate(cfg)
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for key, value in summary(store.read_parquet(records)).items():
        print(f"{key:22}{round(value, 4) if isinstance(value, float) else value}")
    print(f"records               {paths.show(records)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
