"""Generation engines as the rest sees them: places in, completions out, and one way to open either.

`hf` works everywhere, `vllm` wants an extra. Both complete prompts of token ids and hand back token ids, end token
included, so that whatever reads the records cannot tell which one made them.

A `Place` names a completion: the root seed, the problem, which of the problem's members (tuples) it belongs to, the
role, and its number there. Its random numbers are a hash of that name (`decoding.uniform`). So neither the batch size
nor the order or the number of the problems, nor a stop in between, gives an attempt other random numbers, and no
generator has a state that a checkpoint would have to hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, Protocol

from cppo_lib.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EngineName = Literal["hf", "vllm"]
Place = tuple[int | str, ...]
"""Where a completion stands; places that differ have independent random numbers."""


@dataclass(frozen=True)
class Completion:
    """Generated token ids (end-of-sequence included).

    Attributes:
        logps: their log-probabilities, where the engine reports them.
        cut: the limit on tokens has ended it, and no token of its own; told in training only.
    """

    ids: list[int]
    logps: list[float] | None = None
    cut: bool = False


Generate = Callable[[list[list[int]], int, list[Place]], list[Completion]]
"""Completes prompts given as token ids; the others are the limit on new tokens, and the place of each completion."""


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
    name: EngineName, policy: str, *, temperature: float, top_p: float, batch_size: int, seed: int, top_k: int = 0
) -> Iterator[tuple[Engine, PreTrainedTokenizerBase]]:
    """The engine over a policy, on the GPU if there is one, and the policy's tokenizer; released on leaving.

    Args:
        name: `hf` or `vllm`, which is imported only when it is asked for.
        policy: a local folder or a hub id.
        temperature: 1 samples from the policy's own distribution, 0 takes the most likely token.
        top_p: nucleus mass; 1 keeps every token.
        batch_size: sequences generated side by side.
        seed: root of every draw.
        top_k: so many likeliest tokens are kept before the nucleus; 0: all.

    Raises:
        ModelError: the engine is not installed, or the policy cannot be loaded or does not fit in memory.
    """
    opened: Callable[..., AbstractContextManager[tuple[Engine, PreTrainedTokenizerBase]]]
    if name == "vllm":
        if find_spec("vllm") is None:
            raise ModelError(
                "engine vllm is not installed: pip install -c constraints.txt -e '.[vllm]' for a GPU, "
                "`make setup-vllm` for a CPU, or set engine: hf"
            )
        from cppo_lib.model.vllm_engine import opened
    else:
        from cppo_lib.model.hf_engine import opened
    rule = {"temperature": temperature, "top_p": top_p, "top_k": top_k}
    with opened(policy, **rule, batch_size=batch_size, seed=seed) as engine:
        yield engine
