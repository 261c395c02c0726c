import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.simulator import BadSetting, Behaviour, CannotStart, Simulator, make_token, running_simulator
from local.simulator_behaviour import STATUSES, Chooser
from local.simulator_gateway import wrong_with
from local.simulator_memory import MAGIC, RECORD
from local.simulator_tokens import TokenCheck

ROOT = Path(__file__).parents[2]
SECRET = "a secret of at least forty-eight bytes, so that no library warns"
PHONE, TEXT = 79_161_234_567, "Good morning, Anna"
AT_ONCE = {"kind": "fixed", "seconds": 0}
FOREVER = {"kind": "fixed", "seconds": 3600}
OK = {"code": 0, "message": "OK"}
GONE = (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)


@pytest.fixture
def sim():
    with running_simulator(SECRET, latency=AT_ONCE) as running:
        yield running


def a_message(msg_id, **changes):
    return {"id": msg_id, "phone": PHONE, "text": TEXT, **changes}


async def call(method, url, *, session=None, **kwargs):
    """(status, headers, body) of one request."""
    if session is None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(10)) as own:
            return await call(method, url, session=own, **kwargs)
    async with session.request(method, url, **kwargs) as reply:
        return reply.status, reply.headers, await reply.read()


def send(sim, msg_id, *, token=None, body=None, method="POST", path=None):
    """(status, headers, body) of one message sent."""
    token = make_token(SECRET, timedelta(hours=1)) if token is None else token
    data = body if isinstance(body, bytes) else json.dumps(a_message(msg_id) if body is None else body).encode()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return asyncio.run(call(method, f"{sim.url}{path or f'/v1/send/{msg_id}'}", data=data, headers=headers))


def control(sim, method, path, settings=None):
    """(status, decoded JSON) of one call to the control plane."""
    status, headers, body = asyncio.run(call(method, f"{sim.url}/_simulator/{path}", json=settings))
    assert headers["Content-Type"] == "application/json"
    return status, json.loads(body)


def raw(msg_id, body=None, headers=""):
    """The bytes of a whole request."""
    data = json.dumps(a_message(msg_id) if body is None else body).encode()
    token = make_token(SECRET, timedelta(hours=1))
    head = f"POST /v1/send/{msg_id} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n{headers}"
    return f"{head}Content-Length: {len(data)}\r\n\r\n".encode() + data


def connect(sim):
    host, port = sim.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def read_to_end(connection):
    """Everything until the server ends the connection (a reset is an end too)."""
    received = b""
    try:
        while data := connection.recv(65_536):
            received += data
    except ConnectionResetError:
        pass
    return received


def eventually(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "did not come true within 10 s"
        time.sleep(0.005)


# --- the gateway's own rules


def test_a_right_request_is_accepted_and_remembered(sim):
    before = time.time()
    status, headers, body = send(sim, 17)
    assert (status, headers["Content-Type"], json.loads(body)) == (200, "application/json", OK)
    remembered = sim.requests([17])[17]
    assert (remembered["received"], remembered["accepted"], remembered["statuses"]) == (1, 1, [200])
    assert before <= remembered["arrivals"][0] <= time.time()


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "body: wanted JSON"),
        (b'{"id": 5', "body: wanted JSON"),
        (b"\xff\xfe\x00", "body: wanted JSON"),
        (b"[" * 100_000, "body: wanted JSON"),
        ([a_message(5)], "body: wanted a JSON object"),
        (a_message("5"), "id: wanted a 64-bit integer"),
        (a_message(True), "id: wanted a 64-bit integer"),
        (a_message(5.0), "id: wanted a 64-bit integer"),
        (a_message(2**63), "id: wanted a 64-bit integer"),
        ({"phone": PHONE, "text": TEXT}, "id: wanted a 64-bit integer"),
        (a_message(6), "id: wanted 5 as in the path, got 6"),
        (a_message(5, phone=str(PHONE)), "phone: wanted an integer of 11 digits that starts with 7"),
        (a_message(5, phone=7_916_123_456), "phone: wanted an integer of 11 digits that starts with 7"),
        (a_message(5, phone=89_161_234_567), "phone: wanted an integer of 11 digits that starts with 7"),
        (a_message(5, phone=float(PHONE)), "phone: wanted an integer of 11 digits that starts with 7"),
        (a_message(5, text=""), "text: wanted a string that is not empty"),
        (a_message(5, text=None), "text: wanted a string that is not empty"),
        (a_message(5, text=["x"]), "text: wanted a string that is not empty"),
    ],
    ids=repr,
)
def test_a_wrong_body_is_refused_with_the_reason(sim, body, reason):
    status, _, reply = send(sim, 5, body=body)
    assert (status, json.loads(reply)) == (400, {"code": 400, "message": reason})
    assert sim.requests([5])[5] | {"arrivals": []} == {"received": 1, "accepted": 0, "arrivals": [], "statuses": [400]}


