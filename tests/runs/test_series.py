"""The series engine on a throw-away suite: order, up-to-date checks, failures, kills, seeds.

One suite is built and run once; each test then changes something and looks at what follows.
"""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import psutil
import pytest
from suite import RL, Suite, wait_for

from cppo_lib.artefacts import paths, store
from cppo_lib.errors import ParameterError
from cppo_lib.runs import config, profiles, trace
from cppo_lib.runs.parameters import RLTraining
from cppo_lib.runs.series import cli as series
from cppo_lib.runs.series import runner
from cppo_lib.runs.series.plan import Plan
from cppo_lib.verifier.cores import usable_cores

CPPO = "03_rl_training.cppo.s0"


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """A suite whose seven runs have finished."""
    suite = Suite(tmp_path_factory.mktemp("suite"))
    suite.first = suite.run("reproduce", "--cores", "2")
    assert suite.first.returncode == 0, suite.first.stdout + suite.first.stderr
    return suite


def out_of_date(suite: Suite) -> dict[str, str]:
    """Run names and reasons that `why` prints."""
    done = suite.run("why")
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("nothing to do"):
        return {}
    lines = done.stdout.splitlines()
    return dict(zip(lines[::2], (line.strip() for line in lines[1::2]), strict=True))


# --- the plan, without running anything -------------------------------------------------------


def test_plan_of_tiny_runs_arms_per_seed_and_baselines_once():
    plan = Plan("tiny", seeds=3)
    # cppo, cppo_faithful and cppo_8_steps, grpo and pkpo, and the warm-up, which is not evaluated
    assert len(plan.of("03_rl_training")) == 3 * 6
    assert len(plan.of("04_evaluation")) == 3 + 3 * 5
    evaluation = plan.runs["04_evaluation.crossroads.test.cppo.s2"]
    assert [run.name for run in plan.before(evaluation)] == [
        "01_data_prep.crossroads",
        "03_rl_training.cppo.s2",
    ]
    assert evaluation.done[0] == "04_evaluation/crossroads.test.cppo.s2.parquet"
    assert plan.runs["05_paper_tables"].params.seeds == 3
    assert len(plan.before(plan.runs["05_paper_tables"])) == 1 + 1 + 18 + 18


def test_a_limit_cuts_problems_and_steps_and_leaves_figures_alone():
    plan = Plan("laptop", limit=3)
    given = {run.name: run.given for run in plan.runs.values()}
    assert given["01_data_prep.leetcode"] == {"limit": 3}
    assert given["04_evaluation.leetcode.train.distil.s0"] == {"limit": 3}
    assert given["02_planner_sft"] == {"sft_steps": 3}
    assert given["02b_gate"] == {"epochs": 0, "sampled": 0, "accept_refused": True}
    assert given["03_rl_training.cppo.s0"] == {"steps": 3}
    assert given["05_paper_tables"] == {"figures_dir": ""}
    assert plan.table == "figures/T1_main.md"


@pytest.mark.parametrize("profile", ["tiny", "ablations", "laptop", "paper", "smoke"])
def test_a_first_look_trains_on_no_more_problems_than_it_has(profile: str) -> None:
    for run in Plan(profile, limit=1).runs.values():
        if isinstance(run.params, RLTraining):
            members = run.params.group_size * (run.params.k + (run.params.algorithm == "cppo"))
            assert run.params.problems_per_step == 1 and members % run.params.microbatches == 0


def test_planner_sft_waits_for_the_evaluation_that_it_distils_and_tuning_for_its_problems():
    plan, baselines = Plan("laptop"), Plan("laptop_baselines")
    before = {name: [run.name for run in plan.before(plan.runs[name])] for name in plan.runs}
    assert before["02_planner_sft"] == ["01_data_prep.leetcode", "04_evaluation.leetcode.train.distil.s0"]
    assert "04_evaluation.leetcode.train.distil.s0" not in before["05_paper_tables"]
    tuned = baselines.runs["04_evaluation.humaneval.test.direct_tuned.s0"]
    assert [run.name for run in baselines.before(tuned)] == ["01_data_prep.humaneval", "01_data_prep.leetcode"]


