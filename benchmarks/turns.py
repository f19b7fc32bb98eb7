"""Methods that run in turns, each in a thread of its own that waits while others run.

SciPy's and PyTorch's loops are theirs: they call us, and cannot be left and entered again. In a
thread that waits they can, so that whatever else the machine does hits all methods alike.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import traceback
from collections.abc import Callable
from typing import NamedTuple, Protocol

import common

# A step of ours logs its evaluations, and the log holds the last 1,024.
COUNT_EACH = 500


class OutOfTimeError(Exception):
    """Raised in a method's loop where its seconds are used up."""


class Look(NamedTuple):
    """Where a method stands."""

    seconds: float
    evaluations: int
    loss: float
    error: float  # relative L2; NaN where there is no solution


class Method(Protocol):
    """An optimizer at its start; to make one is to compile."""

    def run(self, tick: Callable[[], None]) -> str:
        """Runs until `tick` raises, or ends; says why it ended.

        Args:
            tick: To be called after each step or evaluation.
        """
        ...

    def mark(self) -> int:
        """Where it is, told at once: a look must not make the next steps slow."""
        ...

    def evaluations(self, mark: int) -> int:
        """Losses with gradients by a mark; asked for at most some `COUNT_EACH` ticks later."""
        ...

    def weights(self) -> object:
        """Its answer, if it were stopped now."""
        ...


@dataclasses.dataclass
class Track:
    """What came of one method.

    Attributes:
        first_seconds: To make it: tracing, compilation, and a step where that compiles.
        seconds: Of its own, looks left out.
        evaluations: Losses with gradients.
        looks: In the order of time.
        ended: Why it ended before its seconds did; empty if it did not.
        error: The text of an error.
        skipped: Why it cannot run here.
    """

    first_seconds: float = 0.0
    seconds: float = 0.0
    evaluations: int = 0
    looks: list[Look] = dataclasses.field(default_factory=list)
    ended: str = ""
    error: str = ""
    skipped: str = ""

    def to_loss(self, level: float) -> Look | None:
        return next((look for look in self.looks if look.loss <= level), None)


class Turn:
    """One method with its clock, thread and track.

    Args:
        make: Makes the method.
        look: From its weights to loss and error.
        budget: Seconds.
        slice_seconds: From one turn to the next.
    """

    # Looks are as far apart as this part of the seconds so far, but not less than so many seconds:
    # on a small task the first tenth of a second decides.
    LOOK_EACH, LOOK_LEAST = 0.05, 0.005

    def __init__(
        self,
        make: Callable[[], Method],
        look: Callable[[object], tuple[float, float]],
        budget: float,
        slice_seconds: float,
    ):
        self.track = Track()
        self.method: Method | None = None
        self._make, self._look = make, look
        self._budget, self._slice = budget, slice_seconds
        self._go, self._back = threading.Semaphore(0), threading.Semaphore(0)
        self._since = self._next_look = self._until = 0.0
        # Looks whose evaluations are a mark as yet, and ticks since there was none.
        self._marked, self._ticks, self._done = 0, 0, False
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def take(self) -> bool:
        """Lets it run for a slice, the first of which makes it; whether any is left."""
        self._go.release()
        self._back.acquire()
        if self._done:
            self._thread.join()
        return not self._done

    def _work(self) -> None:
        self._go.acquire()
        try:
            began = time.perf_counter()
            self.method = self._make()
            self.track.first_seconds = time.perf_counter() - began
            self._look_now()
            self._wait()
            self.track.ended = self.method.run(self._tick)
            self._end()
        except OutOfTimeError:
            self._end()
        except common.SkippedError as reason:
            self.track.skipped = str(reason)
        except Exception:  # of any kind: the others go on
            self.track.error = traceback.format_exc()
        finally:
            self._done = True
            self._back.release()

    def _wait(self) -> None:
        self._count()
        self._back.release()
        self._go.acquire()
        self._until = self.track.seconds + self._slice
        self._since = time.perf_counter()

    def _tick(self) -> None:
        track = self.track
        track.seconds += time.perf_counter() - self._since
        self._ticks += 1
        if track.seconds >= self._budget:
            raise OutOfTimeError
        if track.seconds >= self._next_look:
            self._look_now()
        if self._ticks >= COUNT_EACH:
            self._count()
        if track.seconds >= self._until:
            self._wait()
        self._since = time.perf_counter()

    def _look_now(self) -> None:
        assert self.method is not None
        track = self.track
        loss, error = self._look(self.method.weights())
        track.looks.append(Look(track.seconds, self.method.mark(), loss, error))
        self._marked += 1
        apart = max(self.LOOK_EACH * track.seconds, self.LOOK_LEAST)
        self._next_look = track.seconds + apart

    def _end(self) -> None:
        self._look_now()
        self._count()

    def _count(self) -> None:
        assert self.method is not None
        looks = self.track.looks
        for k in range(len(looks) - self._marked, len(looks)):
            looks[k] = looks[k]._replace(evaluations=self.method.evaluations(looks[k].evaluations))
        self.track.evaluations = self.method.evaluations(self.method.mark())
        self._marked = self._ticks = 0
