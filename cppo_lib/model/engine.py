"""One way to open either generation engine: `hf`, which works everywhere, or `vllm`, which wants an extra.

Both complete prompts of token ids and hand back token ids, end token included, so that whatever reads the records
cannot tell which one made them. vLLM is imported only when it is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib.util import find_spec
from typing import Literal, Protocol

import torch
from transformers import PreTrainedTokenizerBase

from cppo_lib.errors import ModelError
from cppo_lib.model.draws import Place
from cppo_lib.model.hf_engine import HFEngine, memory_errors
from cppo_lib.model.policy import load_policy, load_tokenizer, loading, sampling_dtype
from cppo_lib.rollout.two_stage import Completion

EngineName = Literal["hf", "vllm"]


class Engine(Protocol):
    """Completes prompts; the draws of a completion depend on the seed and the completion's place."""

    seed: int

    def generate(
        self,
        prompt_ids: list[list[int]],
        max_new_tokens: int,
        places: Sequence[Place] | None = None,
        temperature: float | None = None,
        also_end: Sequence[int] = (),
    ) -> list[Completion]:
        """One completion per prompt, in order, cut after its first end token (which is included).

        `places`: what each is drawn with; None: the prompt's number in the call, so that a call repeated is the same.
        `temperature`: of this call; None: the engine's own. `also_end`: tokens that end a completion in this call.
        """
        ...


@contextmanager
def open_engine(
    name: EngineName, policy: str, *, temperature: float, top_p: float, batch_size: int, seed: int
) -> Iterator[tuple[Engine, PreTrainedTokenizerBase]]:
    """The engine over a policy, on the GPU if there is one, and the policy's tokenizer; released on leaving.

    Args:
        name: `hf` or `vllm`.
        policy: a local folder or a hub id.
        temperature: 1 samples from the policy's own distribution, 0 takes the most likely token.
        top_p: nucleus mass; 1 keeps every token.
        batch_size: sequences generated side by side.
        seed: root of every draw.

    Raises:
        ModelError: the engine is not installed, or the policy cannot be loaded or does not fit in memory.
    """
    if name == "vllm":
        with _vllm(policy, temperature=temperature, top_p=top_p, batch_size=batch_size, seed=seed) as opened:
            yield opened
        return
    with memory_errors(f"loading {policy}: free memory or name a smaller model"):
        model, tokenizer = load_policy(policy, dtype=sampling_dtype())
        model.to("cuda" if torch.cuda.is_available() else "cpu")  # type: ignore[arg-type]  # transformers wraps it without its type
    yield (
        HFEngine(model, tokenizer, temperature=temperature, top_p=top_p, batch_size=batch_size, seed=seed),
        tokenizer,
    )


@contextmanager
def _vllm(
    policy: str, *, temperature: float, top_p: float, batch_size: int, seed: int
) -> Iterator[tuple[Engine, PreTrainedTokenizerBase]]:
    if find_spec("vllm") is None:
        raise ModelError(
            "engine vllm is not installed: pip install -c constraints.txt -e '.[vllm]' for a GPU, "
            "`make setup-vllm` for a CPU, or set engine: hf"
        )
    from cppo_lib.model.vllm_engine import VLLMEngine

    with loading(f"model {policy!r}"):
        tokenizer = load_tokenizer(policy)
    with closing(
        VLLMEngine(policy, tokenizer, temperature=temperature, top_p=top_p, batch_size=batch_size, seed=seed)
    ) as engine:
        yield engine, tokenizer