def test_evaluations_that_tune_by_the_same_records_run_one_after_another():
    plan = Plan("paper")
    cells = ("apps.test", "code_contests.valid", "livecodebench.test")
    tuned = [f"04_evaluation.{cell}.direct_tuned.s0" for cell in cells]
    waits = [[run.name for run in plan.before(plan.runs[name]) if run.name in tuned] for name in tuned]
    assert waits == [[], tuned[:1], tuned[1:2]]
    assert not set(tuned) & {run.name for run in plan.before(plan.runs["04_evaluation.apps.test.direct.s0"])}


def test_distilling_an_evaluation_that_nothing_makes_is_refused(tmp_path, monkeypatch):
    files = paths.root() / "params" / "laptop"
    folder = tmp_path / "params" / "laptop"
    folder.mkdir(parents=True)
    for name in ("02_planner_sft.yaml", "01_data_prep.humaneval.yaml"):
        (folder / name).write_text((files / name).read_text())
    monkeypatch.setattr("cppo_lib.artefacts.paths.root", lambda: tmp_path)
    with pytest.raises(ParameterError, match="key 'distil_from' is 'distil', but params/laptop has no 04_evaluation"):
        Plan("laptop")


def test_runs_that_wait_for_each_other_are_named(tmp_path, monkeypatch):
    """Planner SFT learns from what an arm wrote that starts from planner SFT."""
    files, folder = paths.root() / "params" / "laptop", tmp_path / "params" / "laptop"
    folder.mkdir(parents=True)
    for name in ("02_planner_sft", "03_rl_training.cppo", "04_evaluation.leetcode_distil"):
        text = (files / f"{name}.yaml").read_text()
        (folder / f"{name}.yaml").write_text(
            text.replace("policy: Qwen/Qwen2.5-Coder-0.5B-Instruct", "policy: arm:cppo")
        )
    monkeypatch.setattr("cppo_lib.artefacts.paths.root", lambda: tmp_path)
    with pytest.raises(ParameterError, match=r"^params/laptop: \S+, \S+, \S+ wait for each other$"):
        Plan("laptop")


def test_model_takes_the_place_of_hub_ids_only():
    laptop = Plan("laptop", model="/models/coder")
    own = {"sft", "arm:cppo", "arm:pkpo"}
    assert {run.params.policy for run in laptop.of("04_evaluation")} == own | {"/models/coder"}
    assert {run.params.policy for run in laptop.of("03_rl_training")} == {"sft", "/models/coder"}
    assert laptop.runs["02_planner_sft"].params.base_model == "/models/coder"
    tiny = Plan("tiny", model="/models/coder")
    assert not any(run.given for run in tiny.runs.values())


def test_runs_that_would_share_a_gpu_go_one_after_another(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert series.side_by_side(tmp_path) == usable_cores()
    (tmp_path / "nvidia0").touch()
    assert series.side_by_side(tmp_path) == 1
    for hidden in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert series.side_by_side(tmp_path) == usable_cores()


NO_LOCKS = """
import errno, sys
sys.path.insert(0, sys.argv[1])
from verifier_yard import forbid_locks
from cppo_lib.runs.series import cli as series
from cppo_lib.runs.series.plan import Plan
forbid_locks(getattr(errno, sys.argv[2]))
try:
    with series.only_series(Plan("smoke")):
        print("locked")
except series.CPPOError as error:
    print(error)
"""


@pytest.mark.parametrize("code", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_is_one_line(tmp_path, code):
    command = [sys.executable, "-c", NO_LOCKS, str(Path(__file__).parents[1] / "helpers"), code]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"CPPO_RUNS": str(tmp_path)})
    reason = os.strerror(getattr(errno, code))
    assert done.stdout.startswith("the file system of ") and done.stdout.count("\n") == 1, done.stderr
    assert f"has no file locks ({reason})" in done.stdout and "set CPPO_RUNS to a local disk" in done.stdout


def test_unknown_profile_names_those_there_are():
    known = "ablations, laptop, laptop_baselines, paper, paper_2b, paper_4b, smoke, tiny"
    with pytest.raises(ParameterError, match=f"from {known}"):
        Plan("tny")


