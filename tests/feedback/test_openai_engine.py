"""The engine behind a server: nothing lost, nothing invented, nothing paid twice, whatever the server does."""

import asyncio
import base64
import io
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from jsonargparse import ArgumentParser
from PIL import Image
from pydantic import BaseModel, Field

from rlaifv_pl.data.bad_samples import BadSample
from rlaifv_pl.feedback.engines.engine import Engine, EngineError, Request, Sampling
from rlaifv_pl.feedback.engines.openai_engine import OpenAIEngine
from rlaifv_pl.feedback.engines.server import LONGEST_PAUSE, _seconds
from rlaifv_pl.feedback.engines.transformers_engine import TransformersEngine
from rlaifv_pl.models.chat import Chat, message_with_images
from rlaifv_pl.models.policy import PolicySpec, load_model, load_processor
from rlaifv_pl.records import Sample
from tests.feedback.openai_server import (
    ChatServer,
    answer,
    completion,
    half,
    hang_up,
    says,
    slow,
    status,
    tokens,
    trickle,
)

KEY = "sk-test-0123456789abcdef"
ONE = Sampling(n=1, temperature=0.7, max_new_tokens=16)


class Form(BaseModel):
    """What the server of these tests fills in."""

    words: list[str]
    right: bool = Field(default=False, description="whether it is right")


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 3), "red").save(file, kind)
    return file.getvalue()


@pytest.fixture
def server(monkeypatch) -> Iterator[ChatServer]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ChatServer() as running:
        yield running


def engine(server: ChatServer, **settings) -> OpenAIEngine:
    return OpenAIEngine(
        **{"model": "m", "base_url": server.url, "backoff": 0.01, "timeout": 5, "retries": 3, **settings}
    )


def prompts(count: int) -> list[Sample]:
    return [Sample(key=f"s{number}", prompt=f"prompt {number}") for number in range(count)]


def sampled(asked: OpenAIEngine, count: int) -> list[list[str]]:
    drawn = asked.sample(prompts(count), [[number] for number in range(count)], ONE)
    return [[one.text for one in own] for own in drawn]


def requests(count: int) -> list[Request]:
    return [Request(f"question {number}", where=f"claim {number}") for number in range(count)]


def about(body: dict) -> str:
    """The text of the last turn of a request without images."""
    return body["messages"][-1]["content"]


def test_it_is_an_engine(server):
    asked: Engine = engine(server)
    assert asked.identity


def test_a_request_has_all_turns_and_each_image_in_its_place(server):
    jpeg, png, webp = (picture(kind) for kind in ("JPEG", "PNG", "WEBP"))
    prompt = [
        {"role": "system", "content": "Be brief."},
        {
            "role": "user",
            "content": [{"type": "text", "text": "first"}, {"type": "image"}, {"type": "image"}],
        },
        {"role": "assistant", "content": "ok"},
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "second"}]},
    ]
    sample = Sample(key="a", prompt=prompt, images=(jpeg, png, webp))
    (drawn,) = engine(server).sample([sample], [[11, 12]], Sampling(n=2, temperature=0.5, max_new_tokens=9))
    texts = [one.text for one in drawn]
    bodies = sorted(server.bodies, key=lambda body: body["seed"])
    assert texts == [answer(body) for body in bodies] and texts[0] != texts[1]

    def shown(kind: str, data: bytes) -> dict:
        url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
        return {"type": "image_url", "image_url": {"url": url}}

    assert bodies[0] == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [{"type": "text", "text": "first"}, shown("jpeg", jpeg), shown("png", png)],
            },
            {"role": "assistant", "content": "ok"},
            {"role": "user", "content": [shown("webp", webp), {"type": "text", "text": "second"}]},
        ],
        "seed": 11,
        "temperature": 0.5,
        "top_p": 1.0,
        "max_tokens": 9,
    }
    assert server.keys == {f"Bearer {KEY}"}


def test_an_image_of_another_format_is_named_before_anything_is_asked(server):
    with pytest.raises(BadSample, match=r"claim 7: cannot decode an image of 6 bytes: .*GIF"):
        engine(server).choose([Request("?", (b"GIF89a",), "claim 7")], ["yes"])
    assert not server.bodies


def test_answers_do_not_depend_on_concurrency_and_the_bound_holds(server):
    server.plan = lambda body, time: slow(random.uniform(0.01, 0.04))
    one_by_one = sampled(engine(server, concurrency=1), 24)
    assert server.most == 1
    assert sampled(engine(server, concurrency=8), 24) == one_by_one
    assert 4 <= server.most <= 8
    assert [sampled(engine(server), count)[-1] for count in (3, 7)] == [one_by_one[2], one_by_one[6]]


