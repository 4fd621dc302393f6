"""The methods of the crossroads world: 6 families x 8 methods, each a real short Python program.

A method is an expression over the list `a` read from standard input. `program` wraps it into the program that the
corpus shows and a policy writes; `evaluate` computes its output in this process, which is safe because the
expressions are ours and not a model's.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

READ = "a=list(map(int,input().split()))\n"


@dataclass(frozen=True)
class Method:
    """One way to solve a family's problems: a name in plain words and an expression over the list `a`."""

    name: str
    expression: str

    @property
    def program(self) -> str:
        """The program that implements the method: reads one line of integers, prints the answer."""
        return f"{READ}print({self.expression})"


@dataclass(frozen=True)
class Family:
    """A family of problems that share a task, eight candidate methods and two clues.

    `task` is the verb phrase of the statement, `clues` the two adjectives that tell its contexts apart.
    """

    name: str
    task: str
    clues: tuple[str, str]
    methods: tuple[Method, ...]


def _family(name: str, task: str, clues: tuple[str, str], **expressions: str) -> Family:
    methods = tuple(Method(key.replace("_", " "), text) for key, text in expressions.items())
    return Family(name, task, clues, methods)


FAMILIES: tuple[Family, ...] = (
    _family(
        "middle",
        "the middle",
        ("noisy", "skewed"),
        mean="sum(a)//len(a)",
        upper_median="sorted(a)[len(a)//2]",
        lower_median="sorted(a)[(len(a)-1)//2]",
        midrange="(min(a)+max(a))//2",
        centre_item="a[len(a)//2]",
        mode="max(a,key=a.count)",
        mean_of_the_ends="(a[0]+a[-1])//2",
        trimmed_mean="(sum(a)-min(a)-max(a))//(len(a)-2)",
    ),
    _family(
        "spread",
        "the spread",
        ("daily", "yearly"),
        range="max(a)-min(a)",
        gap_of_the_ends="abs(a[-1]-a[0])",
        biggest_step="max(abs(x-y)for x,y in zip(a,a[1:]))",
        smallest_step="min(abs(x-y)for x,y in zip(a,a[1:]))",
        total_travel="sum(abs(x-y)for x,y in zip(a,a[1:]))",
        top_gap="max(a)-sorted(a)[-2]",
        bottom_gap="sorted(a)[1]-min(a)",
        widest_hole="max(y-x for x,y in zip(sorted(a),sorted(a)[1:]))",
    ),
    _family(
        "score",
        "the score",
        ("home", "away"),
        total="sum(a)",
        distinct_total="sum(set(a))",
        best_two="sum(sorted(a)[-2:])",
        first_and_last="a[0]+a[-1]",
        extremes="max(a)+min(a)",
        peak="max(a)",
        total_change="sum(abs(x-y)for x,y in zip(a,a[1:]))",
        weighted_total="sum(i*x for i,x in enumerate(a))",
    ),
    _family(
        "order",
        "the order",
        ("public", "private"),
        ascending="*sorted(a)",
        without_repeats="*sorted(set(a))",
        as_text="*sorted(a,key=str)",
        by_last_digit="*sorted(a,key=lambda x:x%10)",
        by_digit_sum="*sorted(a,key=lambda x:sum(map(int,str(x))))",
        evens_first="*sorted(a,key=lambda x:(x%2,x))",
        odds_first="*sorted(a,key=lambda x:(x%2==0,x))",
        unchanged="*a",
    ),
    _family(
        "count",
        "the count",
        ("early", "late"),
        all_items="len(a)",
        distinct_items="len(set(a))",
        single_items="sum(a.count(x)==1 for x in a)",
        runs="1+sum(x!=y for x,y in zip(a,a[1:]))",
        rises="1+sum(x<y for x,y in zip(a,a[1:]))",
        positive_items="sum(x>0 for x in a)",
        late_items="sum(x>=a[0]for x in a)",
        records="len(set(accumulate(a,max)))",
    ),
    _family(
        "checksum",
        "the checksum",
        ("short", "long"),
        sum_of_digits="sum(int(c)for x in a for c in str(x))",
        digits_of_the_sum="sum(map(int,str(sum(a))))",
        plain_sum="sum(a)",
        sum_modulo_seven="sum(a)%7",
        sum_modulo_ten="sum(a)%10",
        last_digits="sum(x%10 for x in a)",
        first_digits="sum(int(str(x)[0])for x in a)",
        exclusive_or="reduce(lambda x,y:x^y,a)",
    ),
)


@functools.cache
def _compiled(expression: str) -> object:
    return compile(f"_print({expression})", "<method>", "eval")


def evaluate(method: Method, a: list[int]) -> str:
    """The text that the method's program prints for the list `a` (without the newline).

    Raises IndexError, ValueError or ZeroDivisionError where the program would crash on `a`.
    """
    names = {
        "a": a,
        "accumulate": itertools.accumulate,
        "reduce": functools.reduce,
        "_print": lambda *values: " ".join(map(str, values)),
    }
    return eval(_compiled(method.expression), names)  # type: ignore[arg-type]  # our own code
