"""A chat model is asked once about each method, answers by its likelier token, and serves RL and the command line."""

from __future__ import annotations

import gate_world
import pandas as pd
import pytest
import torch
from fitting import fit

from cppo_lib.artefacts import paths, store
from cppo_lib.data.benchmarks import crossroads
from cppo_lib.errors import ModelError
from cppo_lib.model import policy as model
from cppo_lib.model import tiny
from cppo_lib.reward.gate_llm import LLMGate, answer_tokens, question
from cppo_lib.reward.gate_rules import Candidate
from cppo_lib.rollout.prompts import PromptStyle
from cppo_lib.runs import config
from cppo_lib.runs.parameters import RLTraining
from cppo_lib.runs.stages import data_prep, gate_training
from cppo_lib.runs.stages import planner_sft as sft
from cppo_lib.runs.stages import rl_training as training
from cppo_lib.trainer.sft_data import crossroads_rows

SMOKE = paths.root() / "params" / "smoke"
CHAT = (
    "{% for message in messages %}<user>{{ message['content'] }}</user>{% endfor %}"
    "{% if add_generation_prompt %}<reply>{% endif %}"
)
GOOD, BAD = "midrange", "xqzw"


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory):
    """A tiny chat model that was taught which of two methods is plausible."""
    problems = crossroads.world(1, 1, 1, 4, 1, 0)["train"]
    corpus = crossroads.world(1, 1, 1, 4, 1, 0)["corpus"]
    rows = crossroads_rows(corpus, PromptStyle("brief", None), 4)
    tokenizer = tiny.build_tokenizer([row.prompt + row.completion for row in rows] + ["Yes", "No"] * 9, 700)
    tokenizer.chat_template = CHAT
    policy = tiny.build_model(tokenizer, hidden_size=32, layers=1, heads=2, seed=0)
    policy.config.max_position_embeddings = 2048
    style = PromptStyle("instruct", tokenizer)
    texts = [
        style.ask(problem, question(method)) + answer
        for problem in problems
        for method, answer in ((GOOD, "Yes"), (BAD, "No"))
    ]
    fit(policy, tokenizer, texts, steps=60, batches=4)
    folder = tmp_path_factory.mktemp("chat") / "model"
    model.save_policy(policy, tokenizer, folder)
    return folder


def test_a_tuple_is_as_plausible_as_its_least_plausible_method(chat):
    gate = LLMGate(str(chat))
    problems = crossroads.world(1, 1, 1, 4, 1, 0)["train"]
    good, bad, both = gate.scores([Candidate(problems[0], names) for names in ((GOOD,), (BAD,), (GOOD, BAD))])
    assert good > 0.5 > bad and both == bad
    assert gate.scores([Candidate(problems[1], (GOOD,))])[0] > 0.5


def test_the_score_is_that_of_one_forward_pass_and_is_asked_for_once(chat, monkeypatch):
    gate, problem = LLMGate(str(chat)), crossroads.world(1, 1, 1, 4, 1, 0)["train"][0]
    policy, tokenizer = model.load_policy(chat, dtype="float32")
    text = PromptStyle("instruct", tokenizer).ask(problem, question(GOOD))
    with torch.no_grad():
        chances = policy.eval()(torch.tensor([tokenizer(text)["input_ids"]])).logits[0, -1].softmax(-1)
    yes, no = (float(chances[ids].sum()) for ids in answer_tokens(tokenizer).values())
    expected = yes / (yes + no)
    asked = []
    learn = gate._learn
    monkeypatch.setattr(gate, "_learn", lambda keys: (asked.append(len(keys)), learn(keys)))
    first = gate.scores([Candidate(problem, (GOOD, BAD)), Candidate(problem, ("Midrange.",))])
    assert first[1] == pytest.approx(expected, abs=1e-5)
    assert gate.scores([Candidate(problem, (GOOD,))]) == [first[1]] and asked == [2]


def test_models_that_cannot_answer_are_refused(chat, tmp_path):
    policy, tokenizer = model.load_policy(chat)
    tokenizer.chat_template = None
    model.save_policy(policy, tokenizer, tmp_path / "plain")
    with pytest.raises(ModelError, match="has no chat template, so it cannot be asked"):
        LLMGate(str(tmp_path / "plain"))

    def one_token(text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [7]}

    with pytest.raises(ModelError, match="does not tell yes from no"):
        answer_tokens(one_token)


def test_rl_and_the_command_ask_the_model(chat, runs, monkeypatch, capsys):
    sizes = {"train_per_context": 2, "dev_per_context": 1, "test_per_context": 1, "corpus_per_context": 4}
    data_prep.prepare(config.load_params(SMOKE / "01_data_prep.yaml", options={**sizes, "hidden_tests": 2}))
    changes = {"gate": "llm", "gate_model": str(chat), "prompt_style": "instruct", "policy": str(chat), "steps": 2}
    cfg = config.load_params(SMOKE / "03_rl_training.cppo.yaml", **changes)
    assert isinstance(cfg, RLTraining) and not cfg.uses_sft
    rows = store.read_jsonl(training.train(cfg) / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2] and all(row["j"] <= row["j_rules"] for row in rows)

    sft.train_planner(gate_world.planner_sft(pretrain_steps=1, sft_steps=1, hidden_size=16))
    cfg = gate_world.gate_params(epochs=0)
    stage = gate_training.train(cfg)
    monkeypatch.setattr(gate_training.config, "load_params", lambda path: cfg)
    asked = ["--profile", "smoke", "--gate-model", str(chat), "--limit", "3"]
    assert gate_training.main(["ask", *asked]) == 0
    frame = pd.read_parquet(stage / "gate_decisions.model.parquet")
    assert set(frame["gate"]) == {"llm (model)"} and frame["problem_id"].nunique() == 3 and len(frame) == 15
    assert "precision" in capsys.readouterr().out
    assert gate_training.main(["ask", "--profile", "smoke", "--gate-model", "no/such/folder"]) == 1
    assert gate_training.main(["label", *asked, "--out", str(runs / "labels.jsonl")]) == 0
    rows = store.read_jsonl(runs / "labels.jsonl")
    assert len(rows) == 15 and all(0 <= row["confidence"] <= 1 for row in rows)
    assert {row["source"] for row in rows} == {"judge model", "corruption"}
