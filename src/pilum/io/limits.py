"""How many requests a store should have in flight: found out while it is used.

A store that answers "too many requests" gets half as many; one that does not gets more, as long as more requests
bring more answers in the same time.  What is judged is a window of answers, not a single one: one refusal among
fifty is an accident that the retry handles, one among ten is a message.

```
answers   ........................x....x..x   window of max(16, 2 × limit) answers
refused > 10 %             ─► limit / 2
else the limit was reached ─► 1.25 × limit, if the last growth brought at least 5 % more answers that are no refusals
```
"""

from __future__ import annotations

from time import monotonic

__all__ = ["AdaptiveLimit", "FixedLimit"]

_SHRINK_SHARE = 0.1
_GAIN = 1.05
# After growth that brought nothing: so many windows until it is tried again.
_PATIENCE = 16


class FixedLimit:
    """A number of requests that does not change."""

    __slots__ = ("value",)

    def __init__(self, value: int) -> None:
        self.value = max(1, value)

    def answered(self, in_flight: int, *, throttled: bool) -> None:
        """An answer came."""


class AdaptiveLimit:
    """The number of requests worth having in flight.

    Args:
        start: to begin with.
        least, most: bounds.

    Attributes:
        value: the number now.
    """

    def __init__(self, start: int = 128, least: int = 4, most: int = 384) -> None:
        self.value = start
        self._least = least
        self._most = most
        self._best = 0.0  # answers per second before the last growth
        self._wait = 0
        self._begin()

    def _begin(self) -> None:
        self._answers = 0
        self._refused = 0
        self._busiest = 0
        self._started = monotonic()

    def answered(self, in_flight: int, *, throttled: bool) -> None:
        """An answer came.

        Args:
            in_flight: requests in flight when it came, itself included.
            throttled: it was "too many requests".
        """
        self._answers += 1
        self._refused += throttled
        self._busiest = max(self._busiest, in_flight)
        if self._answers < max(16, 2 * self.value):
            return
        share = self._refused / self._answers
        rate = (self._answers - self._refused) / max(monotonic() - self._started, 1e-6)
        if share > _SHRINK_SHARE:
            self.value = max(self._least, self.value // 2)
            self._best, self._wait = 0.0, _PATIENCE
        elif self._busiest >= self.value:
            if self._wait > 0:
                self._wait -= 1
            elif rate > _GAIN * self._best:
                self._best = rate
                self.value = min(self._most, self.value + max(1, self.value // 4))
            else:
                # The last step brought nothing: take it back, and try again much later.
                self.value = max(self._least, self.value * 4 // 5)
                self._best, self._wait = 0.0, _PATIENCE
        self._begin()