@pytest.mark.parametrize("phone", [70_000_000_000, 79_999_999_999])
@pytest.mark.parametrize("msg_id", [-(2**63), 0, 2**63 - 1])
def test_the_ends_of_what_is_allowed_are_accepted(sim, msg_id, phone):
    assert send(sim, msg_id, body=a_message(msg_id, phone=phone))[0] == 200
    assert sim.counts() == {msg_id: 1}


@pytest.mark.parametrize("msg_id", ["abc", "1.5", "9223372036854775808", "-", "+5"])
def test_a_path_without_an_integer_is_refused_and_not_remembered(sim, msg_id):
    status, _, body = send(sim, msg_id)
    assert (status, json.loads(body)["message"]) == (400, "msgId: wanted a 64-bit integer in the path")
    assert (sim.stats()["received"], sim.stats()["not_taken"]) == (0, {"no_msg_id": 1})


@pytest.mark.parametrize("path", ["/", "/v1/send", "/v1/send/", "/v1/send/5/6", "/v2/send/5", "/v1/sendmsg/5"])
def test_other_paths_are_not_found(sim, path):
    assert send(sim, 5, path=path)[0] == 404
    assert sim.stats()["received"] == 0


def test_only_post_sends(sim):
    status, headers, _ = send(sim, 5, method="PUT")
    assert (status, headers["Allow"]) == (405, "POST")
    assert sim.counts() == {}


@given(st.binary(max_size=200))
def test_no_body_breaks_the_check(body):
    assert wrong_with(body, 5) is not None


# --- tokens


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ("", "no Bearer token"),
        ("not.a.token", "token not valid"),
        (make_token(SECRET + "!", timedelta(hours=1)), "token not valid"),
        (jwt.encode({"exp": 9e9}, None, algorithm="none"), "token not valid"),
        (jwt.encode({"exp": 9e9}, SECRET, algorithm="HS384"), "token not valid"),
        (jwt.encode({"name": "x"}, SECRET), "token without a numeric exp"),
        (make_token(SECRET, timedelta(seconds=-1)), "token expired"),
    ],
    ids=["none", "garbage", "other secret", "unsigned", "other algorithm", "no exp", "expired"],
)
def test_a_bad_token_is_refused_and_nothing_is_accepted(sim, token, reason):
    status, headers, body = send(sim, 5, token=token)
    assert (status, headers["WWW-Authenticate"], json.loads(body)["message"]) == (401, "Bearer", reason)
    assert (sim.counts(), sim.stats()["by_status"]) == ({}, {"401": 1})


def test_a_token_tells_who_made_it_and_when_it_expires():
    now = datetime(2030, 5, 1, 12, tzinfo=UTC)
    claims = jwt.decode(make_token(SECRET, timedelta(hours=2), "demo", now), SECRET, ["HS256"], {"verify_iat": False})
    assert (claims["name"], claims["iat"], claims["exp"]) == ("demo", now.timestamp(), now.timestamp() + 7200)
    assert claims["iss"]


def test_a_token_known_to_be_good_still_expires():
    now = datetime(2030, 5, 1, 12, tzinfo=UTC)
    header, check = f"bearer {make_token(SECRET, timedelta(hours=2), now=now)}".encode(), TokenCheck(SECRET)
    assert check.refusal(header, now.timestamp() + 7199, None) is None
    assert check.refusal(header, now.timestamp() + 7200, None) == "token expired"


@given(st.binary(max_size=80))
def test_no_header_breaks_the_token_check(header):
    assert TokenCheck(SECRET).refusal(b"Bearer " + header, 0.0, None) is not None


