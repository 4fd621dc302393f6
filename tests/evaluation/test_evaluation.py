"""Evaluation: the records' meaning and schema, resume, and errors that name the fix.

A random policy writes the programs of whole runs; scripted members with real verdicts show what
each column means.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from cppo_lib.artefacts import paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.data import problem as problems
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import MissingArtefactError, ModelError, ParameterError
from cppo_lib.evaluation import estimators
from cppo_lib.evaluation.records import COLUMNS, Run, attempt_records, summary
from cppo_lib.model.engine import Completion, Place
from cppo_lib.model.policy import save_policy
from cppo_lib.model.tiny import build_model, build_tokenizer
from cppo_lib.report.results import load_results
from cppo_lib.reward import plan_following
from cppo_lib.reward.gate_rules import gated
from cppo_lib.rollout.plans import render_tuple
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.rollout.task import Unreadable
from cppo_lib.rollout.two_stage import rollout
from cppo_lib.runs import config
from cppo_lib.runs.parameters import Evaluation
from cppo_lib.runs.stages import evaluation
from cppo_lib.runs.stages.evaluation import evaluate
from cppo_lib.verifier import Verifier

K, T = 2, 3
SIZES = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1}
SFT_FILE = paths.root() / "params" / "tiny" / "04_evaluation.sft.yaml"
TIMES = ["cached", "cpu_s", "wall_s", "gen_s"]  # what differs between two runs of one evaluation


def parameters(**changes: object) -> Evaluation:
    values = {
        "profile": "test", "benchmark": "crossroads", "split": "test", "method": "sft", "policy": "sft",
        "prompt_style": "brief", "program_rule": "asked", "procedure": "tuple", "k": K, "tuples": T, "limit": 5,
        "temperature": 1.0, "top_p": 1.0, "max_plan_tokens": 12, "max_program_tokens": 12, "batch_size": 12, "seed": 0,
        "engine": "hf", "tune_on": None, "tune_temperatures": [], "tune_limit": 0, "planner_temperature": None,
        "others": [], "planner_policy": None,
        "solver_prompt": "method", "plan_format": "numbered", "unreadable": "direct", "top_k": 0,
    }  # fmt: skip
    return Evaluation.model_validate(values | changes)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random policy whose vocabulary has whole methods and programs as tokens."""
    family = crossroads.family_of(crossroads.load("test", **SIZES)[0])
    lines = [text for method in family.methods for text in (method.name, method.program)] * 9
    tokenizer = build_tokenizer([*lines, "1. ", "\n2. "], 380)
    folder = tmp_path_factory.mktemp("policy") / "random"
    save_policy(build_model(tokenizer, hidden_size=16, layers=1, heads=2, seed=1), tokenizer, folder)
    return folder


def write_split(runs: Path, rows: list[problems.Problem], split: str = "test") -> None:
    path = runs / "test" / "01_data_prep" / "crossroads" / f"{split}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(problems.to_json(row) + "\n" for row in rows))


@pytest.fixture
def prepared(runs: Path, policy: Path) -> Path:
    """A runs folder with six problems and a finished notebook 02 that left the random policy."""
    rows = crossroads.load("test", **SIZES)[:6]
    write_split(runs, rows)
    folder = runs / "test" / "02_planner_sft"
    folder.mkdir(parents=True)
    (folder / "sft").symlink_to(policy)
    store.write_json(folder / "summary.json", {"provenance": {"params": {"base_model": "scratch"}}})
    return runs


