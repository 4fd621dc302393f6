"""Data preparation: every benchmark from a parameter file, streamed, resumable, and with a report of what was done."""

from __future__ import annotations

import csv
import inspect
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_apps
import test_code_contests
import test_livecodebench
import test_livecodebench_output
import yaml
from suite import wait_for

from cppo_lib.artefacts import paths, store
from cppo_lib.data.benchmarks import (
    apps,
    code_contests,
    crossroads,
    humaneval,
    leetcode,
    livecodebench,
    livecodebench_output,
)
from cppo_lib.data.problem import Problem, from_json
from cppo_lib.data.registry import BENCHMARKS, load_benchmark
from cppo_lib.errors import DamagedError, DatasetError, MissingArtefactError, ParameterError
from cppo_lib.report import data as data_report
from cppo_lib.runs import config
from cppo_lib.runs.parameters import DataPrep
from cppo_lib.runs.series.plan import Plan
from cppo_lib.runs.stages import data_prep

LOADERS = {
    "crossroads": crossroads.load,
    "humaneval": humaneval.load,
    "leetcode": leetcode.load,
    "apps": apps.load,
    "code_contests": code_contests.load,
    "livecodebench": livecodebench.load,
    "livecodebench_output": livecodebench_output.load,
}
HUB = {"source": "somewhere"}
GIVEN: dict[str, dict[str, Any]] = {
    "crossroads": {
        "train_per_context": 2,
        "dev_per_context": 1,
        "test_per_context": 1,
        "hidden_tests": 1,
        "corpus_per_context": 3,
    },
    "humaneval": {},
    "leetcode": {"difficulty": None},
    "apps": {**HUB, "difficulty": None, "keep_several_answers": False},
    "code_contests": {**HUB, "tests": 1, "keep_several_answers": False},
    "livecodebench": {
        **HUB, "release": "v6", "start": None, "end": None, "subset": None, "keep_errata": False,
    },
    "livecodebench_output": HUB,
}  # fmt: skip
DEFAULTS = {
    "profile": "test",
    "splits": [],
    "limit": 0,
    "remove_overlap_with": [],
    "check_references": 0,
    "k": 4,
    "seed": 0,
}
SLOWLY = """
import sys, time
from cppo_lib.data import problem as problems
from cppo_lib.runs import config
from cppo_lib.runs.stages import data_prep
line = problems.to_json
problems.to_json = lambda problem: time.sleep(0.2) or line(problem)
data_prep.prepare(config.load_params(sys.argv[1]))
"""


def read_problems(path: Path) -> list[Problem]:
    return [from_json(line) for line in path.read_text().splitlines()]


def values(benchmark: str, *, source: Path | None = None, options: dict[str, Any] | None = None, **more: Any) -> Any:
    """The keys of a parameter file; `options` replaces some of the usual ones."""
    chosen = GIVEN[benchmark] | ({"source": str(source)} if source else {}) | (options or {})
    return {**DEFAULTS, "benchmark": benchmark, "options": chosen, **more}


def parameters(benchmark: str, **more: Any) -> DataPrep:
    made = config.validate(DataPrep, values(benchmark, **more), where="file.yaml")
    assert isinstance(made, DataPrep)
    return made


def parameter_file(folder: Path, benchmark: str, **more: Any) -> Path:
    path = folder / f"01_data_prep.{benchmark}.yaml"
    path.write_text(yaml.safe_dump(values(benchmark, **more)))
    return path


def write_apps(folder: Path, train: list[dict[str, Any]], test: list[dict[str, Any]]) -> Path:
    for split, rows in (("train", train), ("test", test)):
        test_apps.write_parquet(folder, rows, split)
    return folder