def test_expired_tokens_stay_refused_until_a_newer_one_or_a_reset(sim):
    old = sim.token()
    assert send(sim, 1, token=old)[0] == 200
    sim.set(token_expired=True)
    assert send(sim, 2, token=old)[0] == 401
    newer = sim.token()
    assert send(sim, 3, token=newer)[0] == 200
    assert send(sim, 4, token=old)[0] == 401
    sim.set(latency=AT_ONCE)  # another setting does not move the moment of expiry
    assert send(sim, 4, token=newer)[0] == 200
    assert send(sim, 4, token=old)[0] == 401
    sim.set(token_expired=False)
    assert send(sim, 5, token=old)[0] == 200


def test_telling_the_tokens_to_expire_again_expires_the_newer_one_too(sim):
    sim.set(token_expired=True)
    token = sim.token()
    assert send(sim, 1, token=token)[0] == 200
    sim.set(token_expired=True)
    assert send(sim, 2, token=token)[0] == 401


# --- misbehaviour


@pytest.mark.parametrize("status", STATUSES)
def test_each_error_status_comes_with_a_reason_and_accepts_nothing(sim, status):
    sim.set(shares={status: 1})
    got, headers, body = send(sim, 5)
    assert (got, json.loads(body)) == (int(status), {"code": int(status), "message": "simulated"})
    assert "Retry-After" not in headers
    assert (sim.counts(), sim.stats()["by_status"]) == ({}, {status: 1})


@pytest.mark.parametrize("retry_after", [0, 7, "Wed, 01 May 2030 12:00:00 GMT"])
@pytest.mark.parametrize("status", [429, 503])
def test_a_throttled_client_is_told_when_to_come_back(sim, status, retry_after):
    sim.set(shares={status: 1}, retry_after=retry_after)
    assert send(sim, 5)[1]["Retry-After"] == str(retry_after)


@pytest.mark.parametrize("status", ["502", "504"])
def test_a_proxy_error_counts_as_accepted_only_if_told_so(sim, status):
    sim.set(shares={status: 1})
    send(sim, 5)
    assert sim.counts() == {}
    sim.set(proxy_errors_accepted=True)
    assert send(sim, 6)[0] == int(status)
    assert sim.counts() == {6: 1}


@pytest.mark.parametrize(
    ("kind", "content_type", "body", "accepted"),
    [
        ("code_nonzero", "application/json", b'{"code": 12, "message": "not sent"}', 0),
        ("not_json", "text/html", b"<html><body>OK</body></html>", 1),
        ("empty", "application/json", b"", 1),
        ("wrong_content_type", "text/json", json.dumps(OK).encode(), 1),
    ],
)
def test_each_kind_of_garbage_looks_as_described(sim, kind, content_type, body, accepted):
    sim.set(shares={kind: 1}, nonzero_code=12)
    status, headers, got = send(sim, 5)
    assert (status, headers["Content-Type"], got) == (200, content_type, body)
    assert sim.requests([5])[5]["accepted"] == accepted


def test_a_truncated_reply_ends_before_its_content_length_and_was_accepted(sim):
    sim.set(shares={"truncated": 1})
    with connect(sim) as connection:
        connection.sendall(raw(5))
        head, body = read_to_end(connection).split(b"\r\n\r\n")
    assert f"Content-Length: {len(json.dumps(OK))}".encode() in head
    assert json.dumps(OK).encode().startswith(body)
    assert 0 < len(body) < len(json.dumps(OK))
    assert sim.counts() == {5: 1}


def test_a_connection_dropped_after_reading_leaves_an_accepted_message_and_no_reply(sim):
    sim.set(shares={"drop_after_read": 1})
    with connect(sim) as connection:
        connection.sendall(raw(5))
        assert read_to_end(connection) == b""
    assert (sim.counts(), sim.stats()["by_status"]) == ({5: 1}, {"dropped": 1})


def test_a_connection_dropped_before_reading_ends_at_the_headers_and_takes_nothing(sim):
    sim.set(shares={"drop_before_read": 1})
    with connect(sim) as connection:
        connection.sendall(raw(5).partition(b"{")[0])  # the body never comes, so nothing can wait for it
        assert read_to_end(connection) == b""
    assert (sim.stats()["received"], sim.stats()["not_taken"]) == (0, {"drop_before_read": 1})


def test_a_message_whose_connection_was_dropped_gets_through_in_the_end(sim):
    sim.set(shares={"drop_before_read": 0.9}, seed=1)

    def sent():
        try:
            return send(sim, 5)[0] == 200
        except GONE:
            return False

    eventually(sent)
    assert sim.counts() == {5: 1}
    assert sim.stats()["not_taken"]["drop_before_read"] >= 1


