"""What Prometheus sees: how long each stage of a request takes, what was answered, and what is served."""

from __future__ import annotations

import os
import pathlib
from typing import Any

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, multiprocess

# In seconds: from a search among a few photos to a request at its time limit.
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
STAGES = ("queue", "decode", "network", "search", "whole")
# Where the worker processes of one service write, for whichever of them is asked.
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics:
    """The measures of one application.

    Of several worker processes, which share a folder named by `PROMETHEUS_MULTIPROC_DIR`, any answers for all of them.

    Attributes:
        stages: seconds by stage.
        requests: requests by method, route and status.
        photos: photos in each index.
        queue, active: requests that wait, and that are worked on.
        together: how many photos went through the network at once, and how many queries through a search.
        failing: 1 for an index whose present state on the disk cannot be loaded, so that an earlier one is served.
    """

    def __init__(self) -> None:
        self._own = CollectorRegistry()
        own = {"registry": self._own}
        self.stages = Histogram("rw_keras_stage_seconds", "Seconds that a stage took", ["stage"], buckets=_BUCKETS, **own)
        self.requests = Counter("rw_keras_requests", "Requests answered", ["method", "route", "status"], **own)
        self.photos = Gauge("rw_keras_photos", "Photos in the index", ["index"], multiprocess_mode="livemax", **own)
        self.queue = Gauge("rw_keras_waiting_requests", "Requests that wait", multiprocess_mode="livesum", **own)
        self.active = Gauge("rw_keras_active_requests", "Requests that are worked on", multiprocess_mode="livesum", **own)
        self.failing = Gauge(
            "rw_keras_index_is_stale",
            "1 when the index on the disk cannot be loaded",
            ["index"],
            multiprocess_mode="livemax",
            **own,
        )
        self.together = Histogram(
            "rw_keras_batch_size", "Photos or queries computed together", ["stage"], buckets=(1, 2, 4, 8, 16, 32, 64), **own
        )

    def text(self) -> bytes:
        """All of them as Prometheus reads them."""
        folder = os.environ.get(FOLDER_VARIABLE)
        if not folder:
            return prometheus_client.generate_latest(self._own)
        _forget_dead(folder)
        registry = CollectorRegistry()
        multiprocess.MultiProcessCollector(registry, path=folder)
        return prometheus_client.generate_latest(registry)


class Counting:
    """Counts what is answered, by route and status. Pure ASGI.

    Args:
        app: the application.
        measures: where it is counted.
    """

    def __init__(self, app: Any, measures: Metrics) -> None:
        self._app, self._measures = app, measures

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status = None

        async def counted(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = getattr(scope.get("route"), "path_format", None) or "other"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            # A client that has gone before it was answered is told apart, as nginx does it.
            self._measures.requests.labels(method, route, str(status or 499)).inc()


def _forget_dead(folder):
    """What processes that have ended say of now counts no more."""
    for pid in {path.stem.rpartition("_")[2] for path in pathlib.Path(folder).glob("gauge_live*_*.db")}:
        try:
            os.kill(int(pid), 0)
        except ProcessLookupError:
            multiprocess.mark_process_dead(pid, folder)
        except (ValueError, PermissionError):
            continue
