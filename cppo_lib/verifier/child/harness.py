"""What happens inside a test process: compile, run, report. Standard library only.

Nothing here can decide that a program passed. A `stdio` program leaves bytes on its standard
output, a `call` program leaves a value, and both are judged elsewhere. In `assert` mode two
processes talk over a pair of pipes: `serve` runs the program and answers calls, `check` runs the
trusted test against a proxy and never executes a byte of the program.

A report is one letter and a text in a memory file. From a program's process: R started, C does not
compile, E uncaught exception, V value (tagged JSON), O value too large. From `check`: P passed,
A assertion failed, X the program raised, G the program is gone, B its answer could not be used,
D the test itself is broken.
"""

from __future__ import annotations

import _sitebuiltins
import _thread
import atexit
import builtins
import json
import os
import struct
import sys
import types
from typing import Any, NoReturn

from cppo_lib.verifier.child.values import UNREADABLE, VALUE_LIMIT, decode, encode

SETUP_FAILED = 121
"""Exit status of a test process that could not be isolated: never a verdict on the program."""
_TEXT_LIMIT = 2000
_ENDS_OF_LOOPS = (StopIteration, StopAsyncIteration)


def _report(fd: int, letter: str, text: str = "") -> None:
    os.pwrite(fd, letter.encode() + text.encode("utf-8", "backslashreplace"), 0)


def _describe(error: BaseException) -> str:
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ").strip().split("\n")[0]
    except BaseException:
        text = type(error).__name__
    line, frame = None, error.__traceback__
    while frame is not None:
        if frame.tb_frame.f_code.co_filename == "solution.py":
            line = frame.tb_lineno
        frame = frame.tb_next
    return text[:_TEXT_LIMIT] + (f" (line {line})" if line else "")


