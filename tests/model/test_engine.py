"""The sampling engine: order, end tokens, seeds, and exactly the distribution that was asked for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cppo_lib.errors import ModelError
from cppo_lib.model.engine import Completion
from cppo_lib.model.hf_engine import HFEngine, end_ids
from cppo_lib.model.tiny import build_model, build_tokenizer

TEXTS = ["print the sum of the items", "print the largest item", "sort the items and print them"]


@pytest.fixture(scope="module")
def policy():
    """A random policy of a few thousand parameters."""
    tokenizer = build_tokenizer(TEXTS, 300)
    return build_model(tokenizer, hidden_size=16, layers=1, heads=2, seed=0), tokenizer


@pytest.fixture
def model(policy):
    """The policy's model with a generation config that is put back afterwards."""
    model = policy[0]
    before = model.generation_config.to_dict()
    yield model
    for key, value in before.items():
        setattr(model.generation_config, key, value)


def engine(policy, **changes) -> HFEngine:
    settings = {"temperature": 1.0, "top_p": 1.0, "batch_size": 4, "seed": 0} | changes
    return HFEngine(*policy, **settings)


def prompts(tokenizer, *, copies: int = 1) -> list[list[int]]:
    texts = ["a", *TEXTS, "print", "the items " * 5] * copies
    return tokenizer(texts, add_special_tokens=False)["input_ids"]


def ids(completions: list[Completion]) -> list[list[int]]:
    return [completion.ids for completion in completions]


def test_each_prompt_gets_its_own_completion_in_its_own_place(policy):
    given = prompts(policy[1])
    assert len({len(row) for row in given}) > 2  # so that batches are padded and reordered
    sharp = {"temperature": 1e-4}  # as good as greedy: no draw is involved
    together = ids(engine(policy, batch_size=4, **sharp).generate(given, 8))
    alone = [engine(policy, **sharp).generate([row], 8)[0].ids for row in given]
    assert together == alone
    assert len({tuple(row) for row in together}) > 1


def test_draws_depend_on_seed_and_place_and_on_nothing_else(policy):
    given = prompts(policy[1], copies=3)
    places = [("problem", number) for number in range(len(given))]
    first = ids(engine(policy).generate(given, 8, places))
    assert len({tuple(row) for row in first[::6]}) == 3  # one prompt at three places
    torch.manual_seed(123)
    state = torch.get_rng_state()
    for size in (1, 7, 16, 64):
        other = engine(policy, batch_size=size)
        assert ids(other.generate(given[::-1], 8, places[::-1])) == first[::-1]
        assert ids(other.generate(given[4:9], 8, places[4:9])) == first[4:9]  # whatever was called before
        assert [row[:5] for row in first] == ids(other.generate(given, 5, places))
    assert torch.equal(torch.get_rng_state(), state)
    assert ids(engine(policy, seed=1).generate(given, 8, places)) != first
    assert ids(engine(policy).generate(given, 8, [("other", *place) for place in places])) != first


@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_samples_follow_the_models_distribution_and_no_advice_of_its_folder(policy, model, temperature):
    advice = model.generation_config
    advice.top_k, advice.repetition_penalty, advice.temperature, advice.top_p = 1, 5.0, 0.1, 0.2
    prompt = list(range(2, 202))  # a repetition penalty would hit all of these
    with torch.no_grad():
        logits = model(torch.tensor([prompt])).logits[0, -1]
    wanted = torch.softmax(logits / temperature, dim=-1).numpy()
    draws = engine(policy, temperature=temperature, batch_size=500).generate([prompt] * 4000, 1)
    found = np.bincount([draw.ids[0] for draw in draws], minlength=len(wanted)) / 4000
    # The expected total variation of 4000 exact draws, and what a top-k or a penalty would leave.
    expected = np.sqrt(wanted * (1 - wanted) / 4000 * 2 / np.pi).sum() / 2
    assert np.abs(found - wanted).sum() / 2 < 1.3 * expected
    assert 1.3 * expected < 0.2


def test_top_p_keeps_the_nucleus_only(policy, model):
    prompt = policy[1](TEXTS[0], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        probabilities = torch.softmax(model(torch.tensor([prompt])).logits[0, -1], dim=-1)
    ranked = torch.argsort(probabilities, descending=True)
    size = int((probabilities[ranked].cumsum(0) < 0.3).sum()) + 1
    draws = engine(policy, top_p=0.3, batch_size=500).generate([prompt] * 1000, 1)
    assert {draw.ids[0] for draw in draws} <= set(ranked[:size].tolist())


def test_top_k_keeps_the_likeliest_only(policy, model):
    prompt = policy[1](TEXTS[0], add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        likeliest = model(torch.tensor([prompt])).logits[0, -1].topk(3).indices.tolist()
    draws = engine(policy, top_k=3, batch_size=500).generate([prompt] * 500, 1)
    assert {draw.ids[0] for draw in draws} == set(likeliest)
    greedy = engine(policy, top_k=1).generate([prompt] * 3, 6)
    assert ids(greedy) == ids(engine(policy, temperature=0.0).generate([prompt] * 3, 6))


def test_every_end_token_of_the_model_ends_a_completion(policy, model):
    ends = list(range(100, 200))
    model.generation_config.eos_token_id = ends
    ends.append(policy[1].eos_token_id)  # what TRL ends supervised completions with
    completions = ids(engine(policy).generate(prompts(policy[1], copies=4), 20))
    assert all(not set(row[:-1]) & set(ends) for row in completions)
    assert len({row[-1] for row in completions if row[-1] in ends}) > 2
    assert all(row[-1] in ends or len(row) == 20 for row in completions)


def test_end_tokens_are_those_of_the_model_and_the_one_of_the_tokenizer(policy, model):
    own = policy[1].eos_token_id
    for named, expected in ((7, [7, own]), ([7, own, 8], [7, own, 8]), (own, [own])):
        model.generation_config.eos_token_id = named
        assert end_ids(*policy) == expected
    model.generation_config.eos_token_id = None
    assert end_ids(*policy) == [policy[1].eos_token_id]
    end, policy[1].eos_token = policy[1].eos_token, None
    try:
        with pytest.raises(ModelError, match="eos_token_id"):
            end_ids(*policy)
    finally:
        policy[1].eos_token = end


def test_prompt_that_does_not_fit_names_the_sizes(policy):
    with pytest.raises(ModelError, match="500 tokens and 13 new ones do not fit .* context of 512"):
        engine(policy).generate([[5] * 10, [5] * 500], 13)
    assert len(engine(policy).generate([[5] * 500], 12)) == 1


def test_progress_is_told_within_a_batch(policy, monkeypatch, capsys):
    monkeypatch.setattr("cppo_lib.model.hf_engine.REPORT_S", 0.0)
    given = prompts(policy[1], copies=4)
    engine(policy, batch_size=12).generate(given, 60)
    told = [int(line.split("generated ")[1].split()[0]) for line in capsys.readouterr().out.splitlines()]
    assert told == sorted(told) and told[-1] < len(given)
    assert any(0 < number < 12 for number in told)  # before the first of two batches was done


def test_no_prompts_are_no_completions(policy):
    assert engine(policy).generate([], 8) == []
