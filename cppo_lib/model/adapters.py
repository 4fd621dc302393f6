"""Planner and solver with a LoRA adapter each over one frozen base: `sharing: base`, an ablation of shared weights.

One model holds both adapters, and which of them computes is switched per call: the planner's for plans, the solver's
for programs, in the rollout and in the loss. A saved policy of this kind is a folder with an adapter folder for each
role, `planner/` and `solver/`, and each of these is a policy by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cppo_lib.model.engine import Engine, EngineName, open_engine
from cppo_lib.model.policy import ADAPTER, with_adapter

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Role = Literal["planner", "solver"]
ROLES: tuple[Role, ...] = ("planner", "solver")


def with_role_adapters(model: Any, *, rank: int, seed: int) -> Any:
    """The model with two adapters that start alike: as its own, if it has one, else as `with_adapter` begins.

    Raises:
        ModelError: as `with_adapter`.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    adapted = with_adapter(model, rank=rank, seed=seed)
    start = get_peft_model_state_dict(adapted, adapter_name="default")
    for role in ROLES:
        adapted.add_adapter(role, adapted.peft_config["default"])
        set_peft_model_state_dict(adapted, start, adapter_name=role)
    use_role(adapted, ROLES[0])
    adapted.delete_adapter("default")
    return adapted


def has_roles(model: Any) -> bool:
    """Is this a model of `with_role_adapters`?"""
    return set(ROLES) <= set(getattr(model, "peft_config", ()))


def use_role(model: Any, role: Role) -> None:
    """Let the role's adapter compute from now on.

    PEFT freezes the adapters that it puts aside. Both are kept trainable, since one optimiser step is made of
    micro-batches of both.
    """
    model.set_adapter(role)
    for name, weight in model.named_parameters():
        if any(f".{other}." in name for other in ROLES):
            weight.requires_grad_(True)


def role_policy(policy: str, role: Role) -> str:
    """The policy that acts in a role: the role's own adapter folder, or the policy itself where the roles share it."""
    own = Path(policy, role)
    return str(own) if (own / ADAPTER).is_file() else policy


@contextmanager
def open_roles(
    name: EngineName, policies: Mapping[Role, str], **options: Any
) -> Iterator[tuple[Engine, Engine, PreTrainedTokenizerBase]]:
    """The engines that write programs and plans, and the former's tokenizer; one engine where one policy does both.

    Args:
        name, options: those of `open_engine`.
        policies: who acts in each role; a policy with an adapter for each role acts by the role's own.

    Raises ModelError as `open_engine`.
    """
    acting = {role: role_policy(policies[role], role) for role in ROLES}
    with ExitStack() as opened:
        solver, tokenizer = opened.enter_context(open_engine(name, acting["solver"], **options))
        planner = solver
        if acting["planner"] != acting["solver"]:
            planner, _ = opened.enter_context(open_engine(name, acting["planner"], **options))
        yield solver, planner, tokenizer
