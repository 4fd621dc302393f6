"""Own decoding against transformers' generate(), and the drawing rule against its definition."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import GenerationConfig, Qwen2Config, Qwen2ForCausalLM
from transformers.generation.logits_process import TopKLogitsWarper, TopPLogitsWarper

from cppo_lib.errors import ModelError
from cppo_lib.model import decoding
from cppo_lib.model.decoding import HEAD, PARTS, Draw, alike, sample, shared_heads
from cppo_lib.model.kv_cache import GROUPED, ROOM, FixedStep, capturable, group_heads

END, PAD = [1, 2], 0
SIZES = {
    "vocab_size": 90, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2,
}  # fmt: skip


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**SIZES)).eval()


def prompts() -> list[list[int]]:
    rows = [[5, 6, 7], [9], [8, 30, 40, 50, 60, 70, 80], [5, 6, 7], [11, 12]]
    return rows + rows[::-1]


def numbers(*shape, seed=0):
    return torch.rand((*shape, PARTS), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def completions(model, given, steps=12, temperature=0.0, seed=0):
    return sample(model, given, numbers(len(given), steps, seed=seed), draw=Draw(temperature), end_ids=END, pad_id=PAD)


def test_greedy_completions_are_those_of_generate(model):
    config = GenerationConfig(do_sample=False, max_new_tokens=12, eos_token_id=END, pad_token_id=PAD)
    for prompt, found in zip(prompts(), completions(model, prompts()), strict=True):
        wanted = model.generate(input_ids=torch.tensor([prompt]), generation_config=config)[0, len(prompt) :]
        assert found == wanted.tolist()


def test_what_solver_prompts_share_is_read_once(model, monkeypatch):
    """Two problems with three methods each, and a prompt that shares nothing."""
    problems = [list(range(10, 30)), list(range(40, 56))]
    given = [[*problem, *method, 7] for problem in problems for method in ([60], [61, 62, 63, 64], [65, 66])]
    given.append(list(range(70, 82)))
    read = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, *args, **asked: (read.append(asked), forward(self, *args, **asked))[1]
    )
    found = completions(model, given)
    assert [tuple(asked["input_ids"].shape) for asked in read[:2]] == [(3, 20), (7, 5)]
    alone = [completions(model, [row])[0] for row in given]
    assert found == alone
    config = GenerationConfig(do_sample=False, max_new_tokens=12, eos_token_id=END, pad_token_id=PAD)
    for prompt, ids in zip(given, found, strict=True):
        assert (
            ids == model.generate(input_ids=torch.tensor([prompt]), generation_config=config)[0, len(prompt) :].tolist()
        )


def test_prompts_of_very_different_lengths_are_read_by_length(model, monkeypatch):
    torch.manual_seed(4)
    given = [torch.randint(3, 90, (size,)).tolist() for size in (40, 6, 9, 38, 8, 7, 8, 45)]
    given += given[:2]  # equal ones are still read once
    read = []
    forward = type(model).forward
    monkeypatch.setattr(
        type(model), "forward", lambda self, *args, **asked: (read.append(asked), forward(self, *args, **asked))[1]
    )
    found = completions(model, given)
    assert [tuple(asked["input_ids"].shape) for asked in read[:3]] == [(2, 7), (3, 9), (3, 45)]
    assert found == [completions(model, [row])[0] for row in given]
    assert completions(model, given, temperature=1.5) == completions(model, given, temperature=1.5)


def test_parts_that_are_read_one_by_one():
    rows = [[0] * size for size in (100, 10, 12, 13, 90)]
    assert alike(rows) == [[1, 2], [3], [4, 0]]
    assert alike([[0] * size for size in (14, 12, 10)]) == [[2, 1, 0]]  # padding is not worth the trouble
    assert alike([[0]]) == [[0]]


def test_shared_heads():
    rows = [(1, 2, 3, 4, 9), (1, 2, 3, 4, 5, 6), (7, 8), (1, 2, 3, 4)]
    heads, owners = shared_heads(rows)
    assert heads == [(1, 2, 3), (7,)] and owners == [0, 0, 1, 0]
    assert shared_heads([(1, 2, 3, 4), (1, 5, 6, 7), (8,)]) == ([], [])  # a quarter in common is not enough


def test_grouped_heads_attend_to_the_same(model):
    config = GenerationConfig(do_sample=False, max_new_tokens=80, eos_token_id=END, pad_token_id=PAD)
    wanted = model.generate(input_ids=torch.tensor([[5, 6, 7]]), generation_config=config)[0, 3:].tolist()
    plain = completions(model, prompts(), steps=80)
    group_heads(model)
    try:
        assert model.config._attn_implementation == GROUPED
        assert completions(model, prompts(), steps=80) == plain
        assert plain[0] == wanted and len(wanted) > ROOM  # the cache had to grow
    finally:
        model.set_attn_implementation("sdpa")


def test_a_step_over_a_fixed_cache_is_the_growing_one(model, monkeypatch):
    """What a GPU captures, here computed by a CPU: prompts of several lengths, shared ones, and a batch that thins."""
    wanted = [completions(model, prompts(), 40, temperature, seed=3) for temperature in (0.0, 1.0)]
    assert len({len(row) for row in wanted[1]}) > 2
    monkeypatch.setattr(decoding, "_step", FixedStep)
    assert [completions(model, prompts(), 40, temperature, seed=3) for temperature in (0.0, 1.0)] == wanted


def test_models_whose_step_cannot_be_captured_are_known(model):
    assert capturable(model)
    other = copy.deepcopy(model)
    other.set_attn_implementation("eager")
    assert not capturable(other)
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    assert not capturable(Qwen2ForCausalLM(Qwen2Config(**SIZES, rope_parameters=rope)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="captures a CUDA graph")
def test_a_gpu_draws_what_a_cpu_draws(model):
    wanted = [completions(model, prompts(), 40, temperature, seed=3) for temperature in (0.0, 1.0)]
    on_gpu = copy.deepcopy(model).to("cuda")
    assert [completions(on_gpu, prompts(), 40, temperature, seed=3) for temperature in (0.0, 1.0)] == wanted


def test_a_model_with_broken_weights_is_refused(model):
    broken = copy.deepcopy(model)
    broken.lm_head.weight.data[3, 4] = torch.nan
    with pytest.raises(ModelError, match="weights are broken"):
        completions(broken, prompts())


def test_draws_do_not_depend_on_the_neighbours(model):
    given, steps = prompts(), 20
    uniform = numbers(len(given), steps, seed=3)
    rules = {"draw": Draw(1.5), "end_ids": list(range(1, 12)), "pad_id": PAD}
    together = sample(model, given, uniform, **rules)
    alone = [sample(model, [row], uniform[[at]], **rules)[0] for at, row in enumerate(given)]
    assert together == alone
    assert len({len(row) for row in together}) > 3  # sequences left the batch at different times
    assert together[0] != together[3]  # equal prompts, different draws


def test_the_nucleus_is_the_one_of_transformers():
    torch.manual_seed(1)
    for top_p in (0.05, 0.5, 0.9, 0.999):
        for scale, size in ((4.0, 50), (0.01, 3 * HEAD), (6.0, 3 * HEAD)):
            logits = scale * torch.randn(3, size)
            kept = TopPLogitsWarper(top_p)(None, logits.clone()).isfinite()
            p = logits.softmax(-1) * kept
            p = p / p.sum(-1, keepdim=True)
            for row, allowed, wanted in zip(logits, kept, p, strict=True):
                drawn = shares(Draw(1.0, top_p), row, 500)
                assert not drawn[~allowed].any()
                assert (drawn - wanted).abs().sum() <= 3 * deviation(wanted, 500)


@pytest.mark.parametrize("top_k", [1, 5, 5000])
@pytest.mark.parametrize("top_p", [1.0, 0.6])
def test_the_cuts_are_those_of_transformers_in_its_order(top_k, top_p):
    """Temperature, the likeliest tokens, and among these the nucleus."""
    torch.manual_seed(1)
    for scale, size in ((4.0, 50), (0.5, 3 * HEAD)):
        logits = scale * torch.randn(size)
        kept = TopKLogitsWarper(top_k)(None, logits[None] / 0.7)
        if top_p < 1:
            kept = TopPLogitsWarper(top_p)(None, kept)
        wanted = kept[0].softmax(-1)
        drawn = shares(Draw(0.7, top_p, top_k), logits, 500)
        assert not drawn[wanted == 0].any()
        assert (drawn - wanted).abs().sum() <= 3 * deviation(wanted, 500) + 1e-6
    assert Draw(1.0, top_p, 0) == Draw(1.0, top_p)


def shares(draw, row, number):
    tokens = draw(row.expand(number, -1), numbers(number, seed=7))
    return torch.bincount(tokens, minlength=len(row)) / number


def deviation(p, number):
    """How far, summed over all tokens, the shares of so many exact draws are from p on average."""
    return (p * (1 - p) / number * 2 / torch.pi).sqrt().sum()


@pytest.mark.parametrize("size", [7, 32, 33, 1500])
def test_shares_of_draws_are_the_distribution(size):
    """Vocabularies that one, two and three steps of the descent divide."""
    torch.manual_seed(2)
    logits = 2 * torch.randn(size)
    logits[::5] = -torch.inf
    for temperature in (0.5, 1.0, 2.0):
        wanted, found = (logits / temperature).softmax(-1), shares(Draw(temperature), logits, 20_000)
        assert not found[::5].any()
        assert (found - wanted).abs().sum() < 1.4 * deviation(wanted, 20_000)


@pytest.mark.parametrize("top_p", [1.0, 0.95])
def test_rounding_changes_no_more_draws_than_it_must(top_p):
    """By cumulated probabilities of the whole vocabulary, 6.6 of a hundred draws would be others."""
    torch.manual_seed(5)
    logits = 4 * torch.randn(20_000)
    rounded = logits + 1e-3 * torch.randn(20_000)
    u, draw = numbers(3000, seed=1), Draw(1.0, top_p)
    one, other = (torch.cat([draw(row.expand(100, -1), part) for part in u.split(100)]) for row in (logits, rounded))
    distance = (logits.softmax(-1) - rounded.softmax(-1)).abs().sum() / 2
    assert 1e-4 < distance < 1e-3
    assert (one != other).float().mean() < 30 * distance


def test_impossible_tokens_are_never_drawn():
    logits = torch.full((1, 5), -torch.inf)
    logits[0, 3] = 0.0
    for u in (0.0, 0.5, 1 - 2**-32, 1 - 2**-53):
        for rule in (Draw(1.0), Draw(1.0, 0.9)):
            assert rule(logits, torch.full((1, PARTS), u, dtype=torch.float64)).item() == 3
