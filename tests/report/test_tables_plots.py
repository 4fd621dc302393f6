"""Tables, conclusions and figures from the records of a small simulated profile."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from attempt_frames import METHODS, in_the_world, ranked_method, simulate, write_records, write_runs
from matplotlib.colors import to_rgb
from PIL import Image

from cppo_lib.artefacts import notes, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import CPPOError, MissingArtefactError, ParameterError
from cppo_lib.evaluation.diversity import method_coverage
from cppo_lib.evaluation.estimators import KEY, pass_at_k, pooled_pass_at_k
from cppo_lib.report import conclusions, render
from cppo_lib.report.comparisons import best_difference
from cppo_lib.report.figures import registry as plots
from cppo_lib.report.methods import look
from cppo_lib.report.results import Results, load_results
from cppo_lib.report.tables import attempts as tables
from cppo_lib.report.tables.main import main_table
from cppo_lib.report.tables.registry import ELSEWHERE, TABLES, make_table
from cppo_lib.runs.parameters import PaperTables

ATTEMPT_TABLES = ["T6_budget", "T7_diversity", "T7_repetition", "T7_decomposition", "S1_verdicts"]


def params(**changes: object) -> PaperTables:
    values = {"profile": "test", "benchmark": "crossroads", "split": "test", "seeds": 1}
    values |= {"resamples": 200, "figures_dir": "", "seed": 0, "further_cells": []}
    return PaperTables(**{**values, **changes})  # type: ignore[arg-type]


def every_table(results: Results) -> list[render.Table]:
    """What 05_paper_tables makes of these records."""
    return [table for name in TABLES if name not in ELSEWHERE and (table := make_table(name, results))]


def named(name: str, results: Results) -> render.Table:
    table = make_table(name, results)
    assert table is not None and table.name == name
    return table


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Results]:
    """Two seeds of six methods on 48 problems; the runs folder stays in place for the module."""
    runs = tmp_path_factory.mktemp("series") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPPO_RUNS", str(runs))
        write_runs(runs, seeds=(0, 1), problems=48)
        yield in_the_world(load_results(params(seeds=2)))


# --- reading ------------------------------------------------------------------------------------


def test_results_are_in_the_order_of_the_story(two_seeds: Results) -> None:
    assert two_seeds.methods == METHODS
    assert two_seeds.arms == ["grpo", "pkpo", "cppo"]
    assert (two_seeds.k, two_seeds.baseline) == (4, "pkpo")
    assert two_seeds.scores["cppo"].shape == (2, 48)
    assert "48 problems, 4 x K=4 attempts on each, seeds 0, 1" in two_seeds.setting()


def test_only_the_seeds_asked_for_are_read(two_seeds: Results) -> None:
    one = load_results(params(seeds=1))
    assert set(one.attempts["seed"]) == {0} and set(one.metrics["seed"]) == {0}
    assert "seed 0" in one.setting()


def test_results_of_a_first_look_are_marked_as_partial(
    runs: Path, two_seeds: Results, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "PARTIAL" not in two_seeds.setting()
    write_runs(runs, problems=4)
    write_records(runs, simulate("cppo", problems=4), policy="arm:cppo", limit=4)
    results = load_results(params())
    assert results.setting().startswith("PARTIAL, the first 4 problems only: crossroads")
    # The parameter files of `smoke` hold a limit too, and its runs are whole.
    assert render.sidecar("T1", "caption", [results])["command"].endswith(f" SEEDS={results.params.seeds}")
    monkeypatch.setenv("CPPO_RUNS", str(runs / "first-4"))
    assert render.sidecar("T1", "caption", [results])["command"].endswith(" LIMIT=4")


@pytest.mark.parametrize(("prepared", "most", "limit"), [(3, 0, 0), (3, 3, 3), (4, 0, 0), (5, 0, 4), (5, 8, 4)])
def test_a_limit_that_leaves_nothing_out_makes_nothing_partial(
    runs: Path, prepared: int, most: int, limit: int
) -> None:
    """The evaluations take the first four problems, the preparation at most `most` (0: all) of the benchmark's."""
    write_runs(runs, problems=4)
    write_records(runs, simulate("cppo", problems=4), policy="arm:cppo", limit=4)
    values = {"splits": {"test": {"problems": prepared}}}
    folder = runs / "test" / "01_data_prep" / "crossroads"
    notes.write_summary(folder, {"profile": "test", "limit": most}, values=values, artefacts=[])
    assert load_results(params()).limit == limit


