"""The service: answers in OpenAI's protocol, to whom it may, within its limits."""

import json
import logging
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import httpx
import openai
import pytest
from mlflow import MlflowClient
from mlflow.tracing.client import TracingClient

from tasks.answering.assistant import Assistant
from tasks.answering.retrieving import Found
from tasks.answering.service.keys import add_key, read_keys, revoke_key
from tasks.answering.service.tracing import Traces, record_of, record_of_search
from tasks.answering.service.trial import Trial
from tasks.config.health import forget_health, write_health
from tasks.config.service import ServiceConfig, TracingConfig
from tasks.config.settings import Home
from tasks.errors import ConfigError, ModelError, RegistryError, StoreError
from tasks.index.search import Filters
from tasks.records import Searched, Trouble
from tasks.registry.connection import connect, registry
from tasks.registry.traces import TraceRecord, read_traces
from tasks.registry.versions import load_manifest, register_prompt
from tasks.releases import ENTRY_POINT, live_release
from tasks.serve import open_service
from tests.command import Tandem
from tests.homes import copy_home, use_home
from tests.released import (
    NAME,
    NOT_THERE,
    QUESTION,
    Serving,
    bearer,
    mixed,
    move,
    refusal,
    register_manifest,
    served,
    two_releases,
)
from tests.servers import free_port, mlflow_server, stop
from tests.waiting import wait_for

