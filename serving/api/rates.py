"""How often a caller may ask: so many requests a minute for each credential, and few wrong credentials a minute from one address.

Each worker counts for itself and grants its share of the limit, in windows of a minute; so a caller whose connections all end at one worker
is held back earlier than one whose connections are spread. Time is the machine's own clock since it started, which nobody sets back.
"""

import math
import time
from collections import OrderedDict
from collections.abc import Callable

from fastapi import Request
from limits import RateLimitItemPerMinute
from limits.storage import Storage
from limits.strategies import FixedWindowRateLimiter

from serving.answers.problems import ProblemError

__all__ = ["Counters", "Rates", "address_of"]

MOST_COUNTED = 20_000
"""So many credentials and addresses are counted at a time; the one that asked longest ago is forgotten first."""

_FAILURE, _REQUEST = "failure", "request"


class Counters(Storage):
    """Counts of `limits` in bounded memory, for one thread.

    Those that `limits` brings along keep every key until a thread of their own has looked at all, and go by the wall clock.

    Examples
    --------
    >>> counters = Counters(most=2, clock=lambda: 0.0)
    >>> [counters.incr(key, 60) for key in ("a", "a", "b", "c")], counters.get("a")
    ([1, 2, 1, 1], 0)
    """

    STORAGE_SCHEME = None

    def __init__(self, *, most: int = MOST_COUNTED, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most = most
        self._clock = clock
        self._counted: OrderedDict[str, tuple[int, float]] = OrderedDict()

    @property
    def base_exceptions(self) -> type[Exception]:
        """Nothing can go wrong."""
        return ValueError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        """Count, in a window that begins with the first count and lasts `expiry` seconds."""
        count, end = self._live(key) or (0, self._clock() + expiry)
        self._counted[key] = (count + amount, end)
        self._counted.move_to_end(key)
        if len(self._counted) > self._most:
            self._counted.popitem(last=False)
        return count + amount

    def get(self, key: str) -> int:
        """Return the count."""
        return (self._live(key) or (0, 0.0))[0]

    def get_expiry(self, key: str) -> float:
        """Return when the window ends, by the clock."""
        return (self._live(key) or (0, self._clock()))[1]

    def check(self) -> bool:
        """Tell that memory is there."""
        return True

    def reset(self) -> int:
        """Forget all counts."""
        forgotten = len(self._counted)
        self._counted.clear()
        return forgotten

    def clear(self, key: str) -> None:
        """Forget a count."""
        self._counted.pop(key, None)

    def _live(self, key: str) -> tuple[int, float] | None:
        found = self._counted.get(key)
        return found if found is not None and found[1] > self._clock() else None


class Rates:
    """The limits of one worker.

    Parameters
    ----------
    requests, failures
        A minute, of the whole service: for each credential, and for wrong credentials from each address.
    workers
        Among how many workers they are shared.
    """

    def __init__(self, *, requests: int, failures: int, workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._limiter = FixedWindowRateLimiter(Counters(clock=clock))
        self._requests = RateLimitItemPerMinute(math.ceil(requests / workers))
        self._failures = RateLimitItemPerMinute(math.ceil(failures / workers))

    def count_request(self, credential: str) -> dict[str, str]:
        """Count a request, and return the headers that say how many more there may be.

        Raises
        ------
        ProblemError
            429 if it is one too many.
        """
        granted = self._limiter.hit(self._requests, _REQUEST, credential)
        stats = self._limiter.get_window_stats(self._requests, _REQUEST, credential)
        seconds = self._seconds_until(stats.reset_time)
        headers = {
            "ratelimit-policy": f'"requests";q={self._requests.amount};w=60',
            "ratelimit": f'"requests";r={stats.remaining};t={seconds}',
        }
        if not granted:
            detail = f"At most {self._requests.amount} requests a minute: try again in {seconds} seconds."
            raise ProblemError(429, detail, headers={"Retry-After": str(seconds), **headers})
        return headers

    def require_patience(self, address: str) -> None:
        """Refuse an address from which too many wrong credentials came.

        Raises
        ------
        ProblemError
            429 until the minute is over.
        """
        if not self._limiter.test(self._failures, _FAILURE, address):
            seconds = self._seconds_until(self._limiter.get_window_stats(self._failures, _FAILURE, address).reset_time)
            detail = f"Too many credentials from your address were wrong: try again in {seconds} seconds."
            raise ProblemError(429, detail, headers={"Retry-After": str(seconds)})

    def count_failure(self, address: str) -> None:
        """Count a wrong credential."""
        self._limiter.hit(self._failures, _FAILURE, address)

    def _seconds_until(self, end: float) -> int:
        return max(1, math.ceil(end - self._clock()))


def address_of(request: Request) -> str:
    """Return the address that a request comes from."""
    return request.client.host if request.client else ""