def write_livecodebench(folder: Path, *rows: dict[str, str]) -> Path:
    (folder / "test6.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def sums(first: int, many: int, **fields: Any) -> list[dict[str, Any]]:
    """APPS rows whose statements have no three words in a row in common."""
    texts = (f"Task{n} wants{n} sums{n} of{n} all{n} numbers{n}." for n in range(first, first + many))
    return [test_apps.row(first + n, question=text, **fields) for n, text in enumerate(texts)]


def source_of(benchmark: str, folder: Path) -> Path | None:
    """A folder with a few rows of a benchmark in its public schema; None for one that needs no files."""
    match benchmark:
        case "apps":
            return write_apps(folder, sums(0, 3), sums(10, 2))
        case "code_contests":
            for split in BENCHMARKS[benchmark].splits:
                test_code_contests.write(folder, [test_code_contests.row()], split)
            return folder
        case "livecodebench":
            return write_livecodebench(folder, test_livecodebench.stdio_row(), test_livecodebench.call_row())
        case "livecodebench_output":
            rows = [test_livecodebench_output.row(number) for number in range(3)]
            table = test_livecodebench_output.pa.Table.from_pylist(rows, schema=test_livecodebench_output.SCHEMA)
            test_livecodebench_output.pq.write_table(table, folder / "test.parquet")
            return folder
        case _:
            return None


# --- parameters -------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_options_are_those_of_the_loader(benchmark: str) -> None:
    signature = inspect.signature(LOADERS[benchmark]).parameters
    hints = typing.get_type_hints(LOADERS[benchmark])
    wanted = {name: hints[name] for name in signature if name not in ("split", "report", "limit", "seed")}
    fields = BENCHMARKS[benchmark].options.model_fields
    assert set(fields) == set(wanted)
    for name, field in fields.items():
        kinds = {kind if isinstance(kind, type) else str for kind in typing.get_args(field.annotation)}
        assert kinds or {field.annotation} == {wanted[name]}, name
        assert not kinds or kinds == set(typing.get_args(wanted[name])), name


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_splits_are_those_of_the_loader(benchmark: str, tmp_path: Path) -> None:
    options = GIVEN[benchmark] | ({"source": str(tmp_path)} if "source" in GIVEN[benchmark] else {})
    known = []
    for split in ("train", "dev", "valid", "test"):
        try:
            next(iter(LOADERS[benchmark](split, **options)))
            known.append(split)
        except DatasetError as error:
            if "lacks" in str(error):  # it knows the split, whose file is not in the empty folder
                known.append(split)
    assert tuple(known) == BENCHMARKS[benchmark].splits


@pytest.mark.parametrize(
    ("benchmark", "changes", "message"),
    [
        ("apps", {"options": {"sorce": "x"}}, "options of apps: unknown key 'sorce'; did you mean 'source'?"),
        ("humaneval", {"options": {"source": "x"}}, "options of humaneval: unknown key 'source'; the keys are none"),
        ("livecodebench", {"options": {"release": 6}}, "key 'release' is 6; it must be text"),
        ("livecodebench", {"options": {"keep_errata": "no"}}, "key 'keep_errata' is 'no'; it must be true or false"),
        ("code_contests", {"options": {"tests": -1}}, "'tests' is -1; it must be a whole number, at least 0, or null"),
        ("leetcode", {"options": {"difficulty": "simple"}}, "it must be one of easy, medium, hard, or null"),
        ("crossroads", {"options": {"hidden_tests": 0}}, "'hidden_tests' is 0; it must be a whole number, at least 1"),
        ("apps", {"splits": ["tests"]}, "key 'splits' holds 'tests'; it must be a list, each item one of train, dev, "),
        ("apps", {"splits": ["valid"]}, "key 'splits' holds 'valid', which apps does not have; it has train, test"),
        ("apps", {"remove_overlap_with": "apps"}, "key 'remove_overlap_with' is 'apps'; it must be a list"),
        ("apps", {"remove_overlap_with": ["aps"]}, "key 'remove_overlap_with' holds 'aps'; it must be a list, each "),
        ("humaneval", {"remove_overlap_with": ["leetcode"]}, "and none of humaneval is prepared; write []"),
        ("apps", {"splits": ["test"], "remove_overlap_with": ["leetcode"]}, "out of the train split, and none of apps"),
    ],
)  # fmt: skip
def test_a_faulty_parameter_is_one_line(tmp_path: Path, benchmark: str, changes: dict[str, Any], message: str) -> None:
    path = parameter_file(tmp_path, benchmark, **changes)
    with pytest.raises(ParameterError) as caught:
        config.load_params(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value) and "\n" not in str(caught.value)


def test_every_option_is_required(tmp_path: Path) -> None:
    path = tmp_path / "01_data_prep.yaml"
    path.write_text(yaml.safe_dump(values("apps") | {"options": HUB}))
    with pytest.raises(ParameterError, match="options of apps: key 'difficulty' is missing; it must be one of intro"):
        config.load_params(path)
    path.write_text(yaml.safe_dump(values("apps") | {"options": None}))
    with pytest.raises(ParameterError, match=r"key 'options' is None; it must be a mapping \(\{\} when empty\)"):
        config.load_params(path)


def test_a_date_of_yaml_is_text(tmp_path: Path) -> None:
    path = parameter_file(tmp_path, "livecodebench", options={"start": "DAY"})
    path.write_text(path.read_text().replace("DAY", "2024-08-01"))
    assert config.load_params(path).model_dump()["options"]["start"] == "2024-08-01"


# --- what is written --------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_is_prepared(benchmark: str, runs: Path, tmp_path: Path) -> None:
    cfg = parameters(benchmark, source=source_of(benchmark, tmp_path), limit=3)
    folder = data_prep.prepare(cfg)
    assert folder == runs / "test" / "01_data_prep" / benchmark
    summary = store.read_json(folder / "summary.json")
    assert tuple(summary["splits"]) == BENCHMARKS[benchmark].splits
    for split, facts in summary["splits"].items():
        limit = {} if benchmark == "crossroads" else {"limit": 3}
        expected = load_benchmark(benchmark, split, **cfg.options, **limit)[:3]
        assert list(data_prep.read_split("test", benchmark, split)) == expected
        assert read_problems(folder / f"{split}.jsonl") == expected
        assert facts["problems"] == len(expected) and facts["tests"] == sum(len(row.tests) for row in expected)
    assert {row["split"] for row in summary["sources"]} == (
        set() if benchmark == "crossroads" else {*BENCHMARKS[benchmark].splits}
    )
    extra = {"corpus.jsonl"} if benchmark == "crossroads" else set()
    splits = {f"{split}.jsonl" for split in BENCHMARKS[benchmark].splits}
    other = {"fingerprint.txt", "problems.parquet", "skipped.jsonl", "summary.json"}
    assert {path.name for path in folder.iterdir()} == splits | other | extra


def test_the_summary_names_sources_reasons_and_references(runs: Path, tmp_path: Path) -> None:
    test = [
        *sums(0, 2),
        *sums(2, 1, solutions=json.dumps(["print(0)"]), difficulty="competition", url="https://www.codechef.com/x"),
        *sums(3, 1, solutions=""),
        *sums(4, 2, cases={}),
        test_apps.row(6, question="This is an interactive problem."),
    ]
    source = write_apps(tmp_path, sums(10, 1), test)
    folder = data_prep.prepare(parameters("apps", source=source, splits=["test"], check_references=9))
    summary = store.read_json(folder / "summary.json")
    assert not (folder / "train.jsonl").exists() and list(summary["splits"]) == ["test"]
    assert summary["splits"]["test"] == {
        "problems": 4,
        "tests": 8,
        "groups": {"competition": 1, "interview": 3},
        "platforms": {"codechef": 1, "codeforces": 3},
        "modes": {"stdio": 4},
        "skipped": {"interactive": 1, "no tests": 2},
        "overlap": 0,
        "references": {
            "judged": 3,
            "accepted": 2,
            "failed": [{"id": "test/0002", "verdict": "WA", "reason": "wrong output"}],
        },
    }
    parquet = tmp_path / "all/test/0000.parquet"
    assert summary["sources"][0] == {
        "split": "test",
        "origin": str(tmp_path),
        "file": "all/test/0000.parquet",
        "revision": "",
        "sha256": store.file_sha256(parquet),
        "rows": 7,
    }
    assert [(row["id"], row["reason"]) for row in store.read_jsonl(folder / "skipped.jsonl")] == [
        ("test/0004", "no tests"),
        ("test/0005", "no tests"),
        ("test/0006", "interactive"),
    ]
    assert summary["provenance"]["params"]["options"]["source"] == str(tmp_path)
    assert set(summary["artefacts"]) == {
        str(folder / name) for name in ("test.jsonl", "problems.parquet", "skipped.jsonl")
    }


def test_a_wrong_reference_of_humaneval_stops_the_run(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = humaneval._rows(humaneval._data())[:2]
    rows[1]["canonical_solution"] = "    return None\n"
    monkeypatch.setattr(humaneval, "_rows", lambda data: rows)
    with pytest.raises(DatasetError, match="humaneval problem 'HumanEval/1': the reference program gets WA"):
        data_prep.prepare(parameters("humaneval"))
    folder = runs / "test" / "01_data_prep" / "humaneval"
    assert [path.name for path in folder.iterdir()] == ["fingerprint.txt"]


def test_a_split_that_was_cut_is_not_read_and_the_cure_works(runs: Path, tmp_path: Path) -> None:
    cfg = parameters("apps", source=write_apps(tmp_path, sums(10, 1), sums(0, 8)), splits=["test"])
    split = data_prep.prepare(cfg) / "test.jsonl"
    whole = split.read_bytes()
    split.write_bytes(b"".join(whole.splitlines(keepends=True)[:6]))
    cure = f"delete {split.parent} and start again"
    with pytest.raises(DamagedError, match=cure):
        data_prep.read_split("test", "apps", "test")
    shutil.rmtree(split.parent)
    data_prep.prepare(cfg)
    assert split.read_bytes() == whole and len(data_prep.read_split("test", "apps", "test")) == 8
    (split.parent / "summary.json").write_text("")
    data_prep.prepare(cfg)  # finds by itself that it has not finished
    assert split.read_bytes() == whole and not store.damage(split.parent / "summary.json")


def test_a_split_without_problems_is_an_error(runs: Path, tmp_path: Path) -> None:
    source = write_apps(tmp_path, sums(0, 1), sums(1, 2, cases={}))
    with pytest.raises(DatasetError, match=r"apps test: no problem is left \(2 no tests\)"):
        data_prep.prepare(parameters("apps", source=source))


def test_odd_characters_come_back(runs: Path, tmp_path: Path) -> None:
    """A line separator within a statement, and half a surrogate pair in a test, which UTF-8 cannot hold."""
    row = test_apps.row(question="Echo\u2028the\x85line\x0c.", cases={"inputs": ["\ud83d\n"], "outputs": ["é\u2029\n"]})
    test_apps.write_jsonl(tmp_path, [row])
    folder = data_prep.prepare(parameters("apps", source=tmp_path, splits=["test"]))
    (problem,) = data_prep.read_split("test", "apps", "test")
    assert problem.statement == row["question"] and problem.tests[0].input == "\ud83d\n"
    assert read_problems(folder / "test.jsonl") == [problem]


def test_problems_are_never_all_in_memory(runs: Path, tmp_path: Path) -> None:
    big = test_livecodebench.cases_json(("x" * 1_000_000, "y"))
    rows = (test_livecodebench.stdio_row(f"abc{n}_a", public_test_cases=big) for n in range(25))
    cfg = parameters("livecodebench", source=write_livecodebench(tmp_path, *rows))
    tracemalloc.start()
    folder = data_prep.prepare(cfg)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (folder / "test.jsonl").stat().st_size > 25_000_000 and peak < 12_000_000


def test_progress_says_how_far_a_long_load_is(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_prep, "PROGRESS_S", 0.0)
    source = write_apps(tmp_path, sums(0, 1), [*sums(1, 1, cases={}), *sums(2, 2)])
    data_prep.prepare(parameters("apps", source=source, splits=["test"], check_references=1))
    lines = [line.split(" ", 2)[2] for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "apps test: loading",
        "apps test: 1 problems, 1 left out",
        "apps test: 2 problems, 1 left out",
        "apps test: 2 problems; left out: 1 no tests; 1 of 1 references accepted",
    ]


# --- again, and after a kill ------------------------------------------------------------------


def test_a_killed_preparation_goes_on(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = write_apps(tmp_path, sums(0, 30), sums(100, 2))
    path = parameter_file(tmp_path, "apps", source=source)
    folder = runs / "test" / "01_data_prep" / "apps"
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, path], stdout=subprocess.PIPE)
    wait_for(lambda: process.poll() is not None or (folder / "train.jsonl.partial").exists())
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "train.jsonl").exists() and not (folder / "summary.json").exists()
    assert len(read_problems(folder / "test.jsonl")) == 2
    written = (folder / "test.jsonl").stat().st_mtime_ns

    cfg = config.load_params(path)
    assert isinstance(cfg, DataPrep)
    data_prep.prepare(cfg)
    assert "apps test: 2 problems are there already" in capsys.readouterr().out
    assert (folder / "test.jsonl").stat().st_mtime_ns == written
    assert len(data_prep.read_split("test", "apps", "train")) == 30
    assert list(store.read_json(folder / "summary.json")["splits"]) == ["train", "test"]
    assert not [path for path in folder.iterdir() if path.name == "parts" or path.suffix == ".partial"]


