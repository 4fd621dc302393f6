"""What the reporting notebooks read: attempt records, training metrics and prepared problems of a profile.

Everything in a table or figure is computed from the `Results` of one profile, benchmark and split.
Methods are found by looking at which records exist, and come in the order of the paper's story.
A method has records of one seed (nothing was trained) or of all; of some is an error.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cppo_lib.artefacts import paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import MissingArtefactError, ParameterError
from cppo_lib.evaluation.bootstrap import Difference
from cppo_lib.evaluation.estimators import Scores, check_attempts, score_table
from cppo_lib.runs.parameters import Report
from cppo_lib.runs.provenance import base_model

LABELS = {
    "direct": "Direct sampling",
    "direct_tuned": "Direct, tuned temperature",
    "divsampling": "DivSampling, roles",
    "divsampling_ideas": "DivSampling, ideas",
    "ifg": "Intent-factored generation",
    "verbalized": "Verbalized sampling",
    "verbalized_tail": "Verbalized sampling, tail",
    "plan_then_solve": "Plan-then-solve (i.i.d.)",
    "sequential": "Sequential planner",
    "plansearch": "PlanSearch",
    "plansearch_lite": "PlanSearch, about equal tokens",
    "untrained": "Untrained pipeline",
    "sft": "Planner-only SFT",
    "grpo": "GRPO",
    "dr_grpo": "Dr. GRPO",
    "grpo_entropy": "GRPO, entropy bonus",
    "unlikeliness": "Unlikeliness",
    "nsr": "NSR",
    "w_reinforce": "W-REINFORCE",
    "pass_at_k": "Pass@k Training",
    "pkpo_loo": "PKPO, loo",
    "pkpo_annealed": "PKPO, annealed k",
    "pkpo": "PKPO",
    "cppo": "CPPO",
    "reward_sum": "Reward J + R_out",
    "reward_outcome": "Reward R_out",
    "reward_gate": "Reward J",
    "gate_trained": "Gate: classifier",
    "gate_llm": "Gate: chat model",
    "tests_fraction": "R_out: share of tests",
    "credit_own": "Credit: own",
    "credit_tuple": "Credit: tuple",
    "credit_marginal": "Credit: marginal",
    "credit_frozen": "Credit: frozen solver",
    "group_problem": "Group: problem",
    "group_slot": "Group: slot",
    "group_tuple": "Group: tuple",
    "weights_planner": "Weights: planner",
    "weights_solver": "Weights: solver",
    "slot_only": "Slot number for a plan",
    "one_adapter": "LoRA, one adapter",
    "two_adapters": "LoRA, one per role",
    "k1": "K = 1",
    "k2": "K = 2",
    "k8": "K = 8",
}
HEADLINE = ("cppo", "pkpo", "grpo", "sft", "direct", "plan_then_solve")
MOST_LINES = 8
BASELINES = ("pkpo", "direct", "cppo")
"""What the others are compared with, fixed before any record is read: the first that was evaluated."""
REWARD = ("reward_sum", "reward_outcome", "reward_gate", "gate_trained", "gate_llm", "tests_fraction")
CREDIT = ("credit_own", "credit_tuple", "credit_marginal", "credit_frozen")
GROUPING = ("group_problem", "group_slot", "group_tuple")
SHARING = ("weights_planner", "weights_solver", "slot_only", "one_adapter", "two_adapters")
SWEEP = ("k1", "k2", "k8")
ABLATIONS = (*REWARD, *CREDIT, *GROUPING, *SHARING, *SWEEP)
"""Methods that are CPPO with one choice changed."""


@dataclass(frozen=True)
class Results:
    """Records of one profile, benchmark and split.

    Attributes:
        params: the reporting notebook's parameters.
        attempts: all attempt records; `method` and `seed` tell the runs apart, and `program_limit` is how many tokens
            a program of the run may have.
        metrics: training metrics, one row per step, with columns `arm` and `seed`; may be empty.
        hidden: context and hidden method of each evaluated problem of crossroads, from which the ceilings follow; None
            where a benchmark's optimum is unknown.
        sources: the files that were read.
        models: the base model that each method's policy was made from; `scratch`: the tiny one.
        limit: only the first problems of the split were used, so many; 0: all of it.
        trained_on: of each trained arm how many problems it could draw (`drawn_from`), of how many that its training
            split has (`in_split`), and how many times it drew one (`draws`).
    """

    params: Report
    attempts: pd.DataFrame
    metrics: pd.DataFrame
    hidden: tuple[tuple[str, str], ...] | None
    sources: tuple[Path, ...]
    models: Mapping[str, str]
    limit: int = 0
    trained_on: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        """K of every evaluated method: those of the paper in its order, then others by name.

        Raises:
            ParameterError: the records of a method do not fit (`estimators.check_attempts`).
        """
        return {method: check_attempts(self.of(method)) for method in _ordered(self.attempts["method"].unique())}

    @functools.cached_property
    def k(self) -> int:
        """Attempts per tuple: CPPO's, else that of most methods.

        Raises:
            ParameterError: only ablations were evaluated.
        """
        counts = Counter(size for method, size in self.sizes.items() if method not in ABLATIONS)
        if not counts:
            raise ParameterError(f"{', '.join(self.sizes)} are ablations of CPPO: evaluate method cppo too")
        return self.sizes.get("cppo", max(counts, key=lambda k: (counts[k], k)))

    @functools.cached_property
    def methods(self) -> list[str]:
        """The methods that are evaluated at `k`, in order; ablations have tables of their own."""
        return [method for method, size in self.sizes.items() if size == self.k and method not in ABLATIONS]

    @functools.cached_property
    def ablations(self) -> list[str]:
        """The ablations that are evaluated at `k`, in order."""
        return [method for method, size in self.sizes.items() if size == self.k and method in ABLATIONS]

    @property
    def focus(self) -> list[str]:
        """The methods that a figure with a line for each can show: all, or the best known of them."""
        first = [*(method for method in HEADLINE if method in self.methods), *self.methods]
        chosen = list(dict.fromkeys(first))[:MOST_LINES]
        return [method for method in self.methods if method in chosen]

    @functools.cached_property
    def arms(self) -> list[str]:
        """The trained arms but ablations, in the same order; empty where nothing was trained."""
        names = set(self.metrics["arm"]) if len(self.metrics) else set()
        return _ordered(names - set(ABLATIONS))

    @functools.cached_property
    def scores(self) -> dict[str, Scores]:
        """pass@K of each method and ablation: a table of seeds x problems that says what it estimates."""
        return {method: score_table(self.of(method), k=self.k) for method in (*self.methods, *self.ablations)}

    @functools.cached_property
    def compared(self) -> dict[tuple[str, str], Difference]:
        """Paired differences that were computed, by pair of methods; `comparisons.difference` fills it."""
        return {}

    @property
    def baseline(self) -> str | None:
        """The method that the others are compared with."""
        return next((method for method in BASELINES if method in self.methods), None)

    def of(self, method: str) -> pd.DataFrame:
        """The records of one method."""
        return self.attempts[self.attempts["method"] == method]

    def cut_share(self, method: str) -> float:
        """The share of the method's programs that used all the tokens they may have, and may be unfinished."""
        attempts = self.of(method)
        return float((attempts["solver_tokens"] >= attempts["program_limit"]).mean())

    @functools.cached_property
    def ceilings(self) -> Mapping[str, Any] | None:
        """pass@K in closed form (`direct`, `independent`, `coordinated`) on the evaluated problems; None: unknown."""
        return self.ceilings_at(self.k)

    def ceilings_at(self, k: int) -> Mapping[str, Any] | None:
        """The closed forms for another k."""
        return None if self.hidden is None else crossroads.ceilings(k, self.hidden)

    def ceilings_by_k(self, most: int | None = None) -> dict[int, Mapping[str, Any]]:
        """The closed forms for k = 1..most, by default K; empty where the optimum is unknown."""
        each = {k: self.ceilings_at(k) for k in range(1, (most or self.k) + 1)}
        return {k: closed for k, closed in each.items() if closed is not None}

    def setting(self) -> str:
        """The sizes behind every number, in words, for captions."""
        shown = self.attempts[self.attempts["method"].isin(self.methods)]
        tuples = shown.groupby(["method", "problem_id", "seed"])["tuple_index"].nunique()
        few, many = int(tuples.min()), int(tuples.max())
        blocks = str(many) if few == many else f"{few} to {many}"
        problems = shown["problem_id"].nunique()
        seeds = ", ".join(str(seed) for seed in sorted(shown["seed"].unique()))
        partial = f"PARTIAL, the first {self.limit} problems only: " if self.limit else ""
        return (
            f"{partial}{self.params.benchmark} ({self.params.split} split, profile {self.params.profile}): "
            f"{problems} problems, {blocks} x K={self.k} attempts on each, "
            f"seed{'s' if ',' in seeds else ''} {seeds}"
        )