def test_the_ceilings_are_those_of_the_evaluated_problems(runs: Path, two_seeds: Results) -> None:
    write_runs(runs, problems=24)
    results = load_results(params())
    assert results.hidden is not None and len(results.hidden) == 24 < len(two_seeds.hidden or ())
    assert results.ceilings_at(2) == crossroads.ceilings(2, results.hidden)
    rows = main_table(results).numbers.set_index("method")
    assert rows.loc["closed_form.independent", "pass@4"] == crossroads.ceilings(4, results.hidden)["independent"] > 0.8


def test_equal_ceilings_leave_nothing_to_show(runs: Path) -> None:
    write_runs(runs, problems=12)  # one problem per context
    text = conclusions.reading(load_results(params()))
    assert "Both ceilings of these problems are 1.000: they are too few, or K too small, to show coordination." in text


@pytest.mark.parametrize("independent", [0.55, 0.6, 0.75, 0.79, 0.8])
def test_the_names_of_the_ceilings_do_not_cover_each_other(
    two_seeds: Results, monkeypatch: pytest.MonkeyPatch, independent: float
) -> None:
    monkeypatch.setattr(Results, "ceilings", {"independent": independent, "coordinated": 0.8})
    figure = plots.FIGURES["fig1_headline"].draw(two_seeds)
    figure.draw_without_rendering()
    first, second = (text.get_window_extent() for text in figure.axes[0].texts if "ceiling" in text.get_text())
    assert first.x1 < second.x0


def test_programs_that_the_limit_on_tokens_cut_are_counted(runs: Path, two_seeds: Results) -> None:
    assert "may have" not in main_table(two_seeds).caption
    write_runs(runs, problems=4)
    cut = simulate("cppo", problems=4)
    cut.loc[cut.index % 4 == 0, "solver_tokens"] = 20
    write_records(runs, cut, policy="arm:cppo", tokens=20)
    results = load_results(params())
    assert [results.cut_share(method) for method in ("direct", "cppo")] == [0.0, 0.25]
    verdicts = tables.verdict_table(results)
    assert list(verdicts.shown["cut"]) == ["0.0"] * 5 + ["25.0"]
    said = "A program may have 20 or 40 tokens: 0.000 to 0.250 of a method's programs used them all"
    assert said in main_table(results).caption and said in conclusions.reading(results)


def test_captions_say_how_many_problems_training_saw_and_the_reading_what_was_cut(runs: Path) -> None:
    write_runs(runs, problems=4)
    arms = runs / "test" / "03_rl_training"
    assert "training split" not in main_table(load_results(params())).caption

    def told(drawn_from: int, cut: float = 0.0) -> Results:
        for folder in arms.iterdir():
            params_of = store.read_json(folder / "summary.json")["provenance"]["params"]
            metrics = folder / "metrics.jsonl"
            rows = [row | {"plans_cut": cut, "programs_cut": 0.0} for row in store.read_jsonl(metrics)]
            metrics.unlink()
            store.append_jsonl(metrics, rows)
            problems = {"drawn_from": drawn_from, "in_split": 178, "draws": 20}
            notes.write_summary(folder, params_of, values={"problems": problems}, artefacts=[metrics])
        return load_results(params())

    said = "RL made 20 draws from the 178 problems of its training split."
    assert said in main_table(told(178)).caption and "In training" not in conclusions.reading(told(178))
    said = "RL made 20 draws from 16 of the 178 problems of its training split; the prompts of the others are too long"
    results = told(16, cut=0.5)
    assert said in main_table(results).caption and said in conclusions.reading(results)
    text = conclusions.reading(results)
    assert "In training max_plan_tokens cut 0.500 of an arm's plans" in text and "max_program_tokens cut" not in text


