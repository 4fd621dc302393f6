"""The paper's tables, computed from attempt records; `cppo_lib.report.render` writes them.

A table is a function of `Results` and a line of `TABLES`, under the name of its files. A function returns None where
there are no records of its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cppo_lib.report.render import Table
from cppo_lib.report.results import Results
from cppo_lib.report.tables.ablations import reward_table, solver_table, sweep_table
from cppo_lib.report.tables.attempts import (
    breadth_table,
    budget_table,
    coverage_table,
    decomposition_table,
    pooled_table,
    repetition_table,
    verdict_table,
)
from cppo_lib.report.tables.card import card_table
from cppo_lib.report.tables.gate import gate_table
from cppo_lib.report.tables.main import comparison_table, main_table

TABLES: dict[str, Callable[[Results], Table | None]] = {
    "T1_main": main_table,  # pass@K of every method in every column, with intervals and marks
    "T2_card": card_table,  # the published rows of the result card and of Table 1, and ours
    "T3_reward": reward_table,  # what the planner is paid for
    "T4_solver": solver_table,  # solver credit, grouping, loss, weights and sharing
    "T5_sweep": sweep_table,  # other K
    "T6_budget": budget_table,  # tokens, programs, seconds
    "T7_diversity": breadth_table,  # how many different methods and programs
    "T7_repetition": repetition_table,  # what is repeated, and plan-following
    "T7_decomposition": decomposition_table,  # what pass@K is made of
    "T8_gate": gate_table,  # how well each gate tells valid tuples from spoilt ones
    "S1_verdicts": verdict_table,  # how attempts end
    "S2_coverage": coverage_table,  # which methods are tried (crossroads)
    "S3_comparisons": comparison_table,  # every comparison behind T1
    "S4_pooled": pooled_table,  # pass@1 to 32 from pooled tuples, as released
}
ELSEWHERE = ("S2_coverage",)
"""The tables that 07_strategy_diversity writes; 05_paper_tables writes all others."""


def make_table(name: str, results: Results) -> Table | None:
    """The table called `name`; None where there are no records of its kind."""
    table = TABLES[name](results)
    return None if table is None else replace(table, name=name)