def stop_after(chunks: int, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Interrupt the evaluation once so many chunks are finished; returns the progress lines."""
    lines: list[str] = []

    def progress(message: str) -> None:
        lines.append(message)
        if chunks and f"chunk {chunks} of" in message:
            raise KeyboardInterrupt

    monkeypatch.setattr(log, "info", progress)
    return lines


# --- records ------------------------------------------------------------------------------------


def test_every_problem_and_tuple_gets_exactly_k_verified_programs(prepared):
    path = evaluate(parameters())
    assert path == prepared / "test" / "04_evaluation" / "crossroads.test.sft.s0.parquet"
    frame = pd.read_parquet(path)
    assert list(frame.columns) == list(COLUMNS)
    expected = pd.MultiIndex.from_product([[p.id for p in crossroads.load("test", **SIZES)[:5]], range(T), range(K)])
    assert list(zip(frame["problem_id"], frame["tuple_index"], frame["slot"], strict=True)) == list(expected)
    assert set(frame["verdict"]) <= {"AC", "WA", "RE", "CE", "TLE", "OLE", "MLE"}
    assert frame["coordinated"].all() and (frame["k"] == K).all() and (frame["program_rule"] == "whole").all()
    meta = store.read_json(paths.meta_path(path))
    assert meta["prompts"] == {"thoughts_left_open": False, "template_date": None}
    assert frame["group"].str.fullmatch(r"\w+/\w+").all()
    assert frame.loc[frame["slot"] > 0, "planner_tokens"].eq(0).all()
    assert frame.loc[frame["slot"] == 0, "planner_tokens"].between(1, 12).all()
    assert frame["solver_tokens"].between(1, 12).all()
    assert (frame["gen_s"] > 0).all()
    schema = pq.read_schema(path)
    assert [str(schema.field(name).type) for name in ("valid", "followed")] == ["bool", "bool"]
    assert sorted(p.name for p in path.parent.iterdir()) == [path.name, f"{path.name}.meta.json"]
    meta = store.read_json(path.with_name(f"{path.name}.meta.json"))
    assert meta["params"] == parameters().model_dump(mode="json")
    assert len(meta["inputs"]) == 2


def test_damaged_records_and_chunks_are_made_again_with_a_line(prepared, monkeypatch):
    path = evaluate(parameters(limit=2))
    whole, meta = pd.read_parquet(path), paths.meta_path(path)
    flipped = bytearray(path.read_bytes())
    flipped[len(flipped) // 2] ^= 1
    for file, content in ((path, path.read_bytes()[:-99]), (path, bytes(flipped)), (path, b""), (meta, b"")):
        file.write_bytes(content)
        lines = stop_after(0, monkeypatch)
        assert evaluate(parameters(limit=2)) == path
        assert lines[0].startswith(paths.show(file)) and lines[0].endswith(": evaluating again")
        pd.testing.assert_frame_equal(pd.read_parquet(path).drop(columns=TIMES), whole.drop(columns=TIMES))
        assert not store.damage(path, thorough=True)
    path.unlink()
    stop_after(1, monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        evaluate(parameters(limit=2))
    (chunk,) = path.with_suffix(".parts").glob("*.parquet")
    chunk.write_bytes(chunk.read_bytes()[:-9])
    lines = stop_after(0, monkeypatch)
    evaluate(parameters(limit=2))
    assert lines[0] == f"{paths.show(chunk)} is damaged: this chunk is evaluated again"
    pd.testing.assert_frame_equal(pd.read_parquet(path).drop(columns=TIMES), whole.drop(columns=TIMES))


def test_null_columns_keep_their_types_so_that_methods_fit_together(prepared):
    path = evaluate(parameters(method="direct", procedure="direct", limit=2))
    types = {field.name: str(field.type).removeprefix("large_") for field in pq.read_schema(path)}
    for name in ("plan", "strategy", "program_method"):
        assert types[name] == "string"
    assert types["valid"] == types["followed"] == "bool"
    frame = pd.read_parquet(path)
    assert frame[["plan", "strategy", "valid", "followed"]].isna().all(axis=None)
    assert not frame["coordinated"].any()
    assert frame["planner_tokens"].sum() == 0


def test_the_reporting_notebooks_read_the_records(prepared):
    evaluate(parameters())
    evaluate(parameters(method="direct", procedure="direct", policy="sft"))
    from cppo_lib.report.tables.main import main_table
    from cppo_lib.runs.parameters import PaperTables
    from cppo_lib.runs.stages.data_prep import facts_of

    facts = [{"split": "test", **facts_of(problem)} for problem in crossroads.load("test", **SIZES)]
    store.write_parquet(prepared / "test" / "01_data_prep" / "crossroads" / "problems.parquet", facts)
    report = {"profile": "test", "benchmark": "crossroads", "seed": 0, "split": "test", "seeds": 1}
    results = load_results(
        PaperTables.model_validate(report | {"resamples": 100, "figures_dir": "", "further_cells": []})
    )
    assert results.methods == ["direct", "sft"]
    assert len(main_table(results).numbers) == 5  # two methods and three closed forms


def scripted(procedure: str, plan: str, unreadable: Unreadable = "direct") -> pd.DataFrame:
    """Records of one problem on which the policy plans `plan` and follows it to the letter."""
    problem = crossroads.load("test", **SIZES)[0]
    programs = {m.name: m.program for m in crossroads.family_of(problem).methods}
    style = PromptStyle("brief", build_tokenizer([*programs.values(), plan], 400))

    def generate(prompt_ids: list[list[int]], limit: int, places: list[Place]) -> list[Completion]:
        texts = []
        for prompt in style.tokenizer.batch_decode(prompt_ids):
            named = prompt.split("method: ")[1].split("\n")[0] if "method: " in prompt else ""
            texts.append(plan if "methods: " in prompt else programs.get(named, "print('none')"))
        return [Completion(ids) for ids in style.encode(texts)]

    limits = {"max_plan_tokens": 1, "max_program_tokens": 1}
    members = gated(rollout([problem], procedure, K, style=style, generate=generate, unreadable=unreadable, **limits))
    with Verifier(workers=1) as verifier:
        results = plan_following.verify_members(members, verifier)
        methods = plan_following.MethodProbe(verifier).methods(members)
    run = Run("test", "crossroads", "test", "sft", "policy", 0)
    return attempt_records(run, members, results, methods, procedure=procedure, style=style, tuples=1, gen_s=3.0)


def hidden_and_wrong() -> tuple[str, str]:
    problem = crossroads.load("test", **SIZES)[0]
    hidden = str(problem.meta["hidden_method"])
    return hidden, next(m.name for m in crossroads.family_of(problem).methods if m.name != hidden)


def test_columns_of_a_tuple_say_what_happened_in_each_slot():
    hidden, wrong = hidden_and_wrong()
    plan = render_tuple([wrong, hidden])
    frame = scripted("tuple", plan)
    assert list(frame["strategy"]) == list(frame["program_method"]) == [wrong, hidden]
    assert list(frame["passed"]) == [False, True]
    assert list(frame["verdict"]) == ["WA", "AC"]
    assert list(frame["plan"]) == [plan, plan]
    assert frame["valid"].all() and frame["followed"].all()
    assert frame["planner_tokens"].gt(0).tolist() == [True, False]
    assert list(frame["gen_s"]) == [1.5, 1.5]


def test_a_slot_without_a_method_is_attempted_and_judged_but_followed_nothing():
    hidden, _ = hidden_and_wrong()
    frame = scripted("tuple", f"1. {hidden}")
    assert list(frame["passed"]) == [True, False]
    assert list(frame["valid"]) == [False, False]
    assert list(frame["strategy"].isna()) == [False, True]
    assert frame["followed"].tolist() == [True, pd.NA]


def test_an_attempt_that_was_not_made_costs_no_solver_tokens_and_has_a_verdict_of_its_own():
    hidden, _ = hidden_and_wrong()
    frame = scripted("tuple", f"1. {hidden}", "nothing")
    assert list(frame["verdict"]) == ["NA", "NA"] and not frame["passed"].any()
    assert list(frame["program"]) == ["", ""] and list(frame["solver_tokens"]) == [0, 0]
    assert frame["planner_tokens"].gt(0).tolist() == [True, False] and list(frame["planner_calls"]) == [1, 0]
    assert frame["strategy"].isna().all() and frame["followed"].isna().all() and frame["program_method"].isna().all()
    assert list(frame["valid"]) == [False, False] and list(frame["cpu_s"]) == list(frame["wall_s"]) == [0, 0]
    found = summary(frame)
    assert (found["pass@2"], found["solver_tokens"], found["valid"]) == (0.0, 0.0, 0.0)


def test_independent_plans_are_each_counted_where_they_were_made():
    hidden, _ = hidden_and_wrong()
    frame = scripted("plan_then_solve", f"1. {hidden}")
    assert (frame["planner_tokens"] > 0).all()
    assert frame["planner_tokens"].nunique() == 1
    assert not frame["coordinated"].any() and frame["valid"].isna().all()
    assert frame["followed"].all()


def test_summary_uses_the_estimand_of_the_records():
    hidden, wrong = hidden_and_wrong()
    tuples = pd.concat(
        [
            scripted("tuple", render_tuple([wrong, hidden])),
            scripted("tuple", render_tuple([wrong, "no such thing"])).assign(tuple_index=1),
        ]
    )
    found = summary(tuples)
    assert found["pass@2"] == 0.5  # one of two tuples has a success
    assert found["pass@1"] == 0.25
    assert (found["valid"], found["followed"]) == (1.0, 0.75)
    assert found["generate_s"] == 3.0
    assert (found["problems"], found["attempts_per_problem"]) == (1, 4)
    iid = summary(tuples.assign(coordinated=False))
    assert iid["pass@2"] == pytest.approx(1 - 3 / 6)  # 1 - C(3,2)/C(4,2)
    assert summary(tuples.assign(followed=pd.NA))["followed"] is None


def test_an_evaluation_with_the_released_text_side_counts_unreadable_tuples_as_failed(prepared):
    ours = pd.read_parquet(evaluate(parameters()))
    released = {"plan_format": "labelled", "unreadable": "nothing", "method": "released", "top_k": 3}
    frame = pd.read_parquet(evaluate(parameters(**released)))
    # A random policy writes no labels, so not one tuple can be read, and it costs its plans alone.
    assert (frame["verdict"] == "NA").all() and frame["solver_tokens"].sum() == 0 and len(frame) == len(ours)
    assert frame["planner_calls"].sum() == ours["planner_calls"].sum()
    assert (ours["solver_tokens"] > 0).all()
    with pytest.raises(ParameterError, match="unreadable: nothing is about tuples: set procedure: tuple"):
        config.load_params(SFT_FILE, procedure="direct", unreadable="nothing")
    with pytest.raises(ParameterError, match="at most 26 methods: lower k or set plan_format: numbered"):
        config.load_params(SFT_FILE, k=27, plan_format="labelled")
    assert config.load_params(SFT_FILE, k=27).k == 27


# --- resume -------------------------------------------------------------------------------------


def test_an_interrupted_evaluation_continues_and_ends_with_the_same_attempts(prepared, monkeypatch):
    with monkeypatch.context() as patch:
        lines = stop_after(2, patch)
        with pytest.raises(KeyboardInterrupt):
            evaluate(parameters())
    folder = prepared / "test" / "04_evaluation"
    parts = sorted((folder / "crossroads.test.sft.s0.parts").glob("*.parquet"))
    assert [part.name for part in parts] == ["00000.parquet", "00002.parquet"]
    assert not (folder / "crossroads.test.sft.s0.parquet").exists()
    before = pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True)

    lines = stop_after(0, monkeypatch)
    frame = pd.read_parquet(evaluate(parameters()))
    assert len(lines) == 2
    assert lines[0] == "crossroads.test.sft.s0: 30 attempts in 3 chunks, 2 of them done before"
    assert lines[1].startswith("crossroads.test.sft.s0: chunk 3 of 3, pass@2 0.")
    pd.testing.assert_frame_equal(frame[: len(before)], before)  # times included: nothing was redone
    monkeypatch.setenv("CPPO_RUNS", str(prepared.parent / "other"))
    (prepared.parent / "other").mkdir()
    for name in ("01_data_prep", "02_planner_sft"):
        (prepared.parent / "other" / "test").mkdir(exist_ok=True)
        (prepared.parent / "other" / "test" / name).symlink_to(prepared / "test" / name)
    whole = pd.read_parquet(evaluate(parameters()))
    drop = [*TIMES, "policy"]  # the policy's folder has another name there
    pd.testing.assert_frame_equal(frame.drop(columns=drop), whole.drop(columns=drop))


def drawn(frame: pd.DataFrame) -> pd.DataFrame:
    """The records without what differs between two runs of one evaluation."""
    return frame.drop(columns=TIMES)


def test_batch_size_and_limit_change_no_attempt_and_a_stopped_evaluation_goes_on_with_another(prepared, monkeypatch):
    """Advice where memory is short is to lower the batch size."""
    whole = pd.read_parquet(evaluate(parameters(batch_size=64)))
    assert len(set(whole["program"])) > 20
    folder = prepared / "test" / "04_evaluation"
    lines = stop_after(0, monkeypatch)
    assert evaluate(parameters(batch_size=1)) and lines[0].endswith("is complete; delete it to evaluate again")
    for size, stop in (13, 1), (7, 2), (1, 3), (16, 0):
        (folder / "crossroads.test.sft.s0.parquet").unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            lines = stop_after(stop, patch)
            if stop:
                with pytest.raises(KeyboardInterrupt):
                    evaluate(parameters(batch_size=size))
            else:
                resumed = pd.read_parquet(evaluate(parameters(batch_size=size)))
        assert not any("discarded" in line for line in lines)
    pd.testing.assert_frame_equal(drawn(resumed), drawn(whole))
    fewer = pd.read_parquet(evaluate(parameters(batch_size=7, limit=2)))
    pd.testing.assert_frame_equal(drawn(fewer), drawn(whole[: len(fewer)]))


def test_chunks_of_other_parameters_are_discarded_with_a_line(prepared, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            evaluate(parameters())
    lines = stop_after(0, monkeypatch)
    frame = pd.read_parquet(evaluate(parameters(temperature=0.5)))
    assert lines[0].startswith("discarded 1 chunks of other parameters")
    assert lines[1].endswith("30 attempts in 3 chunks")
    assert len(frame) == 5 * T * K


def test_finished_records_are_kept_until_something_they_come_from_changes(prepared, monkeypatch):
    path = evaluate(parameters(limit=1))
    written = path.stat().st_mtime_ns
    lines = stop_after(0, monkeypatch)
    assert evaluate(parameters(limit=1)) == path
    assert path.stat().st_mtime_ns == written
    assert lines == [f"{paths.show(path)} is complete; delete it to evaluate again"]
    evaluate(parameters(limit=2))
    assert len(pd.read_parquet(path)) == 2 * T * K


def test_seeds_draw_different_attempts(prepared):
    one, two = (pd.read_parquet(evaluate(parameters(limit=2, seed=seed))) for seed in (0, 1))
    assert list(one["program"]) != list(two["program"])


# --- other benchmarks, errors, command line -----------------------------------------------------


def test_a_benchmark_with_a_loader_needs_no_data_prep_and_has_no_method_probe(prepared, policy):
    path = evaluate(parameters(benchmark="humaneval", policy=str(policy), limit=1, tuples=1, max_program_tokens=4))
    frame = pd.read_parquet(path)
    assert set(frame["problem_id"]) == {"HumanEval/0"}
    assert frame["program_method"].isna().all() and frame["followed"].isna().all()
    assert set(frame["policy"]) == {str(policy)}
    assert not frame["passed"].any()


def test_missing_inputs_name_the_notebook_to_run(runs):
    with pytest.raises(MissingArtefactError, match=r"01_data_prep/crossroads/test\.jsonl .*notebooks/01_data_prep"):
        evaluate(parameters())
    rows = crossroads.load("test", **SIZES)[:2]
    write_split(runs, rows)
    with pytest.raises(MissingArtefactError, match=r"notebooks/02_planner_sft\.ipynb"):
        evaluate(parameters())
    with pytest.raises(MissingArtefactError, match=r"notebooks/03_rl_training\.ipynb"):
        evaluate(parameters(policy="arm:cppo"))
    with pytest.raises(ModelError, match="holds no model weights"):
        evaluate(parameters(policy=str(runs)))
    with pytest.raises(ModelError, match="model folder /no/such does not exist"):
        evaluate(parameters(policy="/no/such"))


def test_a_damaged_policy_is_one_line(prepared, policy, tmp_path):
    broken = shutil.copytree(policy, tmp_path / "broken")
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot load model .*: name a local folder") as caught:
        evaluate(parameters(policy=str(broken)))
    assert "\n" not in str(caught.value)


def test_prompts_that_do_not_fit_stop_the_evaluation_before_anything_is_written(prepared):
    with pytest.raises(ModelError, match="context of 512"):
        evaluate(parameters(max_program_tokens=500))
    assert not list((prepared / "test" / "04_evaluation").rglob("*.parquet"))


def test_command_line_evaluates_a_parameter_file(prepared, tmp_path, capsys):
    file = tmp_path / "04_evaluation.sft.yaml"
    file.write_text(yaml.safe_dump(parameters().model_dump()))
    assert evaluation.main([str(file), "-p", "limit=1", "-p", "tuples=1"]) == 0
    out = capsys.readouterr().out
    assert "problems              1\n" in out and "pass@2                0.0\n" in out
    assert evaluation.main([str(file), "-p", "limt=1"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "did you mean 'limit'" in error and error.count("\n") == 1


# --- temperatures -------------------------------------------------------------------------------


def test_the_temperature_is_tuned_on_another_split_and_named(prepared, monkeypatch):
    """The policy is random, so what wins is checked against the records of each try."""
    write_split(prepared, crossroads.load("dev", **SIZES)[:2], "dev")
    lines = stop_after(0, monkeypatch)
    path = evaluate(parameters(tune_on="crossroads.dev", tune_temperatures=[1.5, 0.01], tune_limit=1))
    tries = {0.01: "sft-t0_01", 1.5: "sft-t1_5"}
    frames = {t: pd.read_parquet(path.parent / f"crossroads.dev.{name}.s0.parquet") for t, name in tries.items()}
    assert {frame["problem_id"].nunique() for frame in frames.values()} == {1}
    scores = {t: estimators.pass_at_k(frame) for t, frame in frames.items()}
    best = max(sorted(scores), key=lambda t: scores[t])
    meta = store.read_json(path.with_name(f"{path.name}.meta.json"))
    assert meta["params"]["temperature"] == best and meta["params"]["split"] == "test"
    assert any(line.startswith(f"pass@{K} on crossroads.dev by temperature: 0.01:") for line in lines)
    # The winner draws what an evaluation that names its temperature draws.
    plain = pd.read_parquet(evaluate(parameters(temperature=best, method="plain")))
    assert plain["program"].tolist() == pd.read_parquet(path)["program"].tolist()


def test_temperature_zero_is_greedy_and_takes_one_program_per_problem(prepared):
    greedy = [
        pd.read_parquet(evaluate(parameters(procedure="direct", temperature=0, k=1, tuples=1, seed=seed)))
        for seed in (0, 1)
    ]
    assert greedy[0]["program"].tolist() == greedy[1]["program"].tolist() and len(greedy[0]) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperature": 0}, "temperature 0 writes the same program every time: set k: 1 and tuples: 1"),
        ({"tune_on": "crossroads.dev"}, "come together"),
        ({"tune_temperatures": [0.5]}, "come together"),
        ({"tune_on": "crossroads.dev", "tune_temperatures": [0, 1]}, "temperature 0"),
        ({"tune_on": "dev", "tune_temperatures": [1]}, "key 'tune_on' is 'dev'; it must be .*such as leetcode.dev"),
        ({"tune_on": "apps.dev", "tune_temperatures": [1]}, "key 'tune_on' holds 'dev', which apps does not have; it"),
        ({"tune_on": "app.dev", "tune_temperatures": [1]}, "key 'tune_on' names the benchmark 'app'; there are"),
        ({"split": "valid"}, "key 'split' holds 'valid', which crossroads does not have; it has train, dev, test"),
    ],
)
def test_temperatures_that_do_not_fit_are_refused(changes, message):
    file = paths.root() / "params" / "smoke" / "04_evaluation.sft.yaml"
    with pytest.raises(ParameterError, match=message):
        config.load_params(file, **changes)
