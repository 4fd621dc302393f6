"""Both engines: the model's own tokens, the draws that were asked for, one kind of completion, and clear errors.

What concerns vLLM is skipped where it is not installed; `make test-vllm` installs it into an environment of its own.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from transformers import PreTrainedModel

from cppo_lib.errors import ModelError
from cppo_lib.model.engine import Completion, Engine, open_engine
from cppo_lib.model.hf_engine import HFEngine, memory_errors
from cppo_lib.model.policy import load_policy, save_policy, with_adapter
from cppo_lib.model.tiny import build_model, build_tokenizer

TEXTS = ["print the sum of the items", "print the largest item", "sort the items and print them"]
ENDS = [*range(100, 139), 0]  # the last one is the tokenizer's
needs_vllm = pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed: make test-vllm")
ENGINES = ["hf", pytest.param("vllm", marks=needs_vllm)]
SHARP = {"temperature": 0.7, "top_p": 0.6, "batch_size": 64, "seed": 0}
GREEDY = {"temperature": 0.0, "top_p": 1.0, "batch_size": 4, "seed": 0}


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> str:
    """A random policy with heads of a size that vLLM has kernels for, with forty end tokens and advice on sampling."""
    tokenizer = build_tokenizer(TEXTS, 300)
    model = build_model(tokenizer, hidden_size=64, layers=2, heads=2, seed=0)
    advice = model.generation_config
    advice.eos_token_id, advice.do_sample = ENDS[:-1], True
    advice.top_k, advice.repetition_penalty, advice.temperature, advice.top_p = 1, 5.0, 0.1, 0.2
    folder = tmp_path_factory.mktemp("policies") / "tiny"
    save_policy(model, tokenizer, folder)
    return str(folder)


@pytest.fixture(scope="module")
def adapter(policy) -> str:
    """An adapter of that policy that changes what it says."""
    model, tokenizer = load_policy(policy)
    adapted = with_adapter(model, rank=4, seed=0)
    torch.manual_seed(0)
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    save_policy(adapted, tokenizer, Path(policy).with_name("adapter"))
    return str(Path(policy).with_name("adapter"))


@pytest.fixture(scope="module", params=ENGINES)
def greedy(request, policy):
    with open_engine(request.param, policy, **GREEDY) as (engine, _):
        yield engine


@pytest.fixture(scope="module", params=ENGINES)
def sampler(request, policy):
    with open_engine(request.param, policy, **SHARP) as (engine, _):
        yield engine


def prompts(policy: str) -> list[list[int]]:
    _, tokenizer = load_policy(policy)
    return tokenizer(["a", *TEXTS, "print", "the items " * 5, *TEXTS], add_special_tokens=False)["input_ids"]


def ids(completions: list[Completion]) -> list[list[int]]:
    return [completion.ids for completion in completions]


def worst_choice(model: PreTrainedModel, prompt: list[int], completion: list[int]) -> float:
    """By how much, in logits, the completion's tokens fall short of the most likely ones after the same tokens."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]
    return float((logits.max(dim=-1).values - logits.gather(-1, torch.tensor(completion)[:, None])[:, 0]).max())


def assert_greedy(engine: Engine, policy: str) -> list[list[int]]:
    model, given = load_policy(policy)[0], prompts(policy)
    completions = engine.generate(given, 24)
    assert len({len(row) for row in given}) > 2 and len(completions) == len(given)
    for prompt, completion in zip(given, completions, strict=True):
        assert worst_choice(model, prompt, completion.ids) < 1e-4
    return ids(completions)


def test_greedy_tokens_are_the_models_choice_and_end_as_it_says(greedy, policy):
    completions = assert_greedy(greedy, policy)
    assert all(not set(row[:-1]) & set(ENDS) for row in completions)
    assert all(row[-1] in ENDS or len(row) == 24 for row in completions)
    assert any(row[-1] in ENDS for row in completions) and len({tuple(row) for row in completions}) > 3
    assert completions[1:4] == completions[6:]  # the same prompts
    with open_engine("hf", policy, **GREEDY) as (hf, _):
        assert completions == ids(hf.generate(prompts(policy), 24))  # this model has no near-ties


def test_completions_are_of_one_kind(greedy, policy):
    for completion in greedy.generate(prompts(policy), 4):
        assert isinstance(completion, Completion) and completion.logps is None
        assert isinstance(completion.ids, list) and {type(token) for token in completion.ids} == {int}
    assert greedy.generate([], 4) == []


@pytest.mark.parametrize("name", ENGINES)
def test_an_adapter_is_what_generates(name, adapter, policy):
    with open_engine(name, adapter, **GREEDY) as (engine, _):
        assert_greedy(engine, adapter)
        changed = ids(engine.generate(prompts(policy), 8))
    with open_engine("hf", policy, **GREEDY) as (engine, _):
        assert ids(engine.generate(prompts(policy), 8)) != changed


def test_draws_depend_on_the_seed_and_the_places(sampler, policy, monkeypatch):
    given = prompts(policy)
    first, second = ([("problem", tuple_index, number) for number in range(len(given))] for tuple_index in range(2))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    drawn = [ids(sampler.generate(given, 8, places)) for places in (first, second)]
    assert torch.equal(torch.get_rng_state(), state)
    assert drawn[0] != drawn[1]
    assert [ids(sampler.generate(given, 8, places)) for places in (second, first)] == drawn[::-1]
    few = sampler.generate(given[3:5], 6, first[3:5])
    assert ids(few) == [row[:6] for row in drawn[0][3:5]]  # whatever stands beside them, and up to any limit
    with open_engine("hf", policy, **SHARP) as (hf, _):
        assert ids(hf.generate(given, 8, first)) == drawn[0]
    monkeypatch.setattr(sampler, "seed", 8)
    assert ids(sampler.generate(given, 8, first)) != drawn[0]


