"""The client of endpoints against a server that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict

from facellava.endpoint import (
    Budget,
    DryRun,
    Endpoint,
    EndpointCache,
    EndpointSettings,
    EndpointStopped,
    Failure,
    OutOfBudget,
    Price,
    Totals,
    message,
    read_prices,
    refuses,
)
from facellava.endpoint.request import Usage
from facellava.errors import FacellavaError
from tests.facellava.endpoint_rig import KEY, FakeEndpoint, Say, fake_endpoint, reply, trouble

GOOD = '{"colour": "red"}'
PRICES = {"m": Price(input=1000, cached=500, output=5000)}  # dollars for a million tokens
COST = (60 * 1000 + 40 * 500 + 20 * 5000) / 1e6  # of the rig's usual usage


class Colour(BaseModel):
    model_config = ConfigDict(extra="forbid")

    colour: str


def settings_of(server: FakeEndpoint | str, **more: Any) -> EndpointSettings:
    usual: dict[str, Any] = {
        "api_key": KEY, "first_wait": 0.01, "longest_wait": 0.03, "timeout": 5.0, "patience": 5.0,
        "max_tokens": 64,
    }  # fmt: skip
    url = server if isinstance(server, str) else server.url
    return EndpointSettings(url, "m", **(usual | more))


def ask(
    settings: EndpointSettings,
    prompts: Sequence[str] = ("which?",),
    cache: Path | None = None,
    cap: float | None = None,
) -> tuple[list[Colour | Failure | BaseException], dict[str, Totals]]:
    """Ask all at once in a run of its own; what came back, and the cache's totals."""

    async def run(opened: EndpointCache) -> list[Colour | Failure | BaseException]:
        budget = Budget(PRICES, cap, opened.spent())
        async with Endpoint(settings, opened, budget) as endpoint:
            asked = [endpoint.ask([message(prompt)], Colour) for prompt in prompts]
            return await asyncio.gather(*asked, return_exceptions=True)

    with EndpointCache(cache) as opened:
        return asyncio.run(run(opened)), opened.totals()


def test_a_reply_is_asked_for_once_and_never_again(tmp_path: Path) -> None:
    with fake_endpoint(lambda *_: reply(GOOD)) as server:
        found, totals = ask(settings_of(server), cache=tmp_path / "deep" / "c.sqlite")
        again, totals_again = ask(settings_of(server), cache=tmp_path / "deep" / "c.sqlite")
    assert found == again == [Colour(colour="red")]
    assert totals == totals_again == {"m": Totals(1, 0, 100, 40, 20, pytest.approx(COST))}
    (body,) = server.bodies
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "which?"}],
        "max_completion_tokens": 64,
        "response_format": {
            "type": "json_schema",
            "json_schema": {
                "name": "Colour",
                "schema": Colour.model_json_schema(),
                "strict": True,
            },
        },
    }
    assert server.keys == {f"Bearer {KEY}"}


def test_whatever_decides_a_reply_makes_another_request(tmp_path: Path) -> None:
    pictures = [message("p", [b"one"]), message("p", [b"two"]), message("p", [b"one", b"two"])]

    async def run(settings: EndpointSettings, cache: EndpointCache) -> None:
        async with Endpoint(settings, cache, Budget({})) as endpoint:
            for turn in pictures:
                await endpoint.ask([turn], Colour)
            await endpoint.ask_text([pictures[0]])

    with fake_endpoint(lambda *_: reply(GOOD)) as server, EndpointCache() as cache:
        for parameters in ({}, {"temperature": 0.5}, {}):
            asyncio.run(run(settings_of(server, parameters=parameters), cache))
    assert len(server.bodies) == 8
    assert [body.get("temperature") for body in server.bodies] == [None] * 4 + [0.5] * 4
    url = server.bodies[0]["messages"][0]["content"][0]["image_url"]["url"]
    assert url == "data:image/jpeg;base64,b25l"


