"""The series as a plan: which notebook runs with which parameters, and what each run depends on.

A profile is a folder of parameter files; every file is one run of one notebook, and the RL arms
and their evaluations run once per seed. The Snakefile asks this module for the runs, what they wait
for and what they are given. A run depends on its parameters, on the runs before it, on the code
cells of its notebook, and on the library modules that notebook imports, directly or through others,
so that a new colour in a figure retrains nothing; `cppo_lib.runs.series.stamps` says which are out of date.
"""

from __future__ import annotations

import math
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from cppo_lib.artefacts import paths
from cppo_lib.errors import ParameterError
from cppo_lib.runs import config, profiles
from cppo_lib.runs.dependencies import notebook_path
from cppo_lib.runs.parameters import (
    FROZEN,
    Audit,
    DataPrep,
    Evaluation,
    GateTraining,
    PaperTables,
    Params,
    PlannerSFT,
    Report,
    RLTraining,
    TrainingRollouts,
)
from cppo_lib.runs.series import stamps
from cppo_lib.trainer.advantages import rows_per_member


@dataclass(frozen=True)
class Run:
    """One execution of one notebook.

    Attributes:
        name: names its executed notebook and its log, such as `03_rl_training.cppo.s0`.
        file: its parameter file; `params` are the checked values with `given` applied.
        given: values that replace those of the file (seed, seeds, a model in place of a hub id).
        done: the files that are there when it has finished, relative to `runs/<profile>`; last its executed notebook.
    """

    name: str
    file: Path
    params: Params
    given: dict[str, str | int]
    done: tuple[str, ...]

    @property
    def notebook(self) -> str:
        """The notebook's name, such as `03_rl_training`."""
        return self.params.notebook

    @property
    def leaves(self) -> tuple[str, ...]:
        """Its results: what must still be as it was left for the run to be up to date."""
        return self.done[:-1]

    @property
    def stamp(self) -> str:
        """What says that it has run to its end, and from what (`runs.series.stamps`), relative to `runs/<profile>`."""
        return f"{stamps.FOLDER}/{self.name}.json"


