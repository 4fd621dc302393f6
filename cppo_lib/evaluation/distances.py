"""How alike are the attempts of a block? Jaccard similarity of sets of features, for several kinds of features.

Every kernel is |A and B| / |A or B| of two sets, 1 for equal sets; bags count as sets of numbered occurrences. So every
kernel is positive definite (a Vendi score needs that), and 1 minus it is a metric.

| kernel | compares | sees | does not see |
|---|---|---|---|
| `subtrees` | expressions and statements, whole | any difference but names | that two long statements nearly agree |
| `ast` | pq-grams of the normalised tree | structure, builtins, operators | values of constants |
| `opcodes` | runs of three byte-code instructions | control flow | which names and constants are used |
| `words` | words of a text, whatever their order and case | vocabulary | word order |

`ast` stands in for the tree edit distance, whose cost (cubic in the size of the programs) forbids it here. The three
kernels of programs compare the words of programs that do not parse.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy.sparse
from numpy.typing import ArrayLike, NDArray

from cppo_lib.evaluation.programs import Hashes, Kernel, features
from cppo_lib.rollout.replies import normalise

Floats = NDArray[np.float64]
_PAIRS = 10_000  # pairs compared at once, so that memory does not grow with their number


def program_similarities(programs: ArrayLike, kernel: Kernel) -> Floats:
    """Similarities within blocks of programs, (B, K) -> (B, K, K). Raises CPPOError, see `programs.features`."""
    codes, distinct = _numbered(programs)
    return block_similarities([each.of(kernel) for each in features(distinct)], codes)


def program_similarity(a: str, b: str, kernel: Kernel = "subtrees") -> float:
    """Share of features in common, 1 for equal programs; 1 minus it is a distance."""
    return float(program_similarities([[a, b]], kernel)[0, 0, 1])


def text_similarities(texts: ArrayLike) -> Floats:
    """Similarities within blocks of texts by kernel `words`, (B, K) -> (B, K, K); NaN where a text is null."""
    codes, distinct = _numbered(texts)
    numbers: dict[str, int] = {}
    words = [{numbers.setdefault(word, len(numbers)) for word in normalise(text).split()} for text in distinct]
    return block_similarities([np.array(sorted(each), dtype=np.uint64) for each in words], codes)


def block_similarities(sets: Sequence[Hashes], codes: ArrayLike) -> Floats:
    """Jaccard similarities within blocks.

    Args:
        sets: hashes, each set sorted and without repetition.
        codes: (B, K), the set of each place as an index into `sets`; -1 for none.

    Returns:
        (B, K, K); NaN in the rows and columns of places without a set. Two empty sets are equal.
    """
    places = np.asarray(codes, dtype=np.int64)
    base = len(sets) + 1
    first, second = np.broadcast_arrays(places[:, :, None] + 1, places[:, None, :] + 1)
    pairs, back = np.unique(np.minimum(first, second) * base + np.maximum(first, second), return_inverse=True)
    low, high = np.divmod(pairs, base)
    values = np.full(len(pairs), np.nan)
    known = low > 0
    values[known] = _jaccard(sets, low[known] - 1, high[known] - 1)
    return values[back].reshape(first.shape)


def mean_distances(similarities: Floats) -> Floats:
    """Mean of 1 - similarity over the pairs of different places, (B, K, K) -> (B,); NaN where a pair has none."""
    size = similarities.shape[-1]
    if size < 2:
        return np.full(len(similarities), np.nan)
    return np.asarray(1.0 - similarities[:, *np.triu_indices(size, k=1)].mean(axis=1), dtype=np.float64)


def _numbered(blocks: ArrayLike) -> tuple[NDArray[np.int64], list[str]]:
    """The index of each text among the different ones, -1 for null."""
    table = np.asarray(blocks, dtype=object)
    codes, distinct = pd.factorize(table.ravel())
    return codes.astype(np.int64).reshape(table.shape), list(distinct)


def _jaccard(sets: Sequence[Hashes], left: NDArray[np.int64], right: NDArray[np.int64]) -> Floats:
    """Similarity of each pair of sets, by index."""
    sizes = np.array([len(each) for each in sets], dtype=np.int64)
    columns = pd.factorize(np.concatenate([*sets, np.empty(0, dtype=np.uint64)]))[0]
    edges = np.concatenate([[0], np.cumsum(sizes)])
    table = scipy.sparse.csr_array((np.ones(len(columns), dtype=np.int64), columns, edges), (len(sets), len(columns)))
    shared = np.zeros(len(left), dtype=np.int64)
    for start in range(0, len(left), _PAIRS):
        chunk = slice(start, start + _PAIRS)
        shared[chunk] = table[left[chunk]].multiply(table[right[chunk]]).sum(axis=1)
    union = sizes[left] + sizes[right] - shared
    return np.divide(shared, union, out=np.ones(len(left)), where=union > 0)