PASSING = {
    "busy": (trouble(429, headers={"Retry-After": "0"}), 0),
    "down": (trouble(503), 0),
    "gateway": (trouble(502), 0),
    "broken": (trouble(500), 0),
    "slow": (reply(GOOD, delay=0.6), 1),
    "closed in the middle": (reply(GOOD, cut=20), 1),
    "closed at once": (reply(GOOD, cut=0), 1),
    "half a body": (Say(b'{"choices": [{"mess'), 1),
    "a page": (Say(b"<html>hello</html>", headers={"X-Kind": "page"}), 1),
}


@pytest.mark.parametrize("kind", PASSING)
def test_troubles_that_pass_are_outlasted_and_what_may_be_charged_is_booked(kind: str) -> None:
    first, lost = PASSING[kind]
    with fake_endpoint(lambda prompt, before, _: reply(GOOD) if before else first) as server:
        found, totals = ask(settings_of(server, timeout=0.3))
    assert found == [Colour(colour="red")]
    assert len(server.prompts) == 2
    assert (totals["m"].replies, totals["m"].lost) == (1, lost)
    assert (totals["m"].lost_dollars > COST / 3) == bool(lost)


def test_retry_after_is_kept_by_all_requests() -> None:
    def script(prompt: str, before: int, _: Any) -> Say:
        limited = prompt == "first" and not before
        return trouble(429, headers={"Retry-After": "0.5"}) if limited else reply(GOOD)

    async def run(settings: EndpointSettings, cache: EndpointCache) -> None:
        async with Endpoint(settings, cache, Budget({})) as endpoint:
            first = asyncio.create_task(endpoint.ask([message("first")], Colour))
            await asyncio.sleep(0.2)
            await asyncio.gather(first, endpoint.ask([message("second")], Colour))

    with fake_endpoint(script) as server, EndpointCache() as cache:
        asyncio.run(run(settings_of(server), cache))
    assert sorted(server.prompts) == ["first", "first", "second"]
    assert min(server.times[1:]) - server.times[0] > 0.45


