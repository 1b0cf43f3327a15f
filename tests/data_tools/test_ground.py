"""Grounding against a local endpoint: contexts are valid, leak nothing, are asked for once."""

from __future__ import annotations

import json

import httpx
import openai
import pytest

from common.errors import GateError, UsageError
from common.files import exclusive, read_jsonl
from data_tools.ground import GroundConfig, estimate, ground, leaked, make_client
from tests.data_tools.conftest import write_jsonl

GOOD = {
    "speaker": "a retired nurse",
    "relation": "her neighbour of ten years",
    "situation": "a chat over the fence",
    "goal": "to borrow a ladder",
}
REPLY = "could I please borrow your long ladder this afternoon"


class Endpoint:
    """An OpenAI-compatible server in a function; answers come from `answer(prompt, number of calls so far)`."""

    def __init__(self, answer) -> None:
        self.answer, self.prompts = answer, []

    def client(self) -> openai.AsyncOpenAI:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._handle))
        return openai.AsyncOpenAI(api_key="k", base_url="http://local/v1", http_client=http, max_retries=0)

    def _handle(self, request: httpx.Request) -> httpx.Response:
        prompt = json.loads(request.content)["messages"][-1]["content"]
        self.prompts.append(prompt)
        reply = self.answer(prompt, len(self.prompts))
        if isinstance(reply, httpx.Response):
            return reply
        message = {"role": "assistant", "content": reply if isinstance(reply, str) else json.dumps(reply)}
        body = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "m",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }
        return httpx.Response(200, json=body)


def rows(count: int, *, system: bool = False) -> list[dict]:
    head = [{"role": "system", "content": "given"}] if system else []
    turns = [{"role": "user", "content": REPLY}, {"role": "assistant", "content": "sure"}]
    return [
        {"id": f"r{i}", "data_source": "wildchat", "messages": [*head, *turns, {"role": "user", "content": f"n {i}"}]}
        for i in range(count)
    ]


@pytest.fixture
def corpus(tmp_path):
    return write_jsonl(tmp_path / "in.jsonl", rows(5) + rows(2, system=True))


CONFIG = GroundConfig(model="m", usd_per_million_input=1.0, usd_per_million_output=2.0)


def test_rows_without_a_context_get_one_and_the_others_are_untouched(tmp_path, corpus):
    endpoint = Endpoint(lambda prompt, n: GOOD)
    report = ground([corpus], tmp_path / "out.jsonl", CONFIG, client=endpoint.client())
    assert (report.rows, report.grounded, report.had_system) == (7, 5, 2)
    assert report.usd == pytest.approx(5 * (100 + 2 * 50) / 1e6)
    before, after = list(read_jsonl(corpus)), list(read_jsonl(tmp_path / "out.jsonl"))
    for old, new in zip(before[:5], after[:5], strict=True):
        assert new["messages"][1:] == old["messages"] and new["id"] == old["id"]
        assert new["messages"][0]["role"] == "system" and "retired nurse" in new["messages"][0]["content"]
    assert [r["messages"] for r in after[5:]] == [r["messages"] for r in before[5:]]
    # wildchat is swapped: its user turns are the human's.
    assert endpoint.prompts[0].startswith(f"HUMAN: {REPLY}\nOTHER: sure")


def test_a_context_that_quotes_a_reply_is_asked_for_again_and_then_given_up(tmp_path, corpus):
    leaking = GOOD | {"goal": "Could I please BORROW your long ladder"}
    again = Endpoint(lambda prompt, n: GOOD if "quoted HUMAN" in prompt else leaking)
    report = ground([corpus], tmp_path / "a.jsonl", CONFIG, client=again.client())
    assert report.grounded == 5 and len(again.prompts) == 10
    always = Endpoint(lambda prompt, n: leaking)
    report = ground([corpus], tmp_path / "b.jsonl", CONFIG, client=always.client())
    assert report.failed == {"leak": 5} and len(always.prompts) == 15
    assert [r["messages"] for r in read_jsonl(tmp_path / "b.jsonl")] == [r["messages"] for r in read_jsonl(corpus)]
    assert leaked("we met last week at the old mill", ["at the old mill we sat"], 4) == "at the old mill"
    assert leaked("we met at the old mill", ["at the old house"], 4) is None


