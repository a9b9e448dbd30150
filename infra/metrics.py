"""Every metric of the house, declared once with its meaning and what to do when it moves.

Names follow Prometheus' conventions: base units, `_total` for counters. Labels are few and bounded: stages,
models, operations, never ids.
"""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

_FAST = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60)
_SLOW = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300)

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
    "promenade_stage_batch_items", "Events taken together in one batch.", ["stage"], buckets=(1, 2, 4, 8, 16, 32, 64)
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
MODEL_QUEUE_SECONDS = Gauge(
    "promenade_model_queue_seconds_total",
    "Seconds requests waited in the server's queue since it started, from the model server's own statistics.",
    ["model"],
)
MODEL_COMPUTE_SECONDS = Gauge(
    "promenade_model_compute_seconds_total",
    "Seconds the server computed (input, inference, output) since it started, from its own statistics.",
    ["model"],
)
MODEL_REQUESTS = Gauge(
    "promenade_model_requests_total",
    "Requests the server finished since it started, by its own statistics.",
    ["model"],
)
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
