"""Tables, figure and reading of CPPO's ablations, and the K sweep at its own K."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attempt_frames import in_the_world, simulate, write_arm, write_records, write_runs
from test_tables_plots import params

from cppo_lib.artefacts import paths
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import ParameterError
from cppo_lib.evaluation.estimators import pass_at_k
from cppo_lib.report.conclusions import reading
from cppo_lib.report.figures import registry as plots
from cppo_lib.report.methods import METHODS, label, look
from cppo_lib.report.results import Results, load_results
from cppo_lib.report.tables.ablations import reward_table, solver_table, sweep_table
from cppo_lib.report.tables.main import main_table

CHANGES = {
    "reward_sum": {"reward": "sum"},
    "credit_followed": {"credit": "followed"},
    "group_slot": {"solver_grouping": "slot"},
}


@pytest.fixture
def ablated(runs: Path) -> Results:
    """The usual methods, three ablations (credit_followed is as bad as SFT), and three other K."""
    write_runs(runs, problems=36)
    for arm, changes in CHANGES.items():
        write_arm(runs, arm, 0, **changes)
        frame = simulate("sft" if arm == "credit_followed" else "cppo", problems=36)
        write_records(runs, frame.assign(method=arm), policy=f"arm:{arm}")
    for arm, k in (("k1", 1), ("k2", 2), ("k8", 8)):
        write_arm(runs, arm, 0, k=k)
        write_records(runs, simulate("cppo", problems=36, k=k).assign(method=arm), policy=f"arm:{arm}")
    return in_the_world(load_results(params()))


def test_every_shipped_method_has_a_name_to_be_read() -> None:
    """But for `distil`, whose records are learnt from and in no table."""
    files = (paths.root() / "params").glob("*/04_evaluation*.yaml")
    methods = {found[1] for file in files if (found := re.search(r"(?m)^method: (\w+)", file.read_text()))}
    assert methods - set(METHODS) == {"distil"} and "cppo" in methods


def test_a_method_without_a_line_is_drawn_and_named_all_the_same() -> None:
    assert label("own_idea") == "own_idea" and look("own_idea") == look("own_idea")


def test_ablations_stay_out_of_the_main_table(ablated: Results) -> None:
    assert ablated.methods == ["direct", "plan_then_solve", "sft", "grpo", "pkpo", "cppo"]
    assert ablated.ablations == ["reward_sum", "credit_followed", "group_slot"]
    assert ablated.arms == ["grpo", "pkpo", "cppo"] and ablated.k == 4
    assert "k8" not in main_table(ablated).caption


def test_reward_and_solver_tables_compare_with_cppo(ablated: Results) -> None:
    reward, solver = reward_table(ablated), solver_table(ablated)
    assert reward is not None and solver is not None
    assert list(reward.numbers["method"]) == ["cppo", "reward_sum"]
    assert list(solver.shown["changed"]) == ["–", "credit: followed", "solver_grouping: slot"]
    rows = solver.numbers.set_index("method")
    assert rows.loc["credit_followed", "difference"] == pytest.approx(
        pass_at_k(ablated.of("credit_followed")) - pass_at_k(ablated.of("cppo"))
    )
    assert rows.loc["credit_followed", "mark"] == "**"
    assert rows.loc["credit_followed", "p_holm"] >= rows.loc["credit_followed", "p"]
    followed = ablated.of("credit_followed")["followed"].astype(float).mean()
    assert rows.loc["credit_followed", "follow_rate"] == pytest.approx(followed)
    assert rows.loc["cppo", "end_j"] == pytest.approx(0.98, abs=0.03)


def test_the_sweep_scores_each_arm_at_its_own_k(ablated: Results) -> None:
    table = sweep_table(ablated)
    assert table is not None
    rows = table.numbers.set_index("method")
    assert list(rows.index) == ["k1", "k2", "cppo", "k8"]
    for method, k in (("k1", 1), ("k2", 2), ("cppo", 4), ("k8", 8)):
        assert rows.loc[method, "k"] == k
        assert rows.loc[method, "pass@K"] == pytest.approx(pass_at_k(ablated.of(method), k=k))
        assert rows.loc[method, "coordinated"] == pytest.approx(crossroads.ceilings(k)["coordinated"])
    assert rows.loc["k8", "pass@K"] == 1  # all eight methods


def test_no_empty_tables(runs: Path) -> None:
    write_runs(runs, problems=4)
    results = load_results(params())
    assert reward_table(results) is solver_table(results) is sweep_table(results) is None


def test_ablations_alone_are_refused(runs: Path) -> None:
    write_runs(runs, problems=4)
    for path in (runs / "test" / "04_evaluation").glob("crossroads.*"):
        path.unlink()
    write_records(runs, simulate("cppo", problems=4).assign(method="credit_followed"))
    with pytest.raises(ParameterError, match="evaluate method cppo too"):
        main_table(load_results(params()))


def test_the_figure_of_ablations_has_a_row_for_each(ablated: Results) -> None:
    assert plots.possible(ablated)[-1] == "fig10_ablations"
    axes = plots.FIGURES["fig10_ablations"].draw(ablated).axes[0]
    names = [tick.get_text() for tick in axes.get_yticklabels()]
    assert names == ["CPPO", "Reward J + R_out", "Credit: followed", "Group: slot"]


# --- the reading --------------------------------------------------------------------------------


def test_the_reading_says_what_holds_and_by_how_much(ablated: Results) -> None:
    text = reading(ablated)
    gap = pass_at_k(ablated.of("cppo")) - pass_at_k(ablated.of("direct"))
    assert (
        f"*CPPO beats direct sampling at the same budget.* **Holds**: CPPO minus Direct sampling {gap:+.3f} [" in text
    )
    assert "no i.i.d. sampler can pass 0.609" in text
    assert "*The solver's credit.* It matters: Credit: followed" in text
    assert "*The grouping of solver rewards.* No difference was found: Group: slot" in text
    assert "*The planner's reward and its gate.* No difference was found: Reward J + R_out" in text
    assert "K = 1 " in text and "K = 8 1.000" in text
    assert "One seed: the intervals leave out how much training runs differ." in text


def test_the_reading_of_bad_results_says_so(runs: Path) -> None:
    """GRPO's records under CPPO's name lose against PKPO and stay below the ceiling."""
    write_runs(runs, problems=36)
    write_records(runs, simulate("grpo", problems=36).assign(method="cppo"), policy="arm:cppo")
    text = reading(in_the_world(load_results(params())))
    assert "no independent sampler can.* **Does not hold**" in text
    assert "below that; the coordinated ceiling is 0.880" in text
    assert "*CPPO beats pass@K-oriented RL at the same budget.* **Does not hold**" in text
    assert "These records hold no arm that changes one of CPPO's choices" in text
