"""The cells of the main table: one base model on one split of one benchmark, with every method evaluated there.

A profile's tables are about its own `benchmark` and `split`; `further_cells` adds others of the same profile
(`apps.test`) or of another one (`paper_4b/apps.test`), where another model was trained. Where one profile has records
of several base models, each is a cell of its own: file names allow one method of a name, so the methods of a second
model are called `<method>--<tag>` (`cppo--4b`), and stand in the row of `<method>`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cppo_lib.errors import ParameterError
from cppo_lib.report.results import Results, load_results

BENCHMARK_LABELS = {
    "crossroads": "crossroads",
    "humaneval": "HumanEval",
    "leetcode": "LeetCode",
    "apps": "APPS",
    "code_contests": "CodeContests",
    "livecodebench": "LiveCodeBench",
    "livecodebench_output": "LiveCodeBench output prediction",
}
MODEL_LABELS = {"scratch": "tiny model"}
TAG = "--"


@dataclass(frozen=True)
class Cell:
    """One base model on one split of one benchmark."""

    model: str
    results: Results

    @property
    def title(self) -> str:
        """The cell's name in a table."""
        params = self.results.params
        split = "" if params.split == "test" else f" ({params.split})"
        return f"{model_label(self.model)}, {BENCHMARK_LABELS[params.benchmark]}{split}"


def model_label(model: str) -> str:
    """A base model's name in tables: the last part of a hub id or folder."""
    return MODEL_LABELS.get(model, model.rstrip("/").rsplit("/", 1)[-1])


def load_cells(results: Results) -> list[Cell]:
    """All cells of a profile's main table: the profile's own first, then `further_cells`.

    Raises:
        MissingArtefactError: a further cell has no records.
        ParameterError: cells of several K.
    """
    everything = [results]
    for profile, benchmark, split in results.params.cells[1:]:
        changes = {"profile": profile, "benchmark": benchmark, "split": split}
        everything.append(load_results(results.params.model_copy(update=changes)))
    cells = [cell for each in everything for cell in split_by_model(each)]
    if len(sizes := {cell.results.k for cell in cells}) > 1:
        raise ParameterError(f"the cells of the main table have several K ({sizes}): list those of one K only")
    return cells


def settings(cells: Sequence[Cell]) -> str:
    """The sizes behind every number of all cells, in words, for captions."""
    return "; ".join(dict.fromkeys(cell.results.setting() for cell in cells))


def split_by_model(results: Results) -> list[Cell]:
    """A cell for each base model among the records, in the order of the methods.

    Raises:
        ParameterError: two methods of one model would stand in the same row.
    """
    models: dict[str, list[str]] = {}
    for method in results.methods:
        models.setdefault(results.models[method], []).append(method)
    if len(models) == 1:
        return [Cell(next(iter(models)), results)]
    return [Cell(model, _renamed(results, methods)) for model, methods in models.items()]


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
