"""Artefacts: whole or not at all, torn logs, missing inputs, provenance."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.errors import CPPOError, MissingArtefactError


def test_root_does_not_depend_on_the_working_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert (paths.root() / "cppo_lib" / "errors.py").is_file()


def test_root_outside_a_repository_says_how_to_install(tmp_path):
    with pytest.raises(CPPOError, match="pip install -e"):
        paths.root(tmp_path)


def test_runs_root_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("CPPO_RUNS", str(tmp_path / "elsewhere"))
    assert paths.stage_dir("smoke", "03_rl_training", "cppo.s0") == (
        tmp_path / "elsewhere" / "smoke" / "03_rl_training" / "cppo.s0"
    )
    monkeypatch.delenv("CPPO_RUNS")
    assert paths.runs_root() == paths.root() / "runs"


def test_missing_artefact_names_notebook_and_command(runs):
    path = runs / "tiny" / "02_planner_sft" / "sft"
    with pytest.raises(MissingArtefactError) as caught:
        paths.require(path, notebook="02_planner_sft")
    message = str(caught.value)
    assert "run notebooks/02_planner_sft.ipynb first (or make reproduce PROFILE=tiny)" in message
    assert "\n" not in message


def test_policy_names_point_to_finished_runs_only(runs):
    assert store.policy_source("tiny", "someone/model") == "someone/model"
    with pytest.raises(MissingArtefactError, match="03_rl_training"):
        store.policy_source("tiny", "arm:cppo", seed=2)
    run = paths.stage_dir("tiny", "03_rl_training", "cppo.s2")
    (run / "policy").mkdir()
    with pytest.raises(MissingArtefactError, match="summary.json"):
        store.policy_source("tiny", "arm:cppo", seed=2)
    store.write_json(run / "summary.json", {})
    assert store.policy_source("tiny", "arm:cppo", seed=2) == str(run / "policy")


def test_json_takes_numpy_and_paths_and_reads_back(tmp_path):
    value = {"a": np.float64(0.5), "n": np.int64(3), "path": tmp_path / "x", "text": "é"}
    path = store.write_json(tmp_path / "deep" / "a.json", value)
    assert store.read_json(path) == {"a": 0.5, "n": 3, "path": str(tmp_path / "x"), "text": "é"}


def test_failed_write_keeps_the_old_file_and_leaves_no_part(tmp_path):
    path = store.write_json(tmp_path / "a.json", {"old": 1})
    with pytest.raises(TypeError):
        store.write_json(path, {"bad": object()})
    unwritable = pd.DataFrame({"mixed": [1, "one", object()]})
    with pytest.raises(Exception, match="mixed"):
        store.write_parquet(tmp_path / "b.parquet", unwritable)
    assert store.read_json(path) == {"old": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_parquet_keeps_rows_columns_and_nulls(tmp_path):
    rows = [
        {"problem_id": "p0", "passed": True, "plan": None},
        {"problem_id": "p1", "passed": False, "plan": "1. sort"},
    ]
    frame = pd.read_parquet(store.write_parquet(tmp_path / "a.parquet", rows))
    assert list(frame.columns) == ["problem_id", "passed", "plan"]
    assert frame["passed"].tolist() == [True, False]
    assert frame["plan"].isna().tolist() == [True, False]


def test_figure_takes_its_format_from_the_suffix(tmp_path):
    from matplotlib.figure import Figure

    path = store.write_figure(tmp_path / "fig1_demo.pdf", Figure())
    assert path.read_bytes().startswith(b"%PDF")
    assert os.listdir(tmp_path) == ["fig1_demo.pdf"]


@pytest.mark.parametrize("write", [store.write_text, store.write_json])
def test_unwritable_folder_is_one_line_that_names_the_fix(tmp_path, write):
    (tmp_path / "runs").write_text("a file where a folder should be")
    with pytest.raises(CPPOError, match="make the folder writable or set CPPO_RUNS") as caught:
        write(tmp_path / "runs" / "a.json", "text")
    assert "\n" not in str(caught.value)
    with pytest.raises(CPPOError, match="cannot write"):
        paths.writable_dir(tmp_path / "runs" / "tiny")


def test_torn_last_line_is_left_out_and_cut_before_the_next_append(tmp_path):
    path = tmp_path / "metrics.jsonl"
    store.append_jsonl(path, [{"step": 0}, {"step": 1}])
    with path.open("a") as file:
        file.write('{"step": 2, "r_o')
    assert [row["step"] for row in store.read_jsonl(path)] == [0, 1]
    store.append_jsonl(path, [{"step": 2}])
    assert [row["step"] for row in store.read_jsonl(path)] == [0, 1, 2]


def test_torn_only_line_is_cut_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"st')
    assert store.read_jsonl(path) == []
    store.append_jsonl(path, [{"step": 0}])
    assert store.read_jsonl(path) == [{"step": 0}]


def test_broken_middle_line_is_an_error_with_its_number(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0}\nnonsense\n{"step": 2}\n')
    with pytest.raises(CPPOError, match=r"metrics\.jsonl:2"):
        store.read_jsonl(path)


def test_hash_of_a_folder_covers_names_and_contents(tmp_path):
    folder = tmp_path / "model"
    store.write_text(folder / "a.txt", "one")
    first = store.file_sha256(folder)
    (folder / "a.txt").rename(folder / "b.txt")
    renamed = store.file_sha256(folder)
    (folder / "b.txt").write_text("two")
    assert len({first, renamed, store.file_sha256(folder)}) == 3


def test_params_hash_ignores_order_and_sees_values():
    assert notes.params_sha256({"a": 1, "b": 2}) == notes.params_sha256({"b": 2, "a": 1})
    assert notes.params_sha256({"a": 1}) != notes.params_sha256({"a": 2})


def test_meta_file_says_where_an_artefact_came_from(tmp_path):
    source = store.write_text(tmp_path / "in.txt", "abc")
    artefact = store.write_text(tmp_path / "out.txt", "def")
    meta = store.read_json(notes.write_meta(artefact, {"seed": 7, "k": 4}, [source]))
    assert meta["params"] == {"seed": 7, "k": 4}
    assert meta["seed"] == 7
    assert meta["inputs"][str(source)].startswith("ba7816bf")  # the published SHA-256 of "abc"
    assert meta["packages"]["torch"].startswith("2.13.0")
    assert set(meta) >= {"commit", "dirty", "python", "platform", "gpu", "params_sha256", "started"}


def test_a_commit_is_dirty_by_changes_of_code_and_not_of_figures(tmp_path, monkeypatch):
    def git(*arguments: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", *arguments], check=True)

    for name in ("figures/T1.md", "cppo_lib/code.py"):
        store.write_text(tmp_path / name, "one")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    monkeypatch.setattr(paths, "root", lambda: tmp_path)
    state = notes.git_state.__wrapped__
    assert state()["dirty"] is False
    store.write_text(tmp_path / "figures" / "T1.md", "two")
    assert state()["dirty"] is False
    store.write_text(tmp_path / "cppo_lib" / "code.py", "two")
    assert state()["dirty"] is True


def test_summary_changes_when_an_artefact_does(tmp_path):
    artefact = store.write_text(tmp_path / "model.txt", "one")
    first = store.read_json(notes.write_summary(tmp_path, {"seed": 0}, values={"loss": 0.5}, artefacts=[artefact]))
    artefact.write_text("two")
    second = store.read_json(notes.write_summary(tmp_path, {"seed": 0}, values={"loss": 0.5}, artefacts=[artefact]))
    assert first["loss"] == second["loss"] == 0.5
    assert first["artefacts"] != second["artefacts"]


def test_progress_is_one_flushed_line():
    code = "from cppo_lib.artefacts.progress import log; log.info('step 1/2'); import os; os._exit(0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[cppo] 0:00 step 1/2\n"


def test_progress_goes_to_the_stdout_of_the_moment_at_the_chosen_level(capsys):
    log.info("one")
    with contextlib.redirect_stdout(io.StringIO()) as kernel:
        log.info("100 % of two")
    logging.getLogger("cppo_lib").setLevel("WARNING")
    log.info("three")
    log.warning("four")
    log.setLevel("INFO")
    lines = [line.split(" ", 2) for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[2]) for line in lines] == [("[cppo]", "one"), ("[cppo]", "four")]
    assert kernel.getvalue().endswith(" 100 % of two\n")


def test_show_is_relative_inside_the_repository_only():
    assert paths.show(paths.root() / "params" / "tiny") == "params/tiny"
    assert paths.show(Path("/nowhere/x")) == "/nowhere/x"


def test_resumable_folder_keeps_only_what_the_same_run_wrote_and_says_so(tmp_path, capsys):
    folder = store.resumable_dir(tmp_path / "cppo.s0", "2:one")
    (folder / "checkpoints").mkdir()
    assert store.resumable_dir(folder, "2:one") == folder
    assert (folder / "checkpoints").is_dir()
    assert capsys.readouterr().out == ""
    store.resumable_dir(folder, "2:two")
    assert os.listdir(folder) == ["fingerprint.txt"]
    assert capsys.readouterr().out.endswith(
        f" {folder} was begun with other parameters, code or inputs: it begins anew\n"
    )


def test_a_run_of_another_version_of_the_suite_is_said_to_be_one(tmp_path, capsys):
    folder = tmp_path / "cppo.s0"
    store.write_text(folder / "fingerprint.txt", "5ec3ab66581f8c1c")  # as all were before modules moved
    (folder / "checkpoints").mkdir()
    store.resumable_dir(folder, "2:one")
    assert os.listdir(folder) == ["fingerprint.txt"]
    assert (
        "was begun by another version of the suite, which is not comparable: it begins anew" in capsys.readouterr().out
    )


def test_policy_source_finds_a_relative_folder_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert store.policy_source("tiny", "cppo_lib") == str(paths.root() / "cppo_lib")
    assert store.policy_source("tiny", "some/hub-id") == "some/hub-id"
