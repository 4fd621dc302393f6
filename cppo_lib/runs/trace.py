"""From a number in a table or figure back to the data: which records, run, parameters, seed and commit it came from.

    make trace ITEM=T1
    python -m cppo_lib.runs.trace T1 --profile tiny --method cppo

Every table and figure has a JSON file beside it (`render.sidecar`) with the SHA-256 of the files it was made from, and
each of those says the same about its own inputs (`cppo_lib.runs.provenance`). The chain is printed down to the
problems, and for every file whether it is still the one that was read. Exit status 1 when one is not.
"""

from __future__ import annotations

import argparse
import difflib
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cppo_lib.artefacts import notes, paths, store
from cppo_lib.errors import CPPOError, MissingArtefactError
from cppo_lib.runs import config
from cppo_lib.runs.parameters import Report
from cppo_lib.runs.provenance import Origin, State, origin_of, state_of

SHOWN_NUMBERS = 6
"""Numbers of a table's row that are printed; its CSV has all."""


# --- finding ----------------------------------------------------------------------------------------------------------


def sidecars(profile: str) -> dict[str, Path]:
    """The sidecars of a profile's tables and figures by name, from the folders that its reporting notebooks write to.

    Raises:
        ParameterError: a faulty parameter file.
    """
    folders = [paths.figures_path(profile, "")]
    for path in sorted((paths.root() / "params" / profile).glob("0[567]*.yaml")):
        params = config.load_params(path)
        assert isinstance(params, Report)
        folders.append(paths.figures_path(profile, params.figures_dir))
    found = {}
    for folder in dict.fromkeys(folders):
        for path in sorted(folder.glob("*.json")):
            if store.read_json(path).get("parameters", {}).get("profile") == profile:
                found[path.stem] = path
    return found


def find(item: str, profile: str) -> list[Path]:
    """The sidecars that an item names: `T1_main`, or `T7` for all that start with it.

    Raises:
        CPPOError: no such table or figure.
        MissingArtefactError: the profile has none at all.
    """
    known = sidecars(profile)
    if not known:
        raise MissingArtefactError(
            f"profile {profile} has no tables or figures with a sidecar: make reproduce PROFILE={profile}"
        )
    wanted = item.lower()
    names = [name for name in known if wanted == name.lower() or name.lower().startswith(f"{wanted}_")]
    if not names:
        short = {name.lower().split("_")[0]: name for name in known} | {name.lower(): name for name in known}
        near = [short[word] for word in difflib.get_close_matches(wanted, short, n=3)]
        told = f"did you mean {', '.join(dict.fromkeys(near))}?" if near else f"there are {', '.join(sorted(known))}"
        raise CPPOError(f"profile {profile} has no table or figure {item!r}; {told}")
    return [known[name] for name in sorted(names)]


# --- the chain --------------------------------------------------------------------------------------------------------


class Chain:
    """Prints nodes of the chain, each once, and counts the files that are not what they were.

    Attributes:
        states: of each file that was printed.
        runs: what wrote a file, as the sidecar of a table or figure recorded it, for files that are not here any more.
    """

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self.states: dict[str, State] = {}
        self.runs: dict[str, Mapping[str, Any]] = {}

    def lines(self, recorded: str, sha256: str, depth: int = 1) -> Iterator[str]:
        """A file with its hash and state, the run that wrote it, and what that run read."""
        pad = "  " * depth
        path = paths.root() / recorded  # artefacts record paths from the root, or absolute
        state = self.states.setdefault(recorded, state_of(path, sha256))
        yield f"{pad}{recorded}  sha256 {sha256[:12]}  {state}"
        if state != "unchanged" and (run := self.runs.get(recorded)):
            file = f", with {run['parameter_file']}" if run["parameter_file"] else ""
            yield f"{pad}  was by {run['run_id']}, seed {run['seed']}, {commit(run['commit'], run['dirty'])}{file}"
        origin = origin_of(path)
        if origin is None:
            if state != "MISSING":
                yield f"{pad}  no note beside it says where it comes from"
            return
        if origin.run_id in self._seen:
            yield f"{pad}  by {origin.run_id}, see above"
            return
        self._seen.add(origin.run_id)
        yield from (f"{pad}  {line}" for line in about(origin))
        for read, digest in origin.inputs.items():
            yield from self.lines(read, digest, depth + 2)


