"""The model server's own statistics as Prometheus reads them: counters are counters, batches a histogram."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from infra.inference import Inference, statistics_of
from infra.metrics import ServerStatistics
from schemas.failures import Passing
from tests.made_world import PROFILE

ANSWER: dict[str, Any] = {
    "model_stats": [
        {
            "name": "caption_picture",
            "version": "1",
            "inference_count": "11",
            "execution_count": "5",
            "inference_stats": {
                "success": {"count": "6", "ns": "9000000000"},
                "fail": {},
                "queue": {"count": "6", "ns": "1500000000"},
                "compute_input": {"count": "6", "ns": "250000000"},
                "compute_infer": {"count": "6", "ns": "2000000000"},
                "compute_output": {"count": "6", "ns": "250000000"},
            },
            "batch_stats": [
                {"batch_size": "1", "compute_infer": {"count": "3", "ns": "1"}},
                {"batch_size": "4", "compute_infer": {"count": "2", "ns": "1"}},
            ],
        },
        # A model that nobody has asked yet tells next to nothing.
        {"name": "embed_text", "version": "1", "inference_stats": {"success": {}, "queue": {}}},
        # Another version of the first.
        {
            "name": "caption_picture",
            "version": "2",
            "inference_stats": {"success": {"count": "1"}, "queue": {"count": "1", "ns": "500000000"}},
            "batch_stats": [{"batch_size": "4", "compute_infer": {"count": "1", "ns": "1"}}],
        },
    ]
}


def told(statistics: ServerStatistics) -> dict[str, Any]:
    """Name -> family, as they come from the page."""
    registry = CollectorRegistry()
    registry.register(statistics)
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    return {family.name: family for family in families}


def value(family: Any, name: str, **labels: str) -> float:
    (found,) = [each.value for each in family.samples if each.name == name and each.labels == labels]
    return float(found)


def test_what_the_server_counts_is_told_as_counters_under_one_name() -> None:
    statistics = ServerStatistics()
    statistics.models = statistics_of(ANSWER)
    families = told(statistics)
    for name, expected in (
        ("promenade_model_requests", 7),
        ("promenade_model_queue_seconds", 2.0),
        ("promenade_model_compute_seconds", 2.5),
    ):
        assert families[name].type == "counter"
        assert value(families[name], f"{name}_total", model="caption_picture") == pytest.approx(expected)
        assert value(families[name], f"{name}_total", model="embed_text") == 0


def test_batches_are_a_histogram_whose_mean_is_items_through_executions() -> None:
    statistics = ServerStatistics()
    statistics.models = statistics_of(ANSWER)
    batches = told(statistics)["promenade_model_batch_items"]
    assert batches.type == "histogram"
    assert value(batches, "promenade_model_batch_items_count", model="caption_picture") == 6
    assert value(batches, "promenade_model_batch_items_sum", model="caption_picture") == 15
    counts = {
        each.labels["le"]: each.value
        for each in batches.samples
        if each.name.endswith("_bucket") and each.labels["model"] == "caption_picture"
    }
    assert (counts["1.0"], counts["2.0"], counts["4.0"], counts["64.0"], counts["+Inf"]) == (3, 3, 6, 6, 6)


def test_a_restarted_server_begins_anew_and_a_model_that_went_is_told_no_more() -> None:
    statistics = ServerStatistics()
    statistics.models = statistics_of(ANSWER)
    statistics.models = statistics_of({"model_stats": [ANSWER["model_stats"][2]]})
    families = told(statistics)
    samples = [(each.labels, each.value) for each in families["promenade_model_requests"].samples]
    assert samples == [({"model": "caption_picture"}, 1)]


def test_names_meanings_and_how_to_put_workers_together_are_told() -> None:
    for name, family in told(ServerStatistics()).items():
        assert "over workers take max by (model), never sum" in family.documentation, name


async def test_a_call_may_take_as_long_as_the_profile_says_of_its_model(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = PROFILE.models["caption_picture"].model_copy(update={"patience": 600.0})
    profile = PROFILE.model_copy(update={"models": {**PROFILE.models, "caption_picture": entry}})
    seen: dict[str, float] = {}

    class Client:
        """Remembers how long it was asked to wait."""

        async def infer(self, model: str, tensors: Any, *, outputs: Any, client_timeout: float) -> Any:
            seen[model] = client_timeout
            raise TimeoutError

    inference = Inference("127.0.0.1:1", profile.patience())
    monkeypatch.setattr(inference, "_client", Client())
    for model in ("caption_picture", "embed_text", "unknown"):
        with pytest.raises(Passing):
            await inference.infer(model, {}, ["TEXT"])
    assert seen == {"caption_picture": 600.0, "embed_text": 120.0, "unknown": 120.0}
