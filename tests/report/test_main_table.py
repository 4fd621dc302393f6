"""The main table over several cells, the comparisons behind its marks, and the paper's result card."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from attempt_frames import simulate, write_arm, write_base, write_records
from test_tables_plots import params

from cppo_lib.artefacts import notes
from cppo_lib.errors import MissingArtefactError, ParameterError
from cppo_lib.evaluation.bootstrap import paired_difference
from cppo_lib.evaluation.estimators import IidScores
from cppo_lib.evaluation.significance import holm
from cppo_lib.report import render
from cppo_lib.report.comparisons import mark
from cppo_lib.report.results import load_results
from cppo_lib.report.tables.card import card_table
from cppo_lib.report.tables.main import comparison_table, main_table
from cppo_lib.report.tables.registry import make_table

MODEL = "Qwen/Qwen3.5-9B"


def write_cell(runs: Path, benchmark: str, *, split: str = "test", profile: str = "test", tag: str = "") -> None:
    """Three methods of one model: PKPO, CPPO, and direct sampling from the model itself."""
    for method in ("direct", "pkpo", "cppo"):
        frame = simulate(method, problems=24).assign(benchmark=benchmark, split=split, method=method + tag)
        frame["group"] = ["introductory" if int(name[-3:]) % 2 else "interview" for name in frame["problem_id"]]
        policy = f"{MODEL}{tag}" if method == "direct" or tag else f"arm:{method}"
        write_records(runs, frame, policy=policy, profile=profile)


def write_options(runs: Path, benchmark: str, **options: object) -> None:
    folder = runs / "test" / "01_data_prep" / benchmark
    values = {"splits": {split: {"problems": 24} for split in ("valid", "test")}}
    notes.write_summary(folder, {"limit": 0, "options": options}, values=values, artefacts=[])


@pytest.fixture
def three(runs: Path) -> Path:
    """CPPO and PKPO of one base model on three benchmarks."""
    write_base(runs, model=MODEL)
    for arm in ("pkpo", "cppo"):
        write_arm(runs, arm, 0)
    for benchmark in ("livecodebench", "apps", "code_contests"):
        write_cell(runs, benchmark)
    write_options(runs, "livecodebench", release="release_v6", subset=None)
    write_options(runs, "apps", difficulty=None)
    write_options(runs, "code_contests", tests=None)
    return runs


def test_columns_stand_side_by_side_and_share_one_adjustment(three: Path, tmp_path: Path) -> None:
    further = ["apps.test", "code_contests.test"]
    table = make_table("T1_main", load_results(params(benchmark="livecodebench", further_cells=further)))
    assert table is not None
    titles = ["Qwen3.5-9B, LiveCodeBench", "Qwen3.5-9B, APPS", "Qwen3.5-9B, CodeContests"]
    assert list(table.shown.columns) == ["Method", *titles]
    assert list(table.shown["Method"]) == ["Direct sampling", "PKPO", "CPPO"]
    gaps = table.numbers[table.numbers["p"].notna()]
    assert len(gaps) == 6 and list(gaps["p_holm"]) == pytest.approx(holm(list(gaps["p"])))
    row = table.numbers.set_index(["benchmark", "method"]).loc[("apps", "cppo")]
    shown = table.shown.set_index("Method").loc["CPPO", titles[1]]
    assert shown == f"{row['pass@4']:.3f}{row['mark']} [{row['low']:.3f}, {row['high']:.3f}]"
    assert "CPPO is significantly higher in 3 of 3 cells at p < 0.05, in 3 of 3 after Holm's" in table.caption
    render.write_table(table, tmp_path)
    record = json.loads((tmp_path / "T1_main.json").read_text())
    assert {Path(path).name.split(".")[0] for path in record["sources"]} >= {"apps", "code_contests", "livecodebench"}
    assert "04_evaluation/apps.test.cppo.s0" in {run["run_id"] for run in record["runs"]}


def test_one_profile_with_two_models_has_a_column_for_each(runs: Path) -> None:
    write_base(runs, model=MODEL)
    for arm in ("pkpo", "cppo"):
        write_arm(runs, arm, 0)
    write_cell(runs, "humaneval")
    write_cell(runs, "humaneval", tag="--4b")
    results = load_results(params(benchmark="humaneval"))
    assert [column.title for column in results.columns] == ["Qwen3.5-9B, HumanEval", "Qwen3.5-9B--4b, HumanEval"]
    assert [column.methods for column in results.columns] == [["direct", "pkpo", "cppo"]] * 2
    table = main_table(results)
    assert len(table.numbers) == 6 and table.shown.shape == (3, 3)


def test_where_a_model_lies_on_a_machine_is_not_published(runs: Path, tmp_path: Path) -> None:
    write_base(runs)
    folder = "/some/place/Coder-0.5B"
    write_records(runs, simulate("direct", problems=4).assign(policy=folder), policy=folder)
    table = make_table("T1_main", load_results(params()))
    assert table is not None
    written = render.write_table(table, tmp_path)
    texts = {path.suffix: path.read_text(encoding="utf-8") for path in written}
    assert ",Coder-0.5B," in texts[".csv"] and '"direct": "Coder-0.5B"' in texts[".json"]
    assert "/some/place" not in "".join(texts.values())


def test_two_methods_in_one_row_are_refused(runs: Path) -> None:
    write_base(runs)
    for method in ("direct", "direct--a", "direct--b"):
        policy = "base" if method == "direct" else "some/model"
        write_records(runs, simulate("direct", problems=4).assign(method=method), policy=policy)
    with pytest.raises(ParameterError, match="share a row of the main table"):
        main_table(load_results(params()))


def test_columns_of_another_profile_and_missing_ones(three: Path) -> None:
    write_cell(three, "humaneval", profile="other", tag="--x")
    results = load_results(params(benchmark="apps", further_cells=["other/humaneval.test"]))
    assert results.columns[1].params.profile == "other"
    with pytest.raises(MissingArtefactError, match=r"leetcode\.test\.<method>\.s<seed>\.parquet is missing"):
        main_table(load_results(params(benchmark="apps", further_cells=["leetcode.test"])))


def test_a_cell_name_is_read_and_checked() -> None:
    named = params(benchmark="apps", further_cells=["other/apps.test", "code_contests.valid", "apps.test"])
    assert named.cells == (("test", "apps", "test"), ("other", "apps", "test"), ("test", "code_contests", "valid"))
    with pytest.raises(ValueError, match="further_cells"):
        params(further_cells=["apps"])


def test_comparisons_list_both_tests_and_the_best_of_all(three: Path) -> None:
    table = comparison_table(load_results(params(benchmark="apps")))
    assert table is not None
    assert list(table.numbers["method"]) == ["direct", "cppo", "cppo"]
    last = table.numbers.iloc[-1]
    assert table.shown["against"].iloc[-1] == "best of all others"
    assert last["difference"] == pytest.approx(table.numbers["difference"].iloc[1])  # PKPO is the best of the others
    assert last["low"] <= table.numbers["low"].iloc[1]
    assert (table.numbers["detectable_first"] > table.numbers["detectable"])[:2].all()


def test_marks_say_raw_adjusted_and_disagreement() -> None:
    names = [f"p{i}" for i in range(20)]
    a, b = (IidScores(pd.DataFrame([row], columns=names, dtype=float), k=4) for row in ([1] * 5 + [0] * 15, [0] * 20))
    gap = paired_difference(a, b, resamples=20_000)  # p is below 0.05, McNemar's 0.0625
    assert mark(gap, 0.2) == "*†" and mark(gap, 0.04) == "**†"
    assert mark(paired_difference(a, a, resamples=200), 1.0) == ""


def test_scores_that_never_differ_have_no_detectable_effect(runs: Path) -> None:
    """GRPO's records are PKPO's: no resample has a difference, which is no proof that none could be missed."""
    write_base(runs)
    for method in ("pkpo", "grpo"):
        write_records(runs, simulate("pkpo", problems=6).assign(method=method))
    results = load_results(params())
    assert "differences of –," in main_table(results).caption
    table = comparison_table(results)
    assert table is not None and list(table.shown["found with 80 % power"]) == ["–"]


# --- the result card ----------------------------------------------------------------------------


def test_the_card_has_ours_where_a_row_was_evaluated(three: Path) -> None:
    further = ["apps.test", "code_contests.test"]
    results = load_results(params(benchmark="livecodebench", further_cells=further))
    table = card_table(results)
    assert table is not None
    card = table.numbers[table.numbers["source"] == "card"]
    rows = card.set_index(["benchmark", "variant", "method"]).sort_index()
    assert pd.isna(rows.loc[("LiveCodeBench-v6", "held-out", "cppo"), "ours"])
    assert pd.isna(rows.loc[("CodeContests", "official (val)", "cppo"), "ours"])
    apps = rows.loc[("APPS", "", "cppo")]
    assert apps["ours"] == pytest.approx(results.scores["cppo"].mean_score())  # the records are the same
    assert apps["published"] == pytest.approx(0.832) and apps["our_model"] == MODEL
    intro = rows.loc[("APPS", "Introductory", "cppo")]
    assert intro["problems"] == 12 and pd.isna(intro["published"])
    abstract = table.numbers[table.numbers["source"] == "abstract"]
    assert abstract["ours"].notna().all() and list(abstract["method"]) == ["pkpo", "cppo"]
    assert table.shown["Ours"].iloc[-4] == "–"  # output prediction


def test_the_card_takes_the_variant_from_the_options(three: Path) -> None:
    write_options(three, "livecodebench", release="release_v6", subset="first_500_by_date")
    table = card_table(load_results(params(benchmark="livecodebench")))
    assert table is not None
    ours = table.numbers[table.numbers["ours"].notna()]
    assert list(ours["variant"]) == ["fixed 500-problem slice"]


def test_the_card_has_the_cells_of_the_authors_table_that_were_evaluated(runs: Path) -> None:
    write_base(runs, model="Qwen/Qwen3.5-9B-Base")
    for method in ("direct", "pkpo", "cppo"):
        frame = simulate(method, problems=12).assign(benchmark="apps", group="introductory")
        write_records(runs, frame, policy="Qwen/Qwen3.5-9B-Base" if method == "direct" else f"arm:{method}")
    for arm in ("pkpo", "cppo"):
        write_arm(runs, arm, 0)
    write_options(runs, "apps", difficulty="introductory")
    table = card_table(load_results(params(benchmark="apps")))
    assert table is not None and "2f8eb863 and 8b3f84f7" in table.caption
    rows = table.numbers[table.numbers["source"] == "table"].set_index("method")
    assert list(rows.index) == ["direct", "pkpo", "cppo"]
    assert list(rows["published"]) == [0.696, 0.787, 0.806] and rows["ours"].notna().all()
    assert table.shown["std over seeds"].iloc[-1] == "1.9"


def test_no_card_without_any_of_its_rows(runs: Path) -> None:
    write_base(runs)
    write_records(runs, simulate("cppo", problems=4))
    assert card_table(load_results(params())) is None