def about(origin: Origin) -> Iterator[str]:
    """The run that wrote an artefact: notebook, parameter file, seed, commit, and the data that it downloaded."""
    where = f", on one {origin.gpu}" if origin.gpu else ""
    yield f"by {origin.run_id}, seed {origin.params.get('seed')}, {commit(origin.commit, origin.dirty)}{where}"
    file = origin.file
    if file is None:
        yield f"   with parameters that no file in params/{origin.params.get('profile')} has now"
    else:
        changed = f", whose {', '.join(file.changed)} changed since" if file.changed else ""
        yield f"   with {paths.show(file.path)}{changed}"
    for source in origin.sources:
        yield f"   from {', '.join(f'{key} {value}' for key, value in source.items())}"


def commit(sha: str | None, dirty: bool | None) -> str:
    """A commit as a reader should see it."""
    if sha is None:
        return "no commit (outside a checkout)"
    return f"commit {sha[:12]}{' with uncommitted changes' if dirty else ''}"


def seen_in(sha: str | None) -> str:
    """Where the code of a commit is to be seen."""
    look = ["git", "-C", str(paths.root()), "cat-file", "-e", f"{sha}^{{commit}}"]
    known = sha and not subprocess.run(look, capture_output=True).returncode
    return f"git checkout {str(sha)[:12]} has it" if known else "this checkout does not have that commit"


def trace(sidecar: Path, chain: Chain, method: str | None = None) -> Iterator[str]:
    """The chain of one table or figure, line by line.

    Args:
        method: only the records and runs of this method.

    Raises:
        CPPOError: the table or figure has no records of the method.
    """
    record = store.read_json(sidecar)
    yield f"{record['name']}: {paths.show(sidecar)}"
    yield f"  {record['caption'].split('. ')[0]}."
    yield f"  by {record['notebook']}, seeds {', '.join(map(str, record['seeds']))}, " + commit(
        record["commit"], record["dirty"]
    )
    yield f"   with {record.get('parameter_file') or 'no parameter file'}; again: {record['command']}"
    if record.get("layout") != notes.LAYOUT:
        yield "   made by another version of the suite, whose code had other addresses: " + seen_in(record["commit"])
    chain.runs |= {run["wrote"]: run for run in record["runs"]}
    groups = _by_method(record["sources"])
    if method is not None and method not in groups:
        raise CPPOError(f"{record['name']} has no records of {method!r}; there are {', '.join(filter(None, groups))}")
    for name, sources in groups.items():
        if method in (None, name):
            yield ""
            yield f"{name or 'other sources'}{_numbers(sidecar, name)}"
            for path, digest in sources.items():
                yield from chain.lines(path, digest)


def _by_method(sources: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Sources by the method or arm they belong to; empty for what belongs to none."""
    groups: dict[str, dict[str, str]] = {}
    for path, digest in sources.items():
        parts = Path(path).parts
        stem = Path(path).name.split(".")
        if "04_evaluation" in parts and len(stem) == 5:
            name = stem[2]
        elif "03_rl_training" in parts:
            name = Path(path).parent.name.rpartition(".s")[0]
        else:
            name = ""
        groups.setdefault(name, {})[path] = digest
    return dict(sorted(groups.items(), key=lambda group: (group[0] == "", group[0])))


def _numbers(sidecar: Path, method: str) -> str:
    """The method's first numbers in the table, as text; empty for figures and for what has no row."""
    table = sidecar.with_suffix(".csv")
    if not table.is_file() or not method:
        return ""
    rows = pd.read_csv(table)
    if "method" not in rows or method not in set(rows["method"]):
        return ""
    row = rows[rows["method"] == method].iloc[0]
    kept = [(name, row[name]) for name in rows.columns if pd.api.types.is_numeric_dtype(rows[name])]
    shown = [f"{name} {value:.4g}" for name, value in kept if pd.notna(value)][:SHOWN_NUMBERS]
    return f": {', '.join(shown)}" if shown else ""


# --- command line -----------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0 when every file is the one that was read."""
    parser = argparse.ArgumentParser(prog="python -m cppo_lib.runs.trace", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("item", help="a table or figure: T1, T7_repetition, fig3, ...")
    parser.add_argument("--profile", default="tiny")
    parser.add_argument("--method", help="only the records of this method")
    options = parser.parse_args(arguments)
    chain = Chain()
    try:
        for sidecar in find(options.item, options.profile):
            for line in trace(sidecar, chain, options.method):
                print(line)
            print()
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    bad = {path: state for path, state in chain.states.items() if state != "unchanged"}
    print(f"{len(chain.states)} files, {len(bad)} of them not as they were read")
    for path, state in bad.items():
        print(f"  {state} {path}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
