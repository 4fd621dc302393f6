"""Data preparation: the problems of a benchmark's splits, written once and read by every later notebook.

For crossroads also the corpus that the base model is pretrained on, and the closed-form ceilings. Before anything is
written, the verifier must accept the reference program of every problem: data and judge are checked together.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

from cppo_lib import paths, problems, store
from cppo_lib.benchmarks import crossroads
from cppo_lib.errors import DatasetError
from cppo_lib.parameters import DataPrep
from cppo_lib.problems import Problem
from cppo_lib.verifier import Verifier


def prepare(cfg: DataPrep) -> Path:
    """Write `<split>.jsonl`, for crossroads also `corpus.jsonl` and `ceilings.json`, and last `summary.json`.

    Returns:
        The folder `runs/<profile>/01_data_prep/<benchmark>`.

    Raises:
        DatasetError: a problem whose reference program the verifier does not accept.
    """
    folder = paths.stage_dir(cfg.profile, "01_data_prep", cfg.benchmark)
    splits = load_splits(cfg)
    for split, rows in splits.items():
        store.progress(f"{cfg.benchmark} {split}: {len(rows)} problems, checking references")
        check_references(rows, paths.runs_root() / cfg.profile / "verdicts.sqlite")
        problems.write_problems(folder / f"{split}.jsonl", rows)
    if cfg.benchmark == "crossroads":
        lines = [json.dumps(row) + "\n" for row in _world(cfg)["corpus"]]
        store.write_text(folder / "corpus.jsonl", "".join(lines))
        store.write_json(folder / "ceilings.json", crossroads.ceilings(cfg.k))
    names = [f"{split}.jsonl" for split in splits]
    names += ["corpus.jsonl", "ceilings.json"] if cfg.benchmark == "crossroads" else []
    store.write_summary(
        folder,
        cfg,
        values={"benchmark": cfg.benchmark, "splits": {split: describe(rows) for split, rows in splits.items()}},
        artefacts=[folder / name for name in names],
    )
    return folder


def load_splits(cfg: DataPrep) -> dict[str, list[Problem]]:
    """The benchmark's splits by name, in order."""
    if cfg.benchmark == "crossroads":
        return {split: _world(cfg)[split] for split in crossroads.SPLITS}
    return {"test": problems.load_benchmark(cfg.benchmark, "test")}


def read_split(profile: str, benchmark: str, split: str) -> list[Problem]:
    """The prepared problems of a split. Raises MissingArtefactError naming notebook 01."""
    path = paths.runs_root() / profile / "01_data_prep" / benchmark / f"{split}.jsonl"
    return problems.read_problems(paths.require(path, notebook="01_data_prep"))


def reference_program(problem: Problem) -> str:
    """The program that is right by construction: the hidden method's, or the data set's own solution."""
    if problem.source == "crossroads":
        method = crossroads.method_named(crossroads.family_of(problem), problem.meta["hidden_method"])
        assert method is not None  # the problem was made from this method
        return method.program
    return str(problem.meta["reference"])


def check_references(rows: list[Problem], cache: Path) -> None:
    """Raise DatasetError naming the first problem whose reference program is not accepted."""
    # Nothing else runs in this step, so judging may use every core.
    with Verifier(workers=os.cpu_count(), cache=cache) as verifier:
        results = verifier.verify_many([(row, reference_program(row)) for row in rows])
    for row, result in zip(rows, results, strict=True):
        if not result.passed:
            raise DatasetError(
                f"{row.source} problem {row.id!r}: the reference program gets {result.verdict} "
                f"({result.reason}): mend the data or the limits before training on it"
            )


def describe(rows: list[Problem]) -> dict[str, object]:
    """Counts that a reader wants to see of a split."""
    groups = Counter(str(row.meta.get("group", "")) for row in rows)
    return {
        "problems": len(rows),
        "tests": sum(len(row.tests) for row in rows),
        "groups": dict(sorted(groups.items())),
    }


def _world(cfg: DataPrep) -> dict[str, Any]:
    return crossroads.world(
        cfg.train_per_context,
        cfg.dev_per_context,
        cfg.test_per_context,
        cfg.corpus_per_context,
        cfg.hidden_tests,
        cfg.seed,
    )