def open_streams() -> None:
    """Open the text streams over descriptors 0 to 2 that test processes inherit unused."""
    for name, fd, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        errors = "backslashreplace" if fd == 2 else "surrogateescape"
        stream = open(fd, mode, encoding="utf-8", errors=errors, buffering=1 << 16, closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def namespace(prelude: dict[str, Any]) -> types.ModuleType:
    """The built-in names of a program: Python's own and the prelude's.

    The prelude sits here and not among the globals because copying its 700 names would cost each
    fork half a millisecond.
    """
    module = types.ModuleType("builtins")
    leave = {name: _sitebuiltins.Quitter(name, "Ctrl-D") for name in ("exit", "quit")}
    vars(module).update({**vars(builtins), **leave, **prelude})
    vars(module).update((name, getattr(sys, name)) for name in ("stdin", "stdout", "stderr") if name in prelude)
    return module


def compiled(source: str) -> types.CodeType | str:
    """The code of a program, which is not run; a text that says why there is none.

    Python takes one byte-order mark at the start of a file for no part of the program, but not of a text. Of what a
    file may hold that is the only difference: an encoding declared in a text that is decoded already says nothing.
    """
    try:
        return compile(source.removeprefix("\ufeff"), "solution.py", "exec", dont_inherit=True)
    except BaseException as error:
        return _describe(error)


def report_unrunnable(report: int, why: str) -> None:
    """Report that a program does not compile."""
    _report(report, "C", why)


def begin(known: types.ModuleType, name: str) -> dict[str, Any]:
    """Make a fresh module with these built-in names, and return its global names.

    A script is called `__main__`. A module whose function is called is not, so that its main guard does not run: the
    official graders of call-based problems do not run it either.
    """
    module = types.ModuleType(name)
    vars(module)["__builtins__"] = known
    sys.modules[name] = sys.modules["__main__"] = module
    sys.argv = ["solution.py"]
    return vars(module)


_reserve = [bytearray(4 << 20)]
"""Given up when a program fails, so that one that has used up its memory can still be reported."""


def _fail(report: int, error: BaseException) -> NoReturn:
    _reserve.clear()
    _report(report, "E", _describe(error))
    os._exit(1)


def _leave() -> NoReturn:
    """End as the interpreter would: wait for threads and pools of threads, run exit handlers, flush."""
    if _thread._count() or "concurrent.futures.thread" in sys.modules:
        sys.modules["threading"]._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(0)


def run(code: types.CodeType, names: dict[str, Any], report: int) -> NoReturn:
    """`stdio` mode: run the program as a script over the real standard streams."""
    os.pwrite(report, b"R", 0)
    try:
        try:  # noqa: SIM105  # a context manager would cost each test process page faults
            exec(code, names)
        except SystemExit:
            pass
        _leave()
    except BaseException as error:
        _fail(report, error)


def _define(code: types.CodeType, names: dict[str, Any], function: str, report: int) -> Any:
    """Run a program's module level; return the function under test, or the method of `Solution`."""
    _report(report, "R")
    try:
        exec(code, names)
        return getattr(names["Solution"](), function) if "Solution" in names else names[function]
    except KeyError:
        _fail(report, NameError(f"the program defines no function {function}"))
    except BaseException as error:
        _fail(report, error)


def call(code: types.CodeType, names: dict[str, Any], function: str, arguments: str, report: int) -> NoReturn:
    """`call` mode: call the function once with a JSON list of arguments and report the value."""
    values = json.loads(arguments)
    target = _define(code, names, function, report)
    try:
        body = json.dumps(encode(target(*values)))
    except BaseException as error:
        _fail(report, error)
    if len(body) > VALUE_LIMIT:
        _report(report, "O")
    else:
        _report(report, "V", body)
    os._exit(0)


# assert mode ---------------------------------------------------------------------------------
class Gone(BaseException):
    """The other side of the pipes has ended."""


class Unusable(BaseException):
    """The other side sent something that is no answer."""


def _send(fd: int, message: Any) -> None:
    body = json.dumps(message).encode()
    if len(body) > VALUE_LIMIT:
        body = json.dumps(["raise", "OverflowError", "the value is too large"]).encode()
    data = memoryview(struct.pack("=I", len(body)) + body)
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BrokenPipeError:
            raise Gone from None


def _receive(fd: int) -> Any:
    size = struct.unpack("=I", _exactly(fd, 4))[0]
    if size > VALUE_LIMIT:
        raise Unusable("the answer is too large")
    try:
        return json.loads(_exactly(fd, size))
    except (ValueError, RecursionError, MemoryError) as error:
        raise Unusable(f"the answer is not readable ({type(error).__name__})") from None


def _exactly(fd: int, size: int) -> bytes:
    parts = bytearray()
    while len(parts) < size:
        part = os.read(fd, min(size - len(parts), 1 << 20))
        if not part:
            raise Gone
        parts += part
    return bytes(parts)


def serve(code: types.CodeType, names: dict[str, Any], function: str, report: int, inbox: int, outbox: int) -> NoReturn:
    """The program's side of `assert` mode: answer calls until the checker hangs up."""
    target = _define(code, names, function, report)
    try:
        while True:
            positional, named = (decode(part) for part in _receive(inbox))
            try:
                answer = ["value", encode(target(*positional, **named))]
            except SystemExit:
                raise
            except BaseException as error:
                answer = ["raise", type(error).__name__, _describe(error)]
            _send(outbox, answer)
    except Gone:
        os._exit(0)
    except BaseException as error:
        _fail(report, error)


def _raised(name: str, text: str) -> Exception:
    """An exception of a built-in class (so that a test can expect it), marked as the program's.

    Not StopIteration: a test that loops over `map(candidate, ...)` would take it for the end of its inputs.
    """
    known = getattr(builtins, name, None)
    base: type[Exception] = Exception
    if isinstance(known, type) and issubclass(known, Exception) and not issubclass(known, _ENDS_OF_LOOPS):
        base = known
    kind = type(
        name,
        (base,),
        {"from_program": True, "__init__": Exception.__init__, "__str__": Exception.__str__},
    )
    error: Exception = kind(text)
    return error


def check(source: str, known: types.ModuleType, function: str, report: int, inbox: int, outbox: int) -> NoReturn:
    """The trusted side of `assert` mode: run `check(candidate)` on a proxy for the function."""

    def candidate(*positional: Any, **named: Any) -> Any:
        _send(outbox, [encode(list(positional)), encode(named)])
        answer = _receive(inbox)
        try:
            kind, *rest = answer
            if kind == "value":
                return decode(*rest)
            name, text = (str(part) for part in rest)
        except UNREADABLE as error:
            raise Unusable(f"the answer is not readable ({type(error).__name__})") from None
        raise _raised(name, text)

    names: dict[str, Any] = {"__builtins__": known, "__name__": "check"}
    try:
        exec(compile(source, "check.py", "exec", dont_inherit=True), names)
        test = names["check"]
    except BaseException as error:
        _report(report, "D", _describe(error))
        os._exit(1)
    try:
        test(candidate)
        letter, text = "P", ""
    except Gone:
        letter, text = "G", ""
    except Unusable as error:
        letter, text = "B", str(error)
    except BaseException as error:
        if getattr(error, "from_program", False):
            letter, text = "X", str(error)
        else:
            letter, text = ("A" if isinstance(error, AssertionError) else "B"), _describe(error)
    _report(report, letter, text)
    os._exit(0)
