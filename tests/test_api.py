"""What the HTTP API answers to requests that do not fit: one sentence, for people and for programs alike."""

from __future__ import annotations

from typing import Any, cast

import httpx
import pytest
from typer.testing import CliRunner

from gallery.api import Reach, make_api
from gallery.views import LONGEST_QUERY
from promenade import cli
from promenade.settings import Settings


class Nearest:
    """In the place of a vector store: nobody may get so far."""

    async def nearest(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("the request should have been refused before")


async def ask(path: str) -> httpx.Response:
    api = make_api(cast(Any, Reach)(None, None, None, Nearest(), {}, None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://here") as client:
        return await client.get(path)


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("text=", "text: is empty."),
        ("text=%20%0A", "text: is empty."),
        ("", "text: is missing."),
        ("text=" + "a" * 501, "text: has 501 characters; 500 characters are the most."),
        ("text=sea&limit=many", "limit: 'many' is not a whole number."),
        ("text=sea&limit=0", "limit: '0' is not 1 or more."),
        (
            "text=sea&kind=poem&limit=101",
            "kind: 'poem' is not 'artwork' or 'track'; limit: '101' is not 100 or less.",
        ),
    ],
)
async def test_a_request_that_does_not_fit_is_answered_in_one_sentence(query: str, said: str) -> None:
    answer = await ask(f"/api/search?{query}")
    assert (answer.status_code, answer.json()) == (422, {"detail": said})


async def test_the_description_for_programs_says_what_such_an_answer_holds() -> None:
    described = (await ask("/openapi.json")).json()
    answers = described["paths"]["/api/search"]["get"]["responses"]
    assert answers["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/Sorry")
    assert described["components"]["schemas"]["Sorry"]["properties"]["detail"]["type"] == "string"
    assert "HTTPValidationError" not in described["components"]["schemas"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the text to look for is empty: give a few words, for example 'a calm sea'.\n"),
        (" \n", "the text to look for is empty: give a few words, for example 'a calm sea'.\n"),
        ("a" * (LONGEST_QUERY + 1), "the text to look for has 501 characters; 500 are the most.\n"),
    ],
)
def test_the_search_command_refuses_what_it_would_have_to_cut(text: str, said: str) -> None:
    result = CliRunner().invoke(cli.application, ["search", text])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", said)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(422, json={"detail": "limit: is missing."}), "limit: is missing.\n"),
        (httpx.Response(502, text="<p>no"), "the worker answers 502 Bad Gateway: <p>no\n"),
        (httpx.Response(500, json=["odd"]), 'the worker answers 500 Internal Server Error: ["odd"]\n'),
    ],
)
def test_the_command_says_what_the_answer_says(
    answer: httpx.Response, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "running_settings", lambda _: Settings())
    monkeypatch.setattr(httpx, "get", lambda *_, **__: answer)
    result = CliRunner().invoke(cli.application, ["search", "a calm sea"])
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", said)
