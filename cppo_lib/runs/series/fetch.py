"""Download the benchmark data of a profile ahead of time: `make fetch-data PROFILE=paper`.

    python -m cppo_lib.runs.series.fetch --profile paper          # every params/paper/01_data_prep*.yaml
    python -m cppo_lib.runs.series.fetch params/paper/01_data_prep.apps.yaml

What a file asks for are the splits of its benchmark, or the `release` where the loader takes one, from the `source` in
its options. Benchmarks that need no hub are passed over.

Every file is shown with its number, size and a progress bar. A file that is there is only checked, one that was cut off
is gone on with. After each file `data.lock.json` is written anew: origin, revision as named and the commit that it
stood for, file, SHA-256, bytes and rows. Later loads follow it (see `cppo_lib.data.hub`); to move to a newer
revision of a branch, delete its entries or the file.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq  # type: ignore[import-untyped]

from cppo_lib.artefacts import paths, store
from cppo_lib.data import hub
from cppo_lib.errors import CPPOError, DatasetError, ParameterError
from cppo_lib.runs import config, profiles
from cppo_lib.runs.parameters import DataPrep


@dataclass(frozen=True)
class Wanted:
    """A file to have: the `source` of the parameter file, and the data set that it belongs to."""

    origin: str
    dataset: hub.Dataset
    file: hub.HubFile


def wanted(params: DataPrep) -> list[Wanted]:
    """The files that a run of 01_data_prep needs from the hub or a folder; none where the benchmark brings its data.

    Raises:
        ParameterError: a release that the benchmark does not have.
        DatasetError: a `source` that is neither a folder nor a hub id.
    """
    module = importlib.import_module(f"cppo_lib.data.benchmarks.{params.benchmark}")
    if not hasattr(module, "DATASET"):
        return []
    origin = params.options["source"]
    groups = [params.options["release"]] if "release" in params.options else params.chosen_splits
    found = []
    for group in groups:
        if group not in module.DATASET.files:
            known = ", ".join(module.DATASET.files)
            raise ParameterError(
                f"options of {params.benchmark}: key 'release' is {group!r}; it must be one of {known}"
            )
        # A benchmark whose data set comes in several forms says which one the source holds.
        dataset = module.dataset(origin, group) if hasattr(module, "dataset") else module.DATASET
        part = hub.Dataset(dataset.repo, dataset.revision, {group: dataset.files[group]})
        found += [Wanted(origin, part, file) for file in dataset.files[group]]
    return found


def fetch(items: Sequence[Wanted]) -> None:
    """Have every file here with the right checksum, and write the lock after each.

    Raises:
        DatasetError: a file cannot be had or is damaged; what was fetched before it stays, and so does the lock.
    """
    lock = hub.read_lock()
    total = 0
    for number, item in enumerate(items, start=1):
        folder, repo, revision = hub.resolve(item.origin, item.dataset)
        place = paths.show(folder) if folder else f"{repo}@{revision[:12]}"
        print(f"[{number}/{len(items)}] {place} {item.file.path}", flush=True)
        located = hub.locate(item.origin, item.file, dataset=item.dataset)
        size, rows = located.path.stat().st_size, count_rows(located.path)
        total += size
        print(f"    {size / 1e6:,.1f} MB, {rows:,} rows, SHA-256 {located.sha256}", flush=True)
        hub.check_rows(located, rows, item.file.rows)
        if folder is None:
            lock[repo, revision, item.file.path] = {
                "origin": repo,
                "revision": revision,
                "commit": located.revision,
                "file": item.file.path,
                "sha256": located.sha256,
                "bytes": size,
                "rows": rows,
            }
            store.write_json(hub.data_root() / hub.LOCK, {"files": [lock[key] for key in sorted(lock)]})
    print(f"{len(items)} files, {total / 1e9:,.2f} GB: all here, all checksums right", flush=True)


def count_rows(path: Path) -> int:
    """Rows of a Parquet file (from its footer) or lines of a JSON lines file. Raises DatasetError on a damaged one."""
    if path.suffix == ".jsonl":
        with path.open("rb") as stream:
            return sum(1 for line in stream if line.strip())
    try:
        return int(pq.read_metadata(path).num_rows)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{paths.show(path)} is no Parquet file ({error}): truncated or damaged") from error


def data_files(profile: str) -> list[Path]:
    """The 01_data_prep files of a profile. Raises ParameterError when it has none."""
    found = [path for path in profiles.parameter_files(profile)[0] if path.name.startswith("01_data_prep")]
    if not found:
        raise ParameterError(f"params/{profile} holds no 01_data_prep*.yaml: choose another PROFILE")
    return found


def run(files: Iterable[Path]) -> None:
    """Fetch what these parameter files need, each data file once. Raises CPPOError."""
    items: dict[tuple[str, str, str], Wanted] = {}
    for path in files:
        params = config.load_params(path)
        if not isinstance(params, DataPrep):
            raise ParameterError(f"{paths.show(path)}: only 01_data_prep needs data; name a file of that notebook")
        for item in wanted(params):
            items.setdefault((item.origin, item.dataset.revision, item.file.path), item)
    if not items:
        print("nothing to fetch: these benchmarks bring their own data")
        return
    fetch(list(items.values()))


def main(arguments: list[str] | None = None) -> int:
    """The command line; 0 when all is here, 1 after a one-line error on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m cppo_lib.runs.series.fetch",
        description="Download the benchmark data of a profile ahead of time.",
    )
    parser.add_argument("files", nargs="*", type=Path, help="parameter files (01_data_prep*.yaml)")
    parser.add_argument("--profile", help="take those of params/PROFILE")
    options = parser.parse_args(arguments)
    if not options.files and not options.profile:
        parser.error("name a --profile or parameter files")
    try:
        run([*options.files, *(data_files(options.profile) if options.profile else [])])
    except CPPOError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