def test_a_call_can_have_a_temperature_of_its_own(sampler, policy):
    given = prompts(policy)
    before = ids(sampler.generate(given, 8))
    cold = sampler.generate(given, 8, temperature=0)
    model = load_policy(policy)[0]
    assert all(worst_choice(model, prompt, row.ids) < 1e-4 for prompt, row in zip(given, cold, strict=True))
    assert ids(sampler.generate(given, 8)) == before != ids(cold)


def test_a_call_can_end_its_completions_at_further_tokens(greedy, policy):
    given = prompts(policy)
    plain = ids(greedy.generate(given, 24))
    further = sorted({row[2] for row in plain if len(row) > 3} - set(ENDS))
    assert further
    ended = ids(greedy.generate(given, 24, also_end=further))
    cuts = [next((at for at, token in enumerate(row, start=1) if token in further), len(row)) for row in plain]
    assert ended == [row[:cut] for row, cut in zip(plain, cuts, strict=True)] != plain
    assert ids(greedy.generate(given, 24)) == plain  # for that call only


def test_draws_follow_temperature_and_top_p_and_no_advice_of_the_folder(sampler, policy):
    """A nucleus of SHARP's settings, computed here; the tolerance is 1.3 times the error of exact draws."""
    prompt, number = prompts(policy)[1], 4000
    with torch.no_grad():
        logits = load_policy(policy)[0](torch.tensor([prompt])).logits[0, -1]
    p, order = torch.softmax(logits / SHARP["temperature"], dim=-1).sort(descending=True)
    p[p.cumsum(0) - p >= SHARP["top_p"]] = 0
    wanted = np.zeros(len(p))
    wanted[order.numpy()] = (p / p.sum()).numpy()
    draws = sampler.generate([prompt] * number, 1)
    found = np.bincount([draw.ids[0] for draw in draws], minlength=len(wanted)) / number
    expected = np.sqrt(wanted * (1 - wanted) / number * 2 / np.pi).sum() / 2
    assert 1 < (wanted > 0).sum() < len(wanted) / 2
    assert set(np.flatnonzero(found)) <= set(np.flatnonzero(wanted))
    assert np.abs(found - wanted).sum() / 2 < 1.3 * expected < 0.1


@pytest.mark.parametrize("name", ENGINES)
def test_a_top_k_of_one_is_greedy_whatever_the_temperature(name, greedy, policy):
    given = prompts(policy)
    with open_engine(name, policy, **{**SHARP, "temperature": 2.0, "top_p": 1.0}, top_k=1) as (engine, _):
        assert ids(engine.generate(given, 8)) == ids(greedy.generate(given, 8))


def test_prompt_that_does_not_fit_names_the_sizes(greedy):
    with pytest.raises(ModelError, match="500 tokens and 13 new ones do not fit .* context of 512: lower max_plan"):
        greedy.generate([[5] * 10, [5] * 500], 13)
    assert len(greedy.generate([[5] * 500], 12)) == 1


def test_engine_that_is_not_installed_says_how_to_install_it(policy, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ModelError, match=r"pip install .*\[vllm\].* GPU, `make setup-vllm` for a CPU, or set engine"):
        open_engine("vllm", policy, **GREEDY).__enter__()


def test_hf_out_of_memory_names_the_batch_size(policy):
    model, tokenizer = load_policy(policy)
    engine = HFEngine(model, tokenizer, **GREEDY)
    model.register_forward_pre_hook(lambda *_: torch.empty(2**50) and None)
    with pytest.raises(ModelError, match="^out of memory while generating 4 sequences .*: lower batch_size$"):
        engine.generate(prompts(policy)[:4], 8)
    with pytest.raises(RuntimeError, match="mat1"), memory_errors("multiplying"):
        torch.ones(2, 3) @ torch.ones(2, 3)


@needs_vllm
def test_vllm_ends_with_the_engine_and_says_when_it_ended_before(policy):
    before = set(psutil.Process().children())
    with pytest.raises(ModelError, match="ended while generating .*exit status -9.*lower batch_size"):  # noqa: SIM117
        with open_engine("vllm", policy, **GREEDY) as (engine, _):
            (worker,) = set(psutil.Process().children()) - before
            worker.kill()
            engine.generate([[5] * 10], 4)
    assert set(psutil.Process().children()) == before


@needs_vllm
@pytest.mark.skipif(torch.cuda.is_available(), reason="a variable for a CPU")
def test_vllm_out_of_memory_names_the_variable(policy, monkeypatch):
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "100000")
    with pytest.raises(ModelError, match="out of memory while loading .*: set VLLM_CPU_KVCACHE_SPACE"):
        open_engine("vllm", policy, **GREEDY).__enter__()


@needs_vllm
def test_vllm_names_a_policy_that_it_cannot_load(policy, tmp_path):
    _, tokenizer = load_policy(policy)
    tokenizer.save_pretrained(tmp_path / "empty")
    for name, reason in ("empty", "holds no model weights"), ("nothing", "does not exist"):
        with pytest.raises(ModelError, match=f"{name} {reason}"):
            open_engine("vllm", str(tmp_path / name), **GREEDY).__enter__()