def test_a_method_that_nothing_trained_may_have_one_seed(runs: Path) -> None:
    write_runs(runs, seeds=(0, 1), problems=4)
    (runs / "test" / "04_evaluation" / "crossroads.test.direct.s1.parquet").unlink()
    numbers = main_table(load_results(params(seeds=2))).numbers.set_index("method")
    assert numbers.loc["direct", "seeds"] == 1 and numbers.loc["cppo", "seeds"] == 2
    assert pd.notna(numbers.loc["direct", "difference_low"])


def test_missing_inputs_name_their_notebook(runs: Path) -> None:
    with pytest.raises(MissingArtefactError, match=r"04_evaluation\.ipynb"):
        load_results(params())
    write_runs(runs, seeds=(0, 2), problems=2)
    with pytest.raises(MissingArtefactError, match=r"cppo\.s1\.parquet is missing.*04_evaluation"):
        load_results(params(seeds=3))
    path = runs / "test" / "01_data_prep" / "crossroads" / "problems.parquet"
    store.write_parquet(path, [{"split": "test", "id": "a", "group": "b"}])  # as it was before it held hidden methods
    with pytest.raises(MissingArtefactError, match=r"is of an older version: run notebooks/01_data_prep\.ipynb again"):
        load_results(params())
    path.unlink()
    with pytest.raises(MissingArtefactError, match=r"01_data_prep\.ipynb"):
        load_results(params())


def test_the_pooled_ladder_is_marked_as_released_and_apart_from_the_main_table(two_seeds: Results) -> None:
    table = named("S4_pooled", two_seeds)
    numbers = table.numbers.set_index("method")
    assert list(numbers.index) == two_seeds.methods
    rungs = [f"pooled@{k}" for k in (1, 2, 4, 8, 16)]  # four tuples of four
    assert [name for name in numbers if name.startswith("pooled@")] == rungs
    assert (numbers[rungs].diff(axis=1).iloc[:, 1:] >= 0).all(axis=None)
    for method, coordinated in numbers["coordinated"].items():
        attempts = two_seeds.of(str(method))
        counts = attempts.groupby(["seed", "problem_id"])["passed"].agg(["count", "sum"])
        assert numbers["pooled@8"][method] == pytest.approx(pooled_pass_at_k(counts.to_numpy(), 8))
        assert (numbers["pooled@4"][method] == pytest.approx(pass_at_k(attempts))) == (not coordinated)
    assert list(table.shown["independent"]) == ["no" if m in ("sft", "cppo") else "yes" for m in numbers.index]
    assert "attempts of several tuples pooled; not the tuple estimand" in table.caption
    assert not any(column.startswith("pass@") for column in (*table.numbers, *table.shown))
    one = two_seeds.attempts[two_seeds.attempts["tuple_index"] == 0]
    assert make_table("S4_pooled", dataclasses.replace(two_seeds, attempts=one)) is None


def test_attempts_that_were_not_made_are_shown_where_there_are_some(two_seeds: Results, tmp_path: Path) -> None:
    assert "NA" not in named("S1_verdicts", two_seeds).shown
    attempts = two_seeds.attempts.copy()
    unread = (attempts["method"] == "cppo") & (attempts["tuple_index"] == 1)
    attempts.loc[unread, ["verdict", "passed", "program", "solver_tokens"]] = ["NA", False, "", 0]
    some = dataclasses.replace(two_seeds, attempts=attempts)
    table = named("S1_verdicts", some)
    shares = table.numbers.set_index("method")["NA"]
    assert shares["cppo"] == 0.25 and shares.drop("cppo").eq(0).all() and "could not be read" in table.caption
    assert table.numbers.drop(columns=["method", "cut"]).sum(axis=1).to_numpy() == pytest.approx(1)
    assert len(plots.write_figure("fig6_verdicts", tmp_path, some)) == 3