UNUSABLE = {
    "refusal field": (reply(None, refusal="No."), "refused"),
    "refusal text": (reply("I'm sorry, but I can't help with that."), "refused"),
    "filter": (reply("", finish="content_filter"), "refused"),
    "half a JSON": (reply('{"colour": "re'), "not the asked-for JSON"),
    "wrong JSON": (reply('{"color": "red"}'), "not the asked-for JSON"),
    "prose": (reply("It is red."), "not the asked-for JSON"),
    "no choices": (Say({"choices": [], "usage": None}), "no content"),
    "null choices": (Say({"error": {"message": "upstream"}}), "no content"),
    "empty": (reply(""), "no content"),
    "cut off": (reply('{"colour": "re', finish="length"), "cut off"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_replies_are_tried_again_counted_and_remembered(kind: str, tmp_path: Path) -> None:
    bad, reason = UNUSABLE[kind]
    cache = tmp_path / "c.sqlite"
    with fake_endpoint(lambda prompt, before, _: reply(GOOD) if before == 3 else bad) as server:
        found, totals = ask(settings_of(server), cache=cache)
        again, _ = ask(settings_of(server), cache=cache)
        assert len(server.prompts) == 3
        # One attempt more goes on where the others ended.
        better, more = ask(settings_of(server, attempts=4), cache=cache)
        assert len(server.prompts) == 4
    assert found == again
    assert isinstance(found[0], Failure)
    assert found[0].reason == reason
    assert (totals["m"].replies, totals["m"].unusable) == (3, 3)
    assert totals["m"].dollars > 0.1
    assert better == [Colour(colour="red")]
    assert (more["m"].replies, more["m"].unusable) == (4, 3)
    rooms = [body["max_completion_tokens"] for body in server.bodies]
    assert rooms == ([64, 128, 256, 512] if reason == "cut off" else [64] * 4)


def test_json_in_a_fence_is_taken() -> None:
    with fake_endpoint(lambda *_: reply(f"```json\n{GOOD}\n```")) as server:
        assert ask(settings_of(server))[0] == [Colour(colour="red")]


def test_free_text_is_asked_for_without_a_schema() -> None:
    async def run(settings: EndpointSettings, cache: EndpointCache) -> str | Failure:
        async with Endpoint(settings, cache, Budget({})) as endpoint:
            return await endpoint.ask_text([message("which?")])

    with fake_endpoint(lambda *_: reply("Red, I think.")) as server, EndpointCache() as cache:
        assert asyncio.run(run(settings_of(server), cache)) == "Red, I think."
    assert "response_format" not in server.bodies[0]


def test_a_request_that_is_rejected_fails_alone_and_is_not_tried_again() -> None:
    def script(prompt: str, *_: Any) -> Say:
        return trouble(400, "picture too large") if prompt == "b" else reply(GOOD)

    with fake_endpoint(script) as server:
        found, totals = ask(settings_of(server), ["a", "b", "c"])
    assert found[1] == Failure("rejected", "status 400: picture too large")
    assert found[0] == found[2] == Colour(colour="red")
    assert len(server.prompts) == 3
    assert (totals["m"].replies, totals["m"].lost) == (2, 0)


def test_an_endpoint_that_rejects_everything_stops_the_run() -> None:
    with fake_endpoint(lambda *_: trouble(400, "no such field")) as server:
        found, _ = ask(settings_of(server), [str(number) for number in range(25)])
    stopped = [item for item in found if isinstance(item, EndpointStopped)]
    assert "takes none of our requests (status 400: no such field)" in str(stopped[0])
    assert sum(isinstance(item, Failure) for item in found) == 19


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (trouble(401, f"bad key {KEY}"), r"refuses the key \(.*bad key \*\*\*\); give another in"),
        (trouble(404, "no model m"), "cannot be asked for 'm'.*no model m"),
        (trouble(402, "pay"), "cannot be asked for 'm'.*pay"),
        (trouble(429, "no money", "insufficient_quota"), "cannot be asked for 'm'.*no money"),
    ],
)
def test_what_no_waiting_ends_stops_the_run_at_once(said: Say, words: str) -> None:
    with fake_endpoint(lambda *_: said) as server:
        (found,), _ = ask(settings_of(server))
    assert isinstance(found, EndpointStopped)
    assert len(server.prompts) == 1
    with pytest.raises(EndpointStopped, match=words):
        raise found
    assert KEY not in "".join(traceback.format_exception(found))


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def test_patience_ends_with_a_sentence(caplog: pytest.LogCaptureFixture) -> None:
    (found,), totals = ask(settings_of(f"http://127.0.0.1:{free_port()}/v1", patience=0.3))
    assert isinstance(found, EndpointStopped)
    assert "has given no answer for 0.3 s (no connection" in str(found)
    assert totals == {}
    notes = [record.getMessage() for record in caplog.records if "asking again" in record.message]
    assert len(notes) == 1
    assert "no connection" in notes[0]


def test_an_endpoint_that_comes_back_is_waited_for() -> None:
    port = free_port()
    result: list[Any] = []
    settings = settings_of(f"http://127.0.0.1:{port}/v1")
    asking = threading.Thread(target=lambda: result.append(ask(settings, ["a", "b"])))
    asking.start()
    time.sleep(0.3)
    with fake_endpoint(lambda *_: reply(GOOD), port) as server:
        asking.join()
    assert result[0][0] == [Colour(colour="red")] * 2
    assert len(server.prompts) == 2


@pytest.mark.parametrize("others", [0, 6])
def test_a_request_that_breaks_the_endpoint_fails_alone(others: int) -> None:
    def script(prompt: str, *_: Any) -> Say:
        return trouble(500, "out of memory") if prompt == "bad" else reply(GOOD, delay=0.02)

    prompts = ["bad", *map(str, range(others))]
    with fake_endpoint(script) as server:
        found, _ = ask(settings_of(server, failed_tries=4, concurrency=2), prompts)
    assert found[0] == Failure("endpoint failed", "status 500: out of memory")
    assert found[1:] == [Colour(colour="red")] * others
    assert server.prompts.count("bad") == 5
    assert server.prompts.count("Say yes.") <= 1


