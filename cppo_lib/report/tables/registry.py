"""The paper's tables, computed from attempt records; `cppo_lib.report.render` writes them.

    T1_main           pass@K of every method in every cell, with intervals and marks
    T2_card           the rows of the paper's result card, published and ours
    T3_reward         what the planner is paid for
    T4_solver         solver credit, grouping, weights and sharing
    T5_sweep          other K
    T6_budget         tokens, programs, seconds
    T7_diversity      breadth, T7_repetition, T7_decomposition
    T8_gate           how well each gate tells valid tuples from spoilt ones
    S1_verdicts       how attempts end
    S2_coverage       which methods are tried (crossroads; 07_strategy_diversity)
    S3_comparisons    every comparison behind T1

A table without records of its kind is not made.
"""

from __future__ import annotations

from collections.abc import Sequence

from cppo_lib.report.cells import load_cells
from cppo_lib.report.comparisons import compare, comparison_table, difference, draws
from cppo_lib.report.render import Table
from cppo_lib.report.results import Results
from cppo_lib.report.tables.ablations import reward_table, solver_table, sweep_table
from cppo_lib.report.tables.attempts import budget_table, coverage_table, diversity_tables, verdict_table
from cppo_lib.report.tables.card import card_table
from cppo_lib.report.tables.gate import gate_results, gate_table
from cppo_lib.report.tables.main import main_table

__all__ = [
    "ablation_tables", "attempt_tables", "budget_table", "card_table", "compare", "comparison_table", "coverage_table",
    "difference", "diversity_tables", "draws", "gate_results", "gate_table", "main_table", "main_tables",
    "reward_table", "solver_table", "sweep_table", "verdict_table",
]  # fmt: skip


def main_tables(results: Results) -> list[Table]:
    """T1, S3 and T2: over all cells of the profile."""
    cells = load_cells(results)
    comparisons = compare(cells)
    return _made([main_table(cells, comparisons), comparison_table(cells, comparisons), card_table(cells)])


def ablation_tables(results: Results) -> list[Table]:
    """T3 to T5, as far as arms of their kind were evaluated."""
    return _made([reward_table(results), solver_table(results), sweep_table(results)])


def attempt_tables(results: Results) -> list[Table]:
    """T6, T7 and S1, which every benchmark has."""
    return [budget_table(results), *diversity_tables(results), verdict_table(results)]


def _made(tables: Sequence[Table | None]) -> list[Table]:
    return [table for table in tables if table is not None]