def without(name: str) -> dict:
    reply = completion("said")
    del reply["choices"][0][name]
    return reply


PASSING = {
    "500": status(500),
    "503": status(503),
    "408": status(408),
    "409": status(409),
    "429": status(429, Retry_After="0"),
    "garbage": says("<html>Bad gateway"),
    "half an answer": half,
    "cut JSON": says('{"choices": [{"message"'),
    "an error with status 200": says({"error": {"message": "overloaded"}}),
    "empty choices": says({"choices": []}),
    "no message": says(without("message")),
    "no finish_reason": says(without("finish_reason")),
    "no content": says(completion(None)),
    "content of another type": says(completion([1])),
    "hung up": hang_up,
    "silence": slow(0.6),
    "trickle": trickle,
}


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_passes_leaves_no_trace(server, fault):
    right = sampled(engine(server), 2)
    server.bodies.clear()
    server.plan = lambda body, time: PASSING[fault] if time < 2 and about(body) == "prompt 1" else None
    start = time.monotonic()
    assert sampled(engine(server, timeout=0.25), 2) == right
    assert len(server.bodies) == 1 + 3
    # A trickle of two seconds is cut off, too.
    assert time.monotonic() - start < 2.5


@pytest.mark.parametrize("fault", PASSING)
def test_a_fault_that_stays_is_told_after_a_bounded_number_of_tries(server, fault):
    server.plan = lambda body, time: PASSING[fault]
    with pytest.raises(EngineError, match=r"sample s0: expected a chat completion of m .*tries: 3\)\. [A-Z]"):
        sampled(engine(server, timeout=0.25, retries=2), 1)
    assert len(server.bodies) == 3


@pytest.mark.parametrize(
    ("code", "remedy"),
    [(400, "extra"), (401, "api_key_env"), (403, "key"), (404, "/models"), (413, "images"), (422, "extra")],
)
def test_what_will_never_work_is_told_at_once_and_without_the_key(server, code, remedy):
    server.plan = lambda body, time: status(code, f"wrong key {KEY}, says the server")
    with pytest.raises(EngineError, match=rf"sample s0: .*HTTP {code}.*says the server.*{remedy}") as caught:
        sampled(engine(server), 1)
    assert len(server.bodies) == 1
    assert KEY not in str(caught.value) and "wrong key [key]" in str(caught.value)


def test_an_empty_account_is_not_asked_again(server):
    error = {"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}
    server.plan = lambda body, time: lambda handler, _: handler.reply(error, 429)
    with pytest.raises(EngineError, match="quota"):
        sampled(engine(server), 1)
    assert len(server.bodies) == 1


def test_the_servers_own_time_to_wait_is_kept(server):
    server.plan = lambda body, time: status(429, Retry_After="0.4") if time == 0 else None
    start = time.monotonic()
    sampled(engine(server), 1)
    assert 0.4 <= time.monotonic() - start < 2


def test_times_to_wait_as_servers_write_them():
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 28 < _seconds(soon) <= 30
    assert [_seconds(text) for text in ("2", "1.5", "9" * 9, "", "soon", "nan", "-1")] == [
        *(2, 1.5, LONGEST_PAUSE),
        *(0, 0, 0, 0),
    ]
    assert _seconds("Wed, 21 Oct 2015 07:28:00 GMT") == 0


def test_nobody_there():
    with ChatServer() as gone:
        url = gone.url
    with pytest.raises(EngineError, match=r"sample s0: .*no connection.*tries: 2.*base_url"):
        sampled(OpenAIEngine(model="m", base_url=url, retries=1, backoff=0.01), 1)


def test_several_servers_take_the_images_in_turn_and_each_has_all_that_is_asked_about_its_own(server):
    images = [picture("JPEG"), picture("PNG"), picture("WEBP")]
    with ChatServer() as other:
        both = engine(server, base_url=[server.url, other.url])
        about = [Request(f"question {n}", (image,), f"{n}") for image in images for n in range(4)]
        found = both.choose(about, ("yes", "no"))
        shown = [
            {block["image_url"]["url"] for body in one.bodies for block in body["messages"][0]["content"][:1]}
            for one in (server, other)
        ]
        assert [len(one.bodies) for one in (server, other)] == [8, 4]
        assert [len(urls) for urls in shown] == [2, 1] and not shown[0] & shown[1]
        server.bodies.clear()
        other.bodies.clear()
        texts = sampled(both, 6)
        assert [len(one.bodies) for one in (server, other)] == [3, 3]
    alone = engine(server)
    assert alone.choose(about, ("yes", "no")) == found and sampled(alone, 6) == texts
    assert alone.identity == both.identity


def test_what_a_server_cannot_answer_is_asked_of_the_next(server):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}/v1"
    both = engine(server, base_url=[gone, server.url], retries=1)
    assert sampled(both, 4) == sampled(engine(server), 4)
    with pytest.raises(EngineError, match=rf"from {gone}, got no connection"):
        sampled(engine(server, base_url=[gone], retries=0), 1)
    with pytest.raises(ValueError, match="base_url must be http"):
        engine(server, base_url=[server.url, "http://me:pass@host/v1"])
    with pytest.raises(ValueError, match="base_url must be http"):
        engine(server, base_url=[])


