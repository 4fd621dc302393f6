"""How fast the generation engines are beside plain `generate`, and whether both take the same greedy tokens.

    python speed/engines.py MODEL [--quick] [--rounds N] [--problems N] [--tokens N]
                                [--json FILE] [--only speed top_p parity]

MODEL is a folder or hub id of a chat model, such as Qwen2.5-Coder-0.5B-Instruct. Speed: everything completes the same
prompts under the same sampling in turns, a round of each and then the next, and ratios are taken within a round, so
that what else the machine is doing hits all sides. Prompts are what a solver gets: HumanEval problems of mixed length,
each with K methods. Tokens are counted up to the end of each completion; loading is not timed. Parity: greedy
completions of both engines, and where two differ, how near a tie the two tokens are. More in speed/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from machine import cpu_s, facts, print_facts
from tabulate import tabulate  # type: ignore[import-untyped]

from cppo_lib.data.benchmarks import humaneval
from cppo_lib.model.engine import open_engine
from cppo_lib.model.hf_engine import HFEngine, end_ids
from cppo_lib.model.policy import load_policy, sampling_dtype, weights_type
from cppo_lib.model.vllm_engine import VLLMEngine
from cppo_lib.rollout.prompts import PromptStyle

METHODS = ("try every candidate", "sort, then go through once", "count with a dictionary", "recursion with a cache")
TEMPERATURE, NUCLEUS = 0.8, 0.95
NEAR_TIE, NEAR_TIE_HALF = 0.01, 0.25
"""Logits by which the tokens of two engines may differ where they part, with float32 weights and with 16-bit ones."""


@dataclass(frozen=True)
class Cost:
    """Tokens that were generated, and the seconds and CPU seconds this took."""

    tokens: int
    wall_s: float
    cpu_s: float


Turn = Callable[[int], Cost]
"""Completes all prompts with the seed of a round."""


@dataclass(frozen=True)
class Size:
    """Rounds, problems and tokens of the comparison of speed; problems and tokens of that of greedy completions."""

    rounds: int = 3
    problems: int = 8
    tokens: int = 96
    batch: int = 16
    parity_problems: int = 20
    parity_tokens: int = 128


@dataclass
class Row:
    """A line of the table: what each round cost, and the plain `generate` of the same rounds."""

    what: str
    goal: float | None = None
    costs: list[Cost] = field(default_factory=list)
    plain: list[Cost] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return statistics.median(cost.tokens / cost.wall_s for cost in self.costs)

    @property
    def ratios(self) -> list[float]:
        """How many times as many tokens per second as plain `generate`, in each round."""
        pairs = zip(self.costs, self.plain, strict=True)
        return [our.tokens / our.wall_s / (their.tokens / their.wall_s) for our, their in pairs]

    @property
    def cpu_ratio(self) -> float:
        """How many times as many tokens per CPU second."""
        pairs = zip(self.costs, self.plain, strict=True)
        return statistics.median(our.tokens / our.cpu_s / (their.tokens / their.cpu_s) for our, their in pairs)

    @property
    def met(self) -> str:
        return "" if self.goal is None else "yes" if statistics.median(self.ratios) >= self.goal else "NO"


# Speed ---------------------------------------------------------------------------------------
def solver_prompts(style: PromptStyle, problems: int) -> list[list[int]]:
    """K prompts for each of some problems from all over HumanEval."""
    every = humaneval.load()
    chosen = every[:: len(every) // problems][:problems]
    return style.encode([style.solver(problem, method) for problem in chosen for method in METHODS])


def plain_generate(model: Any, tokenizer: Any, prompts: list[list[int]], size: Size, top_p: float, seed: int) -> Cost:
    """What one would write first: batches in the order given, padded, through transformers' `generate`."""
    model.set_attn_implementation("sdpa")
    torch.manual_seed(seed)
    tokens, cpu, started = 0, cpu_s(), time.perf_counter()
    for start in range(0, len(prompts), size.batch):
        given = tokenizer.pad({"input_ids": prompts[start : start + size.batch]}, return_tensors="pt").to(model.device)
        with torch.inference_mode():
            found = model.generate(
                **given, do_sample=True, temperature=TEMPERATURE, top_p=top_p, top_k=0, repetition_penalty=1.0,
                max_new_tokens=size.tokens, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
        ends = torch.isin(found[:, given["input_ids"].shape[1] :].cpu(), torch.tensor(end_ids(model, tokenizer)))
        # Up to the first end token, or all of them.
        tokens += int(((ends.cumsum(-1) - ends.long()) == 0).sum())
    return Cost(tokens, time.perf_counter() - started, cpu_s() - cpu)


def with_engine(engine: Any, prompts: list[list[int]], size: Size, seed: int) -> Cost:
    """A round with one of our engines, after a short warm-up."""
    engine.generate(prompts[:2], 4)
    engine.seed = seed
    cpu, started = cpu_s(), time.perf_counter()
    completions = engine.generate(prompts, size.tokens)
    tokens = sum(len(completion.ids) for completion in completions)
    return Cost(tokens, time.perf_counter() - started, cpu_s() - cpu)


def speed(name: str, size: Size, top_p: float) -> list[Row]:
    """All sides in turns. vLLM is opened afresh for each of its turns: two of it want more memory than one has."""
    model: Any
    model, tokenizer = load_policy(name, dtype=sampling_dtype())
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    prompts = solver_prompts(PromptStyle("instruct", tokenizer), size.problems)
    sampling: dict[str, Any] = {"temperature": TEMPERATURE, "top_p": top_p, "batch_size": size.batch, "seed": 0}

    def ours(model: Any, seed: int) -> Cost:
        # Made anew in each turn, since the other side undoes its attention.
        return with_engine(HFEngine(model, tokenizer, **sampling), prompts, size, seed)

    def vllm(seed: int, caching: bool) -> Cost:
        with closing(VLLMEngine(name, tokenizer, **sampling, prefix_caching=caching)) as engine:
            return with_engine(engine, prompts, size, seed)

    sides: list[tuple[Row, Turn]] = [
        (Row("transformers' generate"), lambda seed: plain_generate(model, tokenizer, prompts, size, top_p, seed)),
        (Row("hf", 1.5), partial(ours, model)),
    ]
    if model.dtype != torch.float32:
        exact = load_policy(name, dtype="float32")[0].to(model.device)
        sides.append((Row("hf in float32"), partial(ours, exact)))
    if find_spec("vllm"):
        sides.append((Row("vllm without prefix caching"), partial(vllm, caching=False)))
        sides.append((Row("vllm", 2), partial(vllm, caching=True)))
    plain_generate(model, tokenizer, prompts[:2], replace(size, tokens=4), top_p, 0)
    for number in range(size.rounds):
        for row, turn in sides:
            row.costs.append(turn(number))
            row.plain.append(sides[0][0].costs[-1])
            rate = row.costs[-1].tokens / row.costs[-1].wall_s
            print(f"round {number + 1}: {row.what}: {rate:.1f} tokens/s", file=sys.stderr, flush=True)
    return [row for row, _ in sides]


# Parity --------------------------------------------------------------------------------------
def parity(name: str, size: Size) -> dict[str, Any]:
    """Greedy completions of both engines for the first problems, and the gap in logits where two part."""
    greedy: dict[str, Any] = {"temperature": 0.0, "top_p": 1.0, "batch_size": size.batch, "seed": 0}
    with open_engine("hf", name, **greedy) as (engine, tokenizer):
        style = PromptStyle("instruct", tokenizer)
        prompts = style.encode([style.direct(problem) for problem in humaneval.load(limit=size.parity_problems)])
        ours = [completion.ids for completion in engine.generate(prompts, size.parity_tokens)]
        model = engine.model  # type: ignore[attr-defined]  # of the engine hf
    with open_engine("vllm", name, **greedy) as (engine, _):
        theirs = [completion.ids for completion in engine.generate(prompts, size.parity_tokens)]
    gaps = [parting(model, *three) for three in zip(prompts, ours, theirs, strict=True) if three[1] != three[2]]
    tokens = sum(map(len, ours))
    allowed = NEAR_TIE if model.dtype == torch.float32 else NEAR_TIE_HALF
    found = {"prompts": len(prompts), "tokens": tokens, "same": len(prompts) - len(gaps), "gaps": sorted(gaps)}
    return found | {"allowed": allowed}


def parting(model: Any, prompt: list[int], one: list[int], other: list[int]) -> float:
    """How far the token of either completion is from the most likely one, in logits, where they first differ."""
    place = next(at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    with torch.inference_mode():
        logits = model(torch.tensor([prompt + one[:place]], device=model.device), logits_to_keep=1).logits[0, -1]
    return float(logits.max() - logits[[one[place], other[place]]].min())


# Reporting -----------------------------------------------------------------------------------
def show(rows: list[Row]) -> str:
    """The table of speeds."""
    head = ["engine", "tokens/s", "ratio", "least-greatest", "CPU ratio", "goal", "met"]
    body = [
        [
            *(row.what, f"{row.rate:.1f}", f"{statistics.median(row.ratios):.2f}"),
            *(f"{min(row.ratios):.2f}-{max(row.ratios):.2f}", f"{row.cpu_ratio:.2f}"),
            *("" if row.goal is None else f">= {row.goal:g}", row.met),
        ]
        for row in rows
    ]
    return tabulate(body, head, tablefmt="github", disable_numparse=True)


def main(arguments: list[str]) -> int:
    """Print what was asked for; 1 if the engines part where there is no near-tie."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or hub id of a chat model")
    parser.add_argument("--only", nargs="+", choices=["speed", "top_p", "parity"], default=["speed", "parity"])
    parser.add_argument("--rounds", type=int, default=Size.rounds)
    parser.add_argument("--problems", type=int, default=Size.problems, help=f"each asked {len(METHODS)} times")
    parser.add_argument("--tokens", type=int, default=Size.tokens, help="at most, per completion")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write rates and rounds as JSON")
    parser.add_argument("--quick", action="store_true", help="one round of very little, to see that it runs")
    chosen = parser.parse_args(arguments)
    size = Size(1, 2, 8, 4, 2, 8) if chosen.quick else Size(chosen.rounds, chosen.problems, chosen.tokens)
    where = facts() | {"threads": str(torch.get_num_threads()), "gpu": str(torch.cuda.is_available())}
    where["weights"] = weights_type(chosen.model, sampling_dtype())
    print_facts(where)
    record: dict[str, Any] = {"machine": where, "size": asdict(size)}
    for what, top_p in ("speed", 1.0), ("top_p", NUCLEUS):
        if what in chosen.only:
            rows = speed(chosen.model, size, top_p)
            print(f"temperature {TEMPERATURE:g}, top_p {top_p:g}", show(rows), sep="\n\n", end="\n\n")
            record[what] = [asdict(row) | {"ratios": row.ratios, "met": row.met} for row in rows]
    failed = False
    if "parity" in chosen.only and find_spec("vllm"):
        found = record["parity"] = parity(chosen.model, size)
        print(f"{found['same']} of {found['prompts']} greedy completions are the same ({found['tokens']} tokens)")
        if found["gaps"]:
            worst = found["gaps"][-1]
            failed = worst > found["allowed"]
            print(f"the others part where tokens are at most {worst:.2g} logits apart (allowed: {found['allowed']:g})")
    if not find_spec("vllm"):
        print("vLLM is not installed: its part is left out", file=sys.stderr)
    if chosen.json:
        chosen.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
