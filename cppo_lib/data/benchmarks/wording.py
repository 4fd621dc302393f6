"""What a statement's wording says about how the problem must be judged, for data without a field that says so.

APPS and CodeContests keep one expected output per test and no checker. Two kinds of problems cannot be judged by it:

- interactive ones, where the program talks to a judge;
- those with several right answers ("if there are multiple answers, print any of them"), where a right program fails
  unless it happens to give the stored one. AlphaCode's authors found about a quarter of the CodeContests validation
  problems to be of this kind (arXiv 2203.07814, appendix A.2).

A third kind can be judged, but not letter by letter: those whose answer may be in upper or lower case ("You can print
each letter in any case"). `stdio_comparator` says so.

The rules look for the fixed phrases that the contest sites use. They are a filter and no proof: a problem may allow
several answers, or any case, without saying so in these words.
"""

from __future__ import annotations

import re

_INTERACTIVE = re.compile(
    r"""
    \b(?:this|it)\s+is\s+an\s+\**interactive\b
    | \binteractive\s+(?:problem|task|version|protocol|judge|interaction)s?\b
    | \b(?:problem|task)\s+is\s+interactive\b
    | \bfflush\s*\(\s*stdout\s*\) | \bstdout\.flush\b
    | \bflush\s+(?:(?:the|your)\s+(?:standard\s+)?output|stdout|standard\s+output)\b
    """,
    re.IGNORECASE | re.VERBOSE,
)

_SAY = r"(?:print|output|report|return|write|display|find)"
_THING = r"(?:answers?|solutions?|ways?|outputs?|options?|variants?|possibilit(?:y|ies)|optimal\s+\w+|such\s+\w+)"
_RIGHT = r"(?:valid|correct|suitable|possible|appropriate|optimal|acceptable)"
_PADDING = r"(?:extra|additional|other|more|further|number|text|message|space|line|character|unnecessary)"
_SEVERAL = re.compile(
    rf"""
    # "If there are multiple answers, print any", "there is more than one solution ... one of them"
    \b(?:multiple|several|many|more\s+than\s+one|various|different)\s+(?:\w+\s+){{0,3}}?{_THING}\b[^.!?]{{0,100}}
        \b(?:{_SAY}\s+(?:\w+\s+)?(?:any|arbitrary|either)\b | (?:any|one|either)\s+(?:one\s+)?of\s+them\b
        | (?:any|either)\s+(?:\w+\s+){{0,3}}accept)
    # "print any of them", "any of them will be accepted"
    | \b{_SAY}\s+(?:just\s+|only\s+)?(?:any|either)\s+(?:one\s+)?of\s+(?:them|these|those|the)\b
    | \bany\s+(?:one\s+)?of\s+them\s+(?:\w+\s+){{0,3}}(?:accept|correct|valid)
    # "print any valid answer", "you may output any", "any correct output is accepted", at the start of a sentence
    # also "find any permutation"
    | \b{_SAY}\s+(?:any|arbitrary)\s+(?:\w+\s+)?(?:{_RIGHT}|such|answer|solution)\b
    | \b(?:may|can|could|should)\s+{_SAY}\s+any\b(?!\s+{_PADDING})
    | \bany\s+(?:\w+\s+)?{_RIGHT}\s+(?:\w+\s+){{0,2}}?(?:is|are|(?:will|would|may|can)\s+be)\s+(?:\w+\s+)?
        (?:accept|printed|output|considered|fine|ok)
    | (?:^|[.;:\n]\s*)(?:print|output|find|construct)\s+any\s+(?!{_PADDING}|of\b|two\b)\w
    # "print the numbers in any order"
    | \b(?:print|output|return|report|list)\w*\b[^.!?]{{0,80}}\b(?:in|using)\s+(?:any|arbitrary)\s+order\b
    | \b(?:in|using)\s+any\s+order\b[^.!?]{{0,40}}\b(?:print|output)
    """,
    re.IGNORECASE | re.VERBOSE,
)

_WITHIN = r"(?:[^.!?\n]|\n(?!\s*\n))"  # a sentence, and not from a heading into the paragraph below it
_EITHER_CASE = r"(?:upper|lower)[-\s]?(?:case)?\s*(?:or|and|/)\s*(?:upper|lower)[-\s]?case"
_ANY_CASE = re.compile(
    rf"""
    # "print each letter in any case (upper or lower)", "output YES and NO in any case", "in arbitrary register"
    \b(?:print|output|write|return|letters?\b|characters?\b)\w*{_WITHIN}{{0,80}}\b(?:in|use)\s+
        (?:an?\s+)?(?:any|either|arbitrary)\s+(?:\([^)]{{0,30}}\)\s+)?(?:letter\s+)?(?:case|register)\b
        (?!,?\s+(?:where|when|that|print|output|the|it|you\s+(?!want|like|wish))\b)
    # "you may print each character of the string in uppercase or lowercase"
    | \b(?:may|can|could)\s+(?:be\s+)?(?:print|output|write)\w*\s{_WITHIN}{{0,60}}\b(?:letters?|characters?)\b
        {_WITHIN}{{0,40}}\bin\s+(?:either\s+|both\s+)?{_EITHER_CASE}\b
    # "the judge is case-insensitive", "output is not case sensitive", "print YES or NO (case insensitive)"
    | \b(?:judge|checker|grader|output|answer|verdict)s?\s+(?:is|are|will\s+be)\s+(?:\w+\s+)?
        (?:case[-\s]?insensitive|not\s+case[-\s]?sensitive)\b
    | \b(?:print|output|write)\b{_WITHIN}{{0,80}}\bcase[-\s]?insensitive(?:ly)?(?=\s*(?:[).,;:\n]|$))
    """,
    re.IGNORECASE | re.VERBOSE,
)


def stdio_comparator(statement: str) -> str:
    """`tokens_any_case` where a statement says that an answer may be in any letter case, else `tokens`."""
    return "tokens_any_case" if _ANY_CASE.search(statement) else "tokens"


def unfit(statement: str, *, keep_several_answers: bool) -> tuple[str, str] | None:
    """Why one expected output cannot judge a problem: (`interactive` or `several answers`, the words that say so).

    Returns None for a problem that can be, and for one with several answers that the caller wants to keep.
    """
    checks = [("interactive", _INTERACTIVE)] + ([] if keep_several_answers else [("several answers", _SEVERAL)])
    for reason, phrases in checks:
        if match := phrases.search(statement):
            return reason, " ".join(match[0].split())
    return None