def test_a_failure_keeps_what_was_under_way_and_begins_nothing_more(server, tmp_path):
    def plan(body, time):
        return status(400) if about(body) == "prompt 1" else slow(0.2)

    server.plan = plan
    cache = str(tmp_path / "answers.db")
    with pytest.raises(EngineError, match="sample s1"):
        sampled(engine(server, cache=cache, concurrency=4), 20)
    assert sorted(map(about, server.bodies)) == [f"prompt {number}" for number in range(4)]
    server.plan = lambda body, time: None
    server.bodies.clear()
    assert sampled(engine(server, cache=cache), 20) == sampled(engine(server), 20)
    asked = [about(body) for body in server.bodies[:17]]
    assert sorted(asked) == sorted(
        {f"prompt {number}" for number in range(20)} - {"prompt 0", "prompt 2", "prompt 3"}
    )


def test_a_server_that_dies_in_the_middle_and_its_successor(server, tmp_path):
    cache = str(tmp_path / "answers.db")
    with ChatServer() as mortal:
        mortal.plan = lambda body, time: hang_up if len(mortal.bodies) > 10 else None
        with pytest.raises(EngineError, match="no connection"):
            sampled(engine(mortal, cache=cache, concurrency=3, retries=1), 30)
    # An answer that left the server counts; the tries that were hung up on do not.
    later = engine(server, cache=cache)
    assert sampled(later, 30) == sampled(engine(server), 30)
    assert len(server.bodies) == (30 - 10) + 30


def _sample_until_killed(url: str, cache: str) -> None:
    sampled(OpenAIEngine(model="m", base_url=url, cache=cache, concurrency=2), 40)


def test_a_killed_run_pays_nothing_twice(server, tmp_path):
    cache = str(tmp_path / "answers.db")
    server.plan = lambda body, time: slow(0.03)
    run = multiprocessing.get_context("fork").Process(target=_sample_until_killed, args=(server.url, cache))
    run.start()
    while len(server.bodies) < 10:
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGKILL)
    run.join()
    time.sleep(0.1)
    paid = len(server.bodies)
    assert 10 <= paid < 40
    assert sampled(engine(server, cache=cache), 40) == sampled(engine(server), 40)
    # Only the two that were under way when it was killed are asked again.
    assert 40 <= len(server.bodies) - 40 <= 40 + 2
    assert paid > 2


def test_an_answer_is_kept_by_all_that_decides_it(server, tmp_path):
    cache = str(tmp_path / "answers.db")
    sampled(engine(server, cache=cache), 1)
    for settings in ({}, {"fill_tokens": 9}, {"concurrency": 1}):
        sampled(engine(server, cache=cache, **settings), 1)
    assert len(server.bodies) == 1
    changes = [{"model": "n"}, {"version": "2"}, {"extra": {"top_k": 5}}]
    for count, settings in enumerate(changes, start=2):
        sampled(engine(server, cache=cache, **settings), 1)
        assert len(server.bodies) == count
    assert len({engine(server, **settings).identity for settings in [{}, *changes]}) == 4
    elsewhere = OpenAIEngine(model="m", base_url="http://other/v1")
    assert elsewhere.identity == engine(server).identity


def test_equal_requests_are_one_and_release_forgets_what_has_no_file(server):
    asked = engine(server)
    same = [Request("is it red?", where=f"claim {number}") for number in range(5)]
    assert len({tuple(row) for row in asked.choose(same, ["yes"])}) == len(server.bodies) == 1
    asked.choose(same, ["yes", "no"])
    assert len(server.bodies) == 1
    asked.release()
    asked.choose(same, ["yes"])
    assert len(server.bodies) == 2


