"""The series: one rule per notebook, run by papermill through `cppo_lib.runs.series run-notebook`.

`make reproduce` is the usual way in. By hand, or on a cluster with any Snakemake executor:

    snakemake --cores 4 --config profile=tiny seeds=3

(profile=params/007 where Snakemake would read a number). `make why` says what that would run;
Snakemake's own dry run does not know. `cppo_lib.runs.series.plan` knows the runs of a
profile, and `cppo_lib.runs.series.stamps` which of them are out of date, by content. A run's only output here is
its stamp, which it writes last: Snakemake runs what has none and orders it. It deletes the outputs
of jobs that it starts or that fail, and so it is told of no result. Paths are relative to
runs/<profile>.
"""

import functools
import sys
from pathlib import Path

from cppo_lib.runs.series import stamps
from cppo_lib.runs.series.plan import Plan

PLAN = Plan(
    profile=Path(str(config.get("profile", "tiny"))).name,
    seeds=int(config.get("seeds", 1)),
    model=str(config.get("model", "")),
    limit=int(config.get("limit", 0)),
)
RUN = "{sys.executable:q} -m cppo_lib.runs.series run-notebook {params.given} --log {log:q}"


workdir: str(PLAN.folder)


wildcard_constraints:
    arm="[^/.]+",
    benchmark="[^/.]+",
    record="[^/]+",
    seed=r"\d+",


@functools.cache
def take_away_old_stamps():
    """Once, while jobs are looked for (only then is it known whether they will run)."""
    if workflow.is_main_process and workflow.executor_plugin and not workflow.dryrun:
        for name in stamps.pending(PLAN):
            (PLAN.folder / PLAN.runs[name].stamp).unlink(missing_ok=True)


def every_stamp(w):
    take_away_old_stamps()
    return [run.stamp for run in PLAN.runs.values()]


def inputs(pattern):
    """An input function: what the run called `pattern` (wildcards filled in) waits for, whatever its time stamps."""

    def stamps_before(w):
        take_away_old_stamps()
        return [ancient(stamp) for stamp in PLAN.inputs(pattern.format(**w))]

    return stamps_before


def given(pattern):
    """A params function: notebook, output, parameter file and values that replace the file's."""
    return lambda w: PLAN.arguments(pattern.format(**w))


def urgency(w):
    """The coordinated arms take longest, so they start first, and a warm-up, which they wait for, before them."""
    return {"planner": 3, "cppo": 2}.get(PLAN.runs[f"03_rl_training.{w.arm}.s{w.seed}"].params.algorithm, 1)


def cores_of_sft(w):
    """All where a model is made from scratch, which everything waits for; beside other runs a job for all would starve."""
    return workflow.cores if PLAN.runs["02_planner_sft"].params.base_model == "scratch" else 1


def feeds_training(w):
    """The evaluation that planner SFT distils starts before an arm without planner, and before other evaluations."""
    return 2 if PLAN.runs[f"04_evaluation.{w.record}"].params.split == "train" else 0


rule all:
    input:
        every_stamp,


rule data_prep:
    input:
        inputs("01_data_prep.{benchmark}"),
    output:
        "stamps/01_data_prep.{benchmark}.json",
    log:
        "logs/01_data_prep.{benchmark}.log",
    params:
        given=given("01_data_prep.{benchmark}"),
    # It takes seconds, and the longest way to the tables goes through training problems.
    priority: 3
    shell:
        RUN


rule planner_sft:
    input:
        inputs("02_planner_sft"),
    output:
        "stamps/02_planner_sft.json",
    log:
        "logs/02_planner_sft.log",
    params:
        given=given("02_planner_sft"),
    priority: 2
    threads: cores_of_sft
    shell:
        "OMP_NUM_THREADS={threads} " + RUN


rule gate:
    input:
        inputs("02b_gate"),
    output:
        "stamps/02b_gate.json",
    log:
        "logs/02b_gate.log",
    params:
        given=given("02b_gate"),
    shell:
        RUN


rule audit:
    input:
        inputs("03a_audit.s{seed}"),
    output:
        "stamps/03a_audit.s{seed}.json",
    log:
        "logs/03a_audit.s{seed}.log",
    params:
        given=given("03a_audit.s{seed}"),
    # Minutes, and the arms that take longest wait for it.
    priority: 3
    shell:
        RUN


rule rl_training:
    input:
        inputs("03_rl_training.{arm}.s{seed}"),
    output:
        "stamps/03_rl_training.{arm}.s{seed}.json",
    log:
        "logs/03_rl_training.{arm}.s{seed}.log",
    params:
        given=given("03_rl_training.{arm}.s{seed}"),
    priority: urgency
    shell:
        RUN


rule evaluation:
    input:
        inputs("04_evaluation.{record}"),
    output:
        "stamps/04_evaluation.{record}.json",
    log:
        "logs/04_evaluation.{record}.log",
    params:
        given=given("04_evaluation.{record}"),
    priority: feeds_training
    shell:
        RUN


rule paper_tables:
    input:
        inputs("05_paper_tables"),
    output:
        "stamps/05_paper_tables.json",
    log:
        "logs/05_paper_tables.log",
    params:
        given=given("05_paper_tables"),
    shell:
        RUN


rule figures:
    input:
        inputs("06_figures"),
    output:
        "stamps/06_figures.json",
    log:
        "logs/06_figures.log",
    params:
        given=given("06_figures"),
    shell:
        RUN


rule strategy_diversity:
    input:
        inputs("07_strategy_diversity"),
    output:
        "stamps/07_strategy_diversity.json",
    log:
        "logs/07_strategy_diversity.log",
    params:
        given=given("07_strategy_diversity"),
    shell:
        RUN
