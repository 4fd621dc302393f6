"""Supervised rows show valid tuples, and the stages leave models that load back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cppo_lib.artefacts import paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.data.benchmarks.crossroads_methods import FAMILIES
from cppo_lib.errors import DatasetError, MissingArtefactError, ParameterError
from cppo_lib.model import policy as model
from cppo_lib.reward.gate_rules import gate
from cppo_lib.rollout.plans import is_canonical, parse_labelled, parse_tuple
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import config
from cppo_lib.runs.stages import data_prep
from cppo_lib.runs.stages import planner_sft as sft
from cppo_lib.trainer.gold import gold_rows
from cppo_lib.trainer.sft_data import planned_tuples

PARAMS = paths.root() / "params" / "smoke"


def test_plans_are_valid_tuples_in_catalogue_order():
    corpus = crossroads.world(1, 1, 1, 20, 1, 0)["corpus"]
    rows = sft.crossroads_rows(corpus, PromptStyle("brief", None), 4)
    plans = [parse_tuple(row.completion, 4) for row in rows if row.kind == "plan"]
    orders = [[method.name for method in family.methods] for family in FAMILIES]
    assert len(plans) == len(corpus) and all(gate(plan).valid for plan in plans)
    for plan in plans:
        assert any(list(plan.methods) == [name for name in order if name in plan.methods] for order in orders)


def test_further_sizes_add_plans_and_leave_the_other_rows_alone():
    corpus = crossroads.world(1, 1, 1, 20, 1, 0)["corpus"]
    style = PromptStyle("brief", None)
    rows = sft.crossroads_rows(corpus, style, 4)
    more = sft.crossroads_rows(corpus, style, 4, (2, 8))
    added = [row for row in more if row not in rows]
    assert [row for row in more if row in rows] == rows
    for size in (2, 8):
        plans = [parse_tuple(row.completion, size) for row in added if f"\n{size} methods: " in row.prompt]
        assert len(plans) == len(corpus) and all(gate(plan).valid for plan in plans)


def test_solver_rows_show_the_program_of_the_named_method():
    corpus = crossroads.world(1, 1, 1, 8, 1, 0)["corpus"]
    rows = [row for row in sft.crossroads_rows(corpus, PromptStyle("brief", None), 4) if row.kind == "solver"]
    for entry, row in zip(corpus, rows, strict=True):
        family = next(family for family in FAMILIES if family.name == entry["family"])
        method = crossroads.method_named(family, entry["uniform"])
        assert f"method: {entry['uniform']}" in row.prompt and row.completion == method.program


def test_corpus_plans_lean_to_popular_methods():
    """In a large corpus the most popular method is in more tuples than the least popular one, and both are in some."""
    corpus = crossroads.world(1, 1, 1, 150, 1, 0)["corpus"]
    for context in crossroads.contexts()[::5]:
        plans = [row["plan"][:4] for row in corpus if row["group"] == context.name]
        names = [method.name for method in context.family.methods]
        often = [sum(name in plan for plan in plans) / len(plans) for name in names]
        assert often[context.q.index(max(context.q))] > often[context.q.index(min(context.q))] > 0.1


@pytest.fixture
def runs(tmp_path, monkeypatch):
    monkeypatch.setenv("CPPO_RUNS", str(tmp_path))
    return tmp_path


def test_missing_corpus_names_the_notebook(runs):
    with pytest.raises(MissingArtefactError, match="01_data_prep"):
        sft.train_planner(config.load_params(PARAMS / "02_planner_sft.yaml"))


def test_benchmark_without_a_corpus_is_refused(runs):
    with pytest.raises(ParameterError, match="has no training corpus"):
        sft.train_planner(config.load_params(PARAMS / "02_planner_sft.yaml", benchmark="humaneval"))


def test_more_methods_than_the_corpus_lists_are_refused(runs):
    small = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
    data_prep.prepare(config.load_params(PARAMS / "01_data_prep.yaml", options={**small, "hidden_tests": 2}))
    with pytest.raises(ParameterError, match="k=9, but the corpus lists 8 methods"):
        sft.train_planner(config.load_params(PARAMS / "02_planner_sft.yaml", also_k=[2, 9]))


def test_the_stage_teaches_and_gates_plans_of_the_format_that_it_is_given(runs):
    small = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
    data_prep.prepare(config.load_params(PARAMS / "01_data_prep.yaml", options={**small, "hidden_tests": 2}))
    found = {}
    for plan_format in ("numbered", "labelled"):
        cfg = config.load_params(PARAMS / "02_planner_sft.yaml", plan_format=plan_format)
        rows, _ = sft.training_rows(cfg)
        found[plan_format] = [row for row in rows if row.kind == "plan"], planned_tuples(rows, plan_format)
    (numbered, tuples), (labelled, same) = found["numbered"], found["labelled"]
    assert tuples == same and len(tuples) == len(labelled) and all(len(one.methods) == cfg.k for one in tuples)
    for row, other, one in zip(labelled, numbered, tuples, strict=True):
        assert is_canonical(row.completion, cfg.k) and row.prompt == other.prompt
        assert parse_labelled(row.completion, cfg.k).methods == parse_tuple(other.completion, cfg.k).methods
        assert one.methods == parse_tuple(other.completion, cfg.k).methods
    with pytest.raises(ParameterError, match="at most 26 methods: lower k or set plan_format: numbered"):
        config.load_params(PARAMS / "02_planner_sft.yaml", plan_format="labelled", also_k=[27])


def test_both_stages_load_back_and_are_not_repeated(runs):
    small = {"train_per_context": 1, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
    data_prep.prepare(config.load_params(PARAMS / "01_data_prep.yaml", options={**small, "hidden_tests": 2}))
    cfg = config.load_params(PARAMS / "02_planner_sft.yaml", pretrain_steps=2, sft_steps=2, hidden_size=16)
    folder = sft.train_planner(cfg)
    stages = [row["stage"] for row in store.read_jsonl(folder / "metrics.jsonl")]
    assert stages == ["base", "base", "sft", "sft"]
    for stage in ("base", "sft"):
        policy, tokenizer = model.load_policy(folder / stage)
        assert policy.config.vocab_size == len(tokenizer)
    written = (folder / "summary.json").stat().st_mtime_ns
    sft.train_planner(cfg)
    assert (folder / "summary.json").stat().st_mtime_ns == written


# --- gold tuples --------------------------------------------------------------------------------

GOLD = {"problem_id": "p1", "problem_text": "Find the middle.", "plan_text": "A: mean\nB: mode\nC: midrange"}


def gold_file(folder: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    return store.write_text(folder / "gold.jsonl", "\n".join(lines) + "\n")


def test_gold_tuples_are_learnt_in_the_format_that_is_asked_for(tmp_path):
    numbered = GOLD | {"plan_text": "1. mean\n2. mode\n3. midrange", "judge": "kept"}
    path = gold_file(tmp_path, GOLD, numbered)
    for plan_format, plan in (("numbered", numbered["plan_text"]), ("labelled", GOLD["plan_text"])):
        style = PromptStyle("brief", None, plan_format=plan_format)
        rows = gold_rows(path, style, 3, {"p1"})
        assert [row.completion for row in rows] == [plan, plan]
        assert [row.kind for row in rows] == ["plan", "plan"] and rows[0].prompt.startswith("Find the middle.")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (GOLD | {"plan_text": "A: mean\nB: mode"}, "line 2: the plan lists 2 methods, and k is 3"),
        (GOLD | {"problem_id": "p9"}, "line 2: problem 'p9' is none of the profile's training problems"),
        ({"problem_id": "p1", "plan_text": "A: mean"}, "line 2: key 'problem_text' must be text that is not empty"),
        ("{", "line 2 is not JSON"),
        ("[]", "line 2: key 'problem_id' must be text"),
    ],
)
def test_gold_tuples_that_cannot_be_learnt_are_named(row, message, tmp_path):
    with pytest.raises(DatasetError, match=message):
        gold_rows(gold_file(tmp_path, GOLD, row), PromptStyle("brief", None), 3, {"p1"})
    with pytest.raises(DatasetError, match="holds no tuples"):
        gold_rows(gold_file(tmp_path, ""), PromptStyle("brief", None), 3, {"p1"})