def test_an_outage_cuts_the_gateway_and_leaves_the_control_plane(sim):
    with connect(sim) as idle, connect(sim) as waiting, connect(sim) as late, connect(sim) as controlling:
        idle.sendall(raw(1))
        assert idle.recv(65_536).startswith(b"HTTP/1.1 200")
        sim.set(latency=FOREVER)
        waiting.sendall(raw(2))
        eventually(lambda: sim.stats()["received"] == 2)
        controlling.sendall(b"GET /_simulator/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'{"status": "ok"}' in controlling.recv(65_536)
        assert control(sim, "PATCH", "behaviour", {"outage": True})[0] == 200
        assert read_to_end(idle) == b""
        assert read_to_end(waiting) == b""
        late.sendall(raw(3))
        assert read_to_end(late) == b""
        controlling.sendall(b"GET /_simulator/health HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b'{"status": "ok"}' in controlling.recv(65_536)
    assert sim.counts() == {1: 1, 2: 1}  # what was taken before the outage was taken
    assert sim.stats()["not_taken"] == {"outage": 1}
    sim.set(outage=False, latency=AT_ONCE)
    assert send(sim, 4)[0] == 200


def test_the_reply_waits_for_its_latency(sim):
    sim.set(latency={"kind": "fixed", "seconds": 0.2})
    before = time.monotonic()
    assert send(sim, 5)[0] == 200
    assert time.monotonic() - before >= 0.2


def test_a_fixed_reply_needs_neither_token_nor_body_and_still_counts(sim):
    sim.set(fixed_reply=True, shares={"500": 1})
    status, _, body = send(sim, 5, token="", body=b"not JSON")
    assert (status, json.loads(body)) == (200, OK)
    assert sim.counts() == {5: 1}


def test_a_seed_gives_each_attempt_the_same_fate_whatever_the_order(sim):
    sim.set(shares={"500": 0.3, "429": 0.3}, seed=42)
    there = {msg_id: [send(sim, msg_id)[0], send(sim, msg_id)[0]] for msg_id in range(12)}
    sim.forget()
    back = {msg_id: [send(sim, msg_id)[0]] for msg_id in reversed(range(12))}
    for msg_id in range(12):
        back[msg_id].append(send(sim, msg_id)[0])
    assert there == back
    assert {status for pair in there.values() for status in pair} == {200, 429, 500}
    assert any(first != second for first, second in there.values())


@pytest.mark.parametrize("seed", [None, 7])
def test_shares_and_latencies_follow_their_distributions(seed):
    uniform = Chooser(Behaviour(latency={"kind": "uniform", "low": 1, "high": 3}, shares={"500": 0.25}, seed=seed))
    choices = [uniform.choose(i, 0) for i in range(4000)]
    kinds, delays = Counter(kind for kind, _ in choices), sorted(delay for _, delay in choices)
    assert 850 < kinds["500"] < 1150
    assert set(kinds) == {"500", "ok"}
    assert 1 <= delays[0] < 1.1
    assert 2.9 < delays[-1] <= 3
    lognormal = Chooser(Behaviour(latency={"kind": "lognormal", "median": 2, "sigma": 0.5}, seed=seed))
    delays = sorted(lognormal.choose(i, 0)[1] for i in range(4000))
    assert delays[2000] == pytest.approx(2, rel=0.1)
    assert delays[3364] == pytest.approx(2 * 2.718**0.5, rel=0.1)  # the 84th percentile: one sigma up


# --- connections


def test_pipelined_requests_are_answered_in_their_order_though_the_first_takes_longer(sim):
    behaviour = Behaviour(latency={"kind": "uniform", "low": 0, "high": 0.3}, seed=3)
    delays = {msg_id: Chooser(behaviour).choose(msg_id, 0)[1] for msg_id in range(20)}
    slow, fast = max(delays, key=delays.get), min(delays, key=delays.get)
    sim.reset(**behaviour.as_json())
    with connect(sim) as connection:
        connection.sendall(raw(slow, body={}) + raw(fast, headers="Connection: close\r\n"))
        replies = read_to_end(connection)
    first, second = replies.index(b"HTTP/1.1 400"), replies.index(b"HTTP/1.1 200")
    assert first < second
    assert sim.counts() == {fast: 1}


def test_a_connection_is_kept_and_a_request_may_come_in_pieces(sim):
    with connect(sim) as connection:
        for msg_id in (1, 2):
            request = raw(msg_id)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for start in range(0, len(request), 7):
                connection.sendall(request[start : start + 7])
            assert connection.recv(65_536).endswith(json.dumps(OK).encode())
    assert sim.counts() == {1: 1, 2: 1}


def test_a_client_that_asks_for_it_sees_the_connection_closed(sim):
    with connect(sim) as connection:
        connection.sendall(raw(1, headers="Connection: close\r\n"))
        assert b"\r\nConnection: close\r\n" in read_to_end(connection)


def test_a_request_torn_in_its_body_is_not_taken(sim):
    with connect(sim) as connection:
        connection.sendall(raw(1)[:-1])
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection) == b""
    assert sim.stats()["received"] == 0


def test_a_client_that_leaves_during_the_latency_has_still_sent_its_message(sim):
    sim.set(latency=FOREVER)
    with connect(sim) as connection:
        connection.sendall(raw(1))
        eventually(lambda: sim.counts() == {1: 1})
    sim.set(latency=AT_ONCE)
    assert send(sim, 1)[0] == 200
    assert (sim.counts(), sim.stats()["accepted_more_than_once"]) == ({1: 2}, 1)
    assert send(sim, 1)[0] == 200
    assert (sim.counts(), sim.stats()["accepted_more_than_once"]) == ({1: 3}, 1)  # msgIds, not requests


def test_a_client_that_closes_only_its_own_half_still_gets_its_reply(sim):
    sim.set(latency={"kind": "fixed", "seconds": 0.1})
    with connect(sim) as connection:
        connection.sendall(raw(1))
        connection.shutdown(socket.SHUT_WR)
        assert read_to_end(connection).endswith(json.dumps(OK).encode())


@pytest.mark.parametrize("kind", ["drop_after_read", "truncated"])
def test_requests_behind_one_that_ends_the_connection_are_not_taken(sim, kind):
    sim.set(shares={kind: 1}, latency={"kind": "fixed", "seconds": 0.05})
    with connect(sim) as connection:
        connection.sendall(raw(1) + raw(2))
        read_to_end(connection)
    assert sim.counts() == {1: 1}


def test_what_is_not_http_is_refused_and_the_connection_ends(sim):
    with connect(sim) as connection:
        connection.sendall(b"hello\r\n\r\n")
        assert read_to_end(connection).startswith(b"HTTP/1.1 400")


def test_a_body_without_end_is_refused(sim):
    status, _, body = send(sim, 1, body=b" " * (1 << 21))
    assert (status, json.loads(body)["message"]) == (413, "body: wanted at most 1048576 bytes")
    assert sim.stats()["received"] == 0


# --- the control plane


def test_patch_changes_the_named_settings_and_put_resets_the_others(sim):
    assert control(sim, "GET", "health") == (200, {"status": "ok"})
    assert control(sim, "PATCH", "behaviour", {"shares": {"500": 0.5}})[1]["latency"] == AT_ONCE
    status, behaviour = control(sim, "PATCH", "behaviour", {"seed": 4, "shares": {"429": 0.1}})
    assert (status, behaviour["seed"], behaviour["shares"]) == (200, 4, {"429": 0.1})
    assert control(sim, "GET", "behaviour") == (200, behaviour)
    assert control(sim, "PUT", "behaviour", {"seed": 5}) == (200, Behaviour(seed=5).as_json())
    assert sim.behaviour() == Behaviour(seed=5)
    assert control(sim, "PUT", "behaviour", behaviour) == (200, behaviour)


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"latencies": 1}, "latencies"),
        ({"latency": 0.5}, "latency"),
        ({"latency": {"kind": "normal", "mean": 1}}, "latency"),
        ({"latency": {"kind": ["fixed"]}}, "latency"),
        ({"latency": {"kind": "fixed"}}, "latency"),
        ({"latency": {"kind": "fixed", "seconds": 1, "unit": "s"}}, "latency"),
        ({"latency": {"kind": "fixed", "seconds": -1}}, "latency.seconds"),
        ({"latency": {"kind": "fixed", "seconds": "1"}}, "latency.seconds"),
        ({"latency": {"kind": "fixed", "seconds": float("nan")}}, "latency.seconds"),
        ({"latency": {"kind": "uniform", "low": 2, "high": 1}}, "latency.low"),
        ({"latency": {"kind": "lognormal", "median": 1, "sigma": 99}}, "latency.sigma"),
        ({"shares": 0.5}, "shares"),
        ({"shares": {"418": 0.5}}, "shares.418"),
        ({"shares": {"500": 1.5}}, "shares.500"),
        ({"shares": {"500": True}}, "shares.500"),
        ({"shares": {"500": 0.6, "502": 0.6}}, "shares"),
        ({"retry_after": -1}, "retry_after"),
        ({"retry_after": 1.5}, "retry_after"),
        ({"retry_after": "soon"}, "retry_after"),
        ({"nonzero_code": 0}, "nonzero_code"),
        ({"outage": 1}, "outage"),
        ({"token_expired": None}, "token_expired"),
        ({"seed": "x"}, "seed"),
        ({"seed": 2**63}, "seed"),
        ([], "body"),
        ("x", "body"),
    ],
    ids=repr,
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
def test_a_wrong_setting_is_named_and_changes_nothing(sim, method, settings, field):
    before = control(sim, "GET", "behaviour")
    if isinstance(settings, dict):
        settings = {"fixed_reply": True, **settings}  # a right one beside it must not get through
    status, error = control(sim, method, "behaviour", settings)
    assert (status, error["field"]) == (422, field)
    assert error["message"].startswith(f"{field}: got ")
    assert error["message"].endswith(f", wanted {error['wanted']}")
    assert "value" in error
    assert control(sim, "GET", "behaviour") == before


