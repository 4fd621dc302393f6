"""Overlap of statements: exact, near and unrelated ones, on real benchmarks and against the similarity of all pairs."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from cppo_lib.data.benchmarks import humaneval, leetcode
from cppo_lib.data.decontaminate import (
    RECALL,
    Overlap,
    StatementIndex,
    bands,
    overlap_counts,
    overlap_table,
    remove_overlap,
    without_overlap,
    words_of,
)
from cppo_lib.data.problem import Problem
from cppo_lib.errors import ParameterError

HUMANEVAL = humaneval.load()
LEETCODE = {split: list(leetcode.load(split)) for split in leetcode.SPLITS}
EVERY = [problem for problems in LEETCODE.values() for problem in problems]
BY_ID = {problem.id: problem for problem in EVERY}
VARIANTS = {  # the pairs of kept LeetCode problems with at least half of their shingles in common
    ("count_prefix_and_suffix_pairs_i", "count_prefix_and_suffix_pairs_ii"),
    ("graph_valid_tree", "number_of_connected_components_in_an_undirected_graph"),
    ("h_index", "h_index_ii"),
    ("house_robber", "house_robber_ii"),
    ("last_stone_weight", "last_stone_weight_ii"),
    ("meeting_rooms", "meeting_rooms_ii"),
    ("minimize_malware_spread", "minimize_malware_spread_ii"),
    ("power_of_four", "power_of_two"),
    ("sentence_similarity", "sentence_similarity_ii"),
    ("smallest_range_i", "smallest_range_ii"),
    ("the_maze", "the_maze_ii"),
}


def copied(problem: Problem, statement: str) -> Problem:
    """The same problem in another benchmark, in other words and with no starter code."""
    return replace(problem, id=f"copy of {problem.id}", source="copies", statement=statement, starter_code="")


def shingles(problem: Problem) -> frozenset[tuple[str, ...]]:
    """All runs of three words."""
    words = words_of(problem)
    return frozenset(zip(words, words[1:], words[2:], strict=False))


def jaccard(left: frozenset[tuple[str, ...]], right: frozenset[tuple[str, ...]]) -> float:
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def with_changed_words(text: str, share: float, seed: int) -> str:
    """Replace a share of the words by words of no statement."""
    random_ = random.Random(seed)
    parts = text.split(" ")
    for place in random_.sample(range(len(parts)), round(share * len(parts))):
        parts[place] = f"zzz{random_.randrange(10**6)}"
    return " ".join(parts)


# Exact and near ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "rewrite",
    [
        str,
        str.upper,
        lambda text: text.replace("\n", "  \n\n\t"),
        lambda text: text.replace("`", "").replace("**", "").replace("\n- ", "\n* "),
        lambda text: "<p>" + text.replace("\n\n", "</p>\n<p>") + "</p>",
        lambda text: text.replace("^", "<sup>").replace("<=", "&lt;=").replace("10^5", "10\u2075"),
    ],
    ids=["copy", "case", "white space", "Markdown", "HTML", "powers"],
)
def test_the_same_words_are_exact(rewrite: Callable[[str], str]) -> None:
    evaluation = LEETCODE["test"]
    train = [copied(p, rewrite(p.statement.replace(p.starter_code.strip(), ""))) for p in evaluation]
    kept, removed = remove_overlap(train, evaluation)
    assert kept == []
    assert removed == [Overlap(f"copy of {p.id}", "copies", p.id, "leetcode", 1.0, True) for p in evaluation]


def test_statements_with_a_few_other_words_are_near() -> None:
    train = [
        copied(problem, with_changed_words(problem.statement, 0.05, seed)) for seed, problem in enumerate(HUMANEVAL)
    ]
    kept, removed = remove_overlap(train, HUMANEVAL)
    assert len(kept) <= 3  # some prompts have twenty words, of which one stands in three shingles
    twins = {"HumanEval/61": "HumanEval/56"}  # the same words about two kinds of brackets
    names = {f"copy of {key}": twins.get(key, key) for key in (problem.id for problem in HUMANEVAL)}
    near = [overlap for overlap in removed if not overlap.exact]
    assert len(near) > 120 and all(0.5 <= overlap.similarity < 1 for overlap in near)
    assert [overlap for overlap in near if overlap.matched_id not in (names[overlap.id], overlap.id[8:])] == []


def test_statements_with_half_of_their_words_changed_are_kept() -> None:
    train = [copied(p, with_changed_words(p.statement, 0.5, seed)) for seed, p in enumerate(LEETCODE["test"])]
    assert remove_overlap(train, LEETCODE["test"]) == (train, [])


def test_the_names_of_functions_alone_are_no_overlap() -> None:
    first, second = BY_ID["coin_change"], BY_ID["zigzag_conversion"]
    alike = copied(first, first.statement.replace(first.starter_code.strip(), second.starter_code.strip()))
    (overlap,) = remove_overlap([alike], [first, second])[1]
    assert overlap.matched_id == "coin_change" and overlap.similarity > 0.8


def test_statements_shorter_than_a_shingle_are_compared_whole() -> None:
    base = HUMANEVAL[0]
    short = [copied(base, text) for text in ("Add two", "add TWO.", "Add three", "?!", "+")]
    _, removed = remove_overlap(short[1:4], [short[0], short[4]])
    assert [overlap.exact for overlap in removed] == [True]
    assert len(remove_overlap([short[3]], [short[3]])[1]) == 1


# Real benchmarks ---------------------------------------------------------------------------------
def test_humaneval_and_leetcode_have_no_statement_in_common() -> None:
    assert remove_overlap(EVERY, HUMANEVAL) == (EVERY, [])
    ours, theirs = [(p.id, shingles(p)) for p in HUMANEVAL], [(p.id, shingles(p)) for p in LEETCODE["test"]]
    closest = max((jaccard(a, b), left, right) for left, a in ours for right, b in theirs)
    assert closest[0] < 0.1


@pytest.mark.parametrize(("one", "other"), sorted(VARIANTS))
def test_variants_of_a_leetcode_problem_are_near(one: str, other: str) -> None:
    (overlap,) = remove_overlap([BY_ID[one]], [BY_ID[other]])[1]
    assert not overlap.exact and 0.5 <= overlap.similarity < 0.75
    assert remove_overlap([BY_ID[other]], [BY_ID[one]])[1][0].similarity == overlap.similarity


def test_overlaps_are_those_that_comparing_all_pairs_finds() -> None:
    evaluation = LEETCODE["dev"] + LEETCODE["test"]
    sets = [(problem.id, shingles(problem)) for problem in evaluation]
    closest = []
    for problem in LEETCODE["train"]:
        own = shingles(problem)
        best, match = max(((jaccard(own, other), key) for key, other in sets), key=lambda pair: pair[0])
        closest.append(Overlap(problem.id, "leetcode", match, "leetcode", best, False))
    for threshold, count in ((0.2, 20), (0.5, 2)):
        expected = [overlap for overlap in closest if overlap.similarity >= threshold]
        kept, removed = remove_overlap(LEETCODE["train"], evaluation, threshold=threshold)
        assert removed == expected and len(removed) == count
        assert [problem.id for problem in kept] == [o.id for o in closest if o.similarity < threshold]


def test_a_copy_hidden_in_a_training_set_is_found_among_hundreds() -> None:
    hidden = [copied(p, with_changed_words(p.statement, 0.03, seed)) for seed, p in enumerate(HUMANEVAL[::10])]
    kept, removed = remove_overlap(EVERY + hidden, HUMANEVAL)
    assert kept == EVERY and [overlap.matched_id for overlap in removed] == [p.id for p in HUMANEVAL[::10]]


# Order, streams, limits --------------------------------------------------------------------------
def test_results_do_not_depend_on_order_or_repetition() -> None:
    evaluation = LEETCODE["dev"] + HUMANEVAL
    train = LEETCODE["train"][:100] + [copied(p, with_changed_words(p.statement, 0.05, 7)) for p in HUMANEVAL]
    first = remove_overlap(train, evaluation)
    shuffled = random.Random(1).sample(evaluation, len(evaluation))
    assert remove_overlap(train, shuffled) == first
    assert remove_overlap(train, evaluation + shuffled) == first
    kept, removed = remove_overlap(train[::-1], evaluation)
    assert (kept[::-1], removed[::-1]) == first
    assert len(first[0]) > 100 and len(first[1]) > 150


def test_of_equal_matches_the_first_by_source_and_id_is_named() -> None:
    text = HUMANEVAL[0].statement
    equal = [replace(copied(HUMANEVAL[0], text), source=source, id=key) for source in "ba" for key in "zy"]
    for order in itertools.permutations(equal):
        (overlap,) = remove_overlap([HUMANEVAL[0]], order)[1]
        assert (overlap.matched_source, overlap.matched_id) == ("a", "y")


def test_training_problems_are_taken_one_at_a_time() -> None:
    taken: list[str] = []

    def stream() -> Iterator[Problem]:
        for problem in [HUMANEVAL[0], *LEETCODE["test"][:3]]:
            taken.append(problem.id)
            yield problem

    removed: list[Overlap] = []
    kept = without_overlap(stream(), StatementIndex(iter(HUMANEVAL)), removed)
    assert taken == [] and next(kept) == LEETCODE["test"][0]
    assert taken == ["HumanEval/0", LEETCODE["test"][0].id] and [overlap.id for overlap in removed] == ["HumanEval/0"]
    assert list(kept) == LEETCODE["test"][1:3]


def test_empty_sets() -> None:
    assert remove_overlap([], HUMANEVAL) == ([], [])
    assert remove_overlap(HUMANEVAL, []) == (HUMANEVAL, [])
    assert len(StatementIndex([])) == 0
    assert list(overlap_table([]).columns) == ["id", "source", "matched_id", "matched_source", "similarity", "exact"]
    assert overlap_counts([]).empty


def test_the_tables_count_what_was_removed() -> None:
    near = copied(HUMANEVAL[10], with_changed_words(HUMANEVAL[10].statement, 0.05, 1))
    _, removed = remove_overlap([near, *HUMANEVAL[:3], *LEETCODE["test"][:2]], HUMANEVAL + LEETCODE["test"])
    table = overlap_table(removed)
    assert list(table["id"]) == [
        "HumanEval/0",
        "HumanEval/1",
        "HumanEval/2",
        *sorted(p.id for p in LEETCODE["test"][:2]),
    ] + [near.id]
    assert overlap_counts(removed).to_dict("records") == [
        {"source": "copies", "matched_source": "humaneval", "exact": 0, "near": 1},
        {"source": "humaneval", "matched_source": "humaneval", "exact": 3, "near": 0},
        {"source": "leetcode", "matched_source": "leetcode", "exact": 2, "near": 0},
    ]


@pytest.mark.parametrize("threshold", [0.05, 0.1, 0.3, 0.5, 0.6, 0.8, 0.95, 1.0])
def test_a_pair_at_the_threshold_is_hardly_missed(threshold: float) -> None:
    count, rows = bands(threshold)
    assert 1 - (1 - threshold**rows) ** count >= RECALL - 1e-12
    assert rows == 1 or count * rows <= 128


@pytest.mark.parametrize(("options", "words"), [({"threshold": 0}, "above 0"), ({"ngram": 0}, "at least 1")])
def test_bad_settings_are_named(options: dict[str, int], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        remove_overlap(HUMANEVAL, HUMANEVAL, **options)


def test_thousands_of_statements_take_seconds() -> None:
    evaluation = [replace(p, statement=with_changed_words(p.statement, 0.2, 1)) for p in EVERY]
    train = EVERY + [replace(p, statement=with_changed_words(p.statement, 0.7, 2)) for p in EVERY]
    start = time.process_time()
    remove_overlap(train, evaluation)
    assert time.process_time() - start < 10