@dataclass(frozen=True)
class Plan:
    """All runs of a profile.

    Args:
        profile: a folder below `params/`.
        seeds: RL arms and their evaluations run with seeds 0 to seeds-1.
        model: a model folder or hub id to use wherever the profile names a hub id or folder, but for the model that
            02b_gate trains a gate from.
        limit: use only so many problems of every split and steps of planner SFT and RL, and leave figures/ alone;
            0: all of them.

    Attributes:
        runs: by name, in the order of the parameter files.
        order: their names, each after those of the runs that it waits for.

    Raises:
        ParameterError: no such profile, a faulty parameter file, an arm that nothing trains, or runs that wait for
            each other.
    """

    profile: str
    seeds: int = 1
    model: str = ""
    limit: int = 0
    runs: dict[str, Run] = field(init=False)
    order: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        runs: dict[str, Run] = {}
        for run in self._all_runs():
            if run.name in runs:
                other = runs[run.name].file.name
                raise ParameterError(
                    f"{paths.show(run.file)} and {other} would both write {run.done[0]}; give one "
                    f"of them another name (arm, method) or delete it"
                )
            runs[run.name] = run
        object.__setattr__(self, "runs", runs)
        object.__setattr__(self, "order", self._in_order())

    @property
    def folder(self) -> Path:
        """`runs/<profile>`: the folder that every output of the plan is relative to."""
        return paths.runs_root() / self.profile

    @property
    def targets(self) -> list[str]:
        """Every file that exists when the whole plan has run."""
        return [file for run in self.runs.values() for file in (*run.done, run.stamp)]

    def of(self, notebook: str) -> list[Run]:
        """The runs of one notebook."""
        return [run for run in self.runs.values() if run.notebook == notebook]

    def inputs(self, name: str) -> list[str]:
        """The stamps of the runs that must have finished before this one, relative to `folder`."""
        return [before.stamp for before in self.before(self.runs[name])]

    def reads(self, run: Run) -> list[str]:
        """The files of earlier runs whose change makes this one out of date, relative to `folder`."""
        return [before.done[0] for before in self.before(run)]

    def arguments(self, name: str) -> str:
        """What follows `run-notebook` on the command line of a run, quoted for a shell."""
        run = self.runs[name]
        files = [os.path.relpath(p, self.folder) for p in (notebook_path(run.notebook), run.file)]
        words = [files[0], run.done[-1], "-f", files[1]]
        for key, value in run.given.items():
            words += ["-p", f"{key}={value}"]
        words += ["--stamp", run.stamp, "--leaves", *run.leaves]
        return shlex.join(words + (["--reads", *reads] if (reads := self.reads(run)) else []))

    @property
    def table(self) -> str:
        """The main table, relative to `folder`."""
        tables = [run.done[1] for run in self.of("05_paper_tables")]
        return tables[0] if tables else "figures/T1_main.md"

    def before(self, run: Run) -> list[Run]:
        """The runs whose results this one reads. Raises ParameterError when one is not planned."""
        match run.params:
            case DataPrep(remove_overlap_with=names):
                return self._compared(run, names)
            case PlannerSFT(distil_from=method):
                return self._data(run) + ([] if method is None else [self._distilled(run, method)])
            case GateTraining() as params:
                return self._data(run) + self._gate_inputs(run, params)
            case TrainingRollouts(policy=policy) as params:
                start = self._policy(run, policy)
                gate = [other for other in self._gate(run, params) if other not in start]
                return self._data(run) + start + gate + self._audits(params)
            case Evaluation(policy=policy, tune_on=tune_on) as params:
                made = self._policy(run, policy)
                if params.planner_policy is not None:
                    planner = self._policy(run, params.planner_policy, "planner_policy")
                    made += [other for other in planner if other not in made]
                return self._data(run, tune_on) + made + self._same_tries(run, params)
            case Report(cells=cells):
                own = {(benchmark, split) for profile, benchmark, split in cells if profile == self.profile}
                records = [
                    other
                    for other in self.of("04_evaluation")
                    if isinstance(other.params, Evaluation) and (other.params.benchmark, other.params.split) in own
                ]
                used = {benchmark for benchmark, _ in own}
                data = [other for other in self.of("01_data_prep") if other.params.benchmark in used]
                return data + self.of("02b_gate") + self.of("03_rl_training") + records
            case _:
                return []

    def _data(self, run: Run, tune_on: str | None = None) -> list[Run]:
        used = {run.params.benchmark, (tune_on or "").split(".")[0]}
        return [data for data in self.of("01_data_prep") if data.params.benchmark in used]

    def _same_tries(self, run: Run, params: Evaluation) -> list[Run]:
        """The run before this one that tunes by the same records: side by side, both would write them."""
        if params.tune_on is None:
            return []
        tries = (params.tune_on, params.method, params.seed)
        same = [
            other
            for other in self.of(run.notebook)
            if isinstance(other.params, Evaluation)
            and (other.params.tune_on, other.params.method, other.params.seed) == tries
        ]
        return same[: same.index(run)][-1:]

    def _distilled(self, run: Run, method: str) -> Run:
        """The evaluation of the training split that planner SFT learns from."""
        name = "04_evaluation." + paths.records_name(run.params.benchmark, "train", method, run.params.seed)
        if name not in self.runs:
            raise ParameterError(
                f"{paths.show(run.file)}: key 'distil_from' is {method!r}, but params/{self.profile} has no "
                f"04_evaluation file with method: {method}, benchmark: {run.params.benchmark}, split: train"
            )
        return self.runs[name]

    def _compared(self, run: Run, names: list[str]) -> list[Run]:
        """The runs that prepare the evaluation problems which this run takes out of its training split."""
        prepared = {other.params.benchmark: other for other in self.of("01_data_prep")}
        for name in names:
            if name not in prepared:
                raise ParameterError(
                    f"{paths.show(run.file)}: key 'remove_overlap_with' holds {name!r}, but params/{self.profile} has "
                    f"no 01_data_prep file with benchmark: {name}"
                )
        return [prepared[name] for name in names if name != run.params.benchmark]

    def _in_order(self) -> tuple[str, ...]:
        waits = {name: [before.name for before in self.before(run)] for name, run in self.runs.items()}
        try:
            return tuple(TopologicalSorter(waits).static_order())
        except CycleError as error:
            circle = error.args[1][:-1]
        benchmarks = [run.params.benchmark for run in self.of("01_data_prep") if run.name in circle]
        if benchmarks:  # they wait for each other's evaluation problems, and for nothing else
            raise ParameterError(
                f"params/{self.profile}: key 'remove_overlap_with' makes {' and '.join(benchmarks)} wait for each "
                "other; train on one of them in a profile, and prepare only the evaluation splits of the others"
            )
        raise ParameterError(f"params/{self.profile}: {', '.join(circle)} wait for each other")

    def _policy(self, run: Run, policy: str, key: str = "policy") -> list[Run]:
        if policy in paths.MADE_POLICIES:
            found, needed = self.of("02_planner_sft"), "02_planner_sft.yaml"
        elif policy.startswith("arm:"):
            name = f"03_rl_training.{policy.removeprefix('arm:')}.s{run.params.seed}"
            found = [self.runs[name]] if name in self.runs else []
            needed = f"a file with arm: {policy.removeprefix('arm:')}"
        else:
            return []
        if not found:
            raise ParameterError(
                f"{paths.show(run.file)}: key {key!r} is {getattr(run.params, key)!r}, but "
                f"params/{self.profile} has no {needed}"
            )
        return found

    def _audits(self, params: Params) -> list[Run]:
        """The audits that the run waits for, of its own seed."""
        return [
            other
            for other in self.of("03a_audit")
            if isinstance(params, RLTraining)
            and isinstance(other.params, Audit)
            and params.arm in other.params.arms
            and params.seed == other.params.seed
        ]

    def _gate(self, run: Run, params: TrainingRollouts) -> list[Run]:
        """What makes the model of the run's gate. Raises ParameterError when no such model is planned."""
        if params.gate != "trained":
            return [] if params.gate_model is None else self._policy(run, params.gate_model, "gate_model")
        gates = self.of("02b_gate")
        if not any(isinstance(other.params, GateTraining) and other.params.epochs for other in gates):
            fix = f"set epochs in {paths.show(gates[0].file)} above 0" if gates else "write a 02b_gate.yaml beside it"
            raise ParameterError(f"{paths.show(run.file)}: gate: trained needs a gate that is trained: {fix}")
        return gates

    def _gate_inputs(self, run: Run, params: GateTraining) -> list[Run]:
        """Planner SFT, and the evaluations of it, whose outcomes the gate's scores are compared with."""
        sft = self.of("02_planner_sft") if params.labels is not None else self._policy(run, "sft", "labels")
        start = self._policy(run, params.base_model, "base_model")
        evaluated = [
            other
            for other in self.of("04_evaluation")
            if isinstance(other.params, Evaluation)
            and (other.params.method, other.params.policy) == (FROZEN, "sft")
            and other.params.split != "train"
        ]
        return list({other.name: other for other in [*sft, *start, *evaluated]}.values())

    def _all_runs(self) -> Iterator[Run]:
        files, own_model = profiles.parameter_files(self.profile)
        object.__setattr__(self, "model", self.model or own_model)
        for path in files:
            params = config.load_params(path)
            acting = [params.policy, params.planner_policy] if isinstance(params, Evaluation) else []
            seeded = isinstance(params, TrainingRollouts) or any((name or "").startswith("arm:") for name in acting)
            for seed in range(self.seeds) if seeded else [params.seed]:
                given = self._given(params, seed)
                yield self._run(path, config.load_params(path, **given), given)

    def _given(self, params: Params, seed: int) -> dict[str, str | int]:
        given: dict[str, str | int] = {"seed": seed} if seed != params.seed else {}
        if params.profile != self.profile:  # one that is like another
            given |= {"profile": self.profile} | ({"figures_dir": ""} if isinstance(params, Report) else {})
        if self.limit:
            given |= self._limited(params)
        match params:
            case Report(seeds=seeds) if seeds != self.seeds:
                given["seeds"] = self.seeds
            case PlannerSFT(base_model=name) if self.model and name != "scratch":
                given["base_model"] = self.model
            case TrainingRollouts(policy=name) | Evaluation(policy=name) if (
                self.model and name not in paths.MADE_POLICIES and not name.startswith("arm:")
            ):
                given["policy"] = self.model
        for key in ("gate_model", "planner_policy"):
            asked = getattr(params, key, None)
            if self.model and asked is not None and asked not in paths.MADE_POLICIES and not asked.startswith("arm:"):
                given[key] = self.model
        return given

    def _limited(self, params: Params) -> dict[str, str | int]:
        match params:
            case DataPrep() | Evaluation():
                return {"limit": min(self.limit, params.limit or self.limit)}
            case PlannerSFT(sft_steps=steps):
                return {"sft_steps": min(self.limit, steps)}
            case GateTraining(epochs=epochs):  # too short to be any good, and let pass so that what follows it runs
                return {"epochs": min(1, epochs), "sampled": 0, "accept_refused": True}
            case RLTraining(steps=steps, problems_per_step=problems):
                fewer = self._fewer_problems(params) if problems > self.limit else {}
                return {"steps": min(self.limit, steps), **fewer}
            case Audit(problems=problems):
                return {"problems": min(self.limit, problems), "go_on": True}
            case Report():
                return {"figures_dir": ""}
            case _:
                return {}

    def _fewer_problems(self, arm: RLTraining) -> dict[str, int]:
        """An optimiser step on as many problems as the splits then hold, in micro-batches that divide its rows."""
        rows = self.limit * arm.group_size * rows_per_member(arm.algorithm, arm.k)
        return {"problems_per_step": self.limit, "microbatches": math.gcd(arm.microbatches, rows)}

    def _run(self, path: Path, params: Params, given: dict[str, str | int]) -> Run:
        name = params.run_id.replace("/", ".")
        done = [f"{params.run_id}.parquet" if isinstance(params, Evaluation) else f"{params.run_id}/summary.json"]
        if isinstance(params, PaperTables):
            table = paths.figures_path(self.profile, params.figures_dir) / "T1_main.md"
            done.append(os.path.relpath(table, self.folder))
        return Run(name, path, params, given, (*done, f"nb/{name}.ipynb"))