def label(method: str) -> str:
    """The name of a method in tables and figures."""
    return LABELS.get(method, method)


def _ordered(names: Any) -> list[str]:
    known = list(LABELS)
    return sorted(names, key=lambda name: (known.index(name) if name in known else len(known), name))


def load_results(params: Report) -> Results:
    """Read the records of seeds 0 to `params.seeds` - 1.

    Raises:
        MissingArtefactError: no records at all, a method that lacks a seed, or problems that 01_data_prep has not
            written.
        DamagedError: records, metrics or problems are not what was written.
    """
    runs = paths.runs_root() / params.profile
    records = _record_files(params, runs / "04_evaluation")
    origins = [
        store.read_json(paths.require(paths.meta_path(path), notebook="04_evaluation"))["params"] for path in records
    ]
    frames = [
        _plain_nulls(store.read_parquet(path)).assign(program_limit=origin["max_program_tokens"])
        for path, origin in zip(records, origins, strict=True)
    ]
    attempts = pd.concat(frames, ignore_index=True)
    metric_files = [
        path
        for seed in range(params.seeds)
        for path in sorted((runs / "03_rl_training").glob(f"*.s{seed}/metrics.jsonl"))
    ]
    steps = [pd.DataFrame(store.read_jsonl(store.checked(path))).assign(**_run(path)) for path in metric_files]
    metrics = pd.concat(steps, ignore_index=True) if steps else pd.DataFrame()
    finished = [path for file in metric_files if (path := file.with_name("summary.json")).exists()]
    told = {_run(path)["arm"]: store.read_json(path).get("problems") for path in finished}
    trained_on = {arm: problems for arm, problems in told.items() if problems}
    hidden, sources = None, [*records, *metric_files, *finished]
    if params.benchmark == "crossroads":
        path = paths.require(runs / "01_data_prep" / params.benchmark / "problems.parquet", notebook="01_data_prep")
        problems = store.read_parquet(path)
        if "hidden_method" not in problems:
            what = f"{paths.show(path)} is of an older version"
            raise MissingArtefactError(f"{what}: run notebooks/01_data_prep.ipynb again")
        hidden = _hidden(problems, attempts)
        sources.append(path)
    models = {_method_and_seed(path.name)[0]: base_model(path) for path in records}
    limit = _limit(params, origins)
    return Results(params, attempts, metrics, hidden, tuple(sources), models, limit, trained_on)