@pytest.mark.parametrize("name", ["2026_10", "007", "1e3"])
def test_a_profile_may_have_a_name_that_yaml_reads_as_a_number(tmp_path, monkeypatch, name):
    suite = Suite(tmp_path)
    folder = suite.root / "params" / name
    (suite.root / "params" / "mini").rename(folder)
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("profile: mini", f"profile: {name}"))
    monkeypatch.setattr(paths, "root", lambda: suite.root)
    monkeypatch.delenv("CPPO_RUNS", raising=False)
    plan = Plan(name)
    assert {run.params.profile for run in plan.runs.values()} == {name}
    assert trace.sidecars(name) == {}
    planned = suite.call_any(*series.snakemake(plan, "--dry-run", "--quiet", "rules"))
    assert planned.returncode == 0, planned.stderr
    assert [path.name for path in (suite.root / "runs").iterdir()] == [name]


def test_sockets_have_short_paths_and_those_of_killed_runs_go(tmp_path, monkeypatch):
    deep = tmp_path / ("x" * 90)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with runner._socket_folder() as folder:
        assert len(folder) < 80
    with tempfile.TemporaryDirectory(dir="/tmp") as short:
        monkeypatch.setattr(tempfile, "tempdir", short)
        dead, alive, other = (Path(short) / f"cppo-{name}" for name in ("kernel-dead", "kernel-alive", "merged-x"))
        for path in (dead, alive, other):
            path.mkdir()
            os.utime(path, (0, 0))
        lock = runner._lock(alive)
        with runner._socket_folder() as folder:
            assert {path.name for path in Path(short).iterdir()} == {alive.name, other.name, Path(folder).name}
        os.close(lock)


def test_every_line_of_a_message_but_the_first_continues_it(capsys):
    runner.say("run: failed: first\n\nthird\n    fourth")
    lines = capsys.readouterr().out.splitlines(keepends=True)
    assert [runner.continues(line) for line in lines] == [False, True, True, True]


# --- runs -------------------------------------------------------------------------------------


def test_first_run_shows_progress_and_ends_with_the_table(suite):
    out = suite.first.stdout
    assert "mini: 7 of 7 steps to run on 2 core(s)" in out
    assert re.search(r"^\[step 1 of 7, \d+:\d\d\] ", out, re.MULTILINE)
    assert f"{CPPO}: step 3/3 r_out 0.5" in out
    assert "| cppo | 0 |\n| direct | 0 |" in out
    assert out.count("finished in") == 7
    assert suite.first.stderr == ""


