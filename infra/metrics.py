"""Every metric of the house, declared once with its meaning and what to do when it moves.

Names follow Prometheus' conventions: base units, `_total` for counters. Labels are few and bounded: stages,
models, operations, never ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from prometheus_client import REGISTRY, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SLOW = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)

STAGE_EVENTS = Counter(
    "promenade_stage_events_total",
    "Events that a stage finished, by outcome: done (result written now), repeated (the result was there already), "
    "dropped (withdrawn or replaced by a newer revision), failed (set aside as a dead letter).",
    ["stage", "outcome"],
)
STAGE_FAILURES = Counter(
    "promenade_stage_failures_total",
    "Troubles met by a stage: passing (it waits and tries again) or lasting (the item is set aside). Many passing "
    "ones: a part is down, see promenade_stage_waiting. Many lasting ones: look at `promenade dead-letters list`.",
    ["stage", "kind"],
)
STAGE_SECONDS = Histogram(
    "promenade_stage_seconds", "Seconds that a stage worked on one batch, waits included.", ["stage"], buckets=_SLOW
)
STAGE_BATCH = Histogram(
    "promenade_stage_batch_items", "Events taken together in one batch.", ["stage"], buckets=_BATCHES
)
STAGE_IN_FLIGHT = Gauge("promenade_stage_in_flight", "Events taken and not yet acknowledged.", ["stage"])
STAGE_OLDEST = Gauge(
    "promenade_stage_oldest_seconds",
    "Age in seconds of the oldest event in hand, counted from when it happened; 0 when nothing is in hand. Growing: "
    "the stage is slower than what arrives, or waits for a part.",
    ["stage"],
)
STAGE_WAITING = Gauge(
    "promenade_stage_waiting", "1 while the stage waits for the named part to come back.", ["stage", "part"]
)
MODEL_SECONDS = Histogram(
    "promenade_model_call_seconds",
    "Seconds of one call as the client sees it (queue, compute and the way there and back).",
    ["model"],
    buckets=_FAST,
)
MODEL_FAILURES = Counter(
    "promenade_model_failures_total", "Calls that failed, passing or lasting.", ["model", "kind"]
)
MODEL_IN_FLIGHT = Gauge(
    "promenade_model_in_flight",
    "Calls of this process that wait for the model server's answer: in its queue or being computed. The server's "
    "own count of requests in the queue is nv_inference_pending_request_count on its own metrics page.",
    ["model"],
)


@dataclass(frozen=True, slots=True)
class ModelStatistics:
    """What the model server tells of one model, counted since it started; times in seconds."""

    requests: int = 0
    """Requests that it answered well."""
    queue: float = 0.0
    compute: float = 0.0
    """Input, inference and output together."""
    batches: Mapping[int, int] = field(default_factory=dict)
    """Items in one execution -> how many executions had so many."""


class ServerStatistics(Collector):
    """The model server's own statistics, told as they were read last.

    The server counts, so these are counters here too, and begin anew when it is restarted. Each worker reads them of
    the one server and tells the same numbers: over several workers take the greatest, never the sum.
    """

    _SAME: Final = " Each worker tells the same of the one server: over workers take max by (model), never sum."

    def __init__(self) -> None:
        self.models: Mapping[str, ModelStatistics] = {}
        """Replaced as a whole by whoever reads the statistics."""

    def collect(self) -> Iterable[Metric]:
        """See `prometheus_client.registry.Collector`."""
        requests = CounterMetricFamily(
            "promenade_model_requests",
            "Requests that the server answered since it started, by its own statistics." + self._SAME,
            labels=["model"],
        )
        queue = CounterMetricFamily(
            "promenade_model_queue_seconds",
            "Seconds that requests waited in the server's queue since it started, by its own statistics. Growing "
            "faster than compute seconds: the model needs more instances or larger batches." + self._SAME,
            labels=["model"],
        )
        compute = CounterMetricFamily(
            "promenade_model_compute_seconds",
            "Seconds that the server computed (input, inference, output) since it started, by its own statistics."
            + self._SAME,
            labels=["model"],
        )
        batches = HistogramMetricFamily(
            "promenade_model_batch_items",
            "Items that the server took together in one execution of a model; sum through count is the mean batch. "
            "Near 1 while requests wait in the queue: batching does not work." + self._SAME,
            labels=["model"],
        )
        for name, told in sorted(self.models.items()):
            requests.add_metric([name], told.requests)
            queue.add_metric([name], told.queue)
            compute.add_metric([name], told.compute)
            buckets = [
                (text, float(sum(number for size, number in told.batches.items() if size <= limit)))
                for limit, text in (*((each, str(float(each))) for each in _BATCHES), (float("inf"), "+Inf"))
            ]
            batches.add_metric([name], buckets, sum(size * number for size, number in told.batches.items()))
        yield from (requests, queue, compute, batches)


SERVER_STATISTICS: Final = ServerStatistics()
REGISTRY.register(SERVER_STATISTICS)
CAPTION_ATTEMPTS = Counter(
    "promenade_caption_attempts_total",
    "Captions of parts that were scored, by kind, attempt (1: the first one) and outcome (passed, below).",
    ["kind", "attempt", "outcome"],
)
CAPTION_SCORE = Histogram(
    "promenade_caption_score",
    "Scores of captions (ICScore of pictures, ACScore of tracks), by attempt. Later attempts no better than the "
    "first: asking again is of no use with this captioner.",
    ["kind", "attempt"],
    buckets=(0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 1),
)
CAPTION_REGENERATIONS = Counter(
    "promenade_caption_regenerations_total",
    "Captions that were asked for again because an earlier one was below the threshold.",
    ["kind"],
)
CAPTIONS_KEPT = Counter(
    "promenade_captions_kept_total",
    "Parts by the caption that they kept: passed, below (the best of all attempts is below the threshold; many of "
    "them: the captioner or the threshold is wrong), ungated (nothing to score it against).",
    ["kind", "outcome"],
)


class CaptionMetrics:
    """Counts what the gates of captions do, as `workers.contract.CaptionWatch` tells it."""

    def attempted(self, kind: str, attempt: int, score: float, passed: bool) -> None:
        """A caption of a part was scored; attempts count from 1."""
        CAPTION_ATTEMPTS.labels(kind, str(attempt), "passed" if passed else "below").inc()
        CAPTION_SCORE.labels(kind, str(attempt)).observe(score)
        if attempt > 1:
            CAPTION_REGENERATIONS.labels(kind).inc()

    def kept(self, kind: str, outcome: str) -> None:
        """A part has its caption."""
        CAPTIONS_KEPT.labels(kind, outcome).inc()


OBJECT_STORE_SECONDS = Histogram(
    "promenade_object_store_seconds", "Seconds of one call to the object store.", ["operation"], buckets=_FAST
)
VECTOR_STORE_SECONDS = Histogram(
    "promenade_vector_store_seconds", "Seconds of one call to the vector store.", ["operation"], buckets=_FAST
)
PAIRS = Gauge("promenade_pairs", "Pairs of an exhibition's target pairing.", ["exhibition"])
PAIRS_HUNG = Gauge(
    "promenade_pairs_hung",
    "Pairs that an exhibition's wall shows. Far from promenade_pairs for long: its threshold keeps the wall from "
    "following the target.",
    ["exhibition"],
)
PAIR_SIMILARITY = Gauge("promenade_pair_similarity_mean", "Mean similarity of an exhibition's pairs.", ["exhibition"])
REANNOUNCED = Counter(
    "promenade_reannounced_total",
    "Events announced again by reconcile because their item made no progress. Anything but a rare one is a defect.",
    ["stage"],
)
MUSIC_PIECES = Counter(
    "promenade_music_pieces_total",
    "Pieces of music by how they were asked for (background, live) and how they ended: kept, cancelled, withdrawn, "
    "failed (see `promenade dead-letters list`, or for live ones the worker's log).",
    ["asked", "outcome"],
)
MUSIC_QUEUE_SECONDS = Histogram(
    "promenade_music_queue_seconds",
    "Seconds from the request for a piece to the beginning of its composing. Long for background: more is wanted "
    "than composed; long for live: never, they do not queue.",
    ["asked"],
    buckets=(0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 3600, 14400),
)
MUSIC_FIRST_SECONDS = Histogram(
    "promenade_music_first_chunk_seconds",
    "Seconds from the call of the composer to the first sound. For live pieces it is what a person waits.",
    ["asked"],
    buckets=(0.1, 0.2, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 300),
)
MUSIC_REAL_TIME = Histogram(
    "promenade_music_real_time_factor",
    "Seconds of composing for each second of sound. Above 1 for live pieces: a listener hears gaps. Background "
    "pieces wait for live ones in between, which counts.",
    ["asked"],
    buckets=(0.05, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75, 1, 2, 5),
)
MUSIC_LIVE = Gauge("promenade_music_live", "Live pieces that are being composed, or kept, in this process.")