def _hidden(problems: pd.DataFrame, attempts: pd.DataFrame) -> tuple[tuple[str, str], ...]:
    """Context and hidden method of the problems that were evaluated."""
    evaluated = problems[problems["id"].isin(attempts["problem_id"].unique())]
    return tuple(zip(evaluated["group"], evaluated["hidden_method"], strict=True))


def _limit(params: Report, evaluations: list[dict[str, Any]]) -> int:
    """The smallest limit that left problems out, of the evaluations or the data preparation before them; 0 for none.

    A benchmark that holds as many problems as its preparation may take counts as cut: nobody has looked further.
    """
    limits = [origin["limit"] for origin in evaluations]
    path = paths.runs_root() / params.profile / "01_data_prep" / params.benchmark / "summary.json"
    if path.exists():
        prepared = store.read_json(path)
        problems, most = prepared["splits"][params.split]["problems"], prepared["provenance"]["params"]["limit"]
        limits = [limit for limit in limits if limit < problems] + ([most] if most == problems else [])
    return min(filter(None, limits), default=0)


def _record_files(params: Report, folder: Path) -> list[Path]:
    prefix = f"{params.benchmark}.{params.split}."
    found: dict[str, set[int]] = {}
    for path in folder.glob(f"{prefix}*.parquet"):
        method, seed = _method_and_seed(path.name)
        if seed < params.seeds:
            found.setdefault(method, set()).add(seed)
    if not found:
        paths.require(folder / f"{prefix}<method>.s<seed>.parquet", notebook="04_evaluation")
    # what no seed trains is evaluated once; what one seed trains, all seeds train
    wanted = {m: seeds if len(seeds) == 1 else range(params.seeds) for m, seeds in found.items()}
    files = [folder / f"{prefix}{m}.s{seed}.parquet" for m in sorted(found) for seed in wanted[m]]
    return [paths.require(path, notebook="04_evaluation") for path in files]


def _method_and_seed(name: str) -> tuple[str, int]:
    _, _, method, seed, _ = name.split(".")
    return method, int(seed.removeprefix("s"))


def _run(metrics_file: Path) -> dict[str, Any]:
    arm, _, seed = metrics_file.parent.name.rpartition(".s")
    return {"arm": arm, "seed": int(seed)}


def _plain_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """Nulls as None in object columns, so that frames with and without a planner fit together."""
    nullable = ["plan", "valid", "strategy", "followed", "program_method"]
    columns = {name: frame[name].astype(object) for name in nullable}
    return frame.assign(**{name: c.where(c.notna(), None) for name, c in columns.items()})


def require_training(results: Results) -> pd.DataFrame:
    """The training metrics. Raises MissingArtefactError where no arm was trained."""
    if not results.arms:
        profile = results.params.profile
        raise MissingArtefactError(
            f"no training metrics of profile {profile}: run notebooks/03_rl_training.ipynb first "
            f"(or make reproduce PROFILE={profile})"
        )
    return results.metrics
