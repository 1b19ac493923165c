"""Metrics of a server, in the format of Prometheus."""

from __future__ import annotations

from typing import Any

import prometheus_client as prometheus

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counters and histograms, in a registry of their own.

    Attributes:
        registry: of prometheus_client.
        requests: requests by route and status.
        latency: seconds of a request by route.
        rows: rows of a batch.
        compute: seconds of a batch.
        waiting: rows in the queue.
        bodies: bytes of requests that are being read or answered.
        programs: number of programs.
        tokens: generated tokens.
    """

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        kept: Any = {"namespace": "graphprog", "registry": self.registry}
        self.requests = prometheus.Counter(
            "requests", "Requests answered.", ("route", "status"), **kept
        )
        self.latency = prometheus.Histogram(
            "request_seconds",
            "Time from the head of a request.",
            ("route",),
            buckets=_SECONDS,
            **kept,
        )
        self.rows = prometheus.Histogram(
            "batch_rows", "Rows computed together.", buckets=_ROWS, **kept
        )
        self.compute = prometheus.Histogram(
            "batch_seconds", "Time to compute a batch.", buckets=_SECONDS, **kept
        )
        self.waiting = prometheus.Gauge("queue_rows", "Rows that wait to be computed.", **kept)
        self.bodies = prometheus.Gauge("body_bytes", "Bytes of requests in memory.", **kept)
        self.programs = prometheus.Gauge("programs", "Programs that can be asked for.", **kept)
        self.tokens = prometheus.Counter("tokens", "Generated tokens.", **kept)

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch."""
        self.rows.observe(rows)
        self.compute.observe(seconds)

    def text(self) -> bytes:
        """Return all metrics as text."""
        return prometheus.generate_latest(self.registry)
