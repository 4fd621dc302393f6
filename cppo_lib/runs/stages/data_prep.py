"""Data preparation: the problems of a benchmark's splits, written once and read by every later notebook.

Problems are streamed from the benchmark's loader into `<split>.jsonl`, so that a data set may be larger than memory;
what is kept of each is a row of facts for the report (`problems.parquet`). Beside them lie `skipped.jsonl`, what the
loader left out and why; `overlap.csv`, what was taken out of the training split because an evaluation problem has the
same statement or nearly; for crossroads `corpus.jsonl`, which the base model is pretrained on; and
last `summary.json` with the exact sources.

Reference programs are run before a split is written (`cppo_lib.runs.stages.references`).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.data import decontaminate
from cppo_lib.data import problem as problems
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.problem import LoadReport, Problem, ProblemFile
from cppo_lib.data.registry import stream_benchmark
from cppo_lib.errors import DamagedError, DatasetError, ParameterError
from cppo_lib.runs import dependencies
from cppo_lib.runs.parameters import DataPrep
from cppo_lib.runs.stages import references

PROGRESS_S = 10.0
_Result = TypeVar("_Result")


def prepare(cfg: DataPrep) -> Path:
    """Write the benchmark's files, see the module; what an interrupted call has finished is not done again.

    Returns:
        The folder `runs/<profile>/01_data_prep/<benchmark>`.

    Raises:
        DatasetError: data that cannot be had or does not fit its schema, a split without any problem left, or a
            reference program of crossroads or HumanEval that the verifier does not accept.
        MissingArtefactError: a benchmark of `remove_overlap_with` is not prepared yet.
        ParameterError: a benchmark of `remove_overlap_with` has no evaluation split prepared.
    """
    others = []
    for name in _others(cfg):
        hint = f"prepare {name} with params/{cfg.profile}/01_data_prep.{name}.yaml, since remove_overlap_with names it"
        summary = _folder(cfg.profile, name) / "summary.json"
        others.append(paths.require(summary, notebook="01_data_prep", hint=hint))
    folder = store.resumable_dir(_folder(cfg.profile, cfg.benchmark), dependencies.fingerprint(cfg, others))
    done = folder / "summary.json"
    if store.finished(folder) and _unchanged(store.read_json(done)["sources"]):
        log.info(f"{paths.show(folder)} is complete; delete it to prepare it again")
        return folder
    done.unlink(missing_ok=True)
    parts: dict[str, dict[str, Any]] = {}
    for split in sorted(cfg.chosen_splits, key=lambda name: name == "train"):  # the others first: train may need them
        index = _index(cfg) if split == "train" and cfg.remove_overlap_with else None
        parts[split] = _split(cfg, split, folder, index)
    _finish(cfg, folder, {split: parts[split] for split in cfg.chosen_splits}, others)
    return folder


def read_split(profile: str, benchmark: str, split: str) -> ProblemFile:
    """The prepared problems of a split, each read when it is asked for. Raises MissingArtefactError or DamagedError."""
    path = split_file(profile, benchmark, split)
    store.checked(paths.require(path, notebook="01_data_prep"))
    return ProblemFile(path, paths.show(path))


def split_file(profile: str, benchmark: str, split: str) -> Path:
    """Where the prepared problems of a split lie."""
    return _folder(profile, benchmark) / f"{split}.jsonl"


def stream_split(profile: str, benchmark: str, split: str) -> Iterator[Problem]:
    """The prepared problems of a split, one after the other. Raises as `read_split`."""
    yield from read_split(profile, benchmark, split)


def _folder(profile: str, benchmark: str) -> Path:
    return paths.runs_root() / profile / "01_data_prep" / benchmark


# --- one split --------------------------------------------------------------------------------


def _split(cfg: DataPrep, split: str, folder: Path, index: decontaminate.StatementIndex | None) -> dict[str, Any]:
    """Write `<split>.jsonl`; what is known of it, as kept in `parts/<split>.json` for a call that goes on."""
    name, path, part = f"{cfg.benchmark} {split}", folder / f"{split}.jsonl", folder / "parts" / f"{split}.json"
    if (known := _known(path, part)) is not None:
        log.info(f"{name}: {len(known['facts']):,} problems are there already")
        return known
    log.info(f"{name}: loading")
    report, removed = LoadReport(), list[decontaminate.Overlap]()
    facts, to_check = list[dict[str, Any]](), list[Problem]()
    most = math.inf if cfg.benchmark in references.RIGHT else cfg.check_references
    rows = _load(cfg, split, report)
    if index is not None:
        rows = decontaminate.without_overlap(rows, index, removed)
    with _whole(path) as write:
        for problem in _with_progress(rows, name, report):
            write(problems.to_json(problem) + "\n")
            facts.append(facts_of(problem))
            if len(to_check) < most and references.has_reference(problem):
                to_check.append(problem)
        if not facts:
            raise DatasetError(f"{name}: no problem is left ({_reasons(report, removed) or 'the data has none'})")
        checked = references.check_references(to_check, paths.verdicts_path(cfg.profile))
    made = {
        "facts": facts,
        "sources": [dataclasses.asdict(source) for source in report.sources],
        "skipped": [dataclasses.asdict(row) for row in report.skipped],
        "removed": [dataclasses.asdict(row) for row in removed],
        "compared": 0 if index is None else len(index),
        "references": checked,
        "sha256": store.file_sha256(path),
    }
    store.write_text(part, json.dumps(made))
    left_out = _reasons(report, removed) or "none"
    accepted = f"; {checked['accepted']} of {checked['judged']} references accepted" if to_check else ""
    log.info(f"{name}: {len(facts):,} problems; left out: {left_out}{accepted}")
    return made


def _known(path: Path, part: Path) -> dict[str, Any] | None:
    """What an earlier call has kept of a split; None where it has not, or the split is not what it wrote any more."""
    if not (path.exists() and part.exists()):
        return None
    try:
        known: dict[str, Any] = store.read_json(part)
    except DamagedError:
        return None
    return known if known["sha256"] == store.file_sha256(path) and _unchanged(known["sources"]) else None


def facts_of(problem: Problem) -> dict[str, Any]:
    """What the reports need of a problem: sizes and origin, `statement` being its length in characters.

    In crossroads also the method behind its hidden tests, from which the ceilings of the evaluated problems follow.
    """
    return {
        "id": problem.id,
        "group": str(problem.meta.get("group", "")),
        "platform": str(problem.meta.get("platform", "")),
        "date": str(problem.meta.get("date", "")),
        "mode": problem.mode,
        "tests": len(problem.tests),
        "public": sum(test.visibility == "public" for test in problem.tests),
        "statement": len(problem.statement),
        "reference": references.has_reference(problem),
        "hidden_method": str(problem.meta.get("hidden_method", "")),
    }


def _load(cfg: DataPrep, split: str, report: LoadReport) -> Iterator[Problem]:
    if cfg.benchmark == "crossroads":  # drawn as a whole
        yield from _world(cfg)[split][: cfg.limit or None]
    else:
        limit = {"limit": cfg.limit} if cfg.limit else {}
        yield from stream_benchmark(cfg.benchmark, split, report, **cfg.options, **limit)


def _world(cfg: DataPrep) -> dict[str, Any]:
    return crossroads.world(**cfg.options, seed=cfg.seed)


@contextmanager
def _whole(path: Path) -> Iterator[Callable[[str], object]]:
    """What writes text to a file that appears under its name when the block ends well, and not at all otherwise."""
    partial = path.with_name(path.name + ".partial")

    def tried(action: Callable[..., _Result], *arguments: Any) -> _Result:
        try:
            return action(*arguments)
        except OSError as error:
            raise paths.unwritable(path, error) from error

    file = tried(partial.open, "w", -1, "ascii")
    try:
        yield lambda text: tried(file.write, text)
        tried(file.close)
        tried(store.place, partial, path)
    finally:
        with suppress(OSError):
            file.close()
        partial.unlink(missing_ok=True)


def _with_progress(rows: Iterable[Problem], name: str, report: LoadReport) -> Iterator[Problem]:
    due = time.monotonic() + PROGRESS_S
    for number, row in enumerate(rows, start=1):
        yield row
        if time.monotonic() >= due:
            log.info(f"{name}: {number:,} problems, {len(report.skipped):,} left out")
            due = time.monotonic() + PROGRESS_S


def _reasons(report: LoadReport, removed: list[decontaminate.Overlap]) -> str:
    """Why rows are missing, with counts, such as `12 no tests, 3 interactive`; empty when none is."""
    counts = Counter(row.reason for row in report.skipped)
    if removed:
        counts["overlap"] = len(removed)
    return ", ".join(f"{count:,} {reason}" for reason, count in counts.most_common())


def _unchanged(read: Iterable[dict[str, Any]]) -> bool:
    """Whether the local files among these sources are still those that were read; a hub's revision stays what it is."""
    local = [(paths.root() / row["origin"], row) for row in read]
    return all(
        (folder / row["file"]).is_file() and store.file_sha256(folder / row["file"]) == row["sha256"]
        for folder, row in local
        if folder.is_dir()
    )