def test_a_retry_after_cannot_smuggle_a_header():
    date = "Wed, 01 May 2030 12:00:00 GMT"
    try:
        kept = Behaviour(retry_after=f"{date}\r\nX-Evil: 1").retry_after
    except BadSetting:
        return
    assert kept == date


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["kind", "seconds", "500"]), inner),
    max_leaves=5,
)


@given(st.sampled_from(sorted(Behaviour().as_json())), JSON)
def test_a_setting_is_either_refused_or_shown_as_something_that_can_be_set(name, value):
    try:
        behaviour = Behaviour().changed({name: value})
    except BadSetting as error:
        refused_field = error.field.split(".")[0]
    else:
        refused_field = name
        assert Behaviour().changed(json.loads(json.dumps(behaviour.as_json(), allow_nan=False))) == behaviour
    assert refused_field == name


def test_the_control_plane_tells_what_came(sim):
    for msg_id in (7, 8, 8):
        send(sim, msg_id)
    sim.set(shares={"503": 1})
    send(sim, 9)
    _, stats = control(sim, "GET", "stats")
    arrivals = sim.arrivals()
    assert stats == {
        "received": 4,
        "accepted": 3,
        "by_status": {"200": 3, "503": 1},
        "distinct": 3,
        "accepted_more_than_once": 1,
        "first_arrival": arrivals[0],
        "last_arrival": arrivals[3],
        "not_taken": {},
    }
    assert control(sim, "GET", "counts") == (200, {"7": 1, "8": 2})
    assert control(sim, "GET", "counts?first=8&last=9") == (200, {"8": 2})
    assert control(sim, "GET", "counts?last=7") == (200, {"7": 1})
    assert control(sim, "GET", f"arrivals?since={arrivals[2]!r}") == (200, arrivals[2:])
    eight = {"received": 2, "accepted": 2, "arrivals": arrivals[1:3], "statuses": [200, 200]}
    nine = {"received": 1, "accepted": 0, "arrivals": arrivals[3:], "statuses": [503]}
    assert control(sim, "GET", "requests?first=8") == (200, {"8": eight, "9": nine})
    never = {"received": 0, "accepted": 0, "arrivals": [], "statuses": []}
    assert control(sim, "GET", "requests?ids=9,1") == (200, {"1": never, "9": nine})
    assert control(sim, "DELETE", "requests")[1]["received"] == 0
    assert (control(sim, "GET", "requests"), sim.arrivals()) == ((200, {}), [])


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("requests?ids=1,x", "ids"),
        ("requests?ids=", "ids"),
        ("requests?ids=1&first=1", "ids"),
        ("requests?id=1", "id"),
        ("counts?first=9223372036854775808", "first"),
        ("counts?first=2&last=1", "first"),
        ("arrivals?since=yesterday", "since"),
        ("arrivals?since=nan", "since"),
        ("stats?first=1", "first"),
    ],
)
def test_a_wrong_parameter_is_named(sim, path, field):
    status, error = control(sim, "GET", path)
    assert (status, error["field"]) == (422, field)