def test_a_benchmark_without_ceilings_or_training(runs: Path, tmp_path: Path) -> None:
    """Two untrained methods on humaneval: tables, the headline and the conclusions still work."""
    for method in ("direct", "plan_then_solve"):
        frame = simulate(method, problems=6).assign(benchmark="humaneval", program_method=None, group="")
        write_records(runs, frame, policy="Qwen/Qwen2.5-Coder-0.5B-Instruct")
    results = load_results(params(benchmark="humaneval"))
    main = main_table(results)
    assert list(main.numbers["method"]) == ["direct", "plan_then_solve"]
    assert "minus Direct sampling" in main.shown
    written = every_table(results)
    assert [table.name for table in written] == ["T1_main", *ATTEMPT_TABLES, "S3_comparisons", "S4_pooled"]
    for table in written:
        assert len(render.write_table(table, tmp_path)) == 4
    drawn = ["fig1_headline", "fig3_pass_at_k", "fig4_diversity", "fig5_terms", "fig6_verdicts"]
    assert plots.possible(results) == drawn
    assert len(plots.write_figure("fig3_pass_at_k", tmp_path, results)) == 3
    assert conclusions.checks(results) == [] and "CPPO is not among the methods" in conclusions.reading(results)
    with pytest.raises(ParameterError, match="crossroads only"):
        tables.coverage_table(results)
    with pytest.raises(MissingArtefactError, match=r"03_rl_training\.ipynb"):
        plots.FIGURES["fig2_training"].draw(results)


# --- tables -------------------------------------------------------------------------------------


def test_main_table_holds_the_scores_of_the_records(two_seeds: Results) -> None:
    table = main_table(two_seeds)
    rows = table.numbers.set_index("method")
    for method in METHODS:
        assert rows.loc[method, "pass@4"] == pytest.approx(pass_at_k(two_seeds.of(method)))
        assert rows.loc[method, "low"] <= rows.loc[method, "pass@4"] <= rows.loc[method, "high"]
    assert rows.loc["cppo", "difference"] == pytest.approx(rows.loc["cppo", "pass@4"] - rows.loc["pkpo", "pass@4"])
    assert pd.isna(rows.loc["pkpo", "difference"])
    assert (rows["p_holm"] >= rows["p"])[rows["p"].notna()].all()
    assert rows.loc["closed_form.coordinated", "pass@4"] == pytest.approx(crossroads.ceilings(4)["coordinated"])
    assert list(table.shown["Method"][-2:]) == [
        "Independent ceiling, closed form",
        "Coordinated ceiling, closed form",
    ]


def test_budget_table_counts_what_a_problem_costs(two_seeds: Results) -> None:
    rows = tables.budget_table(two_seeds).numbers.set_index("method")
    assert (rows["programs"] == 4).all()
    assert rows.loc["cppo", "planner_tokens"] == 21 and rows.loc["pkpo", "planner_tokens"] == 0
    assert rows.loc["cppo", "solver_tokens"] == 4 * 17
    assert rows.loc["cppo", "wall_s"] == pytest.approx(4 * (0.02 + 0.05))
    assert rows.loc["cppo", "train_programs"] == 30 * 128
    assert rows.loc["cppo", "train_tokens"] == 30 * 2000
    assert pd.isna(rows.loc["direct", "train_programs"])


def test_diversity_table_decomposes_the_score(two_seeds: Results) -> None:
    makers = (tables.breadth_table, tables.repetition_table, tables.decomposition_table)
    breadth, repetition, rows = (make(two_seeds).numbers.set_index("method") for make in makers)
    for method in METHODS:
        total = rows.loc[method, ["skill", "heterogeneity", "correlation"]].sum()
        assert total == pytest.approx(pass_at_k(two_seeds.of(method)))
        assert rows.loc[method, "skill_low"] <= rows.loc[method, "skill"] <= rows.loc[method, "skill_high"]
    assert breadth.loc["cppo", "distinct_methods"] > breadth.loc["pkpo", "distinct_methods"]
    assert breadth.loc["cppo", "distinct_methods"] > breadth.loc["cppo", "da_methods"]
    assert breadth.loc["grpo", "ast_distance"] < breadth.loc["pkpo", "ast_distance"]
    assert pd.isna(repetition.loc["direct", "duplicate_rate"]) and repetition.loc["grpo", "same_idea_rate"] > 0.8


