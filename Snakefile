"""The series: one rule per notebook, run by papermill through `cppo_lib.series run-notebook`.

`make reproduce` is the usual way in. By hand, or on a cluster with any Snakemake executor:

    snakemake --cores 4 --config profile=tiny seeds=3

`cppo_lib.plan` knows the runs of a profile. Each run's inputs are its parameter file, the files of
the runs before it and the library modules that its notebook imports; a change of the notebook's
code cells counts through `params.code`. Paths are relative to runs/<profile>.
"""

import sys

from cppo_lib.plan import Plan
from cppo_lib.sources import code_hash

PLAN = Plan(
    profile=config.get("profile", "tiny"),
    seeds=int(config.get("seeds", 1)),
    model=str(config.get("model", "")),
    limit=int(config.get("limit", 0)),
)
RUN = "{sys.executable:q} -m cppo_lib.series run-notebook {params.given} --log {log:q}"


workdir: str(PLAN.folder)


wildcard_constraints:
    arm="[^/.]+",
    benchmark="[^/.]+",
    record="[^/]+",
    seed=r"\d+",


def inputs(pattern):
    """An input function: what the run called `pattern` (wildcards filled in) depends on."""
    return lambda w: PLAN.inputs(pattern.format(**w))


def given(pattern):
    """A params function: notebook, output, parameter file and values that replace the file's."""
    return lambda w: PLAN.arguments(pattern.format(**w))


def urgency(w):
    """The coordinated arms take longest, so they start first."""
    return 2 if PLAN.runs[f"03_rl_training.{w.arm}.s{w.seed}"].params.algorithm == "cppo" else 1


def cores_of_sft(w):
    """All where a model is made from scratch, which everything waits for; beside other runs a job for all would starve."""
    return workflow.cores if PLAN.runs["02_planner_sft"].params.base_model == "scratch" else 1


def feeds_training(w):
    """The evaluation that planner SFT distils starts before an arm without planner, and before other evaluations."""
    return 2 if PLAN.runs[f"04_evaluation.{w.record}"].params.split == "train" else 0


rule all:
    input:
        PLAN.targets,


rule data_prep:
    input:
        inputs("01_data_prep.{benchmark}"),
    output:
        "01_data_prep/{benchmark}/summary.json",
        nb="nb/01_data_prep.{benchmark}.ipynb",
    log:
        "logs/01_data_prep.{benchmark}.log",
    params:
        given=given("01_data_prep.{benchmark}"),
        code=code_hash("01_data_prep"),
    # It takes seconds, and the longest way to the tables goes through training problems.
    priority: 3
    shell:
        RUN


rule planner_sft:
    input:
        inputs("02_planner_sft"),
    output:
        "02_planner_sft/summary.json",
        nb="nb/02_planner_sft.ipynb",
    log:
        "logs/02_planner_sft.log",
    params:
        given=given("02_planner_sft"),
        code=code_hash("02_planner_sft"),
    priority: 2
    threads: cores_of_sft
    shell:
        "OMP_NUM_THREADS={threads} " + RUN


rule rl_training:
    input:
        inputs("03_rl_training.{arm}.s{seed}"),
    output:
        "03_rl_training/{arm}.s{seed}/summary.json",
        nb="nb/03_rl_training.{arm}.s{seed}.ipynb",
    log:
        "logs/03_rl_training.{arm}.s{seed}.log",
    params:
        given=given("03_rl_training.{arm}.s{seed}"),
        code=code_hash("03_rl_training"),
    priority: urgency
    shell:
        RUN


rule evaluation:
    input:
        inputs("04_evaluation.{record}"),
    output:
        "04_evaluation/{record}.parquet",
        nb="nb/04_evaluation.{record}.ipynb",
    log:
        "logs/04_evaluation.{record}.log",
    params:
        given=given("04_evaluation.{record}"),
        code=code_hash("04_evaluation"),
    priority: feeds_training
    shell:
        RUN


rule paper_tables:
    input:
        inputs("05_paper_tables"),
    output:
        "05_paper_tables/summary.json",
        PLAN.table,
        nb="nb/05_paper_tables.ipynb",
    log:
        "logs/05_paper_tables.log",
    params:
        given=given("05_paper_tables"),
        code=code_hash("05_paper_tables"),
    shell:
        RUN


rule figures:
    input:
        inputs("06_figures"),
    output:
        "06_figures/summary.json",
        nb="nb/06_figures.ipynb",
    log:
        "logs/06_figures.log",
    params:
        given=given("06_figures"),
        code=code_hash("06_figures"),
    shell:
        RUN


rule strategy_diversity:
    input:
        inputs("07_strategy_diversity"),
    output:
        "07_strategy_diversity/summary.json",
        nb="nb/07_strategy_diversity.ipynb",
    log:
        "logs/07_strategy_diversity.log",
    params:
        given=given("07_strategy_diversity"),
        code=code_hash("07_strategy_diversity"),
    shell:
        RUN
