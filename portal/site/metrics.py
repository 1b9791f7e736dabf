"""What the control plane counts: its requests by view, and the time that the database took.

Views are named by the URL configuration, never by the path that a caller sent.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from django.db import connection
from django.http import HttpRequest, HttpResponseBase

from portal.core.metrics import Families, Histogram, counter, histogram

GetResponse = Callable[[HttpRequest], HttpResponseBase]

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
UNRESOLVED: Final = "none"


class HttpMetrics:
    """Counts since the process was started; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[tuple[str, ...], Histogram] = {}
        self._database: dict[str, float] = {}

    def answered(self, view: str, status: int, seconds: float, database_seconds: float) -> None:
        """A request has been answered."""
        with self._lock:
            self._requests[view, status] += 1
            self._seconds.setdefault((view,), Histogram(_SECONDS)).observe(seconds)
            self._database[view] = self._database.get(view, 0.0) + database_seconds

    def families(self) -> Families:
        """The figures of the control plane of this process."""
        with self._lock:
            return [
                counter(
                    "freehold_http_requests",
                    "Requests of the control plane by view and status; 'none': none was reached.",
                    ("view", "status"),
                    [((view, str(s)), n) for (view, s), n in sorted(self._requests.items())],
                ),
                histogram(
                    "freehold_http_request_seconds",
                    "Time that those requests took.",
                    ("view",),
                    self._seconds,
                ),
                counter(
                    "freehold_http_database_seconds",
                    "Time of those requests that statements of the database took.",
                    ("view",),
                    [((view,), seconds) for view, seconds in sorted(self._database.items())],
                ),
            ]


HTTP: Final = HttpMetrics()
"""Of this process: Django makes its middleware itself."""


class _Timer:
    """Adds up the time of the statements that run through it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(
        self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        began = time.perf_counter()
        try:
            return execute(sql, params, many, context)
        finally:
            self.seconds += time.perf_counter() - began


class MetricsMiddleware:
    """Counts every request; the outermost, so that it sees what the others answer."""

    def __init__(self, get_response: GetResponse) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponseBase:
        began, timer = time.perf_counter(), _Timer()
        # Not ``connection.execute_wrapper``, which takes away whichever came last: on a thread's
        # first request that is the guard of tenants' tables.
        connection.execute_wrappers.append(timer)
        try:
            response = self._get_response(request)
        finally:
            connection.execute_wrappers.remove(timer)
        match = request.resolver_match
        view = match.view_name if match is not None else UNRESOLVED
        HTTP.answered(view, response.status_code, time.perf_counter() - began, timer.seconds)
        return response