def test_outputs_lie_where_they_are_declared(suite):
    notebook = nbformat.read(suite.runs / "nb" / f"{CPPO}.ipynb", as_version=4)
    injected = [c for c in notebook.cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "learning_rate = 0.0005" in injected[0].source
    meta = nbformat.read(suite.runs / "nb" / "04_evaluation.crossroads.test.cppo.s0.ipynb", as_version=4).metadata
    file = suite.root / "params" / "mini" / "04_evaluation.cppo.yaml"
    assert file.read_text().count("\n") < 9 and "like: 04_evaluation.direct.yaml" in file.read_text()
    assert meta["papermill"]["parameters"] == config.load_params(file).model_dump()
    assert "step 1/3" in (suite.runs / "logs" / f"{CPPO}.log").read_text()
    left = [path.name for path in suite.runs.rglob("*") if "partial" in path.name]
    assert left == []
    assert not list((suite.runs / "nb").glob("*.running.ipynb"))


def test_second_run_does_nothing_and_says_so(suite):
    again = suite.run("reproduce")
    assert again.returncode == 0
    assert again.stdout.startswith("nothing to do: all 7 steps of mini are up to date")
    assert "| cppo | 0 |" in again.stdout


def test_touching_a_file_changes_nothing(suite):
    os.utime(suite.root / "params" / "mini" / "01_data_prep.yaml")
    os.utime(suite.root / "cppo_lib" / "toy.py")
    assert out_of_date(suite) == {}


def replaced(path, text):
    """Give a file other content and an older time stamp, as rsync, tar and `cp -p` do; a call takes that back."""
    before, state = path.read_text(), path.stat()
    path.write_text(text)
    os.utime(path, (state.st_atime - 9e6, state.st_mtime - 9e6))
    return lambda: (path.write_text(before), os.utime(path, (state.st_atime, state.st_mtime)))


def test_content_decides_whatever_the_time_stamps_say(suite):
    direct = suite.root / "params" / "mini" / "04_evaluation.direct.yaml"
    figures = suite.root / "notebooks" / "06_figures.ipynb"
    summary = suite.runs / "02_planner_sft" / "summary.json"
    restore = [
        replaced(suite.root / "cppo_lib" / "toy.py", "COLOUR = 'blue'\n"),
        replaced(direct, direct.read_text().replace("temperature: 1.0", "temperature: 0.5")),
        replaced(figures, figures.read_text().replace("params.notebook", "(params.notebook)")),
        replaced(summary, summary.read_text() + "\n"),
    ]
    reasons = out_of_date(suite)
    for call in restore:
        call()
    assert reasons["05_paper_tables"].startswith("changed: cppo_lib/toy.py; comes after 03_rl_training")
    assert reasons["04_evaluation.crossroads.test.direct.s0"] == (
        "changed: temperature (was 1.0, is 0.5), 02_planner_sft/summary.json; comes after 02_planner_sft"
    )
    assert reasons["06_figures"].startswith("changed: code cells of notebooks/06_figures.ipynb")
    assert reasons["02_planner_sft"] == "not as this step left it: 02_planner_sft/summary.json"
    assert "01_data_prep.crossroads" not in reasons
    file = direct.read_text()
    direct.write_text(f"# A remark changes no value.\n{file}")
    assert out_of_date(suite) == {}
    direct.write_text(file)


def test_a_step_of_another_version_of_the_suite_is_said_to_be_one(suite):
    path = suite.runs / "stamps" / "02_planner_sft.json"
    stamp = store.read_json(path)
    restore = replaced(path, json.dumps({key: value for key, value in stamp.items() if key != "layout"}))
    reasons = out_of_date(suite)
    restore()
    assert reasons["02_planner_sft"].startswith("made by another version of the suite, whose code had other addresses")


def test_why_writes_nothing(suite):
    def files():
        return {path: path.lstat().st_mtime_ns for path in suite.root.rglob("*") if "__pycache__" not in path.parts}

    before = files()
    assert out_of_date(suite) == {}
    assert files() == before


def test_editing_a_module_reruns_only_what_imports_it(suite):
    module = suite.root / "cppo_lib" / "toy.py"
    before = module.read_text()
    module.write_text(before + "COLOUR = 'blue'\n")
    reasons = out_of_date(suite)
    module.write_text(before)
    assert set(reasons) == {"05_paper_tables"}
    assert reasons["05_paper_tables"] == "changed: cppo_lib/toy.py"


def test_editing_prose_reruns_nothing_and_editing_code_does(suite):
    path = suite.root / "notebooks" / "06_figures.ipynb"
    before = path.read_text()
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_markdown_cell("More words."))
    nbformat.write(notebook, path)
    assert out_of_date(suite) == {}
    notebook.cells.append(nbformat.v4.new_code_cell("1 + 1"))
    nbformat.write(notebook, path)
    reasons = out_of_date(suite)
    path.write_text(before)
    assert set(reasons) == {"06_figures"}
    assert reasons["06_figures"] == "changed: code cells of notebooks/06_figures.ipynb"


def test_editing_one_parameter_file_reruns_only_what_depends_on_it(suite):
    suite.edit("03_rl_training.cppo", steps=5)
    reasons = out_of_date(suite)
    assert list(reasons) == [
        CPPO,
        "04_evaluation.crossroads.test.cppo.s0",
        "05_paper_tables",
        "06_figures",
    ]
    assert reasons[CPPO] == "changed: steps (was 3, is 5)"
    assert reasons["04_evaluation.crossroads.test.cppo.s0"] == f"comes after {CPPO}"
    done = suite.run("reproduce")
    assert done.returncode == 0
    assert "mini: 4 of 7 steps to run" in done.stdout
    metrics = store.read_jsonl(suite.runs / "03_rl_training" / "cppo.s0" / "metrics.jsonl")
    # All five steps were run anew: the three under the old parameters were not resumed.
    assert [row["step"] for row in metrics] == [0, 1, 2, 3, 4]
    assert len({row["pid"] for row in metrics}) == 1