def test_an_endpoint_that_fails_at_all_requests_is_waited_for() -> None:
    back = time.monotonic() + 1.0

    def script(*_: Any) -> Say:
        return trouble(500) if time.monotonic() < back else reply(GOOD)

    with fake_endpoint(script) as server:
        found, _ = ask(settings_of(server, failed_tries=3), ["a", "b", "c"])
        assert "Say yes." in server.prompts
        server.script = lambda *_: trouble(500)
        (stopped,), _ = ask(settings_of(server, failed_tries=3, patience=0.5))
    assert found == [Colour(colour="red")] * 3
    assert isinstance(stopped, EndpointStopped)


def test_the_same_request_at_once_shares_one_reply() -> None:
    with fake_endpoint(lambda *_: reply(GOOD, delay=0.1)) as server:
        found, totals = ask(settings_of(server), ["same"] * 5)
    assert found == [Colour(colour="red")] * 5
    assert server.prompts == ["same"]
    assert totals["m"].replies == 1


def test_a_cancelled_caller_loses_no_reply(tmp_path: Path) -> None:
    async def run(settings: EndpointSettings, cache: EndpointCache) -> None:
        async with Endpoint(settings, cache, Budget({})) as endpoint:
            asked = asyncio.create_task(endpoint.ask([message("which?")], Colour))
            await asyncio.sleep(0.1)
            asked.cancel()

    with fake_endpoint(lambda *_: reply(GOOD, delay=0.3)) as server:
        with EndpointCache(tmp_path / "c") as cache:
            asyncio.run(run(settings_of(server), cache))
        assert ask(settings_of(server), cache=tmp_path / "c")[0] == [Colour(colour="red")]
    assert len(server.prompts) == 1


def test_requests_are_spread_over_the_minute_and_bounded() -> None:
    under_way, most, lock = 0, 0, threading.Lock()

    def script(*_: Any) -> Say:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.1)
        with lock:
            under_way -= 1
        return reply(GOOD)

    prompts = [str(number) for number in range(6)]
    with fake_endpoint(script) as server:
        ask(settings_of(server, requests_per_minute=600), prompts)
        assert server.times[-1] - server.times[0] > 0.3  # 0.5 s by the limit
        most = 0
        ask(settings_of(server, concurrency=3), prompts)
    assert most == 3


def test_the_cap_is_never_passed_and_nothing_is_lost(tmp_path: Path) -> None:
    prompts = [str(number) for number in range(12)]
    cap = 5.5 * COST
    with fake_endpoint(lambda *_: reply(GOOD, delay=0.02)) as server:
        found, totals = ask(settings_of(server), prompts, tmp_path / "c", cap)
        answered = [item for item in found if item == Colour(colour="red")]
        stopped = [item for item in found if isinstance(item, OutOfBudget)]
        assert totals["m"].dollars <= cap
        assert len(server.prompts) == len(answered) == totals["m"].replies >= 2
        assert len(answered) + len(stopped) == 12
        assert "raise the cap and run again" in str(stopped[0])
        # The same cap again sends nothing more, a higher one the rest.
        ask(settings_of(server), prompts, tmp_path / "c", cap)
        assert len(server.prompts) == len(answered)
        rest, totals = ask(settings_of(server), prompts, tmp_path / "c", 30 * COST)
    assert rest == [Colour(colour="red")] * 12
    assert sorted(server.prompts) == sorted(prompts)
    assert totals["m"].dollars == pytest.approx(12 * COST)


def test_pictures_dearer_than_assumed_are_found_out_before_the_cap() -> None:
    usage = (8000, 0, 10)  # for the one picture that was assumed to be 10 tokens
    cost = PRICES["m"].dollars(Usage(*usage))

    async def run(settings: EndpointSettings, cache: EndpointCache) -> list[Any]:
        async with Endpoint(settings, cache, Budget(PRICES, 3.5 * cost)) as endpoint:
            turns = [message(str(number), [b"x"]) for number in range(9)]
            asked = [endpoint.ask([turn], Colour) for turn in turns]
            return await asyncio.gather(*asked, return_exceptions=True)

    with (
        fake_endpoint(lambda *_: reply(GOOD, usage=usage, delay=0.02)) as server,
        EndpointCache() as cache,
    ):
        asyncio.run(run(settings_of(server, image_tokens=10), cache))
        assert 2 <= len(server.prompts) <= 3
        assert cache.spent() <= 3.5 * cost