def test_calls_that_do_not_exist_say_which_do(sim):
    status, error = control(sim, "GET", "nothing")
    assert status == 404
    assert "behaviour" in error["message"]
    assert control(sim, "POST", "behaviour", {})[0] == 405


# --- in-process use


def test_the_simulator_also_runs_on_the_loop_of_its_user():
    async def scenario():
        async with Simulator(SECRET, latency=AT_ONCE) as simulator:
            headers = {"Authorization": f"Bearer {make_token(SECRET, timedelta(hours=1))}"}
            async with aiohttp.ClientSession(headers=headers) as session:
                status, *_ = await call("POST", f"{simulator.url}/v1/send/5", session=session, json=a_message(5))
                simulator.set(outage=True)
                with pytest.raises(GONE):
                    await call("POST", f"{simulator.url}/v1/send/6", session=session, json=a_message(6))
            return status, simulator.log.counts()

    assert asyncio.run(scenario()) == (200, {5: 1})


def test_a_simulator_that_cannot_listen_says_so_and_lets_go_of_its_journal(sim, tmp_path):
    port = int(sim.url.rsplit(":", 1)[1])
    busy = pytest.raises(CannotStart, match=f"port {port} on 127.0.0.1: in use by another process")
    with busy, running_simulator(port=port, journal=tmp_path / "journal"):
        pass
    with running_simulator(journal=tmp_path / "journal") as second:
        assert second.counts() == {}