def test_diversity_table_leaves_out_what_few_tuples_cannot_tell(runs: Path) -> None:
    write_runs(runs, problems=3, tuples=2)
    results = load_results(params())
    breadth, parts = tables.breadth_table(results), tables.decomposition_table(results)
    assert parts.shown.set_index("Method").loc["CPPO", "skill"] == "–"
    assert breadth.shown.set_index("Method").loc["CPPO", "methods"] != "–"
    texts = [text.get_text() for text in plots.FIGURES["fig5_terms"].draw(results).axes[0].texts]
    assert texts == ["needs 4 tuples"] * 2  # of SFT and CPPO


def test_verdict_table_sums_to_one(two_seeds: Results) -> None:
    rows = tables.verdict_table(two_seeds).numbers.set_index("method")
    assert rows.sum(axis=1).to_numpy() == pytest.approx(1)
    passed = two_seeds.attempts.groupby("method")["passed"].mean()
    assert rows["AC"].to_dict() == pytest.approx(passed.to_dict())


def test_coverage_table_counts_tuples_that_try_a_method(two_seeds: Results) -> None:
    rows = tables.coverage_table(two_seeds).numbers.set_index("rank")
    assert rows["p"].is_monotonic_decreasing and rows["p"].sum() == pytest.approx(1)
    assert rows["q"].sum() == pytest.approx(1)
    assert rows["grpo"].idxmax() == 1 and (rows.loc[:4, "cppo"] > 0.7).all()
    context = crossroads.contexts()[0]
    attempts = two_seeds.of("cppo")
    attempts = attempts[attempts["group"] == context.name]
    best = attempts["program_method"] == ranked_method(context, 0).name
    by_hand = best.groupby([attempts[name] for name in KEY[:3]]).any().mean()
    tried = method_coverage(attempts).set_index("program_method")["coverage"]
    assert tried[ranked_method(context, 0).name] == pytest.approx(by_hand)


def test_tables_are_written_in_four_forms(two_seeds: Results, tmp_path: Path) -> None:
    for table in every_table(two_seeds):
        paths = render.write_table(table, tmp_path)
        assert [path.suffix for path in paths] == [".csv", ".md", ".tex", ".json"]
    numbers = pd.read_csv(tmp_path / "T1_main.csv").set_index("method")
    assert numbers.loc["cppo", "pass@4"] == pytest.approx(pass_at_k(two_seeds.of("cppo")))
    latex = (tmp_path / "T1_main.tex").read_text()
    assert r"\toprule" in latex and r"95 \% interval" in latex and "label{tab:T1_main}" in latex
    record = json.loads((tmp_path / "T1_main.json").read_text())
    assert record["seeds"] == [0, 1] and record["parameters"]["resamples"] == 200
    assert record["command"] == f"make reproduce PROFILE=test SEEDS={two_seeds.params.seeds}"
    sources = {Path(path).name: digest for path, digest in record["sources"].items()}
    assert "problems.parquet" in sources and len(sources["crossroads.test.cppo.s0.parquet"]) == 64


def test_tables_depend_on_the_records_alone(two_seeds: Results, tmp_path: Path) -> None:
    table = named("T1_main", two_seeds)
    first = [p.read_bytes() for p in render.write_table(table, tmp_path)]
    again = named("T1_main", in_the_world(load_results(params(seeds=2))))
    assert [p.read_bytes() for p in render.write_table(again, tmp_path)] == first


# --- conclusions and README --------------------------------------------------------------------------


def test_checks_hold_for_methods_made_to_show_them(two_seeds: Results) -> None:
    found = {check.text: check for check in conclusions.checks(two_seeds)}
    assert len(found) == 6  # there is no faithful solver among them
    assert found["CPPO is above the independent ceiling"].holds
    assert "against 0.609" in found["CPPO is above the independent ceiling"].evidence
    assert str(found["CPPO is above PKPO"]).startswith("[x] CPPO is above PKPO: difference +0.")