def test_the_key_is_nowhere_but_in_the_header(server, tmp_path):
    cache = tmp_path / "answers.db"
    asked = engine(server, cache=str(cache))
    sampled(asked, 3)
    server.plan = lambda body, time: hang_up
    with pytest.raises(EngineError) as caught:
        sampled(asked, 4)
    assert KEY not in f"{caught.value} {asked!r} {vars(asked)} {asked.identity}"
    assert not [path for path in tmp_path.iterdir() if KEY.encode() in path.read_bytes()]


def test_a_server_without_keys_needs_none_and_the_vendor_does(server, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    assert sampled(engine(server), 1)
    with pytest.raises(EngineError, match="set the environment variable OPENAI_API_KEY"):
        sampled(OpenAIEngine(model="m", base_url="https://api.openai.com/v1"), 1)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert sampled(engine(server, api_key_env=None), 1)
    assert server.keys == {"Bearer none"}


def test_without_the_package_the_error_says_what_to_install(server, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(EngineError, match=r'pip install "rlaifv-pl\[server\]"'):
        sampled(engine(server), 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"concurrency": 0},
        {"retries": -1},
        {"timeout": 0},
        {"fill_tries": 0},
        {"base_url": "127.0.0.1:8000"},
        {"base_url": f"http://user:{KEY}@host/v1"},
        {"base_url": f"http://host/v1?key={KEY}"},
    ],
)
def test_settings_without_sense_are_refused(settings):
    with pytest.raises(ValueError) as caught:
        OpenAIEngine(model="m", **settings)
    assert KEY not in str(caught.value)


def test_a_config_builds_it():
    parser = ArgumentParser()
    parser.add_argument("--engine", type=Engine)
    parser.add_argument("--own", type=OpenAIEngine)
    settings = {
        "model": "m",
        "base_url": "http://127.0.0.1:1/v1",
        "extra": {"chat_template_kwargs": {"a": False}},
    }
    path = "rlaifv_pl.feedback.engines.openai_engine.OpenAIEngine"
    parsed = parser.parse_object({"own": {"class_path": path, "init_args": settings}})
    built = parser.instantiate_classes(parsed).own
    assert built == OpenAIEngine(**settings)


def test_it_works_within_a_running_loop_in_threads_and_again(server):
    asked = engine(server)
    right = sampled(asked, 3)

    async def notebook() -> list[list[str]]:
        return sampled(engine(server), 3)

    assert asyncio.run(notebook()) == right
    with ThreadPoolExecutor(4) as threads:
        assert all(found == right for found in threads.map(lambda _: sampled(engine(server), 3), range(4)))
        asked.release()
        assert all(found == right for found in threads.map(lambda _: sampled(asked, 3), range(4)))


def test_a_words_probability_is_that_of_all_ways_to_write_it(server):
    shares = {"Yes": 0.4, " yes": 0.2, "\u2581YES": 0.1, "No": 0.15, "\u0120no": 0.05, "Not": 0.04, "3": 0.03}
    server.plan = lambda body, time: says(completion("Yes", "length", tokens(shares)))
    (row,) = engine(server).choose(requests(1), ["yes", "no", "3", "maybe"])
    assert row == pytest.approx([0.7, 0.2, 0.03, 0.0])
    (body,) = server.bodies
    assert (body["logprobs"], body["top_logprobs"], body["max_tokens"], body["temperature"]) == (
        True,
        20,
        1,
        0,
    )


@pytest.mark.parametrize(
    "logprobs", [None, {"content": None}, {"content": []}, {"content": [{"top_logprobs": []}]}]
)
def test_a_server_without_probabilities_is_told_and_may_answer_in_words(server, logprobs):
    server.plan = lambda body, time: says(completion(' "Yes", it is', logprobs=logprobs))
    with pytest.raises(EngineError, match="answers: text"):
        engine(server).choose(requests(1), ["yes", "no"])
    assert engine(server, answers="text").choose(requests(1), ["yes", "no"]) == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("said", "chances"),
    [("No.", [0, 1]), ("**yes**", [1, 0]), ("Nothing here", [0, 0]), ("", [0, 0]), ("I say yes", [0, 0])],
)
def test_the_word_that_begins_the_text_is_taken_for_certain(server, said, chances):
    server.plan = lambda body, time: says(completion(said))
    assert engine(server, answers="text").choose(requests(1), ["yes", "no"]) == [chances]


