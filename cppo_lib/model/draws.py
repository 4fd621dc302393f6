"""Random numbers by place: what is drawn for a completion follows from where it stands in a run and from nothing else.

A `Place` names a completion: the root seed, the problem, which of the problem's members (tuples) it belongs to, the
role, and its number there. Its random numbers are a hash of that name. So neither the batch size nor the order or the
number of the problems, nor a stop in between, gives an attempt other random numbers, and no generator has a state that
a checkpoint would have to hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

Place = tuple[int | str, ...]
"""Where a completion stands; places that differ have independent random numbers."""
PARTS = 4
"""Numbers that a token is drawn with (see `cppo_lib.model.decoding`)."""


def uniform(places: Sequence[Place], count: int) -> Tensor:
    """Numbers in [0, 1) for `count` tokens at each place, (places, count, PARTS) of float64.

    A greater count continues the numbers of a smaller one.
    """
    read = b"".join(hashlib.shake_128(repr(place).encode()).digest(4 * PARTS * count) for place in places)
    return torch.from_numpy(np.frombuffer(read, dtype="<u4").reshape(len(places), count, PARTS) * 2.0**-32)