# --- the journal


def test_a_journal_keeps_the_memory_over_a_restart(tmp_path):
    with running_simulator(SECRET, journal=tmp_path / "journal", latency=AT_ONCE) as first:
        send(first, 5)
        first.set(shares={"503": 1})
        send(first, 5)
        first.set(shares={"drop_after_read": 1})
        with pytest.raises(GONE):
            send(first, 6)
        remembered, stats = first.requests(), first.stats()
    with running_simulator(SECRET, journal=tmp_path / "journal", latency=AT_ONCE) as second:
        assert (second.requests(), second.stats()) == (remembered, stats)
        send(second, 5)
        assert second.counts() == {5: 2, 6: 1}
        assert second.stats()["accepted_more_than_once"] == 1


@pytest.mark.parametrize("tail", [b"\x05", b"\x05" * (RECORD.size - 1), bytes(RECORD.size), bytes(5000)])
def test_a_torn_tail_is_cut_off_and_the_journal_goes_on(tmp_path, tail):
    journal = tmp_path / "journal"
    for msg_id in (1, 2):
        with running_simulator(SECRET, journal=journal, latency=AT_ONCE) as running:
            send(running, msg_id)
        with journal.open("ab") as file:
            file.write(tail)
    with running_simulator(journal=journal) as running:
        assert running.counts() == {1: 1, 2: 1}
    assert journal.stat().st_size == len(MAGIC) + 2 * RECORD.size


def test_a_journal_torn_in_its_head_starts_anew(tmp_path):
    (tmp_path / "journal").write_bytes(MAGIC[:3])
    for expected in ({}, {1: 1}):
        with running_simulator(SECRET, journal=tmp_path / "journal", latency=AT_ONCE) as running:
            assert running.counts() == expected
            send(running, 1)


def test_forgetting_empties_the_journal_too(tmp_path):
    with running_simulator(SECRET, journal=tmp_path / "journal", latency=AT_ONCE) as first:
        send(first, 1)
        first.forget()
        send(first, 2)
    with running_simulator(journal=tmp_path / "journal") as second:
        assert second.counts() == {2: 1}


def test_a_file_that_is_no_journal_is_refused_and_left_as_it_is(tmp_path):
    file = tmp_path / "clients.csv"
    file.write_text("phone,tag\n")
    with pytest.raises(CannotStart, match="not a journal"), running_simulator(journal=file):
        pass
    assert file.read_text() == "phone,tag\n"


def test_two_simulators_cannot_share_a_journal(tmp_path):
    second = pytest.raises(CannotStart, match="another simulator is using it")
    with running_simulator(journal=tmp_path / "journal"), second, running_simulator(journal=tmp_path / "journal"):
        pass