def test_a_withheld_answer_is_none_of_the_words(server):
    server.plan = lambda body, time: says(completion(None, "content_filter"))
    assert engine(server).choose(requests(1), ["yes", "no"]) == [[0, 0]]
    assert sampled(engine(server), 1) == [[""]]
    server.plan = lambda body, time: says(completion(None, refusal="I cannot"))
    assert sampled(engine(server), 1) == [["I cannot"]]


def test_a_form_is_filled_in_by_a_server_that_holds_the_model_to_it(server):
    found = engine(server).fill(requests(3), Form)
    assert [form.words for form in sorted(found, key=str)] == sorted(
        answer(body).split() for body in server.bodies
    )
    named = server.bodies[0]["response_format"]["json_schema"]
    assert named["strict"] and named["name"] == "Form"
    assert named["schema"]["required"] == ["words", "right"]
    assert (
        named["schema"]["additionalProperties"] is False
        and "default" not in named["schema"]["properties"]["right"]
    )


@pytest.mark.parametrize(("structured", "kind"), [("json_object", {"type": "json_object"}), ("none", None)])
def test_a_server_that_knows_less_has_the_schema_in_the_text(server, structured, kind):
    said = 'Here it is:\n```json\n{"words": ["a"], "right": true}\n```'
    server.plan = lambda body, time: says(completion(said))
    assert engine(server, structured=structured).fill(requests(1), Form) == [Form(words=["a"], right=True)]
    (body,) = server.bodies
    assert body.get("response_format") == kind
    assert "question 0" in about(body) and json.dumps(Form.model_json_schema()) in about(body)


UNHELD = {
    "another form": completion('{"words": 3}'),
    "no JSON": completion("I think that"),
    "cut": completion('{"words": ["a"], "right": true}', "length"),
    "refused": completion(None, refusal="no"),
    "filtered": completion(None, "content_filter"),
}


@pytest.mark.parametrize("reply", UNHELD)
def test_a_form_that_does_not_hold_is_asked_again_otherwise_and_then_missing(server, reply, tmp_path):
    cache = str(tmp_path / "answers.db")

    def plan(body, time):
        return says(UNHELD[reply]) if about(body) == "question 1" else None

    server.plan = plan
    first, missing = engine(server, cache=cache).fill(requests(2), Form)
    assert first is not None and missing is None
    tries = [(body["seed"], body["temperature"]) for body in server.bodies if about(body) == "question 1"]
    assert tries == [(0, 0), (1, 0.7), (2, 0.7)]
    server.plan, server.bodies = lambda body, time: None, []
    again = engine(server, cache=cache).fill(requests(2), Form)
    assert again[0] == first and again[1] is not None
    assert [about(body) for body in server.bodies] == ["question 1"]


def test_a_draft_that_holds_ends_the_asking(server):
    server.plan = lambda body, time: says(UNHELD["cut"]) if body["seed"] == 0 else None
    (found,) = engine(server).fill(requests(1), Form)
    assert found is not None and [body["seed"] for body in server.bodies] == [0, 1]


def test_a_form_is_drawn_by_its_requests_seed(server):
    server.plan = lambda body, time: says(UNHELD["cut"]) if body["seed"] == 70 else None
    asked = [replace(requests(1)[0], seed=seed) for seed in (0, 70, 90)]
    found = engine(server, fill_temperature=0.5).fill(asked, Form)
    assert sorted(body["seed"] for body in server.bodies) == [0, 70, 71, 90]
    assert len({tuple(form.words) for form in found}) == 3


def test_fields_are_added_replaced_and_left_out(server):
    extra = {"chat_template_kwargs": {"enable_thinking": False}, "top_p": 0.9, "temperature": None}
    sampled(engine(server, extra=extra, limit_name="max_completion_tokens"), 1)
    (body,) = server.bodies
    assert body["chat_template_kwargs"] == {"enable_thinking": False} and body["top_p"] == 0.9
    assert "temperature" not in body and "max_tokens" not in body and body["max_completion_tokens"] == 16


