"""Training problems whose statement is one of the evaluation problems', word for word or nearly: find and remove them.

Two statements are compared as sets of shingles, all runs of `ngram` words, by their Jaccard similarity (size of the
intersection over size of the union). Words are what is left of a statement without case, punctuation, Markdown and
HTML, and without the starter code that a problem may repeat in its statement. A training problem is removed where an
evaluation problem has the same words in the same order (exact) or a similarity of at least `threshold` (near).

Evaluation problems are indexed by MinHash with locality-sensitive hashing (the `datasketch` library), so that a
training problem is compared with a few of them only. Every candidate is confirmed by the true similarity: the hashing
can miss a pair, at the threshold with a probability of 1 - RECALL = 0.0001 and above it with less, and never adds one.
Results depend neither on the order of the evaluation problems nor on that of the training problems.

Of an evaluation problem the index keeps hashes, about 12 kB; of training problems nothing. Both may be streams.
"""

from __future__ import annotations

import dataclasses
import html
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import pandas as pd
from datasketch import MinHash, MinHashLSH

from cppo_lib.data.problem import Problem
from cppo_lib.errors import ParameterError

THRESHOLD = 0.5
NGRAM = 3
RECALL = 0.9999
"""Least probability that a pair at the threshold becomes a candidate."""
_MOST_PERMUTATIONS = 128

_WITHIN_WORDS = re.compile(r"</?su[bp]>|[`*_^]", re.IGNORECASE)
"""Marks that split no word: `10<sup>5</sup>`, `10^5` and `10\u2075` are all 105, `start_node` is `startNode`."""
_TAG = re.compile(r"</?[a-z][a-z0-9]*\b[^<>]*>", re.IGNORECASE)
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Overlap:
    """A removed training problem, and the evaluation problem that is most like it.

    `similarity` is the Jaccard similarity of their shingles; `exact` says that their words are the same.
    """

    id: str
    source: str
    matched_id: str
    matched_source: str
    similarity: float
    exact: bool


@dataclass(frozen=True)
class _Print:
    """What is kept of a statement: a hash of all its words, and the sorted hashes of its shingles (uint64)."""

    whole: int
    shingles: np.ndarray


class StatementIndex:
    """Evaluation statements, ready to be compared with any number of training statements.

    Args:
        problems: the evaluation problems, of one benchmark or of several.
        threshold: least similarity that counts as an overlap, above 0 and at most 1.
        ngram: words in a shingle.

    Raises:
        ParameterError: a threshold or a number of words out of range.
    """

    def __init__(self, problems: Iterable[Problem], *, threshold: float = THRESHOLD, ngram: int = NGRAM) -> None:
        if not 0 < threshold <= 1:
            raise ParameterError(f"decontamination threshold must be above 0 and at most 1, not {threshold}")
        if ngram < 1:
            raise ParameterError(f"decontamination ngram must be at least 1, not {ngram}")
        self.threshold, self.ngram = threshold, ngram
        self.bands, self.rows = bands(threshold)
        self._lsh = MinHashLSH(num_perm=self.bands * self.rows, params=(self.bands, self.rows))
        self._empty = MinHash(num_perm=self.bands * self.rows, hashfunc=int)
        self._names: list[tuple[str, str]] = []
        self._prints: list[_Print] = []
        self._same: dict[int, list[int]] = {}
        for problem in problems:
            self._add(problem)

    def __len__(self) -> int:
        return len(self._prints)

    def find(self, problem: Problem) -> Overlap | None:
        """The evaluation problem most like this one, if any is an overlap; of equals the first by source and id."""
        made = _print(problem, self.ngram)
        near = {key: _jaccard(made.shingles, self._prints[key].shingles) for key in self._candidates(made)}
        same = set(self._same.get(made.whole, ()))
        found = [
            (key not in same, -near[key], *self._names[key])
            for key in near
            if key in same or near[key] >= self.threshold
        ]
        if not found:
            return None
        other_words, minus_similarity, matched_source, matched_id = min(found)
        return Overlap(problem.id, problem.source, matched_id, matched_source, -minus_similarity, not other_words)

    def _add(self, problem: Problem) -> None:
        made, key = _print(problem, self.ngram), len(self._prints)
        self._names.append((problem.source, problem.id))
        self._prints.append(made)
        self._same.setdefault(made.whole, []).append(key)
        self._lsh.insert(key, self._sketch(made))

    def _candidates(self, made: _Print) -> set[int]:
        return {*self._lsh.query(self._sketch(made)), *self._same.get(made.whole, ())}

    def _sketch(self, made: _Print) -> MinHash:
        sketch = self._empty.copy()
        sketch.update_batch(made.shingles & np.uint64(0xFFFFFFFF))
        return sketch