def test_finished_work_that_is_emptied_or_cut_is_made_again(suite):
    summary = suite.runs / "03_rl_training" / "cppo.s0" / "summary.json"
    policy = suite.runs / "02_planner_sft" / "sft" / "config.json"
    meta = suite.runs / "04_evaluation" / "crossroads.test.direct.s0.parquet.meta.json"
    whole = policy.read_bytes()
    for path in (summary, policy, meta):
        times = path.stat()
        os.truncate(path, 0)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    reasons = out_of_date(suite)
    cut = f"runs/mini/02_planner_sft/sft/config.json is cut, it has 0 of {len(whole)} bytes"
    assert reasons["02_planner_sft"] == cut
    assert "runs/mini/03_rl_training/cppo.s0/summary.json is empty" in reasons[CPPO]
    assert f"runs/mini/04_evaluation/{meta.name} is empty" in reasons["04_evaluation.crossroads.test.direct.s0"]
    policy.write_bytes(whole)
    done = suite.run("reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{CPPO}: runs/mini/03_rl_training/cppo.s0/summary.json is empty: this step is run again" in done.stdout
    assert out_of_date(suite) == {}
    assert store.read_json(meta)


def test_a_series_that_a_full_disk_stops_without_a_word_says_so(tmp_path):
    log = tmp_path / "snakemake.log"
    log.write_text("OSError: [Errno 28] No space left on device: '.snakemake/log/x.log'\n")
    assert series._silent(log).startswith(f"cannot write {log}: no space is left on the disk at /")
    log.write_text("Killed\n")
    assert series._silent(log) == f"Snakemake stopped and no step said why; see {log}"


def test_killed_series_goes_on_where_it_was(suite):
    suite.edit("03_rl_training.cppo", steps=9)
    metrics = suite.runs / "03_rl_training" / "cppo.s0" / "metrics.jsonl"
    metrics.unlink()
    # Seven steps of three seconds are left, in which even a busy machine starts and refuses the second series.
    series = suite.start("reproduce", STEP_S="3")
    wait_for(lambda: metrics.exists() and len(store.read_jsonl(metrics)) >= 2)

    second = suite.run("reproduce")
    assert second.returncode == 1
    assert second.stderr.startswith(f"error: runs/mini is in use by another series (process {series.pid})")

    os.kill(series.pid, signal.SIGKILL)  # only the series: what it started must end by itself
    series.wait()
    done = suite.run("reproduce")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = store.read_jsonl(metrics)
    assert [row["step"] for row in rows] == list(range(9))
    assert len({row["pid"] for row in rows}) == 2
    assert out_of_date(suite) == {}


def test_finished_work_is_not_done_again(suite):
    """Neither when Snakemake is killed alone, nor when a kernel ends late, nor when a later step fails."""
    suite.edit("03_rl_training.cppo", steps=6)
    folder = suite.runs / "03_rl_training" / "cppo.s0"
    (folder / "metrics.jsonl").unlink()
    series = suite.start("reproduce", STEP_S="1")
    wait_for((folder / "metrics.jsonl").exists)
    psutil.Process(series.pid).children()[0].kill()
    out, _ = series.communicate(timeout=240)
    assert series.returncode == 1
    assert "no step said why; see runs/mini/logs/snakemake.log" in out
    assert list(out_of_date(suite))[0] == "04_evaluation.crossroads.test.cppo.s0"

    suite.edit("03_rl_training.cppo", steps=4)
    late = suite.run("reproduce", BREAK="late")
    assert f"{CPPO}: failed: the kernel was killed" in late.stdout
    summary, table = (folder / "summary.json").read_bytes(), (suite.runs / "figures" / "T1_main.md").read_bytes()
    again = suite.run("reproduce", BREAK="tables")
    assert f"{CPPO}: finished before" in again.stdout and f"{CPPO}: step" not in again.stdout
    assert "05_paper_tables: failed: cell 3 stopped with AssertionError" in again.stdout
    assert (folder / "summary.json").read_bytes() == summary
    assert (suite.runs / "figures" / "T1_main.md").read_bytes() == table
    assert out_of_date(suite) == {"05_paper_tables": "it has not run to its end"}


def test_two_seeds_add_runs_and_rerun_the_reports(suite):
    done = suite.run("reproduce", "--seeds", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "mini: 4 of 9 steps to run" in done.stdout
    assert "| cppo | 0 |\n| cppo | 1 |\n| direct | 0 |" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_says_so_and_ends_all(suite, number):
    suite.edit("03_rl_training.cppo", steps=60 + number)
    metrics = suite.runs / "03_rl_training" / "cppo.s0" / "metrics.jsonl"
    with tempfile.TemporaryDirectory() as sockets:
        metrics.unlink()
        series = suite.start("reproduce", STEP_S="3", TMPDIR=sockets)
        wait_for(metrics.exists)
        family = psutil.Process(series.pid).children(recursive=True)
        assert any(Path(sockets).iterdir())
        series.send_signal(number)
        out, _ = series.communicate(timeout=240)
        assert not any(Path(sockets).iterdir())
    assert series.returncode == 128 + number
    assert f"{number.name}: ending the steps that run\nstopped after" in out
    assert not [process for process in family if runner.alive(process.pid)]


def test_failing_notebook_is_kept_and_the_way_on_is_named(suite):
    suite.edit("03_rl_training.cppo", steps=3)
    done = suite.run("reproduce", BREAK="bug")
    assert done.returncode == 1
    steps = [line for line in done.stdout.splitlines() if line.startswith("[step")]
    assert all(re.match(r"\[step \d of \d, [\d:]+\] 0\d_", line) for line in steps)
    assert "the trainer fell over\n\n    badly\n" in done.stdout
    assert f"{CPPO}: failed: cell 3 stopped with RuntimeError: the trainer fell over" in done.stdout
    assert f"nb/{CPPO}.failed.ipynb" in done.stdout
    assert "go on with make reproduce PROFILE=mini" in done.stderr
    assert (suite.runs / "nb" / f"{CPPO}.failed.ipynb").is_file()
    assert CPPO in out_of_date(suite)
    assert not (suite.runs / "03_rl_training" / "cppo.s0" / "summary.json").exists()

    killed = suite.run("reproduce", BREAK="memory")
    assert killed.returncode == 1
    assert "the kernel was killed, most often because memory ran out" in killed.stdout

    silent = suite.run("reproduce", BREAK="runner")
    assert silent.returncode == 1
    assert "no step said why; see runs/mini/logs/snakemake.log" in silent.stderr


def test_kernels_take_no_tcp_ports_and_one_that_does_not_start_is_named(suite):
    ask = "from ipykernel.connect import get_connection_info\nprint('[cppo] 0:00', get_connection_info())"
    suite.write_notebook("03_rl_training", ask)
    command = ["run-notebook", "notebooks/03_rl_training.ipynb", "port.ipynb"]
    command += ["-f", "params/mini/03_rl_training.cppo.yaml"]
    deep = suite.root / ("x" * 90)  # a socket's path has at most 107 bytes
    deep.mkdir()
    done = suite.call_any("env", f"TMPDIR={deep}", sys.executable, "-m", "cppo_lib.runs.series", *command)
    assert '"transport": "ipc"' in (suite.root / "port.log").read_text(), done.stdout
    (suite.root / "ipykernel_launcher.py").write_text("raise SystemExit('no kernel today')")
    (suite.root / "port.ipynb").unlink()
    broken = suite.call(*command)
    (suite.root / "ipykernel_launcher.py").write_text("import time\ntime.sleep(60)")
    hurried = "import sys\nfrom cppo_lib.runs.series import cli, runner\nrunner.START_S = 1\ncli.main(sys.argv[1:])"
    slow = suite.call_any(sys.executable, "-c", hurried, *command)
    (suite.root / "ipykernel_launcher.py").unlink()
    assert runner.START_S >= 600
    assert "port: failed: the kernel did not start: Kernel didn't respond in 1 seconds" in slow.stdout
    suite.write_notebook("03_rl_training", RL)
    assert broken.returncode == 1
    assert "port: failed: the kernel did not start: Kernel died before replying to kernel_info" in broken.stdout
    assert not list(suite.root.glob("port*.ipynb"))


def test_users_mistake_is_one_line_without_a_traceback(suite):
    out = suite.root / "out.ipynb"
    suite.write_notebook("03_rl_training", "store.policy_source('mini', 'arm:other')")
    options = ["notebooks/03_rl_training.ipynb", str(out)]
    options += ["-f", "params/mini/03_rl_training.cppo.yaml"]
    done = suite.call("run-notebook", *options)
    assert done.returncode == 1
    failure = done.stdout.splitlines()[-1]
    assert failure == (
        "[cppo] out: failed: runs/mini/03_rl_training/other.s0/summary.json is missing: run "
        "notebooks/03_rl_training.ipynb first (or make reproduce PROFILE=mini)"
    )
    bad = suite.call("run-notebook", *options, "-p", "step=5")
    assert bad.returncode == 1
    assert bad.stdout == (
        "[cppo] out: failed: params/mini/03_rl_training.cppo.yaml: unknown key 'step'; did you mean 'steps'?\n"
    )
    assert not out.exists()
    suite.write_notebook("03_rl_training", RL)


def test_plain_papermill_checks_injected_values_too(suite):
    command = [sys.executable, "-m", "papermill", "notebooks/03_rl_training.ipynb", "out.ipynb"]
    command += ["-f", "params/mini/03_rl_training.cppo.yaml", "-p", "stepz", "5"]
    done = suite.call_any(*command)
    assert done.returncode != 0
    assert "notebook 03_rl_training: unknown key 'stepz'; did you mean 'steps'?" in done.stderr


def test_bad_input_is_refused_before_anything_runs(suite):
    path = suite.root / "params" / "mini" / "06_figures.yaml"
    good = path.read_text()
    path.write_text(good.replace("resamples", "resample"))
    done = suite.run("reproduce")
    path.write_text(good)
    assert done.returncode == 1
    assert done.stderr == ("error: params/mini/06_figures.yaml: unknown key 'resample'; did you mean 'resamples'?\n")
    blocked = suite.root / "blocked"
    blocked.write_text("a file where a folder should be")
    done = suite.run("reproduce", CPPO_RUNS=str(blocked))
    assert done.returncode == 1
    assert "make the folder writable or set CPPO_RUNS" in done.stderr
    assert done.stderr.count("\n") == 1
    assert blocked.read_text() == "a file where a folder should be"


def test_executed_notebooks_hold_the_parameters_that_were_checked(suite):
    meta = nbformat.read(suite.runs / "nb" / "05_paper_tables.ipynb", as_version=4).metadata
    params = meta["papermill"]["parameters"]
    file = store.read_json(suite.runs / "05_paper_tables" / "summary.json")
    assert json.dumps(params, sort_keys=True) == json.dumps(file["provenance"]["params"], sort_keys=True)


# --- profiles that are like another -------------------------------------------------------------


def test_a_backbone_is_a_profile_of_one_file():
    own, like = Plan("paper"), Plan("paper_4b", seeds=2)
    assert {run.name for run in own.runs.values()} <= {run.name for run in like.runs.values()}
    arm, gate = like.runs["03_rl_training.cppo.s1"], like.runs["02b_gate"]
    assert arm.params.profile == "paper_4b" and arm.given == {"seed": 1, "profile": "paper_4b"}
    assert like.runs["02_planner_sft"].given["base_model"] == "Qwen/Qwen3.5-4B-Base"
    assert gate.params.base_model == "Qwen/Qwen3.5-0.8B-Base", "a gate need not be as large as what it judges"
    assert like.runs["05_paper_tables"].given["figures_dir"] == ""
    assert Plan("paper_4b", model="mine").runs["02_planner_sft"].given["base_model"] == "mine"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("like: papr\nmodel: m\n", "key 'like' is 'papr'; choose from .*paper"),
        ("like: paper\n", "key 'model'; a profile.yaml has the keys like and model"),
        ("like: paper\nmodel: m\nseed: 1\n", "key 'seed'"),
    ],
)
def test_a_wrong_profile_file_is_named(text, message, tmp_path):
    store.write_text(tmp_path / "paper" / "01_data_prep.yaml", "")
    path = store.write_text(tmp_path / "mine" / "profile.yaml", text)
    with pytest.raises(ParameterError, match=message):
        profiles.read(path)
