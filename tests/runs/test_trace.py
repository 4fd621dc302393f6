"""From a table's sidecar back to records, runs and data, with the state of every file on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from attempt_frames import simulate, write_records, write_runs
from test_tables_plots import params

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.report import render
from cppo_lib.report.results import load_results
from cppo_lib.report.tables.registry import make_table
from cppo_lib.runs import config, provenance, trace


@pytest.fixture
def written(runs: Path) -> Path:
    """T1 and T6 of a small profile, in the profile's own folder of figures."""
    write_runs(runs, problems=4)
    results = load_results(params())
    folder = paths.figures_path("test", "")
    for name in ("T1_main", "T6_budget"):
        table = make_table(name, results)
        assert table is not None
        render.write_table(table, folder)
    return runs


def test_the_chain_leads_from_the_number_to_the_training_run(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main(["T1", "--profile", "test", "--method", "cppo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("T1_main: ")
    number = next(line for line in lines if line.startswith("cppo: "))
    assert "pass@4 0." in number
    record = next(line for line in lines if "crossroads.test.cppo.s0.parquet" in line)
    assert record.endswith("unchanged")
    assert any("by 04_evaluation/crossroads.test.cppo.s0, seed 0, commit " in line for line in lines)
    assert any("by 03_rl_training/cppo.s0, seed 0" in line for line in lines)
    assert not any("direct" in line for line in lines)
    assert lines[-1].endswith(" 0 of them not as they were read")


def test_a_changed_and_a_missing_record_are_seen(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_records(written, simulate("cppo", problems=3))
    (written / "test" / "03_rl_training" / "pkpo.s0" / "metrics.jsonl").unlink()
    assert trace.main(["T1_main", "--profile", "test"]) == 1
    out = capsys.readouterr().out
    assert "2 of them not as they were read" in out
    assert "CHANGED" in out and "MISSING" in out


def test_unknown_items_get_the_nearest_names(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main(["T1_mian", "--profile", "test"]) == 1
    assert "no table or figure 'T1_mian'; did you mean T1_main?" in capsys.readouterr().err
    assert trace.main(["zebra", "--profile", "test"]) == 1
    assert "there are T1_main, T6_budget" in capsys.readouterr().err
    assert trace.main(["T6", "--profile", "test", "--method", "nobody"]) == 1
    assert "T6_budget has no records of 'nobody'; there are cppo, direct" in capsys.readouterr().err


def test_a_profile_without_sidecars_says_what_to_run(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace.main(["T1", "--profile", "nothing"]) == 1
    assert "has no tables or figures with a sidecar: make reproduce PROFILE=nothing" in capsys.readouterr().err


def test_inputs_of_runs_are_followed_and_each_run_is_told_once(runs: Path, tmp_path: Path) -> None:
    """Problems -> policy -> records, as the notebooks leave them."""
    data = store.write_text(runs / "tiny" / "01_data_prep" / "crossroads" / "train.jsonl", "{}\n")
    source = {"origin": "some/data", "file": "a.json", "revision": "1", "sha256": "ab", "rows": 1}
    prepared = config.load_params(paths.root() / "params" / "tiny" / "01_data_prep.yaml")
    notes.write_summary(data.parent, prepared, values={"sources": [source]}, artefacts=[data])
    policy = store.write_text(runs / "tiny" / "03_rl_training" / "cppo.s1" / "policy" / "model", "weights")
    arm = config.load_params(paths.root() / "params" / "tiny" / "03_rl_training.cppo.yaml", seed=1, steps=7)
    notes.write_summary(policy.parents[1], arm, values={}, artefacts=[policy.parent], inputs=[data])
    chain = trace.Chain()
    lines = list(chain.lines(paths.show(policy.parent), store.file_sha256(policy.parent)))
    text = "\n".join(lines)
    assert "by 03_rl_training/cppo.s1, seed 1" in text
    assert "with params/tiny/03_rl_training.cppo.yaml, whose steps changed since" in text
    assert "by 01_data_prep/crossroads" in text and "with params/tiny/01_data_prep.yaml" in text
    assert "from origin some/data, file a.json" in text
    again = list(chain.lines(paths.show(data), store.file_sha256(data)))
    assert again[1].strip() == "by 01_data_prep/crossroads, see above"


def test_a_base_model_is_found_through_arms_and_sft(written: Path) -> None:
    folder = written / "test" / "04_evaluation"
    assert provenance.base_model(folder / "crossroads.test.cppo.s0.parquet") == "scratch"
    path = write_records(written, simulate("direct", problems=2).assign(method="hub"), policy="some/model")
    assert provenance.base_model(path) == "some/model"


def test_sidecars_name_runs_parameter_files_seeds_and_commits(written: Path) -> None:
    record = json.loads((paths.figures_path("test", "") / "T1_main.json").read_text())
    run = next(run for run in record["runs"] if run["run_id"] == "04_evaluation/crossroads.test.cppo.s0")
    assert run["seed"] == 0 and run["commit"] == notes.git_state()["commit"]
    assert run["parameter_file"] is None  # no profile of that name
    assert record["command"] == "make reproduce PROFILE=test SEEDS=1"


def test_tables_of_another_version_of_the_suite_are_traced_to_their_commit(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine without the runs: what made each file is told from the sidecar."""
    sidecar = paths.figures_path("test", "") / "T1_main.json"
    record = json.loads(sidecar.read_text())
    commit = record["commit"] or "f" * 40
    assert record["layout"] == notes.LAYOUT
    del record["layout"]
    sidecar.write_text(json.dumps(record | {"commit": commit}))
    shutil.rmtree(written / "test" / "04_evaluation")
    assert trace.main(["T1", "--profile", "test", "--method", "cppo"]) == 1
    out = capsys.readouterr().out
    assert "made by another version of the suite, whose code had other addresses: git checkout " + commit[:12] in out
    assert "  was by 04_evaluation/crossroads.test.cppo.s0, seed 0, commit " in out
    assert trace.seen_in("e" * 40) == trace.seen_in(None) == "this checkout does not have that commit"


@pytest.mark.parametrize("profile", ["tiny", "ablations", "laptop"])
def test_shipped_results_are_traced_to_runs_and_commits_without_the_runs(
    profile: str, runs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace.main(["T1", "--profile", profile, "--method", "cppo"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("T1_main: figures/")
    assert any(line.strip().startswith("was by 04_evaluation/") and "commit " in line for line in lines) or all(
        line.endswith("unchanged") for line in lines if "sha256" in line
    )