def test_checks_fail_when_the_records_say_so(two_seeds: Results) -> None:
    """GRPO's records under CPPO's name: below the ceiling, below PKPO."""
    others = two_seeds.attempts[two_seeds.attempts["method"] != "cppo"]
    renamed = two_seeds.of("grpo").assign(method="cppo")
    worse = dataclasses.replace(two_seeds, attempts=pd.concat([others, renamed], ignore_index=True))
    found = {check.text: check.holds for check in conclusions.checks(worse)}
    assert not found["CPPO is above the independent ceiling"]
    assert not found["CPPO is above PKPO"]
    assert found["PKPO is above GRPO"]


@pytest.mark.parametrize(("cppo", "faithful"), [("grpo", "cppo"), ("cppo", "grpo")])
def test_the_faithful_solver_has_claims_of_its_own(two_seeds: Results, cppo: str, faithful: str) -> None:
    """Records of CPPO and GRPO under the names of CPPO and of the faithful solver, and the other way round."""
    others = two_seeds.attempts[two_seeds.attempts["method"] != "cppo"]
    named_anew = {"cppo": cppo, "cppo_faithful": faithful}
    added = [two_seeds.of(source).assign(method=name) for name, source in named_anew.items()]
    results = dataclasses.replace(two_seeds, attempts=pd.concat([others, *added], ignore_index=True))
    found = {check.text: check.holds for check in conclusions.checks(results)}
    assert len(found) == 8
    assert found["CPPO (faithful) reaches 85% of the coordinated ceiling"] == (faithful == "cppo")
    assert found["CPPO (faithful) is above CPPO"] == (faithful == "cppo")
    best = best_difference(results)
    assert best is not None and best.best == "pkpo"  # a CPPO is no other method


def test_an_arm_that_is_no_method_has_no_curves(two_seeds: Results) -> None:
    """The warm-up is trained and not evaluated."""
    warmup = two_seeds.metrics[two_seeds.metrics["arm"] == "cppo"].assign(arm="warmup")
    metrics = pd.concat([two_seeds.metrics, warmup], ignore_index=True)
    assert dataclasses.replace(two_seeds, metrics=metrics).arms == two_seeds.arms


def test_readme_block_replaces_what_is_between_the_markers(two_seeds: Results, tmp_path: Path) -> None:
    readme, folder = tmp_path / "README.md", tmp_path / "figures"
    readme.write_text(f"# Title\n\n{conclusions.BEGIN}\nold\n{conclusions.END}\n\nMore.\n")
    with pytest.raises(MissingArtefactError, match=r"06_figures\.ipynb"):
        conclusions.readme_block(folder, readme=readme)
    plots.write_figure("fig1_headline", folder, two_seeds)
    render.write_table(named("T1_main", two_seeds), folder)
    conclusions.write_conclusions(two_seeds, folder)
    block = conclusions.readme_block(folder, readme=readme)
    assert conclusions.update_readme(readme, block)
    text = readme.read_text()
    assert text.startswith(f"# Title\n\n{conclusions.BEGIN}\n![Headline")
    assert "(figures/fig1_headline.png)" in text and "| CPPO " in text and "- [x] CPPO" in text
    assert text.endswith(f"{conclusions.END}\n\nMore.\n") and "old" not in text
    assert not conclusions.update_readme(readme, block)
    readme.write_text("# No markers\n")
    with pytest.raises(CPPOError, match="needs the lines"):
        conclusions.update_readme(readme, block)


# --- figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(set(plots.FIGURES) - {"fig10_ablations"}))
def test_figures_are_written_in_three_forms(name: str, two_seeds: Results, tmp_path: Path) -> None:
    png, pdf, record = (p.read_bytes() for p in plots.write_figure(name, tmp_path, two_seeds))
    assert png[1:4] == b"PNG" and pdf.startswith(b"%PDF") and len(png) < 150_000
    assert b"CreationDate" not in pdf and b"Matplotlib" not in png
    assert json.loads(record)["caption"].startswith("crossroads (test split")


@pytest.mark.parametrize("name", ["fig1_headline", "fig4_diversity", "fig9_gaming"])
def test_a_small_marker_keeps_the_colour_of_its_method(name: str, two_seeds: Results, tmp_path: Path) -> None:
    with Image.open(plots.write_figure(name, tmp_path, two_seeds)[0]) as picture:
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3) / 255
    for method in ("sft", "cppo"):
        assert np.abs(pixels - to_rgb(look(method).color)).max(axis=1).min() <= 0.04