@pytest.fixture(scope="module")
def served(family_dir, tmp_path_factory) -> Iterator[tuple[str, str]]:
    """URL and model name of a tiny LLaVA behind `transformers serve`."""
    for package in ("fastapi", "uvicorn"):
        if find_spec(package) is None:
            pytest.skip(f"transformers serve needs {package}: pip install 'transformers[serving]'")
    model = str(family_dir("llava"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", model, "--device", "cpu"]
    with log.open("w") as told:
        process = subprocess.Popen([*command, "--port", str(port)], stdout=told, stderr=told)
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        process.terminate()
        process.wait()


@pytest.mark.slow
def test_a_real_model_served_by_transformers(served, tmp_path):
    url, model = served
    settings = {
        "model": model,
        "answers": "text",
        "structured": "none",
        "fill_tokens": 16,
        # This server has one random state for all requests, and draws only when it is told to.
        "concurrency": 1,
        "extra": {"generation_config": json.dumps({"do_sample": True})},
        "retries": 0,
    }
    sample = Sample(key="a", prompt="What is in the picture?", images=(picture("PNG"),))
    sampling = Sampling(n=3, max_new_tokens=8)
    asks = [Request("Is it red?", (picture("JPEG"),), "claim 0")]

    cache = str(tmp_path / "answers.db")
    real = OpenAIEngine(base_url=url, cache=cache, **settings)
    (texts,) = real.sample([sample], [[1, 2, 3]], sampling)
    assert len(set(texts)) == 3
    (chances,) = real.choose(asks, ["yes", "no"])
    assert set(chances) <= {0.0, 1.0}
    # Random weights write no form.
    assert real.fill(asks, Form) == [None]

    again = OpenAIEngine(base_url=url, **settings)
    assert again.sample([sample], [[3, 1]], sampling) == [[texts[2], texts[0]]]
    nowhere = OpenAIEngine(base_url="http://127.0.0.1:9/v1", cache=cache, **settings)
    assert nowhere.sample([sample], [[1, 2, 3]], sampling) == [texts]
    with pytest.raises(EngineError, match="answers: text"):
        OpenAIEngine(base_url=url, **{**settings, "answers": "logprobs"}).choose(asks, ["yes"])
    with pytest.raises(EngineError, match=r"HTTP 400.*`model`"):
        OpenAIEngine(base_url=url, **{**settings, "model": "another"}).choose(asks, ["yes"])


def hosted(path: Path):
    """A fault that is none: the server answers with the checkpoint at `path`, greedily."""
    spec = PolicySpec(path=str(path))
    model, chat, one_by_one = load_model(spec).eval(), Chat(load_processor(spec)), threading.Lock()

    @torch.inference_mode()
    def reply(handler, body) -> None:
        blocks = body["messages"][0]["content"]
        urls = [block["image_url"]["url"] for block in blocks if block["type"] == "image_url"]
        images = [
            Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("RGB") for url in urls
        ]
        turns = [message_with_images(blocks[-1]["text"], len(images))]
        with one_by_one:
            inputs = chat.prompt_tensors([chat.render(turns, ask=True)], [images])
            out = model.generate(**inputs, max_new_tokens=body["max_tokens"], do_sample=False)
            share = model(**inputs).logits[0, -1].softmax(-1)
        answer = out[:, inputs["input_ids"].shape[1] :]
        finish = "stop" if answer[0, -1] in torch.tensor(model.generation_config.eos_token_id) else "length"
        said = chat.tokenizer.decode(answer[0], skip_special_tokens=True)
        # All tokens, so that no probability is missing.
        shares = Counter()
        for token, one in enumerate(share.tolist()):
            shares[chat.tokenizer.decode([token])] += one
        handler.reply(completion(said, finish, logprobs=tokens(shares)))

    return reply


def test_a_hosted_model_answers_as_it_does_in_this_process(server, family_dir):
    reply = hosted(family_dir("llava"))
    server.plan = lambda body, time: reply
    here = TransformersEngine(path=str(family_dir("llava")), device="cpu")
    there = engine(server)
    samples = [
        Sample(key=kind.lower(), prompt="What is it?", images=(picture(kind),)) for kind in ("JPEG", "PNG")
    ]
    greedy = Sampling(n=1, temperature=0, max_new_tokens=6)
    assert there.sample(samples, [[0], [0]], greedy) == here.sample(samples, [[0], [0]], greedy)

    asks = [Request("What is it?", sample.images, sample.key) for sample in samples]
    words = ["two", "cats", "image?", "s"]
    ours, theirs = there.choose(asks, words), here.choose(asks, words)
    assert all(own == pytest.approx(whole, rel=1e-4) for own, whole in zip(ours, theirs, strict=True))
    assert min(ours[0]) > 0 and ours[0] != ours[1]