def bands(threshold: float) -> tuple[int, int]:
    """Bands and rows per band for which a pair at the threshold is a candidate with probability RECALL or more.

    A pair of similarity s agrees in a band of r rows with probability s^r. Among the choices that need at most 128
    permutations, the one with the longest bands: it has the fewest needless candidates.
    """
    if threshold == 1:
        return 2, _MOST_PERMUTATIONS // 2
    choices = []
    for rows in range(1, _MOST_PERMUTATIONS // 2 + 1):
        needed = max(2, math.ceil(math.log(1 - RECALL) / math.log1p(-(threshold**rows))))
        if rows == 1 or needed * rows <= _MOST_PERMUTATIONS:
            choices.append((needed, rows))
    return choices[-1]


def without_overlap(train: Iterable[Problem], index: StatementIndex, removed: list[Overlap]) -> Iterator[Problem]:
    """The training problems that are unlike all evaluation problems, one at a time; the others go to `removed`."""
    for problem in train:
        overlap = index.find(problem)
        if overlap is None:
            yield problem
        else:
            removed.append(overlap)


def remove_overlap(
    train: Iterable[Problem],
    evaluation: Iterable[Problem],
    *,
    threshold: float = THRESHOLD,
    ngram: int = NGRAM,
) -> tuple[list[Problem], list[Overlap]]:
    """The training problems to keep and the overlaps removed, in their order; for streams see `without_overlap`.

    Raises:
        ParameterError: a threshold or a number of words out of range.
    """
    removed: list[Overlap] = []
    index = StatementIndex(evaluation, threshold=threshold, ngram=ngram)
    return list(without_overlap(train, index, removed)), removed


def overlap_table(removed: Iterable[Overlap]) -> pd.DataFrame:
    """One row per removed problem, with the fields of `Overlap`; most alike first."""
    columns = [field.name for field in dataclasses.fields(Overlap)]
    rows = sorted(removed, key=lambda overlap: (not overlap.exact, -overlap.similarity, overlap.source, overlap.id))
    return pd.DataFrame([dataclasses.astuple(overlap) for overlap in rows], columns=columns)


def overlap_counts(removed: Iterable[Overlap]) -> pd.DataFrame:
    """Removed problems per training and evaluation benchmark: how many are exact, how many near."""
    table = overlap_table(removed).assign(near=lambda rows: ~rows["exact"].astype(bool))
    return table.groupby(["source", "matched_source"])[["exact", "near"]].sum().astype(int).reset_index()


def words_of(problem: Problem) -> list[str]:
    """The words of a statement that are compared; the text itself where it has none."""
    starter = problem.starter_code.strip()
    text = problem.statement.replace(starter, " ") if starter else problem.statement
    if not text.strip():  # the statement is the starter code, as in HumanEval
        text = problem.statement
    plain = _WITHIN_WORDS.sub("", html.unescape(unicodedata.normalize("NFKC", text)))
    return _WORD.findall(_TAG.sub(" ", plain).casefold()) or [text.strip()]


def _print(problem: Problem, ngram: int) -> _Print:
    words = words_of(problem)
    runs = (" ".join(words[start : start + ngram]) for start in range(max(1, len(words) - ngram + 1)))
    return _Print(_hash(" ".join(words)), np.unique(np.fromiter(map(_hash, runs), dtype=np.uint64)))


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def _jaccard(left: np.ndarray, right: np.ndarray) -> float:
    shared = len(np.intersect1d(left, right, assume_unique=True))
    return shared / (len(left) + len(right) - shared)