def test_replies_that_never_came_count_against_the_cap(tmp_path: Path) -> None:
    with fake_endpoint(lambda *_: reply(GOOD, cut=10)) as server:
        (found,), totals = ask(settings_of(server), cache=tmp_path / "c", cap=2.0)
    assert isinstance(found, OutOfBudget)
    assert totals["m"].lost == len(server.prompts) >= 2
    assert 1.0 < totals["m"].lost_dollars <= 2.0
    with EndpointCache(tmp_path / "c") as cache:
        assert cache.spent() == pytest.approx(totals["m"].lost_dollars)


def test_a_cap_needs_a_price() -> None:
    with EndpointCache() as cache, pytest.raises(FacellavaError, match="without a price of 'm'"):
        Endpoint(settings_of("http://127.0.0.1:1/v1"), cache, Budget({}, 1.0))


def test_a_dry_run_sends_nothing_and_knows_what_is_answered(tmp_path: Path) -> None:
    async def dry(settings: EndpointSettings, cache: EndpointCache) -> DryRun:
        run = DryRun(settings, cache, Budget(PRICES), {Colour: Colour(colour="x" * 27)})
        for prompt in ("a", "b", "b", "c" * 400):
            found = await run.ask([message(prompt, [b"1", b"2"])], Colour)
            assert isinstance(found, Colour)
        return run

    async def real(settings: EndpointSettings, cache: EndpointCache) -> None:
        async with Endpoint(settings, cache, Budget(PRICES)) as endpoint:
            await endpoint.ask([message("a", [b"1", b"2"])], Colour)

    with fake_endpoint(lambda *_: reply(GOOD)) as server, EndpointCache(tmp_path / "c") as cache:
        before = asyncio.run(dry(settings_of(server), cache)).estimate
        assert server.prompts == []
        asyncio.run(real(settings_of(server), cache))
        after = asyncio.run(dry(settings_of(server), cache)).estimate
    assert len(server.prompts) == 1
    assert (before.requests, before.answered, before.pictures) == (3, 0, 6)
    assert (after.requests, after.answered, after.pictures) == (2, 1, 4)
    assert before.reply_tokens == 3 * 10
    assert 150 < before.text_tokens < 400
    tokens = before.text_tokens + 6 * 300
    assert before.dollars == pytest.approx((tokens * 1000 + 30 * 5000) / 1e6)
    assert before.dollars_at_most == pytest.approx((tokens * 1000 + 3 * 64 * 5000) / 1e6)
    assert "6 pictures of 300 tokens each (an assumption)" in before.text()
    assert f"about ${before.dollars:.2f}, and $" in before.text()


def test_without_a_price_an_estimate_names_no_dollars() -> None:
    async def text(prices: dict[str, Price]) -> str:
        with EndpointCache() as cache:
            settings = settings_of("http://127.0.0.1:1/v1")
            run = DryRun(settings, cache, Budget(prices), {Colour: Colour(colour="x")})
            await run.ask([message("a")], Colour)
        return run.estimate.text()

    unpriced = asyncio.run(text({}))
    assert "1 requests to send" in unpriced
    assert "what they cost is not known, for there is no price of this model." in unpriced
    assert "$" not in unpriced
    assert "about $0.00, and $0.00" in asyncio.run(text({"m": Price(input=0, output=0)}))


def test_the_key_is_in_no_log_no_row_and_no_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    said = [trouble(500, f"your key is {KEY}"), reply(GOOD)]
    with fake_endpoint(lambda prompt, before, _: said[before]) as server:
        settings = settings_of(server)
        ask(settings, cache=tmp_path / "c")
    assert caplog.records
    for record in caplog.records:
        assert KEY not in record.getMessage()
    assert any("your key is ***" in record.getMessage() for record in caplog.records)
    assert KEY not in repr(settings)
    assert KEY not in json.dumps(settings.decides())
    for path in tmp_path.iterdir():
        assert KEY.encode() not in path.read_bytes()