# --- the process


class Process:
    """`python -m local.simulator` once it listens."""

    def __init__(self, *options, wrap=(), env=None):
        command = [*wrap, sys.executable, "-m", "local.simulator", "--port", "0", *options]
        env = os.environ | {"GATEWAY_SECRET": SECRET} | (env or {})
        self.popen = subprocess.Popen(
            command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self.banner = self.popen.stdout.readline()
        self.url = self.banner.split()[-1] if self.banner else ""

    def end(self, number=signal.SIGTERM):
        """(exit code, everything it wrote)."""
        self.popen.send_signal(number)
        out, err = self.popen.communicate(timeout=10)
        return self.popen.returncode, self.banner + out + err


@contextmanager
def a_process(*options, **kwargs):
    process = Process(*options, **kwargs)
    try:
        yield process
    finally:
        process.popen.kill()
        process.popen.communicate()


def refused(*options, env=None):
    """(exit code, stderr) of a process that does not start."""
    environment = {name: value for name, value in os.environ.items() if name != "GATEWAY_SECRET"} | (env or {})
    command = [sys.executable, "-m", "local.simulator", *options]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=30)
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_process_cleanly_though_requests_wait(number):
    with a_process() as process, connect(process) as waiting:
        control(process, "PATCH", "behaviour", {"latency": FOREVER})
        waiting.sendall(raw(1))
        eventually(lambda: control(process, "GET", "stats")[1]["received"] == 1)
        code, written = process.end(number)
        assert read_to_end(waiting) == b""
    assert (code, written) == (0, f"simulator: listening on {process.url}\n")


def test_nothing_a_client_sends_is_logged():
    with a_process() as process:
        send(process, 1)
        send(process, 2, body=a_message(3))
        send(process, 4, token="wrong")
        code, written = process.end()
    assert (code, written.count("\n")) == (0, 1)
    assert str(PHONE) not in written
    assert TEXT not in written


def test_kill_9_loses_no_request_that_was_answered(tmp_path):
    options = ("--journal", str(tmp_path / "journal"))
    with a_process(*options) as first:
        control(first, "PATCH", "behaviour", {"latency": AT_ONCE})
        for msg_id in range(20):
            assert send(first, msg_id)[0] == 200
        assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    with a_process(*options) as second:
        assert control(second, "GET", "counts")[1] == {str(msg_id): 1 for msg_id in range(20)}


def test_a_journal_that_cannot_be_written_stops_the_process(tmp_path):
    limited = ("bash", "-c", 'ulimit -f 1; exec "$@"', "limited")  # files of 1 KiB at most
    with a_process("--journal", str(tmp_path / "journal"), wrap=limited) as process:
        control(process, "PATCH", "behaviour", {"latency": AT_ONCE})
        fitting = (1024 - len(MAGIC)) // RECORD.size
        for msg_id in range(fitting):
            assert send(process, msg_id)[0] == 200
        with pytest.raises(GONE):
            send(process, fitting)
        out, err = process.popen.communicate(timeout=10)
    assert (process.popen.returncode, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("simulator: journal")
    with running_simulator(journal=tmp_path / "journal") as again:
        assert again.counts() == dict.fromkeys(range(fitting), 1)


def test_the_secret_may_come_from_a_file(tmp_path):
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    with a_process("--secret-file", str(tmp_path / "secret"), env={"GATEWAY_SECRET": "another one"}) as process:
        assert send(process, 1)[0] == 200


def test_a_busy_port_is_one_line_and_an_exit_code(sim):
    port = sim.url.rsplit(":", 1)[1]
    said = f"simulator: port {port} on 127.0.0.1: in use by another process\n"
    assert refused("--port", port, env={"GATEWAY_SECRET": SECRET}) == (1, said)


def test_a_missing_secret_is_one_line_and_an_exit_code(tmp_path):
    assert refused("--port", "0") == (1, "simulator: no secret: give --secret-file or set GATEWAY_SECRET\n")
    missing = str(tmp_path / "none")
    said = f"simulator: secret file {missing}: No such file or directory\n"
    assert refused("--port", "0", "--secret-file", missing) == (1, said)


def test_a_port_that_does_not_exist_is_refused():
    code, said = refused("--port", "65536")
    assert code == 2
    assert "--port: got 65536, wanted 0 to 65535" in said
