"""What the reporting notebooks read: attempt records, training metrics and prepared problems of a profile.

Everything in a table or figure is computed from `Results`: the records of one profile, benchmark and split. Methods are
found by looking at which records exist, and come in the order of `cppo_lib.report.methods`. A method has records of one
seed (nothing was trained) or of all; of some is an error.

The main table has a column for each base model on each split of a benchmark (`Results.columns`). A profile's tables are
about its own `benchmark` and `split`; `further_cells` adds others of the same profile (`apps.test`) or of another one
(`paper_4b/apps.test`), where another model was trained. Where one profile has records of several base models, each has
a column: file names allow one method of a name, so the methods of a second model are called `<method>--<tag>`
(`cppo--4b`), and stand in the row of `<method>`.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from cppo_lib.artefacts import paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import MissingArtefactError, ParameterError
from cppo_lib.evaluation.bootstrap import Interval, bootstrap_interval
from cppo_lib.evaluation.estimators import Scores, check_attempts, score_table
from cppo_lib.report.methods import BASELINES, TARGET, best_known, in_order, is_ablation
from cppo_lib.runs.parameters import Report
from cppo_lib.runs.provenance import base_model

BENCHMARK_LABELS = {
    "humaneval": "HumanEval",
    "leetcode": "LeetCode",
    "apps": "APPS",
    "code_contests": "CodeContests",
    "livecodebench": "LiveCodeBench",
    "livecodebench_output": "LiveCodeBench output prediction",
}
"""Names in tables; a benchmark that is not here is called as in parameter files."""
MODEL_LABELS = {"scratch": "tiny model"}
TAG = "--"


@dataclass(frozen=True, eq=False)
class Results:
    """Records of one profile, benchmark and split; the same object is the same results, for `functools.cache`.

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

    # --- methods ------------------------------------------------------------------------------------------------------

    @functools.cached_property
    def sizes(self) -> dict[str, int]:
        """K of every evaluated method, in order.

        Raises:
            ParameterError: the records of a method do not fit (`estimators.check_attempts`).
        """
        return {method: check_attempts(self.of(method)) for method in in_order(self.attempts["method"].unique())}

    @functools.cached_property
    def k(self) -> int:
        """Attempts per tuple: CPPO's, else that of most methods.

        Raises:
            ParameterError: only ablations were evaluated.
        """
        counts = Counter(size for method, size in self.sizes.items() if not is_ablation(method))
        if not counts:
            raise ParameterError(f"{', '.join(self.sizes)} are ablations of CPPO: evaluate method cppo too")
        return self.sizes.get(TARGET, max(counts, key=lambda k: (counts[k], k)))

    @functools.cached_property
    def methods(self) -> list[str]:
        """The methods that are evaluated at `k`, in order; ablations have tables of their own."""
        return [method for method, size in self.sizes.items() if size == self.k and not is_ablation(method)]

    @functools.cached_property
    def ablations(self) -> list[str]:
        """The ablations that are evaluated at `k`, in order."""
        return [method for method, size in self.sizes.items() if size == self.k and is_ablation(method)]

    @property
    def focus(self) -> list[str]:
        """The methods that a figure with a line for each can show."""
        return best_known(self.methods)

    @functools.cached_property
    def arms(self) -> list[str]:
        """The trained arms that were evaluated, but ablations, in the same order; empty where there is none."""
        names = set(self.metrics["arm"]) if len(self.metrics) else set()
        return in_order(name for name in names if name in self.sizes and not is_ablation(name))

    @property
    def baseline(self) -> str | None:
        """The method that the others are compared with."""
        return next((method for method in BASELINES if method in self.methods), None)

    # --- records and scores -------------------------------------------------------------------------------------------

    def of(self, method: str) -> pd.DataFrame:
        """The records of one method."""
        return self.attempts[self.attempts["method"] == method]

    @functools.cached_property
    def scores(self) -> dict[str, Scores]:
        """pass@K of each method and ablation: a table of seeds x problems that says what it estimates."""
        return {method: score_table(self.of(method), k=self.k) for method in (*self.methods, *self.ablations)}

    def interval(self, table: pd.DataFrame) -> Interval:
        """The mean of a table of seeds x problems with its interval, as all reports draw it."""
        return bootstrap_interval(table, resamples=self.params.resamples, seed=self.params.seed)

    @functools.cached_property
    def groups(self) -> pd.Series[str]:
        """The group of each problem: its difficulty, or its family and clue."""
        return self.attempts.drop_duplicates("problem_id").set_index("problem_id")["group"]

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

    # --- the main table -----------------------------------------------------------------------------------------------

    @property
    def model(self) -> str:
        """The base model of these records; of a column of the main table, the only one."""
        return self.models[self.methods[0]]

    @property
    def title(self) -> str:
        """What a column of the main table is called."""
        benchmark, split = self.params.benchmark, self.params.split
        where = BENCHMARK_LABELS.get(benchmark, benchmark) + ("" if split == "test" else f" ({split})")
        return f"{model_label(self.model)}, {where}"

    @functools.cached_property
    def columns(self) -> list[Results]:
        """The columns of the main table: one for each base model of these records, then those of `further_cells`.

        Raises:
            MissingArtefactError: one of `further_cells` has no records.
            ParameterError: columns of several K, or two methods of one model that would stand in the same row.
        """
        found = _by_model(self)
        for profile, benchmark, split in self.params.cells[1:]:
            changes = {"profile": profile, "benchmark": benchmark, "split": split}
            found += _by_model(load_results(self.params.model_copy(update=changes)))
        if len(sizes := {column.k for column in found}) > 1:
            raise ParameterError(f"the cells of the main table have several K ({sizes}): list those of one K only")
        return found

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
            f"{partial}{self.params.benchmark} ({self.params.split} split, profile {self.params.profile}): {problems} "
            f"problems, {blocks} x K={self.k} attempts on each, seed{'s' if ',' in seeds else ''} {seeds}"
        )