def test_the_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_KEY", "from-env")
    with fake_endpoint(lambda *_: reply(GOOD)) as server:
        ask(settings_of(server, api_key=None, api_key_env="MY_KEY"))
        ask(settings_of(server, api_key=None, api_key_env="UNSET_KEY"))
    assert server.keys == {"Bearer from-env", "Bearer none"}


def test_one_run_holds_the_cache(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with (
        EndpointCache(path),
        pytest.raises(FacellavaError, match="Another run holds the cache"),
    ):
        EndpointCache(path)
    EndpointCache(path).close()
    (tmp_path / "text").write_text("no database, but long enough to be looked at" * 40)
    with pytest.raises(FacellavaError, match="is no cache of replies"):
        EndpointCache(tmp_path / "text")


def test_price_tables_of_both_forms_are_read(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text('["a/b-1.5"]\ninput = 1\noutput = 2.5\n')
    (tmp_path / "p.json").write_text('{"a/b-1.5": {"input": 1, "output": 2.5, "cached": 0.1}}')
    assert read_prices(tmp_path / "p.toml") == {"a/b-1.5": Price(input=1, output=2.5)}
    assert read_prices(tmp_path / "p.json")["a/b-1.5"].cached == 0.1
    bad = {"minus": '{"m": {"input": -1, "output": 2}}', "part": '{"m": {"input": 1}}', "x": "{"}
    for name, text in bad.items():
        (tmp_path / f"{name}.json").write_text(text)
        with pytest.raises(FacellavaError, match="price table .* cannot be used"):
            read_prices(tmp_path / f"{name}.json")
    with pytest.raises(FacellavaError, match="cannot be used"):
        read_prices(tmp_path / "none.json")


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(FacellavaError, match="no address"):
        EndpointSettings("localhost:8000", "m")
    for address in ("http://127.0.0.1:99999/v1", "http://[::1/v1", "http://a:b/v1", "http://a:0"):
        with pytest.raises(FacellavaError, match="no address of an endpoint; give one"):
            EndpointSettings(address, "m")
    for model in ("", " "):
        with pytest.raises(FacellavaError, match="model is empty; give the model's name"):
            EndpointSettings("http://127.0.0.1:8000/v1", model)
    with pytest.raises(FacellavaError, match="attempts is 0"):
        settings_of("http://127.0.0.1/v1", attempts=0)


@pytest.mark.parametrize(
    ("text", "refusing"),
    [
        ("I can\u2019t identify people.", True), ("Sorry, no.", True), ("As an AI, I...", True),
        ("I'm unable to say.", True), ("The lips are parted.", False),
        ("Sorrow shows in the brows.", False), ("I can see raised brows.", False),
    ],
)  # fmt: skip
def test_refusals_are_known_by_their_opening(text: str, refusing: bool) -> None:
    assert refuses(text) is refusing


RUN = """
import asyncio, sys
from pathlib import Path
from tests.facellava.test_endpoint import ask, settings_of
prompts = [str(number) for number in range(40)]
found, _ = ask(settings_of(sys.argv[1], concurrency=4), prompts, Path(sys.argv[2]))
assert not [item for item in found if not hasattr(item, "colour")], found
"""


def test_a_run_killed_in_the_middle_asks_nothing_twice(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with fake_endpoint(lambda *_: reply(GOOD, delay=0.03)) as server:
        command = [sys.executable, "-c", RUN, server.url, str(path)]
        first = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2])
        while len(server.prompts) < 14:
            assert first.poll() is None
            time.sleep(0.005)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        time.sleep(0.1)
        asked = list(server.prompts)
        with EndpointCache(path) as cache:
            before = cache.totals()["m"]
        assert 10 <= before.replies <= len(asked) < 40
        assert before.lost <= 4  # those under way, one a slot
        found, totals = ask(settings_of(server), [str(n) for n in range(40)], path)
    assert found == [Colour(colour="red")] * 40
    assert len(server.prompts) == len(asked) + 40 - before.replies
    twice = {prompt for prompt in server.prompts if server.prompts.count(prompt) > 1}
    assert len(twice) <= before.lost
    assert (totals["m"].replies, totals["m"].lost) == (40, before.lost)
