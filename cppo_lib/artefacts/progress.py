"""Progress: one line per event, `[cppo] 0:12 message`, which the series shows while a notebook runs.

    from cppo_lib.artefacts.progress import log

    log.info("step 1/2")

The lines go to what is stdout at the moment. `logging.getLogger("cppo_lib").setLevel("WARNING")` leaves out those that
only say how far a run is.
"""

from __future__ import annotations

import logging


def clock(seconds: float) -> str:
    """A duration as `1:05` or `2:03:04`."""
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Print one line, with the time since the process started; a kernel and pytest replace stdout meanwhile."""
        print(f"[cppo] {clock(record.relativeCreated / 1000)} {record.getMessage()}", flush=True)


log = logging.getLogger("cppo_lib")
log.propagate = False
log.setLevel(logging.INFO)
log.addHandler(_Lines())