# --- evaluation problems to keep out of training ----------------------------------------------


def _others(cfg: DataPrep) -> list[str]:
    return [name for name in cfg.remove_overlap_with if name != cfg.benchmark]


def _index(cfg: DataPrep) -> decontaminate.StatementIndex:
    """The evaluation statements of every benchmark in `remove_overlap_with`."""
    rows: list[Iterator[Problem]] = []
    for name in cfg.remove_overlap_with:
        if name == cfg.benchmark:
            prepared = cfg.chosen_splits
        else:
            prepared = tuple(store.read_json(_folder(cfg.profile, name) / "summary.json")["splits"])
        splits = [split for split in prepared if split != "train"]
        if not splits:
            raise ParameterError(
                f"key 'remove_overlap_with' names {name}, of which only the train split is prepared in the profile "
                f"{cfg.profile}: prepare its evaluation splits too, or leave it out"
            )
        rows += [stream_split(cfg.profile, name, split) for split in splits]
    log.info(f"{cfg.benchmark} train: reading the statements of {', '.join(cfg.remove_overlap_with)}")
    return decontaminate.StatementIndex(itertools.chain.from_iterable(rows))


# --- what was done ----------------------------------------------------------------------------


def _finish(cfg: DataPrep, folder: Path, parts: dict[str, dict[str, Any]], others: list[Path]) -> None:
    """Write the files that span the splits, and last `summary.json`."""
    written = [folder / f"{split}.jsonl" for split in parts]
    written.append(store.write_parquet(folder / "problems.parquet", _rows(parts, "facts")))
    skipped = "".join(json.dumps(row) + "\n" for row in _rows(parts, "skipped"))
    written.append(store.write_text(folder / "skipped.jsonl", skipped))
    values = {
        "benchmark": cfg.benchmark,
        "splits": {split: _describe(part) for split, part in parts.items()},
        "sources": _rows(parts, "sources"),
    }
    if cfg.remove_overlap_with:
        removed = [decontaminate.Overlap(**row) for row in parts["train"]["removed"]]
        table = decontaminate.overlap_table(removed)
        written.append(store.write_text(folder / "overlap.csv", table.to_csv(index=False)))
        values["overlap"] = {
            "benchmarks": cfg.remove_overlap_with,
            "compared": parts["train"]["compared"],
            "threshold": decontaminate.THRESHOLD,
            "ngram": decontaminate.NGRAM,
            "exact": sum(row.exact for row in removed),
            "near": sum(not row.exact for row in removed),
        }
    if cfg.benchmark == "crossroads":
        corpus = _world(cfg)["corpus"]
        written.append(store.write_text(folder / "corpus.jsonl", "".join(json.dumps(row) + "\n" for row in corpus)))
    notes.write_summary(folder, cfg, values=values, artefacts=written, inputs=others)
    shutil.rmtree(folder / "parts")


def _rows(parts: dict[str, dict[str, Any]], key: str) -> list[dict[str, Any]]:
    return [{"split": split, **row} for split, part in parts.items() for row in part[key]]


def _describe(part: dict[str, Any]) -> dict[str, Any]:
    """Counts that a reader wants to see of a split."""

    def counts(rows: list[dict[str, Any]], key: str) -> dict[str, int]:
        return dict(sorted(Counter(row[key] for row in rows).items()))

    facts = part["facts"]
    return {
        "problems": len(facts),
        "tests": sum(row["tests"] for row in facts),
        "groups": counts(facts, "group"),
        "platforms": counts(facts, "platform"),
        "modes": counts(facts, "mode"),
        "skipped": counts(part["skipped"], "reason"),
        "overlap": len(part["removed"]),
        "references": part["references"],
    }
