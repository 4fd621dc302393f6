"""`python -m cppo_lib.verifier`: print which isolation layers hold on this machine."""

from __future__ import annotations

import sys

from cppo_lib.errors import CPPOError
from cppo_lib.verifier import Verifier
from cppo_lib.verifier.probe import FIXES, NAMES, REQUIRED


def main() -> int:
    """Print the layer table; 0 when every required layer holds."""
    try:
        with Verifier(workers=1) as verifier:
            layers = verifier.layers
    except CPPOError as error:
        print(error, file=sys.stderr)
        return 1
    for name, title in NAMES.items():
        need = "required" if name in REQUIRED else "wanted"
        fix = "" if layers[name] == "on" else f"  -> {FIXES[name]}"
        print(f"{name}  {layers[name]:8}{need:9} {title}{fix}")
    return 0 if all(layers[name] == "on" for name in REQUIRED) else 1


if __name__ == "__main__":
    sys.exit(main())
