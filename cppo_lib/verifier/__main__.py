"""`python -m cppo_lib.verifier` (`make doctor`): which isolation layers hold on this machine, for each back-end."""

from __future__ import annotations

import argparse
import os
import sys
import warnings

from cppo_lib.errors import CPPOError
from cppo_lib.verifier import Verifier
from cppo_lib.verifier.pool import BACKENDS, default_backend
from cppo_lib.verifier.probe import COSTS, FIXES, NAMES, ON, OPT_OUT, REQUIRED, missing
from cppo_lib.verifier.verifier import UnsandboxedWarning


def main() -> int:
    """Print the layers; 0 when every required layer holds on the default back-end."""
    parser = argparse.ArgumentParser(prog="python -m cppo_lib.verifier", description=__doc__)
    parser.add_argument("--backend", choices=BACKENDS, help="look at this one only")
    chosen = parser.parse_args().backend
    # The table is wanted just when a layer is missing; nothing but the probe is run.
    os.environ[OPT_OUT] = "1"
    warnings.simplefilter("ignore", UnsandboxedWarning)
    judged = chosen or default_backend()
    safe = [_examine(backend, backend == judged) for backend in ([chosen] if chosen else BACKENDS)]
    return 0 if any(safe) else 1


def _examine(backend: str, default: bool) -> bool:
    """Print the table of one back-end; True when it is the default and holds every required layer."""
    print(f"back-end {backend}{' (default)' if default else ''}")
    try:
        with Verifier(workers=1, backend=backend) as verifier:
            layers, mechanisms = verifier.layers, verifier.mechanisms
    except CPPOError as error:
        print(f"  not available: {error}", file=sys.stderr if default else sys.stdout)
        return False
    for name, title in NAMES.items():
        need = "required" if name in REQUIRED else "wanted"
        print(f"  {name}  {layers[name]:8}{need:9} {title}")
        if layers[name] != ON:
            print(f"      without it: {COSTS[name]}\n      to get it: {FIXES[name]}")
    print("  " + ", ".join(f"{name}: {said}" for name, said in mechanisms.items()))
    gone = missing(layers)
    if gone:
        print(f"  unknown programs are refused here, unless you set {OPT_OUT}=1 at your own risk")
    return default and not gone


if __name__ == "__main__":
    sys.exit(main())