def test_what_is_complete_stays_until_parameters_or_files_change(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_apps(tmp_path, sums(0, 2), sums(100, 2))
    cfg = parameters("apps", source=source)
    summary = data_prep.prepare(cfg) / "summary.json"
    written = summary.stat().st_mtime_ns
    data_prep.prepare(cfg)
    assert summary.stat().st_mtime_ns == written and "is complete; delete it" in capsys.readouterr().out
    write_apps(tmp_path, sums(0, 5), sums(100, 2))
    data_prep.prepare(cfg)
    assert store.read_json(summary)["splits"]["train"]["problems"] == 5
    data_prep.prepare(parameters("apps", source=source, splits=["test"]))
    assert not (summary.parent / "train.jsonl").exists()


def test_a_split_is_read_again_when_its_file_has_changed_since_the_kill(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = parameters("apps", source=write_apps(tmp_path, sums(0, 2), sums(100, 2)))
    with monkeypatch.context() as patch:
        patch.setattr(data_prep, "_finish", lambda *rest: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            data_prep.prepare(cfg)
    write_apps(tmp_path, sums(0, 3), sums(100, 2))
    data_prep.prepare(cfg)
    assert len(data_prep.read_split("test", "apps", "train")) == 3


# --- evaluation problems in the training set --------------------------------------------------


LONG = "Given a list of numbers, count the pairs whose sum is divisible by the length of the list, and print it."


def overlapping(tmp_path: Path) -> tuple[Path, Path]:
    """An APPS folder and a LiveCodeBench folder: three training problems are evaluation problems, two are not."""
    train = [
        test_apps.row(0, question=f"**{LONG.upper()}**"),
        *sums(1, 1),
        test_apps.row(2, question=test_livecodebench.stdio_row()["question_content"]),
        test_apps.row(3, question=LONG.replace("and print it", "then write it down")),
        *sums(4, 1),
    ]
    mine, other = tmp_path / "apps", tmp_path / "livecodebench"
    other.mkdir()
    write_livecodebench(other, test_livecodebench.stdio_row())
    return write_apps(mine, train, [test_apps.row(0, question=LONG)]), other


def test_evaluation_problems_are_taken_out_of_the_training_split(runs: Path, tmp_path: Path) -> None:
    mine, other = overlapping(tmp_path)
    cfg = parameters("apps", source=mine, remove_overlap_with=["apps", "livecodebench"])
    with pytest.raises(
        MissingArtefactError, match=r"livecodebench/summary.json is missing: prepare livecodebench with params/"
    ):
        data_prep.prepare(cfg)
    data_prep.prepare(parameters("livecodebench", source=other))
    folder = data_prep.prepare(cfg)

    assert [row.id for row in data_prep.read_split("test", "apps", "train")] == ["train/0001", "train/0004"]
    assert [row.id for row in data_prep.read_split("test", "apps", "test")] == ["test/0000"]
    with (folder / "overlap.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [(row["id"], row["matched_source"], row["matched_id"], row["exact"]) for row in rows]
    assert found == [
        ("train/0000", "apps", "test/0000", "True"),
        ("train/0002", "livecodebench", "abc400_a", "True"),
        ("train/0003", "apps", "test/0000", "False"),
    ]
    assert 0.5 <= float(rows[2]["similarity"]) < 1
    summary = store.read_json(folder / "summary.json")
    assert summary["overlap"] == {
        "benchmarks": ["apps", "livecodebench"],
        "compared": 2,
        "threshold": 0.5,
        "ngram": 3,
        "exact": 2,
        "near": 1,
    }
    assert summary["splits"]["train"]["overlap"] == 3
    [inputs] = summary["provenance"]["inputs"]
    assert inputs.endswith("01_data_prep/livecodebench/summary.json")

    write_livecodebench(other, test_livecodebench.stdio_row(question_content="Another task."))
    data_prep.prepare(parameters("livecodebench", source=other))
    data_prep.prepare(cfg)  # the evaluation problems have changed, so this is not up to date
    assert len(data_prep.read_split("test", "apps", "train")) == 3


def test_a_benchmark_without_evaluation_problems_is_named(runs: Path, tmp_path: Path) -> None:
    mine, _ = overlapping(tmp_path)
    data_prep.prepare(parameters("leetcode", splits=["train"], limit=1))
    with pytest.raises(
        ParameterError, match="names leetcode, of which only the train split is prepared in the profile"
    ):
        data_prep.prepare(parameters("apps", source=mine, remove_overlap_with=["leetcode"]))


# --- the plan ---------------------------------------------------------------------------------


@pytest.fixture
def profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Plan]:
    """The plan of a profile with a 01_data_prep file for each keyword: benchmark = remove_overlap_with."""

    def plan(**names: list[str]) -> Plan:
        folder = tmp_path / "params" / "mine"
        folder.mkdir(parents=True)
        for benchmark, removed in names.items():
            parameter_file(folder, benchmark, profile="mine", remove_overlap_with=removed)
        monkeypatch.setattr(paths, "root", lambda: tmp_path)
        return Plan("mine")

    return plan


def test_a_training_set_waits_for_the_evaluation_problems(profile: Callable[..., Plan]) -> None:
    plan = profile(apps=["apps", "livecodebench"], livecodebench=[], leetcode=["leetcode"])
    waits = {run.name: [before.name for before in plan.before(run)] for run in plan.runs.values()}
    assert waits == {
        "01_data_prep.apps": ["01_data_prep.livecodebench"],
        "01_data_prep.leetcode": [],
        "01_data_prep.livecodebench": [],
    }
    assert plan.targets[:2] == ["01_data_prep/apps/summary.json", "nb/01_data_prep.apps.ipynb"]


def test_a_benchmark_that_the_profile_does_not_prepare_is_named(profile: Callable[..., Plan]) -> None:
    message = (
        "apps.yaml: key 'remove_overlap_with' holds 'leetcode', but params/mine has no 01_data_prep file with bench"
    )
    with pytest.raises(ParameterError, match=message):
        profile(apps=["leetcode"])


def test_benchmarks_that_wait_for_each_other_are_named(profile: Callable[..., Plan]) -> None:
    with pytest.raises(
        ParameterError, match=r"makes (apps and leetcode|leetcode and apps) wait for each other; train on"
    ):
        profile(apps=["leetcode"], leetcode=["apps"])


def test_the_paper_profile_trains_on_code_contests_alone() -> None:
    plan = Plan("paper")
    trained_on = plan.runs["01_data_prep.code_contests"]
    assert {run.params.benchmark for run in plan.before(trained_on)} == {
        "apps", "livecodebench", "livecodebench_output",
    }  # fmt: skip
    assert [run.name for run in Plan("laptop").before(Plan("laptop").runs["01_data_prep.leetcode"])] == [
        "01_data_prep.humaneval"
    ]


def test_make_fetch_data_fetches_for_a_profile() -> None:
    command = ["make", "--no-print-directory", "-n", "fetch-data", "PROFILE=paper"]
    done = subprocess.run(command, cwd=paths.root(), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1].endswith("python -m cppo_lib.runs.series.fetch --profile paper")


# --- the report -------------------------------------------------------------------------------


def test_the_report_shows_what_was_kept_and_left_out(runs: Path, tmp_path: Path) -> None:
    mine, other = overlapping(tmp_path)
    hard = {"difficulty": "introductory", "url": "https://atcoder.jp/contests/abc1/tasks/a"}
    test = [test_apps.row(0, question=LONG), *sums(7, 2, **hard), *sums(9, 3, cases={})]
    test_apps.write_parquet(mine, test, "test")
    data_prep.prepare(parameters("livecodebench", source=other))
    cfg = parameters("apps", source=mine, remove_overlap_with=["apps", "livecodebench"], check_references=1)
    prepared = data_report.load(data_prep.prepare(cfg))
    assert data_report.overview(prepared).to_dict("index") == {
        "train": {"problems": 2, "tests": 4, "left out": 3, "references accepted": "1 of 1"},
        "test": {"problems": 3, "tests": 6, "left out": 3, "references accepted": "1 of 1"},
    }
    counts = data_report.counts(prepared, "group")
    assert counts.to_dict("index") == {
        "introductory": {"train": 0, "test": 2},
        "interview": {"train": 2, "test": 1},
        "total": {"train": 2, "test": 3},
    }
    assert list(counts.index) == ["introductory", "interview", "total"]
    assert list(data_report.counts(prepared, "platform").index) == ["atcoder", "codeforces", "total"]
    assert data_report.left_out(prepared).to_dict("index") == {
        "no tests": {"train": 0, "test": 3},
        "in evaluation data": {"train": 3, "test": 0},
        "kept": {"train": 2, "test": 3},
    }
    sizes = data_report.sizes(prepared)
    assert sizes.loc["test", ("tests per problem", "median")] == 2
    assert sizes.loc["test", ("characters per statement", "most")] == len(LONG)
    files = data_report.sources(prepared)
    assert list(files["rows"]) == [5, 6, 0] and set(files["sha256"].str.len()) == {64}
    axes = data_report.plot_left_out(prepared).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["no tests", "in evaluation data"]
    assert [bar.get_width() for bar in axes.patches] == [0, 3, 3, 0]
    assert [line.get_text() for line in data_report.plot_sizes(prepared).axes[0].get_legend().get_texts()] == [
        "train",
        "test",
    ]


def test_a_benchmark_that_says_nothing_of_difficulty_has_no_such_table(runs: Path) -> None:
    prepared = data_report.load(data_prep.prepare(parameters("humaneval", limit=2)))
    assert data_report.counts(prepared, "group").empty and data_report.plot_counts(prepared) is None
    assert data_report.left_out(prepared).empty and data_report.plot_left_out(prepared) is None


def test_dates_and_odd_groups_are_ordered(runs: Path, tmp_path: Path) -> None:
    rows = [
        test_livecodebench.stdio_row(f"abc{n}_a", day=f"2025-04-0{9 - n}", difficulty=level)
        for n, level in enumerate(("hard", "1200-1599", "", "easy", "800-1199"))
    ]
    cfg = parameters("livecodebench", source=write_livecodebench(tmp_path, *rows))
    prepared = data_report.load(data_prep.prepare(cfg))
    table = data_report.overview(prepared)
    assert (table.loc["test", "first date"], table.loc["test", "last date"]) == ("2025-04-05", "2025-04-09")
    assert list(data_report.counts(prepared, "group").index) == [
        "800-1199", "1200-1599", "easy", "hard", "not known", "total",
    ]  # fmt: skip


def test_the_example_is_what_a_model_reads(tmp_path: Path) -> None:
    problem = load_benchmark("code_contests", "test", source=str(source_of("code_contests", tmp_path)))[0]
    shown = data_report.example_prompts(problem, 3)
    assert all(problem.statement in prompt for prompt in shown.values())
    assert "exactly 3 lines" in shown["planner"] and "Use this method: <one of" in shown["solver"]
    assert shown["direct"].startswith("Solve this programming problem.") and "```python" in shown["direct"]
    assert data_report.example_tests(problem, most=1).splitlines() == [
        "test 1 (public): 2 1 2 -> 3",
        "... and 4 more",
        "stdio mode, at most 4.5 s and 1024 MiB per test",
    ]


# --- the notebook -----------------------------------------------------------------------------


def run_notebook(folder: Path, file: Path, **env: str) -> subprocess.CompletedProcess[str]:
    notebook = paths.root() / "notebooks" / "01_data_prep.ipynb"
    command = [sys.executable, "-m", "cppo_lib.runs.series", "run-notebook", notebook, folder / "out.ipynb", "-f", file]
    return subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=300)


def test_the_notebook_runs_on_another_benchmark(runs: Path, tmp_path: Path) -> None:
    file = parameter_file(tmp_path, "livecodebench", source=source_of("livecodebench", tmp_path))
    done = run_notebook(tmp_path, file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[cppo] out: livecodebench test: 2 problems; left out: none" in done.stdout
    cells = {cell["id"]: cell for cell in store.read_json(tmp_path / "out.ipynb")["cells"]}
    assert not any(cells[name]["outputs"] for name in ("methods-toy", "verdicts-toy", "ceilings-slow", "k-figure"))
    assert store.file_sha256(tmp_path / "test6.jsonl") in json.dumps(cells["sources"]["outputs"])
    assert "Print the sum of two integers." in json.dumps(cells["see"]["outputs"])


def test_an_unreachable_hub_is_one_line_through_papermill(runs: Path, tmp_path: Path) -> None:
    file = parameter_file(tmp_path, "livecodebench_output", options={"source": "livecodebench/test_generation"})
    done = run_notebook(tmp_path, file, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path / "hf"))
    assert done.returncode == 1 and "Traceback" not in done.stdout
    last = done.stdout.splitlines()[-1]
    assert last.startswith("[cppo] out: failed: the hub cannot be reached for livecodebench/test_generation@6f3ac40")
    assert last.endswith("put test.parquet into a folder, under these names, and give that folder as source")
