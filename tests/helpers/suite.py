"""A throw-away suite for testing the engine: the real library and Snakefile, tiny notebooks.

The notebooks read and write what the real ones do, through the same calls, in a second or two.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import yaml

from cppo_lib.artefacts import paths

HEAD = """from cppo_lib.artefacts import notes, paths, store
from cppo_lib.artefacts.progress import log
from cppo_lib.runs import config
params = config.from_notebook({name!r}, globals())
"""
DATA = """folder = paths.stage_dir(params.profile, "01_data_prep", params.benchmark)
problems = store.write_text(folder / "test.jsonl", "problem " * params.options["test_per_context"])
notes.write_summary(folder, params, values={}, artefacts=[problems])
"""
SFT = """data = paths.require(paths.runs_root() / params.profile / "01_data_prep" / params.benchmark
    / "summary.json", notebook="01_data_prep")
folder = paths.stage_dir(params.profile, "02_planner_sft")
base = store.write_text(folder / "base" / "config.json", str(params.pretrain_steps))
sft = store.write_text(folder / "sft" / "config.json", str(params.sft_steps))
notes.write_summary(folder, params, values={}, artefacts=[base, sft], inputs=[data])
"""
RL = """import os
import time
from cppo_lib.runs import dependencies
store.policy_source(params.profile, params.policy)
start = paths.runs_root() / params.profile / "02_planner_sft" / "summary.json"
folder = paths.stage_dir(params.profile, "03_rl_training", f"{params.arm}.s{params.seed}")
folder = store.resumable_dir(folder, dependencies.fingerprint(params, [start]))
finished = store.finished(folder)
metrics = folder / "metrics.jsonl"
done = len(store.read_jsonl(metrics)) if metrics.exists() else 0
if finished:
    log.info("finished before")
for step in range(params.steps if finished else done, params.steps):
    store.append_jsonl(metrics, [{"step": step, "pid": os.getpid()}])
    log.info(f"step {step + 1}/{params.steps} r_out 0.5")
    time.sleep(float(os.environ.get("STEP_S", "0")))
if os.environ.get("BREAK") == "bug":
    raise RuntimeError("the trainer fell over\\n\\nbadly")
if os.environ.get("BREAK") == "memory":
    os.kill(os.getpid(), 9)
if os.environ.get("BREAK") == "runner":
    os.kill(os.getppid(), 9)
if not finished:
    store.write_text(folder / "policy" / "config.json", f"{params.arm} {params.seed}")
    notes.write_summary(folder, params, values={}, artefacts=[folder / "policy"])
if os.environ.get("BREAK") == "late":
    os.kill(os.getpid(), 9)
"""
EVAL = """source = store.policy_source(params.profile, params.policy, params.seed)
name = f"{params.benchmark}.{params.split}.{params.method}.s{params.seed}.parquet"
record = paths.stage_dir(params.profile, "04_evaluation") / name
store.write_parquet(record, [{"method": params.method, "seed": params.seed, "passed": True}])
notes.write_meta(record, params)
"""
TABLES = """import os
import pandas as pd
from cppo_lib import toy
folder = paths.runs_root() / params.profile / "04_evaluation"
rows = pd.concat([pd.read_parquet(path) for path in sorted(folder.glob("*.parquet"))])
table = "\\n".join(f"| {row.method} | {row.seed} |" for row in rows.itertuples())
assert os.environ.get("BREAK") != "tables"
figures = paths.figures_dir(params.profile, params.figures_dir)
out = store.write_text(figures / "T1_main.md", table)
"""
LAST = """notes.write_summary(paths.stage_dir(params.profile, params.notebook), params, values={},
    artefacts=[])
"""
CODE = {
    "01_data_prep": DATA,
    "02_planner_sft": SFT,
    "03_rl_training": RL,
    "04_evaluation": EVAL,
    "05_paper_tables": TABLES + LAST,
    "06_figures": LAST,
    "07_strategy_diversity": LAST,
}
RUNS = {
    "01_data_prep", "02_planner_sft", "03_rl_training.cppo", "04_evaluation.direct",
    "04_evaluation.cppo", "05_paper_tables", "06_figures",
}  # fmt: skip


class Suite:
    """A copy of the repository's engine in `root`, with notebooks that take a second each."""

    def __init__(self, root: Path) -> None:
        self.root = root
        source = paths.root()
        shutil.copytree(source / "cppo_lib", root / "cppo_lib", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "Snakefile"):
            shutil.copy(source / name, root / name)
        (root / "cppo_lib" / "toy.py").write_text('"""A module that only 05 imports."""\n')
        (root / "notebooks").mkdir()
        for name, body in CODE.items():
            self.write_notebook(name, body)
        (root / "params" / "mini").mkdir(parents=True)
        for path in (source / "params" / "smoke").iterdir():
            if path.stem in RUNS:
                values = yaml.safe_load(path.read_text()) | {"profile": "mini"}
                if path.stem.startswith("03"):  # values that tests look for, whatever smoke's are
                    values |= {"steps": 3, "learning_rate": "5e-4"}
                (root / "params" / "mini" / path.name).write_text(yaml.safe_dump(values))
        cppo, direct = (root / "params" / "mini" / f"04_evaluation.{name}.yaml" for name in ("cppo", "direct"))
        same = yaml.safe_load(direct.read_text()).items()
        differs = {key: value for key, value in yaml.safe_load(cppo.read_text()).items() if (key, value) not in same}
        cppo.write_text(yaml.safe_dump({"like": direct.name} | differs))
        self.env = {k: v for k, v in os.environ.items() if k != "CPPO_RUNS"}
        self.env["PYTHONPATH"] = str(root)
        self.runs = root / "runs" / "mini"

    def write_notebook(self, name: str, body: str) -> None:
        """A notebook with a parameters cell and a body."""
        cells = [
            nbformat.v4.new_code_cell("profile = 'mini'", metadata={"tags": ["parameters"]}),
            nbformat.v4.new_code_cell(HEAD.format(name=name)),
            nbformat.v4.new_code_cell(body),
        ]
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
        nbformat.write(notebook, self.root / "notebooks" / f"{name}.ipynb")

    def edit(self, name: str, **changes: object) -> None:
        """Change keys of a parameter file."""
        path = self.root / "params" / "mini" / f"{name}.yaml"
        path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | changes))

    def call(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `cppo_lib.runs.series` with these arguments alone."""
        return self.call_any(sys.executable, "-m", "cppo_lib.runs.series", *arguments)

    def call_any(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the suite."""
        return subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True, timeout=240)

    def command(self, command: str, *options: str) -> list[str]:
        """A command line of `cppo_lib.runs.series`."""
        return [sys.executable, "-m", "cppo_lib.runs.series", command, "--profile", "mini", *options]

    def run(self, command: str, *options: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `cppo_lib.runs.series` to its end."""
        return subprocess.run(
            self.command(command, *options),
            cwd=self.root, env=self.env | env, capture_output=True, text=True, timeout=240,
        )  # fmt: skip

    def start(self, command: str, *options: str, **env: str) -> subprocess.Popen[str]:
        """Start `cppo_lib.runs.series` in a process group of its own."""
        return subprocess.Popen(
            self.command(command, *options),
            cwd=self.root, env=self.env | env, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            # A parent that runs in the background may have started us with it ignored, which the series respects.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip


def wait_for(condition: object, seconds: float = 240.0) -> None:
    """Wait until `condition()` is true; AssertionError after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)
