"""The wire protocol: whatever bytes a program or a worker leaves, nothing raises and no verdict is forged."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cppo_lib.data.problem import Problem, Test
from cppo_lib.verifier import pool, verdict
from cppo_lib.verifier.child import harness, wire
from cppo_lib.verifier.child.harness import SETUP_FAILED, Gone, Unusable
from cppo_lib.verifier.child.values import Opaque, decode, encode
from cppo_lib.verifier.pool import Outcome

PROPERTY = settings(max_examples=150)
VERDICTS = {"AC", "WA", "TLE", "MLE", "OLE", "RE", "CE", "IE"}
STDIO = Problem(id="stdio", source="wire", statement="print 42", tests=(Test(input="", expected="42\n"),))
CALL = Problem(
    id="call",
    source="wire",
    statement="return [1, 2]",
    tests=(Test(input="[]", expected="[1, 2]"),),
    mode="call",
    fn_name="f",
)
ENDED_WELL = Outcome(id=0, status=0, killed="", cpu=0.1, wall=0.1, rss=10.0)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(60, 2000).map(lambda power: -(1 << power))
    | st.floats(allow_nan=False)
    | st.text()
    | st.sampled_from(["\ud800", "\x00", "\udcff\n"])
    | st.binary()
    | st.complex_numbers(allow_nan=False)
)
hashables = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4).map(tuple) | st.frozensets(inner, max_size=4),
    max_leaves=6,
)
plain_values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(hashables, inner, max_size=4)
        | st.sets(hashables, max_size=4)
    ),
    max_leaves=10,
)
tags = st.sampled_from(list("tsfdicbo") + ["", "x"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(["0x1f", "-ff", "00ff"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(), inner, max_size=3)
        | st.builds(lambda tag, body: {tag: body}, tags, inner)
    ),
    max_leaves=12,
)
reports = (
    st.binary(max_size=100)
    | st.builds(
        lambda letter, text: letter + text,
        st.sampled_from(list(b"RCEVOPAXGBD")).map(lambda c: bytes([c])),
        st.binary(max_size=60),
    )
    | json_values.map(lambda value: b"V" + json.dumps(value).encode())
    | st.sampled_from([b"", b"R", b"V[1, 2]", b'V{"t": [1, 2]}', b"V[1, true]", b"V" + b"[" * 50_000, b"P"])
)
outcomes = st.builds(
    Outcome,
    id=st.just(0),
    status=st.sampled_from([0, 0, 0, 1, 120, SETUP_FAILED, 255, *(-number for number in signal.Signals)]),
    killed=st.sampled_from(["", "", "", "cpu", "wall", "disk"]),
    cpu=st.sampled_from([0.0, 0.1, 5.9, 6.1, 9.1]),
    wall=st.just(0.1),
    rss=st.just(10.0),
)
outputs = st.binary(max_size=60) | st.sampled_from([b"", b"42", b" 42.0 \n\n", b"42\x00", b"\xff" * 70_000])
channel_lines = (
    st.binary(max_size=80)
    | json_values.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(
        st.sampled_from(["id", "status", "killed", "cpu", "wall", "rss", "names"]), json_values, max_size=7
    ).map(lambda message: json.dumps(message).encode())
    | st.sampled_from(
        [b"[" * 5000, b'{"names": []}', b'{"id":0,"status":0,"killed":"","cpu":0,"wall":0,"rss":0,"names":[]}']
    )
)


# Values -------------------------------------------------------------------------------------------
def shape(value: Any) -> Any:
    """A value and the types inside it, in a form where True is not 1 and -0.0 is not 0.0."""
    if isinstance(value, list | tuple):
        return type(value).__name__, [shape(item) for item in value]
    if isinstance(value, set | frozenset):
        return type(value).__name__, sorted(repr(shape(item)) for item in value)
    if isinstance(value, dict):
        return "dict", [(shape(key), shape(item)) for key, item in value.items()]
    return type(value).__name__, repr(value)


@PROPERTY
@given(value=plain_values)
def test_plain_values_survive_the_way_between_processes(value: object) -> None:
    assert shape(decode(json.loads(json.dumps(encode(value))))) == shape(value)


def test_values_without_a_plain_form_become_opaque() -> None:
    assert math.isnan(decode(json.loads(json.dumps(encode(math.nan)))))
    for value in (iter([]), len, object(), range(3)):
        back = decode(json.loads(json.dumps(encode([value]))))
        assert isinstance(back[0], Opaque) and back != [value] and back[0] != back[0]


@PROPERTY
@given(data=json_values)
def test_decoding_raises_only_what_it_says(data: object) -> None:
    with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):
        decode(data)


@pytest.mark.parametrize("data", [{}, {"x": 1}, {"t": 1}, {"d": [1]}, {"s": [[1]]}, {"b": "zz"}, {"i": 5}])
def test_nonsense_is_not_decoded(data: object) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        decode(data)


# Verdicts -----------------------------------------------------------------------------------------
def ended_well(outcome: Outcome) -> bool:
    return outcome.status == 0 and not outcome.killed and outcome.cpu <= STDIO.cpu_limit_s


def test_right_answers_are_accepted() -> None:
    assert verdict.ended(ENDED_WELL, b"R", 6.0) is None
    assert verdict.stdio(STDIO, STDIO.tests[0], ENDED_WELL, b"R", b"42").verdict == "AC"
    assert verdict.call(CALL, CALL.tests[0], ENDED_WELL, b'V{"t": [1, 2]}').verdict == "AC"
    assert verdict.checked(CALL, (ENDED_WELL, b"R"), (ENDED_WELL, b"P")).verdict == "AC"


@PROPERTY
@given(outcome=outcomes, report=reports)
def test_an_end_alone_is_never_accepted(outcome: Outcome, report: bytes) -> None:
    finding = verdict.ended(outcome, report, 6.0)
    assert finding is None or finding.verdict in VERDICTS - {"AC", "WA"}
    assert finding is not None or ended_well(outcome)


@PROPERTY
@given(outcome=outcomes | st.just(ENDED_WELL), report=reports, output=outputs)
def test_stdio_accepts_only_the_right_output_of_a_program_that_ended_well(
    outcome: Outcome, report: bytes, output: bytes
) -> None:
    finding = verdict.stdio(STDIO, STDIO.tests[0], outcome, report, output)
    assert finding.verdict in VERDICTS
    if finding.verdict == "AC":
        assert ended_well(outcome) and float(output) == 42


@PROPERTY
@given(outcome=outcomes | st.just(ENDED_WELL), report=reports)
def test_call_accepts_only_the_right_value_of_a_program_that_ended_well(outcome: Outcome, report: bytes) -> None:
    finding = verdict.call(CALL, CALL.tests[0], outcome, report)
    assert finding.verdict in VERDICTS
    if finding.verdict == "AC":
        assert ended_well(outcome) and report[:1] == b"V"
        assert list(decode(json.loads(report[1:]))) == [1, 2]


@PROPERTY
@given(program=st.tuples(outcomes | st.just(ENDED_WELL), reports), check=st.tuples(outcomes, reports))
def test_only_the_checker_can_accept(program: tuple[Outcome, bytes], check: tuple[Outcome, bytes]) -> None:
    finding = verdict.checked(CALL, program, check)
    assert finding.verdict in VERDICTS
    if finding.verdict == "AC":
        assert ended_well(program[0]) and check[0].status == 0 and check[1][:1] == b"P"


def test_a_forged_value_that_no_number_can_hold_is_wrong() -> None:
    report = b'V{"c": [1' + b"0" * 400 + b", 0]}"
    assert verdict.call(CALL, CALL.tests[0], ENDED_WELL, report).verdict == "WA"


def test_a_real_time_signal_is_a_run_time_error() -> None:
    finding = verdict.ended(replace(ENDED_WELL, status=-40), b"R", 6.0)
    assert finding is not None and finding.verdict == "RE"


@pytest.mark.parametrize("letter", [b"E", b"C"])
def test_a_forged_report_gives_a_short_reason(letter: bytes) -> None:
    finding = verdict.ended(replace(ENDED_WELL, status=1), letter + b"x" * 1_000_000, 6.0)
    assert finding is not None and len(finding.reason) < 5000


def test_a_forged_set_of_equal_hashes_does_not_hold_the_parent_up() -> None:
    members = [{"i": hex(factor * (2**61 - 1))} for factor in range(9, 12_009)]
    start = time.process_time()
    with contextlib.suppress(ValueError):
        decode({"s": members})
    assert time.process_time() - start < 0.2


# Pipes --------------------------------------------------------------------------------------------
def frame(body: bytes) -> bytes:
    return struct.pack("=I", len(body)) + body


@contextlib.contextmanager
def pipe_holding(data: bytes) -> Iterator[int]:
    """The reading end of a pipe whose writer has written `data` and gone."""
    reading, writing = os.pipe()
    try:
        with open(writing, "wb") as file:
            file.write(data)
        yield reading
    finally:
        os.close(reading)


@PROPERTY
@given(data=st.binary(max_size=200) | st.binary(max_size=200).map(frame))
def test_random_bytes_on_a_pipe_are_no_message_or_an_unusable_one(data: bytes) -> None:
    with pipe_holding(data) as fd, contextlib.suppress(Gone, Unusable):
        assert harness._receive(fd) == json.loads(data[4:])


@PROPERTY
@given(data=st.binary(max_size=200), size=st.integers(0, 250))
def test_exactly_so_many_bytes_or_none(data: bytes, size: int) -> None:
    with pipe_holding(data) as fd:
        if size <= len(data):
            assert harness._exactly(fd, size) == data[:size]
        else:
            with pytest.raises(Gone):
                harness._exactly(fd, size)


@PROPERTY
@given(message=json_values)
def test_messages_survive_a_pipe(message: object) -> None:
    reading, writing = os.pipe()
    try:
        harness._send(writing, message)
        assert json.dumps(harness._receive(reading)) == json.dumps(message)
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", Gone),
        (b"\x05\x00", Gone),
        (struct.pack("=I", 5) + b"[1]", Gone),
        (struct.pack("=I", 1 << 30), Unusable),
        (frame(b"\xff"), Unusable),
        (frame(b"[" * 50_000), Unusable),
    ],
)
def test_broken_messages_are_told_apart(data: bytes, error: type[BaseException]) -> None:
    with pipe_holding(data) as fd, pytest.raises(error):
        harness._receive(fd)


# The control socket -------------------------------------------------------------------------------
def heard(data: bytes) -> list[Outcome]:
    """What the parent makes of a worker that sends `data` and hangs up."""
    channel, theirs = wire.pair()
    found: list[Outcome] = []
    try:
        with theirs:
            theirs.sendall(data)
        while True:
            found += pool.receive(channel)
    except wire.Closed:
        return found
    finally:
        channel.close()


whole_reports = st.builds(
    wire.REPORT.pack,
    *(st.integers(0, 2**64 - 1), st.integers(-(2**31), 2**31 - 1), st.integers(0, 255)),
    *(st.floats(), st.floats(), st.floats(), st.sampled_from([wire._END, 0])),
)


@PROPERTY
@given(pieces=st.lists(st.binary(max_size=80) | whole_reports, max_size=4))
def test_random_bytes_from_a_worker_are_outcomes_or_its_end(pieces: list[bytes]) -> None:
    assert all(isinstance(outcome, Outcome) for outcome in heard(b"".join(pieces)))


@PROPERTY
@given(lines=st.lists(channel_lines, max_size=4))
def test_random_lines_for_a_zygote_are_messages_or_its_end(lines: list[bytes]) -> None:
    channel, theirs = wire.pair()
    with theirs:
        theirs.sendall(b"\n".join(lines) + b"\n")
    try:
        assert all(isinstance(message, dict) for message, _ in channel.receive())
    except wire.Closed:
        pass
    finally:
        channel.close()


def test_outcomes_from_a_worker_are_heard() -> None:
    outcome = Outcome(id=0, status=-9, killed="cpu", cpu=9.5, wall=9.6, rss=12.5)
    packed = wire.REPORT.pack(0, -9, wire.OVER_CPU, 9.5, 9.6, 12.5, wire._END)
    assert heard(packed + packed) == [outcome, outcome]
    assert heard(packed[:-1]) == []
    assert heard(packed[:-1] + b"\0") == []