def settings(columns: Sequence[Results]) -> str:
    """The sizes behind every number of all columns, in words, for captions."""
    return "; ".join(dict.fromkeys(column.setting() for column in columns))


def model_label(model: str) -> str:
    """A base model's name in tables: the last part of a hub id or folder."""
    return MODEL_LABELS.get(model, model.rstrip("/").rsplit("/", 1)[-1])


def _by_model(results: Results) -> list[Results]:
    """The records of each base model, in the order of the methods."""
    models: dict[str, list[str]] = {}
    for method in results.methods:
        models.setdefault(results.models[method], []).append(method)
    return [results] if len(models) == 1 else [_renamed(results, methods) for methods in models.values()]


def _renamed(results: Results, methods: Sequence[str]) -> Results:
    rows = {method: method.split(TAG)[0] for method in methods}
    if len(set(rows.values())) < len(rows):
        raise ParameterError(
            f"methods {', '.join(methods)} of one base model share a row of the main table: what follows {TAG} in a "
            "method's name only tells base models apart"
        )
    kept = results.attempts[results.attempts["method"].isin(methods)]
    models = {rows[method]: results.models[method] for method in methods}
    return replace(results, attempts=kept.assign(method=kept["method"].map(rows)), models=models)


# --- reading ----------------------------------------------------------------------------------------------------------


def load_results(params: Report) -> Results:
    """Read the records of seeds 0 to `params.seeds` - 1.

    Raises:
        MissingArtefactError: no records at all, a method that lacks a seed, or problems that 01_data_prep has not
            written.
        DamagedError: records, metrics or problems are not what was written.
    """
    runs = paths.runs_root() / params.profile
    records = _record_files(params, runs / "04_evaluation")
    made_with = [
        store.read_json(paths.require(paths.meta_path(path), notebook="04_evaluation"))["params"] for path in records
    ]
    frames = [
        _plain_nulls(store.read_parquet(path)).assign(program_limit=made["max_program_tokens"])
        for path, made in zip(records, made_with, strict=True)
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
        evaluated = problems[problems["id"].isin(attempts["problem_id"].unique())]
        hidden = tuple(zip(evaluated["group"], evaluated["hidden_method"], strict=True))
        sources.append(path)
    models = {_method_and_seed(path)[0]: base_model(path) for path in records}
    limit = _limit(params, made_with)
    return Results(params, attempts, metrics, hidden, tuple(sources), models, limit, trained_on)


def _limit(params: Report, evaluations: list[dict[str, Any]]) -> int:
    """The smallest limit that left problems out, of the evaluations or the data preparation before them; 0 for none.

    A benchmark that holds as many problems as its preparation may take counts as cut: nobody has looked further.
    """
    limits = [evaluation["limit"] for evaluation in evaluations]
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
        method, seed = _method_and_seed(path)
        if seed < params.seeds:
            found.setdefault(method, set()).add(seed)
    if not found:
        paths.require(folder / f"{prefix}<method>.s<seed>.parquet", notebook="04_evaluation")
    # what no seed trains is evaluated once; what one seed trains, all seeds train
    wanted = {m: seeds if len(seeds) == 1 else range(params.seeds) for m, seeds in found.items()}
    files = [folder / f"{prefix}{m}.s{seed}.parquet" for m in sorted(found) for seed in wanted[m]]
    return [paths.require(path, notebook="04_evaluation") for path in files]


def _method_and_seed(records: Path) -> tuple[str, int]:
    _, _, method, seed, _ = records.name.split(".")
    return method, int(seed.removeprefix("s"))


def _run(file_of_arm: Path) -> dict[str, Any]:
    arm, _, seed = file_of_arm.parent.name.rpartition(".s")
    return {"arm": arm, "seed": int(seed)}


def _plain_nulls(frame: pd.DataFrame) -> pd.DataFrame:
    """Nulls as None in object columns, so that frames with and without a planner fit together."""
    nullable = ["plan", "valid", "strategy", "followed", "program_method"]
    columns = {name: frame[name].astype(object) for name in nullable}
    return frame.assign(**{name: c.where(c.notna(), None) for name, c in columns.items()})