def test_what_was_answered_is_never_asked_again(tmp_path, corpus):
    def answer(prompt, n):
        return GOOD if n <= 3 else httpx.Response(401, json={"error": {"message": "no"}})

    one = CONFIG.model_copy(update={"concurrency": 1})
    with pytest.raises(UsageError, match="refused the key"):
        ground([corpus], tmp_path / "o.jsonl", one, client=Endpoint(answer).client())
    assert not (tmp_path / "o.jsonl").exists()
    second = Endpoint(lambda prompt, n: GOOD)
    report = ground([corpus], tmp_path / "o.jsonl", one, client=second.client())
    assert len(second.prompts) == 2 and report.from_cache == 3 and report.grounded == 5
    with pytest.raises(UsageError, match="output exists"):
        ground([corpus], tmp_path / "o.jsonl", one, client=second.client())


def test_invalid_answers_and_dead_endpoints_are_counted_and_too_many_stop_the_run(tmp_path, corpus):
    report = ground([corpus], tmp_path / "a.jsonl", CONFIG, client=Endpoint(lambda p, n: "not json").client())
    assert report.failed == {"format": 5}
    down = Endpoint(lambda p, n: httpx.Response(500, json={}))
    many = write_jsonl(tmp_path / "many.jsonl", rows(60))
    with pytest.raises(GateError, match="60 of 60 rows"):
        ground([many], tmp_path / "b.jsonl", CONFIG, client=down.client())
    assert not (tmp_path / "b.jsonl").exists()


def test_the_budget_stops_the_run(tmp_path, corpus):
    config = CONFIG.model_copy(update={"max_usd": 0.0003, "concurrency": 1})
    endpoint = Endpoint(lambda p, n: GOOD)
    with pytest.raises(GateError, match="budget"):
        ground([corpus], tmp_path / "o.jsonl", config, client=endpoint.client())
    assert len(endpoint.prompts) == 2


def test_the_estimate_comes_before_any_request(corpus):
    plan = estimate([corpus], CONFIG)
    assert (plan.rows, plan.to_ground, plan.output_tokens) == (7, 5, 800)
    assert plan.usd == pytest.approx((plan.input_tokens + 2 * plan.output_tokens) / 1e6)


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(UsageError, match="OPENAI_API_KEY is not set"):
        make_client(CONFIG)
    make_client(CONFIG.model_copy(update={"base_url": "http://127.0.0.1:1/v1"}))


def test_an_answer_that_is_no_completion_is_asked_for_again(tmp_path, corpus):
    def answer(prompt: str, calls: int):
        bodies = {1: b'{"choices": [', 2: b'{"choices": []}', 3: b'{"choices": {"0": 1}}', 4: b"<html>"}
        return (
            httpx.Response(200, content=bodies[calls], headers={"content-type": "application/json"})
            if calls in bodies
            else GOOD
        )

    report = ground(
        [corpus],
        tmp_path / "out.jsonl",
        CONFIG.model_copy(update={"max_attempts": 5}),
        client=Endpoint(answer).client(),
    )
    assert report.grounded == 5 and report.failed == {}


def test_a_damaged_cached_answer_is_asked_for_again(tmp_path, corpus):
    ground([corpus], tmp_path / "o.jsonl", CONFIG, client=Endpoint(lambda p, n: GOOD).client())
    expected = (tmp_path / "o.jsonl").read_bytes()
    (tmp_path / "o.jsonl").unlink()
    cache = tmp_path / "o.jsonl.cache.jsonl"
    first, second, *rest = cache.read_bytes().splitlines(keepends=True)
    cache.write_bytes(b"".join([first.replace(b"ladder", b"bladder"), b"\x00" + second[5:], *rest]))
    again = Endpoint(lambda p, n: GOOD)
    report = ground([corpus], tmp_path / "o.jsonl", CONFIG, client=again.client())
    assert report.from_cache == 3 and len(again.prompts) == 2
    assert (tmp_path / "o.jsonl").read_bytes() == expected


def test_a_second_run_on_one_output_is_refused_and_asks_nothing(tmp_path, corpus):
    endpoint = Endpoint(lambda p, n: GOOD)
    with exclusive(tmp_path / ".o.jsonl.lock", where=tmp_path / "o.jsonl"):
        with pytest.raises(UsageError, match="another run"):
            ground([corpus], tmp_path / "o.jsonl", CONFIG, client=endpoint.client())
    assert endpoint.prompts == [] and not (tmp_path / "o.jsonl").exists()