LIVE = {"release": "desk@2", "index": "docs@2", "adapter": "", "prompt": "answer@2"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    with pytest.MonkeyPatch.context() as patch:
        yield use_home(copy_home(two_releases(), tmp_path_factory.mktemp("service") / "home"), patch)


@pytest.fixture(scope="module")
def desk(shared: Home) -> Iterator[Serving]:
    """Without keys, and with small limits."""
    with served(shared, limits={"body_kb": 16, "question_characters": 500, "receive_seconds": 1}) as serving:
        yield serving


@pytest.fixture(scope="module")
def keys(shared: Home) -> dict[str, str]:
    """By owner: one of each tenant, one of nobody, one that may only monitor."""
    file = shared.root / "keys" / "file.json"
    held = {
        "north": add_key(file, "north", "north", ("chat", "search", "feedback")),
        "south": add_key(file, "south", "south", ("chat", "search", "feedback")),
        "all": add_key(file, "all", None, ("chat", "search", "feedback")),
        "prometheus": add_key(file, "prometheus", None, ("monitor",)),
    }
    return {name: secret for name, (_, secret) in held.items()}


@pytest.fixture(scope="module")
def locked(shared: Home, keys: dict[str, str]) -> Iterator[Serving]:
    """With keys."""
    with served(shared, keys="keys/file.json", tracing={}) as serving:
        yield serving


@pytest.fixture(scope="module")
def client(shared: Home) -> MlflowClient:
    return connect(shared)


@pytest.fixture(scope="module")
def following(shared: Home) -> Iterator[Serving]:
    """Without keys, and with time to answer many."""
    with served(shared, limits={"waiting": 1000}) as serving:
        yield serving


def client_of(serving: Serving, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{serving.address}/v1", api_key=key, max_retries=0)


def test_a_follow_up_is_answered_as_a_part_of_its_conversation(desk: Serving) -> None:
    first, answered, follow_up = "And at how many degrees?", "For two minutes. [1]", "And why?"
    with client_of(desk) as client:

        def ask(*contents: str) -> dict[str, Any]:
            roles = ("user", "assistant")
            turns: list[Any] = [{"role": roles[place % 2], "content": text} for place, text in enumerate(contents)]
            done = client.chat.completions.create(model=NAME, messages=turns, extra_body={"tenant": "north"})
            return dict(done.model_extra or {})

        assert ask(follow_up)["refused"]
        told = ask(QUESTION, answered, first, "At eighty. [1]", follow_up)
    assert told["question"] == f"{QUESTION} {first} {follow_up}"
    assert not told["refused"]


def test_openais_own_client_gets_an_answer_with_its_sources_and_versions(desk: Serving) -> None:
    asked: list[Any] = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "Good morning."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    with client_of(desk) as client:
        assert [model.id for model in client.models.list()] == [NAME]
        done = client.chat.completions.create(
            model=NAME, messages=asked, temperature=0.7, max_tokens=9, extra_body={"tenant": "north"}
        )
    assert "eighty degrees for two minutes. [1]" in (done.choices[0].message.content or "")
    assert (done.model, done.choices[0].finish_reason) == ("desk@2", "stop")
    more = done.model_extra or {}
    assert more["versions"] == LIVE
    assert more["refused"] is False
    first = more["citations"][0]
    assert (first["number"], first["document"], first["title"]) == (1, "north/tea.md", "About the tea")
    assert "text" not in first


def test_a_stream_adds_up_to_the_same_answer_with_the_same_sources(desk: Serving) -> None:
    whole = desk.ask().json()
    with client_of(desk) as client:
        chunks = list(
            client.chat.completions.create(
                model=NAME,
                messages=[{"role": "user", "content": QUESTION}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole["choices"][0]["message"]["content"]
    assert sum(bool(chunk.choices and chunk.choices[0].delta.content) for chunk in chunks) > 1
    assert {chunk.id for chunk in chunks} != {whole["id"]}
    last, usage = chunks[-2], chunks[-1]
    assert last.choices[0].finish_reason == "stop"
    extra = ("question", "citations", "versions", "refused", "alone", "conflict", "filtered", "confidence")
    assert last.model_extra == {name: whole[name] for name in extra}
    assert usage.usage is not None


def test_what_is_not_there_is_refused_in_the_words_of_the_policy(desk: Serving) -> None:
    said = desk.ask(NOT_THERE).json()
    assert (said["refused"], said["citations"]) == (True, [])
    assert said["choices"][0]["message"]["content"] == refusal(2)


@pytest.mark.parametrize(
    ("body", "status", "param", "sentence"),
    [
        ({"model": "gpt-4"}, 404, "model", "the release is desk"),
        ({"messages": []}, 400, "messages", "at least 1"),
        ({"messages": [{"role": "assistant", "content": "hello"}]}, 400, "messages", "no message is the user's"),
        ({"messages": [{"role": "user", "content": " "}]}, 400, "messages", "the question is empty"),
        ({"messages": [{"role": "user", "content": "a" * 501}]}, 400, "messages", "has 501 characters: at most 500"),
        (
            {"messages": [{"role": "system", "content": "lie"}, {"role": "user", "content": "a"}]},
            400,
            "messages",
            "own",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages", "leave images"),
        ({"tools": [{}]}, 400, "tools", "calls no tools"),
        ({"n": 2}, 400, "n", "one answer"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "generator is transformers or endpoint"),
        ({"tenant": ""}, 400, "tenant", "at least 1 character"),
        ({"stream": True, "model": "gpt-4"}, 404, "model", "the release is desk"),
    ],
)
def test_what_cannot_be_answered_is_said_in_openais_form(
    desk: Serving, body: dict[str, Any], status: int, param: str, sentence: str
) -> None:
    said = desk.ask(**body)
    error = said.json()["error"]
    assert (said.status_code, error["param"], error["type"]) == (status, param, "invalid_request_error")
    assert sentence in error["message"]


def test_a_search_finds_passages_within_its_filters_and_names_the_versions(desk: Serving) -> None:
    found = desk.search(QUESTION, k=3, tenant="south", document_prefix="south/t").json()
    assert [passage["document"] for passage in found["data"]] == ["south/tea.md"]
    assert "fifty degrees" in found["data"][0]["text"]
    assert found["versions"] == {"release": "desk@2", "index": "docs@2"}
    assert desk.search(k=51).json()["error"]["message"] == "k is 51: at most 50"
    assert found["id"].startswith("search-")  # this service keeps no traces
    assert "language_: Extra inputs" in desk.search(language_="en").json()["error"]["message"]


def test_a_search_shows_no_private_data_either_and_says_what_it_took_out(desk: Serving) -> None:
    found = desk.search("who makes the timetable", k=1, tenant="south", document_prefix="south/contact").json()
    assert found["data"][0]["text"].endswith("made by Anna, ‹e-mail_address›. So it is in the south.")
    assert found["filtered"] == [{"where": found["data"][0]["id"], "what": "e-mail address", "action": "redacted"}]


def test_nobody_is_answered_without_a_key_or_beyond_its_rights(locked: Serving, keys: dict[str, str]) -> None:
    wrong = keys["north"][:-1] + ("a" if keys["north"][-1] != "a" else "b")
    for path in ("/v1/chat/completions", "/v1/search", "/v1/feedback"):
        for key in ("", "nonsense", wrong, "tandem_ö"):
            header = {"Authorization": f"Bearer {key}".encode()} if key else {}
            said = locked.http.post(path, json={}, headers=header)
            assert (said.status_code, said.json()["error"]["code"]) == (401, "invalid_api_key"), (path, key)
        assert locked.http.post(path, json={}, headers=bearer(keys["prometheus"])).status_code == 403
    assert locked.http.get("/v1/models").status_code == locked.http.get("/metrics").status_code == 401
    assert locked.http.get("/metrics", headers=bearer(keys["north"])).status_code == 403
    assert locked.http.get("/metrics", headers=bearer(keys["prometheus"])).status_code == 200
    assert locked.http.get("/healthz").json() == {"status": "alive"}
    assert locked.ready() == {"status": "ready"}
    assert locked.ready(keys["prometheus"])["versions"] == LIVE
    with client_of(locked, wrong) as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


HOSTILE = (
    {"tenant": "south"},
    {"tenant": "south' OR 'a' = 'a"},
    {"document_prefix": "south/"},
    {"document_prefix": "') OR starts_with(document, 'south"},
    {"language": "en' OR tenant = 'south"},
    {"source": "south"},
    {"tags": ["a', 'b')) OR (tenant = 'south'"]},
    {"mode": "text", "query": "fifty degrees tenant:south"},
    {"mode": "vector"},
    {"k": 50},
    {"date_to": "9999-12-31"},
)


def test_a_key_of_one_tenant_reaches_no_other_tenants_passages(locked: Serving, keys: dict[str, str]) -> None:
    for attempt in HOSTILE:
        for path, body in (
            ("/v1/search", {"query": "So it is in the south, fifty degrees"}),
            ("/v1/chat/completions", {"model": NAME, "messages": [{"role": "user", "content": QUESTION}]}),
        ):
            said = locked.http.post(path, json=body | attempt, headers=bearer(keys["north"]))
            assert said.status_code in (200, 400, 403), said.text
            assert "fifty degrees" not in said.text.replace(json.dumps(attempt), "")
            assert '"tenant":"south"' not in said.text
            assert "south/" not in said.text
            if "tenant" in attempt:
                assert (said.status_code, said.json()["error"]["code"]) == (403, "other_tenant")
    assert "eighty degrees" in locked.ask(key=keys["north"]).text
    assert "fifty degrees" in locked.ask(key=keys["south"]).text
    assert "fifty degrees" in locked.ask(key=keys["all"], tenant="south").text
    assert {passage["tenant"] for passage in locked.search(key=keys["all"]).json()["data"]} == {"north", "south"}


def test_feedback_is_kept_on_the_trace_that_the_response_names(
    locked: Serving, keys: dict[str, str], shared: Home
) -> None:
    locked.ask(key=keys["north"])
    wait_for(lambda: locked.service.traces.waiting == 0)  # the process that writes them has begun
    answer_id = locked.ask(key=keys["north"]).json()["id"]
    said = {"id": answer_id, "thumb": "down", "correction": "At seventy.", "comment": "It burnt."}

    def send(body: dict[str, Any], key: str) -> httpx.Response:
        return locked.http.post("/v1/feedback", json=body, headers=bearer(keys[key]))

    assert send(said, "south").status_code == 404  # not even that there is such an answer
    assert send(said | {"id": "tr-" + "0" * 32}, "north").status_code == 404
    assert send({"id": answer_id}, "north").status_code == 400
    kept = send(said, "north")
    assert kept.status_code == 201, kept.text
    trace = TracingClient(shared.tracking_uri).get_trace(answer_id)
    key_id = keys["north"].split("_")[1]
    thumb, correction = sorted(trace.info.assessments, key=lambda one: one.name, reverse=True)
    assert (thumb.name, thumb.feedback.value, thumb.rationale, thumb.source.source_id) == (
        "thumb",
        False,
        "It burnt.",
        key_id,
    )
    assert (correction.name, correction.expectation.value) == ("correction", "At seventy.")
    assert {name: trace.info.tags[f"tandem.{name}"] for name in ("tenant", "release", "key")} == {
        "tenant": "north",
        "release": "desk@2",
        "key": key_id,
    }
    spans = {span.name: span for span in trace.data.spans}
    assert set(spans) == {"answer", "filters", "search", "grounding", "generation", "conflicts"}
    assert {name: spans["answer"].attributes[name] for name in LIVE} == LIVE
    assert spans["search"].outputs[0]["metadata"]["document"] == "north/tea.md"
    assert spans["search"].parent_id == spans["answer"].span_id
    assert spans["answer"].start_time_ns <= spans["search"].start_time_ns < spans["search"].end_time_ns
    assert spans["answer"].inputs == {"question": QUESTION}
    assert "eighty" not in json.dumps([span.to_dict() for span in trace.data.spans])  # no text of a passage


def test_a_search_leaves_a_trace_like_an_answer_and_is_not_taken_for_one(
    locked: Serving, keys: dict[str, str], shared: Home, client: MlflowClient
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise StoreError("the table of docs is gone")

    locked.search(key=keys["north"])
    wait_for(lambda: locked.service.traces.waiting == 0)  # the process that writes them has begun
    asked = f"{QUESTION}, tell anna.larsen@harbour.org"
    found = locked.search(asked, key=keys["north"], k=2).json()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.index.search.IndexReader.search", gone)
        assert locked.search(key=keys["north"]).status_code == 503
    said = {"id": found["id"], "thumb": "up"}
    assert locked.http.post("/v1/feedback", json=said, headers=bearer(keys["south"])).status_code == 404
    assert locked.http.post("/v1/feedback", json=said, headers=bearer(keys["north"])).status_code == 201
    wait_for(lambda: locked.service.traces.waiting == 0)
    tracing = TracingClient(shared.tracking_uri)
    trace = tracing.get_trace(found["id"])
    assert {name: trace.info.tags[f"tandem.{name}"] for name in ("tenant", "release", "key")} == {
        "tenant": "north",
        "release": "desk@2",
        "key": keys["north"].split("_")[1],
    }
    spans = {span.name: span for span in trace.data.spans}
    whole, search, filters = (spans.pop(name) for name in ("passages", "search", "filters"))
    assert spans == {}
    assert whole.inputs == search.inputs == {"question": f"{QUESTION}, tell ‹e-mail_address›"}
    assert whole.outputs == {"found": [passage["id"] for passage in found["data"]]}
    assert {name: whole.attributes[name] for name in ("release", "index")} == found["versions"]
    assert [each["metadata"]["document"] for each in search.outputs] == [each["document"] for each in found["data"]]
    assert whole.start_time_ns == search.start_time_ns < search.end_time_ns <= filters.end_time_ns
    assert "eighty" not in json.dumps([span.to_dict() for span in trace.data.spans])  # no text of a passage
    newest = tracing.search_traces(locations=[trace.info.experiment_id], order_by=["timestamp_ms DESC"])[0]
    assert (newest.info.tags["mlflow.traceName"], newest.info.state.value) == ("passages", "ERROR")
    assert found["id"] not in [each.trace_id for each in read_traces(client, f"answers-{NAME}", 0)]


def test_a_thumb_on_a_search_says_nothing_of_a_canarys_answers(shared: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    thumbs: list[str] = []
    monkeypatch.setattr(Trial, "thumb", lambda self, answer_id, release, up: thumbs.append(answer_id))
    with served(shared, tracing={}, canary={"share": 0.5}) as serving:
        answered, found = (asked().json()["id"] for asked in (serving.ask, serving.search))
        for each in (found, answered):
            assert serving.http.post("/v1/feedback", json={"id": each, "thumb": "up"}).status_code == 201
    assert thumbs == [answered]


def test_neither_texts_nor_keys_stand_in_the_log(
    locked: Serving, keys: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    def fail(question: str, tenant: str | None) -> None:
        raise ValueError(f"secret passage about {question}")

    caplog.set_level(logging.DEBUG, "tasks.answering.service")
    caplog.set_level(logging.DEBUG, "uvicorn")
    locked.ask(key=keys["north"])
    locked.search(key=keys["north"])
    locked.http.get(f"/v1/{keys['north']}?q={QUESTION}", headers=bearer(keys["north"]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.answering.assistant.Assistant.answer", lambda self, *asked, **more: fail(*asked))
        broken = locked.ask(key=keys["north"])
    assert (broken.status_code, broken.json()["error"]["code"]) == (500, "internal")
    assert "secret passage" not in broken.text
    wait_for(lambda: any('"status": 500' in record.getMessage() for record in caplog.records))  # after the response
    logged = [record.getMessage() + str(record.exc_info or "") for record in caplog.records]
    lines = [json.loads(line) for line in logged if line.startswith("{")]
    assert [line["status"] for line in lines] == [200, 200, 404, 500]
    assert lines[0]["key"] == keys["north"].split("_")[1]
    assert lines[0]["route"] == "/v1/chat/completions"
    assert [line["id"][:3] for line in lines[:2]] == ["tr-", "tr-"]
    assert "ValueError in " in lines[3]["error"]
    everything = "\n".join(logged)
    for text in (keys["north"], QUESTION, "degrees", "secret passage"):
        assert text not in everything


def test_a_revoked_key_is_let_in_no_more_and_a_broken_file_lets_nobody_in(shared: Home) -> None:
    file = shared.root / "own.json"
    key, secret = add_key(file, "somebody", None, ("search", "monitor"))
    assert secret not in file.read_text()
    assert file.stat().st_mode & 0o077 == 0
    with served(shared, keys="own.json") as serving:
        assert serving.search(key=secret).status_code == 200
        kept = file.read_text()
        file.write_text("[{")
        assert serving.search(key=secret).status_code == 503
        assert serving.http.get("/readyz").status_code == 503
        file.write_text(kept)
        assert serving.search(key=secret).status_code == 200
        revoke_key(file, key.id)
        assert serving.search(key=secret).status_code == 401
        file.unlink()
        assert serving.search().status_code == 401  # a file that is gone opens nothing


def test_without_keys_only_this_machine_is_answered(desk: Serving, shared: Home) -> None:
    with pytest.raises(ConfigError, match=r"0\.0\.0\.0 can be reached from elsewhere, and there is no key"):
        open_service(NAME, ServiceConfig(host="0.0.0.0"), shared)
    rebound = desk.http.post("/v1/search", json={"query": QUESTION}, headers={"Host": "evil.example"})
    assert (rebound.status_code, rebound.json()["error"]["code"]) == (403, "not_local")
    as_a_form_would = {"Content-Type": "text/plain"}
    assert desk.http.post("/v1/search", content='{"query": "tea"}', headers=as_a_form_would).status_code == 400


def test_a_request_that_is_too_large_or_too_slow_is_refused(desk: Serving) -> None:
    assert desk.http.post("/v1/search", content=b"a" * 20_000).status_code == 413
    assert desk.http.post("/v1/search", content=(b"a" * 1000 for _ in range(20))).status_code == 413
    port = int(desk.address.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as slow:
        slow.sendall(b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408 ")
    assert desk.ask().status_code == 200


def test_one_request_too_many_is_told_so_at_once_and_a_late_answer_is_given_up(shared: Home) -> None:
    limits = {"workers": 1, "waiting": 1, "seconds": 1.5}
    release = threading.Event()
    with served(shared, limits=limits) as serving, ThreadPoolExecutor(2) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.answering.assistant.Assistant.search", lambda *_: release.wait(60) and Found([]))
            held = [pool.submit(serving.ask) for _ in range(2)]
            wait_for(lambda: serving.service.admission.full)
            refused = serving.ask()
            assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
            assert refused.elapsed.total_seconds() < 1
            assert serving.http.get("/healthz").status_code == 200
            assert [each.result().status_code for each in held] == [504, 504]
            assert serving.service.admission.taken == 1  # what hangs keeps its place
            release.set()
            wait_for(lambda: serving.service.admission.taken == 0)
        assert serving.ask().status_code == 200


def limited(said: httpx.Response, limit: str) -> int:
    """The seconds after which a request that was refused by this limit may come again."""
    error = said.json()["error"]
    assert (said.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "rate_limit_exceeded")
    assert error["message"].startswith(f"{limit} is ")
    return int(said.headers["Retry-After"])


def test_a_key_over_its_pace_is_told_when_to_come_back_and_the_others_are_answered(shared: Home) -> None:
    file = shared.root / "paced.json"
    rights = ("chat", "search", "feedback", "monitor")
    (hasty, key), (_, other) = (add_key(file, name, None, rights) for name in ("hasty", "other"))
    _, own = add_key(file, "own", None, ("search",), requests_per_minute=1)
    _, free = add_key(file, "free", None, ("search",), requests_per_minute=0)
    with served(shared, keys="paced.json", limits={"requests_per_minute": 2}) as serving:
        for number in range(20):
            assert serving.search(key=f"tandem_{number:08x}_unknown").status_code == 401
        assert serving.service.pace._bucket.cache_info().currsize == 0  # strangers are not remembered
        assert [serving.search(key=key).status_code, serving.ask(key=key).status_code] == [200, 200]
        for refused in (serving.search(key=key), serving.ask(key=key), serving.ask(key=key, stream=True)):
            assert 25 <= limited(refused, "requests_per_minute") <= 30  # every half minute one
        assert serving.http.post("/v1/feedback", json={"id": "1"}, headers=bearer(key)).status_code == 429
        assert serving.search(key=other).status_code == 200
        assert [serving.search(key=own).status_code for _ in range(2)] == [200, 429]
        assert {serving.search(key=free).status_code for _ in range(5)} == {200}
        figures = serving.http.get("/metrics", headers=bearer(key))  # who monitors is not slowed down
        assert 'tandem_limited_total{limit="requests_per_minute"} 5.0' in figures.text
        assert serving.ready(key)["status"] == "ready"
    assert read_keys(file)[hasty.id].requests_per_minute is None


def test_openais_own_client_comes_back_when_it_may(shared: Home) -> None:
    # of so few there is room for one more after six seconds only, however slow the machine is
    with served(shared, limits={"requests_per_minute": 10}) as serving, client_of(serving) as client:
        while serving.search(k=1).status_code != 429:  # without keys it is one limit for everybody
            pass
        with pytest.raises(openai.RateLimitError, match="requests_per_minute is 10"):
            client.models.list()
        refused = serving.metric("tandem_limited_total{")
        begun = time.monotonic()
        patient = client.with_options(max_retries=1)
        done = patient.chat.completions.create(model=NAME, messages=[{"role": "user", "content": QUESTION}])
        assert done.model == "desk@2"
        assert 0.9 < time.monotonic() - begun < 10
        assert serving.metric("tandem_limited_total{") == refused + 1


def test_a_key_that_waits_for_as_many_answers_as_it_may_leaves_room_for_others(
    shared: Home, keys: dict[str, str]
) -> None:
    release, search = threading.Event(), Assistant.search

    def hang(self: Assistant, question: str, filters: Filters) -> Found:
        assert filters.tenant != "north" or release.wait(60)
        return search(self, question, filters)

    limits = {"workers": 3, "waiting": 0, "requests_at_once": 2, "seconds": 2}
    with (
        served(shared, keys="keys/file.json", limits=limits) as serving,
        ThreadPoolExecutor(2) as pool,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(Assistant, "search", hang)
        held = [pool.submit(serving.ask, key=keys["north"]) for _ in range(2)]
        wait_for(lambda: serving.service.admission.taken == 2)
        refused = serving.ask(key=keys["north"])
        assert limited(refused, "requests_at_once") == 1
        assert refused.elapsed.total_seconds() < 1
        assert serving.ask(key=keys["south"]).status_code == 200
        assert [each.result().status_code for each in held] == [504, 504]
        assert serving.ask(key=keys["north"]).status_code == 429  # what hangs keeps its place
        release.set()
        wait_for(lambda: serving.service.admission.taken == 0)
        assert serving.ask(key=keys["north"]).status_code == 200
        wait_for(lambda: serving.service.admission.taken == 0)
        assert serving.service.admission._by_key == {}
        figures = serving.http.get("/metrics", headers=bearer(keys["prometheus"])).text
        assert 'tandem_limited_total{limit="requests_at_once"} 2.0' in figures


def test_a_model_that_does_not_answer_is_a_status_before_the_first_byte(desk: Serving) -> None:
    def fail(*_: object) -> None:
        raise ModelError("big at http://10.0.0.1 does not answer: it was sent a passage about tea")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.answering.extractive.ExtractiveGenerator.answer", fail)
        said = desk.ask(stream=True)
    assert (said.status_code, said.json()["error"]["code"]) == (502, "model_error")
    assert "passage" not in said.text
    assert "10.0.0.1" not in said.text


def test_the_command_makes_shows_and_revokes_keys(ready_home: Home, tandem: Tandem) -> None:
    made = tandem("keys", "add", "ferry desk", "--tenant", "south", "--right", "search", "--at-once", 4, "--json").json
    file = ServiceConfig().keys_file(ready_home)
    [key] = read_keys(file).values()
    assert (key.id, key.name, key.tenant, key.rights) == (made["id"], "ferry desk", "south", ("search",))
    assert (key.requests_per_minute, key.requests_at_once) == (None, 4)
    assert made["key"] not in file.read_text()
    listed = tandem("keys", "list").out
    assert "ferry desk" in listed
    assert made["key"] not in listed
    wrong = tandem("keys", "add", "x", "--right", "everything")
    assert (wrong.status, wrong.err) == (
        2,
        "tandem: there is no right everything: there are chat, search, feedback, monitor\n",
    )
    assert tandem("keys", "revoke", made["id"]).status == 0
    assert read_keys(file) == {}
    assert tandem("keys", "revoke", made["id"]).status == 2
    missing = tandem("serve", "nothing")
    assert missing.status == 1
    assert "no version of nothing is live" in missing.err


def test_a_moved_alias_is_live_within_two_seconds_and_no_request_under_load_fails_or_is_mixed(
    following: Serving, client: MlflowClient
) -> None:
    answers: list[tuple[float, httpx.Response]] = []
    done = threading.Event()

    def ask(number: int) -> None:
        with httpx.Client(base_url=following.address, timeout=60) as http:
            while not done.is_set():
                asked = QUESTION if number % 2 else NOT_THERE
                body = {"model": NAME, "messages": [{"role": "user", "content": asked}], "tenant": "north"}
                answers.append((time.monotonic(), http.post("/v1/chat/completions", json=body)))

    delays = []
    with ThreadPoolExecutor(20) as pool:
        asking = [pool.submit(ask, number) for number in range(20)]
        for number in (1, 2, 1):
            wait_for(lambda: len(answers) > 70 * (len(delays) + 1))
            move(client, number)
            moved = time.monotonic()
            wait_for(lambda number=number: following.service.live.number == number)
            delays.append(time.monotonic() - moved)
        wait_for(lambda: len(answers) > 280)
        done.set()
        for each in asking:
            each.result()
    said = [response.json() for _, response in answers]
    assert {response.status_code for _, response in answers} == {200}
    assert [one["versions"] for one in said if mixed(one)] == []
    assert {one["versions"]["release"] for one in said} == {"desk@1", "desk@2"}
    assert max(delays) < 2, delays
    assert following.service.live.swaps >= 3


def test_a_version_that_does_not_load_never_replaces_what_works(following: Serving, client: MlflowClient) -> None:
    move(client, 2)
    wait_for(lambda: following.service.live.number == 2)
    register_prompt(client, "broken", [{"role": "system", "content": "no place for what was found"}])
    manifest = load_manifest(client, NAME, 2) | {"prompt": "broken@1", "tag": "v3"}
    register_manifest(client, NAME, manifest, ENTRY_POINT)
    move(client, 3)  # by hand, so nobody has proven it
    wait_for(lambda: following.ready()["problems"] != [])
    ready = following.ready()
    assert (ready["status"], ready["wanted"], ready["versions"]) == ("degraded", 3, LIVE)
    assert "desk@3 shall be live and is not: the prompt does not name the passages" in ready["problems"][0]
    assert following.metric("tandem_target_failing ") == 1
    assert following.ask(tenant="north").json()["versions"] == LIVE

    registry(client).delete_model_version(NAME, "3")  # which takes the alias along
    wait_for(lambda: following.ready()["problems"] == ["no version of desk is live in the registry any more"])
    assert following.ready()["status"] == "degraded"
    assert following.ask(tenant="north").json()["versions"] == LIVE
    move(client, 2)
    wait_for(lambda: following.ready()["problems"] == [])
    assert following.metric("tandem_target_failing ") == 0


def test_what_the_watcher_finds_wrong_with_the_installation_is_said_by_readyz(shared: Home) -> None:
    _, secret = add_key(shared.root / "watched.json", "prometheus", None, ("search", "monitor"))
    with served(shared, keys="watched.json") as serving:
        assert serving.ready(secret)["status"] == "ready"
        write_health(shared, [Trouble("the service worker-cpu is gone", "tandem up")], datetime.now(UTC))
        try:
            said = serving.ready(secret)
            assert (said["status"], said["problems"]) == ("degraded", ["the service worker-cpu is gone"])
            assert serving.ready() == {"status": "degraded"}  # what is wrong is for those who may monitor
            assert serving.search(key=secret).status_code == 200
        finally:
            forget_health(shared)
        assert serving.ready() == {"status": "ready"}


def test_a_service_starts_with_the_version_before_where_the_live_one_does_not_load(
    following: Serving, client: MlflowClient, shared: Home
) -> None:
    move(client, 1, "previous")
    register_manifest(client, NAME, load_manifest(client, NAME, 2) | {"index": "docs@9"}, ENTRY_POINT)
    move(client, 4)
    live = live_release(NAME, shared, ServiceConfig())
    assert live.number == 1
    assert "desk@4 shall be live and is not: docs has no version 9" in live.problems[0]
    move(client, 2)
    live.follow()
    assert (live.number, live.problems) == (2, [])


def test_a_registry_that_is_gone_is_reported_and_answers_go_on(shared: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    with mlflow_server(shared.mlruns, port) as server, served(shared) as serving:
        assert serving.ready()["problems"] == []
        stop(server)
        wait_for(lambda: serving.ready()["registry"] == "does not answer")
        assert "the registry was last heard" in serving.ready()["problems"][0]
        assert serving.metric("tandem_registry_up ") == 0
        answered = serving.ask(tenant="north")
        assert (answered.status_code, answered.json()["refused"]) == (200, False)
        assert answered.elapsed.total_seconds() < 5


class Stuck:
    """A writer that waits until it is let go, and then fails."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()

    def start(self) -> None: ...

    def close(self) -> None: ...

    def write(self, records: Sequence[TraceRecord]) -> None:
        self.begun.set()
        self.let_go.wait(60)
        raise RegistryError("MLflow is gone")


def test_a_trace_that_cannot_be_written_is_lost_and_counted_and_no_answer_waits_for_it(desk: Serving) -> None:
    answer = desk.service.live.assistant.answer(QUESTION, "north")
    writer = Stuck()
    traces = Traces(TracingConfig(waiting=3), writer)
    records = [record_of(traces.new_id("chatcmpl"), answer, time.time_ns(), "none") for _ in range(10)]
    traces.start()
    traces.keep(records[0])
    assert writer.begun.wait(60)
    begun = time.monotonic()
    for record in records[1:]:
        traces.keep(record)
    assert time.monotonic() - begun < 1
    assert traces.lost == 6  # three wait, and the writer has one
    writer.let_go.set()
    wait_for(lambda: traces.lost == 10)
    assert (traces.written, traces.waiting) == (0, 0)
    assert Traces(TracingConfig(sample=0), writer).new_id("chatcmpl").startswith("chatcmpl-")


class Noting:
    """A writer that notes how many it is given at once."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def start(self) -> None: ...

    def close(self) -> None: ...

    def write(self, records: Sequence[TraceRecord]) -> None:
        self.batches.append(len(records))


def test_traces_that_come_close_together_are_written_together_and_none_is_forgotten_at_the_end(desk: Serving) -> None:
    answer = desk.service.live.assistant.answer(QUESTION, "north")
    traces = Traces(TracingConfig(), writer := Noting())
    records = [record_of(traces.new_id("chatcmpl"), answer, time.time_ns(), "none") for _ in range(8)]
    traces.start()
    for record in records[:5]:
        traces.keep(record)
        time.sleep(0.01)
    wait_for(lambda: traces.written == 5)
    assert writer.batches == [5]
    for record in records[5:]:
        traces.keep(record)
    traces.stop()
    assert (writer.batches, traces.waiting) == ([5, 3], 0)


@pytest.mark.parametrize(
    ("texts", "held"),
    [
        ("none", set()),
        ("questions", {"question"}),
        ("answers", {"question", "answer"}),
        ("passages", {"question", "answer", "passage"}),
    ],
)
def test_a_trace_holds_only_the_texts_that_it_may(desk: Serving, texts: str, held: set[str]) -> None:
    answer = desk.service.live.assistant.answer(QUESTION, "north")
    record = str(record_of("tr-1", answer, time.time_ns(), texts))
    # the bridge is found and is not part of the answer
    marks = {"question": QUESTION, "answer": "eighty degrees", "passage": "heavier than seven tonnes"}
    assert {name for name, mark in marks.items() if mark in record} == held
    found = Searched(answer.passages, answer.versions, {"search": 0.1, "filters": 0.1})
    searched = str(record_of_search("tr-2", QUESTION, found, time.time_ns(), texts))
    assert {name for name in ("question", "passage") if marks[name] in searched} == held - {"answer"}
