"""One batch: which attempt runs in which zygote, and what is tried again.

Program-major: a zygote keeps an attempt until it is judged. Two things are tried again, once each: an internal error
(on a fresh zygote if the old one died), and a time-out that a busy machine could explain. The latter waits until the
rest of the batch is done and then runs with nothing beside it; only a second time-out counts.
"""

from __future__ import annotations

import select
import time
from collections import deque
from collections.abc import Callable, Iterable

from cppo_lib.verifier.attempt import Attempt
from cppo_lib.verifier.child.wire import KILLED, WATCHED, Channel, Closed
from cppo_lib.verifier.pool import Outcome, Pool, Zygote, receive
from cppo_lib.verifier.verdict import Finding

_ROOM_S = 0.3
"""How often is asked whether others have left more cores."""


class Schedule:
    """The state of one batch; `finished` is called with every attempt that is judged."""

    def __init__(self, pool: Pool, attempts: Iterable[Attempt], finished: Callable[[Attempt], None]) -> None:
        self.pool, self.finished = pool, finished
        self.queue: deque[Attempt] = deque()
        for attempt in attempts:
            if attempt.done:
                finished(attempt)
            else:
                self.queue.append(attempt)
        self.alone: deque[Attempt] = deque()
        self.idle: list[Zygote] = []
        self.active: dict[Zygote, Attempt] = {}
        self.poll = select.poll()
        self.by_fd: dict[int, tuple[Zygote, Channel]] = {}
        for zygote in pool.zygotes:
            self._add(zygote)

    def _listen(self, zygote: Zygote, channel: Channel) -> None:
        self.by_fd[channel.fileno()] = zygote, channel
        self.poll.register(channel, select.POLLIN)

    def _unlisten(self, channel: Channel | None) -> None:
        if channel is not None and channel.fileno() in self.by_fd:
            del self.by_fd[channel.fileno()]
            self.poll.unregister(channel)

    def _add(self, zygote: Zygote) -> None:
        self._listen(zygote, zygote.control)
        self.idle.append(zygote)

    def run(self) -> None:
        """Until every attempt is judged."""
        try:
            with self.pool.share:
                while self.queue or self.alone or self.active:
                    while self.idle and self._room():
                        attempt = (self.queue or self.alone).popleft()
                        self._start(self._fresh(self.idle.pop()), attempt)
                    self._wait()
        finally:
            for attempt in self.active.values():
                attempt.release()

    def _room(self) -> bool:
        """Whether another attempt may start: within this verifier's share of the cores, or alone."""
        return len(self.active) < self.pool.share.workers() if self.queue else bool(self.alone) and not self.active

    def _fresh(self, zygote: Zygote) -> Zygote:
        """The zygote, or a new one in its place where the back-end starts one for every program."""
        if not self.pool.renews(zygote):
            return zygote
        self._unlisten(zygote.control)
        fresh = self.pool.replace(zygote)
        self._listen(fresh, fresh.control)
        return fresh

    def _start(self, zygote: Zygote, attempt: Attempt) -> None:
        self.active[zygote] = attempt
        try:
            attempt.start(zygote)
        except Closed:
            self._lose(zygote)
            return
        if attempt.channel is not None:
            self._listen(zygote, attempt.channel)

    def _wait(self) -> None:
        """Handle what the processes report, and the silence of those that should have."""
        deadline = min((zygote.busy_until for zygote in self.active), default=0.0)
        if self.queue and self.pool.share.limited:
            deadline = min(deadline, time.monotonic() + _ROOM_S)
        ready = self.poll.poll(max(0.0, 1000 * (deadline - time.monotonic())))
        for fd, heard in [(fd, self.by_fd[fd]) for fd, _ in ready]:
            # What was handled before may have ended this one, and another may have its number since: with nothing to
            # say yet, it would be waited for without a deadline.
            if self.by_fd.get(fd) is heard:
                self._hear(*heard)
        now = time.monotonic()
        for zygote in [zygote for zygote in self.active if zygote.busy_until < now]:
            self._lose(zygote)

    def _hear(self, zygote: Zygote, channel: Channel) -> None:
        try:
            outcomes = receive(channel)
        except Closed:
            if channel is zygote.control:
                self._lose(zygote)
            else:  # the zygote is about to say how that process ended
                self._unlisten(channel)
            return
        for outcome in outcomes:
            if outcome.killed == KILLED[WATCHED]:
                zygote.heard()
            else:
                self._take(zygote, outcome)

    def _take(self, zygote: Zygote, outcome: Outcome) -> None:
        attempt = self.active.get(zygote)
        if attempt is None or outcome.id not in attempt.awaited or not attempt.take(outcome):
            return  # the end of a process that no longer matters, or of the first of two
        if self._settled(attempt):
            self._free(zygote)
            return
        try:
            if attempt.proceed():
                return
        except Closed:
            pass  # the process that serves the tests is gone: start another
        self._restart(zygote, attempt)

    def _settled(self, attempt: Attempt) -> bool:
        """Whether the last finding stands and ends the attempt; if it does not stand, prepare to try again."""
        finding = attempt.finding
        if finding.verdict == "IE" and not attempt.retries:
            attempt.retries += 1
            self._reopen(attempt)
        elif not finding.firm and not attempt.alone:
            attempt.alone = True
            self._reopen(attempt)
            self.alone.append(attempt)
            return True
        elif attempt.done:
            self._hang_up(attempt)
            self.finished(attempt)
            return True
        return False

    def _hang_up(self, attempt: Attempt) -> None:
        self._unlisten(attempt.channel)
        attempt.release()

    def _reopen(self, attempt: Attempt) -> None:
        self._unlisten(attempt.channel)
        attempt.reopen()

    def _free(self, zygote: Zygote) -> None:
        del self.active[zygote]
        self.idle.append(zygote)

    def _restart(self, zygote: Zygote, attempt: Attempt) -> None:
        self._hang_up(attempt)
        del self.active[zygote]
        self._start(zygote, attempt)

    def _lose(self, zygote: Zygote) -> None:
        """A zygote died or hangs: replace it, and give its attempt a second chance."""
        self._unlisten(zygote.control)
        if zygote in self.idle:
            self.idle.remove(zygote)
        attempt = self.active.pop(zygote, None)
        if attempt is not None:
            self._hang_up(attempt)
            if attempt.retries:
                attempt.fail(Finding("IE", "the worker died twice"))
                self.finished(attempt)
            else:
                attempt.retries += 1
                self.queue.appendleft(attempt)
        self._add(self.pool.replace(zygote))
