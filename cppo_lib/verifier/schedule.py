"""One batch: which attempt runs in which zygote, and what is tried again.

Program-major: a zygote keeps an attempt until it is judged. Two things are tried again, once each:
an internal error (on a fresh zygote if the old one died), and a time-out that a busy machine could
explain. The latter waits until the rest of the batch is done and then runs with nothing beside it;
only a second time-out counts.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Iterable

from cppo_lib.verifier.execution import Attempt
from cppo_lib.verifier.pool import Pool, Zygote, ZygoteDied


class Schedule:
    """The state of one batch."""

    def __init__(self, pool: Pool, attempts: Iterable[Attempt]) -> None:
        self.pool = pool
        self.queue = deque(attempt for attempt in attempts if not attempt.done)
        self.alone: deque[Attempt] = deque()
        self.idle: list[Zygote] = []
        self.active: dict[Zygote, Attempt] = {}
        self.poll = select.poll()
        self.by_fd: dict[int, Zygote] = {}
        for zygote in pool.zygotes:
            self._add(zygote)

    def _add(self, zygote: Zygote) -> None:
        self.by_fd[zygote.control.fileno()] = zygote
        self.poll.register(zygote.control, select.POLLIN)
        self.idle.append(zygote)

    def run(self) -> None:
        """Until every attempt is judged."""
        try:
            while self.queue or self.alone or self.active:
                while self.idle and (self.queue or (self.alone and not self.active)):
                    attempt = (self.queue or self.alone).popleft()
                    self._start(self.idle.pop(), attempt)
                self._wait()
        finally:
            for attempt in self.active.values():
                attempt.release()

    def _start(self, zygote: Zygote, attempt: Attempt) -> None:
        self.active[zygote] = attempt
        try:
            attempt.start(zygote)
        except ZygoteDied:
            self._lose(zygote)

    def _wait(self) -> None:
        """Handle what the zygotes report, and the silence of those that should have."""
        deadline = min((zygote.busy_until for zygote in self.active), default=0.0)
        for fd, _ in self.poll.poll(max(0.0, 1000 * (deadline - time.monotonic()))):
            zygote = self.by_fd[fd]
            try:
                outcome = zygote.receive()
            except ZygoteDied:
                self._lose(zygote)
            else:
                if self.active[zygote].take(outcome):
                    self._settle(zygote)
        now = time.monotonic()
        for zygote in [zygote for zygote in self.active if zygote.busy_until < now]:
            self._lose(zygote)

    def _settle(self, zygote: Zygote) -> None:
        """A test is judged: go on with the attempt, put it off, or make room for another."""
        attempt = self.active.pop(zygote)
        if attempt.done and not attempt.finding.firm and not attempt.alone:
            attempt.alone = True
            attempt.reopen()
            self.alone.append(attempt)
            self.idle.append(zygote)
        elif attempt.done and (attempt.finding.verdict != "IE" or attempt.retries):
            self.idle.append(zygote)
        else:
            if attempt.done:
                attempt.retries += 1
                attempt.reopen()
            self._start(zygote, attempt)

    def _lose(self, zygote: Zygote) -> None:
        """A zygote died or hangs: replace it, and give its attempt a second chance."""
        self.poll.unregister(zygote.control)
        del self.by_fd[zygote.control.fileno()]
        if zygote in self.idle:
            self.idle.remove(zygote)
        attempt = self.active.pop(zygote, None)
        if attempt is not None:
            attempt.reopen()
            if attempt.retries:
                attempt.fail("the worker died twice")
            else:
                attempt.retries += 1
                self.queue.appendleft(attempt)
        self._add(self.pool.replace(zygote))