def test_a_figure_depends_on_the_records_alone(two_seeds: Results, tmp_path: Path) -> None:
    files = plots.write_figure("fig4_diversity", tmp_path, two_seeds)
    first = [path.read_bytes() for path in files]
    plots.write_figure("fig4_diversity", tmp_path, in_the_world(load_results(params(seeds=2))))
    assert [path.read_bytes() for path in files] == first


def test_headline_draws_the_numbers_of_the_table(two_seeds: Results) -> None:
    axes = plots.FIGURES["fig1_headline"].draw(two_seeds).axes[0]
    shown = [text.get_text() for text in axes.texts]
    assert f"{pass_at_k(two_seeds.of('cppo')):.2f}" in shown
    assert "coordinated\nceiling 0.88" in shown
    labels = [tick.get_text() for tick in axes.get_yticklabels()]
    assert labels[0] == "Direct sampling" and labels[-1] == "CPPO"


def test_training_curves_leave_out_what_an_arm_has_not(two_seeds: Results) -> None:
    """Direct arms have no gate: two thin lines and a thick one per arm that has the metric."""
    outcome, gate = plots.FIGURES["fig2_training"].draw(two_seeds).axes[:2]
    assert len(outcome.lines) == 3 * 3 + 2  # and both ceilings
    assert len(gate.lines) == 3


def titles(name: str, results: Results) -> list[str]:
    """The panels that are drawn, by title."""
    shown = plots.FIGURES[name].draw(results).axes
    return [axes.get_title(loc="left") for axes in shown if axes.get_title(loc="left")]


def test_panels_of_metrics_that_were_not_recorded_are_left_out(two_seeds: Results) -> None:
    """Older runs have no entropies, no independent check of the gate and no count of public-only programs."""
    assert len(titles("fig2_training", two_seeds)) == 6 and len(titles("fig9_gaming", two_seeds)) == 3
    newer = two_seeds.metrics.assign(planner_entropy=1.0, solver_entropy=2.0, distinct_methods=0.9, public_only=0.5)
    results = dataclasses.replace(two_seeds, metrics=newer)
    assert "planner: entropy, nats" in titles("fig2_training", results)
    assert [title.split(",")[0] for title in titles("fig9_gaming", results)][1] == "$J$ (thin)"
    assert "pass public tests only" in titles("fig9_gaming", results)


def test_pass_at_k_goes_to_eight_for_independent_attempts_and_to_k_for_tuples(two_seeds: Results) -> None:
    axes = plots.FIGURES["fig3_pass_at_k"].draw(two_seeds).axes[0]
    drawn = {line.get_label(): line for line in axes.lines}
    assert list(drawn["PKPO"].get_xdata()) == list(range(1, 9))
    assert list(drawn["CPPO"].get_xdata()) == [1, 2, 3, 4]
    assert drawn["PKPO"].get_ydata()[7] == pytest.approx(pass_at_k(two_seeds.of("pkpo"), k=8))
    assert drawn["coordinated ceiling"].get_ydata()[7] == pytest.approx(1)


def test_groups_are_ordered_by_difficulty(two_seeds: Results) -> None:
    axes = plots.FIGURES["fig8_groups"].draw(two_seeds).axes[0]
    names = [tick.get_text().split(" (")[0] for tick in axes.get_yticklabels()]
    groups = two_seeds.attempts.drop_duplicates("problem_id").set_index("problem_id")["group"]
    means = pd.concat([s.mean(axis=0).groupby(groups).mean() for s in two_seeds.scores.values()], axis=1).mean(axis=1)
    assert names == list(means.sort_values().index)


def test_a_figure_shows_no_more_methods_than_can_be_told_apart(two_seeds: Results) -> None:
    extra = [two_seeds.of("direct").assign(method=f"other{i}") for i in range(4)]
    many = dataclasses.replace(two_seeds, attempts=pd.concat([two_seeds.attempts, *extra], ignore_index=True))
    assert len(many.methods) == 10 and len(many.focus) == 8
    assert set(METHODS) <= set(many.focus)
