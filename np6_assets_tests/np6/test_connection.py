"""Report failures in one line, without secrets, and give up after a limit."""

import logging
import socket
from contextlib import closing

import pytest

from np6_assets.np6 import client as client_module
from np6_assets.np6.client import NP6Client
from np6_assets.np6.errors import (
    AccessError,
    ForbiddenError,
    GaveUpError,
    NotFoundError,
    PermanentError,
    UnreachableError,
)
from np6_assets.np6.retry import RetryPolicy
from np6_assets_tests.np6.collector import (
    ACCOUNT,
    HITS,
    KEY,
    Collectors,
    build_account,
    build_request,
    fetch,
    fetch_failure,
    format_chain,
    serve,
)
from np6_assets_tests.support.rude_acts import PERMANENT, Act
from np6_assets_tests.support.rude_server import RudeServer
from np6_assets_tests.support.unreachable import TROUBLES, open_unreachable

ERRORS = {"401": AccessError, "403": ForbiddenError, "404": NotFoundError, "410": NotFoundError}
ADVICE = {"400": "NP6_START_DATE", "401": "NP6_API_KEY", "403": "right", "404": "NP6_BASE_URL", "410": "NP6_BASE_URL"}


# --- refusals ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", PERMANENT)
@pytest.mark.parametrize("what", ["day", "list", "probe"])
def test_client_reports_a_refusal_at_once_in_one_line(caplog, status, what):
    caplog.set_level(logging.DEBUG)
    with serve() as (server, client):
        server.script_always("/", status)
        error = fetch_failure(client, what)
    assert type(error) is ERRORS.get(status, PermanentError)
    [request] = server.requests
    line = str(error)
    assert "\n" not in line
    assert f"GET {'/notifications' if what == 'list' else HITS} returned {status} " in line
    assert f"(x-request-id {request.request_id})" in line
    assert ADVICE[status] in line
    assert KEY not in format_chain(error) + caplog.text


def test_client_opens_a_response_of_any_status_and_counts_its_bytes():
    with serve(build_account(1, 2)) as (server, client):
        server.transports = ["length"]
        server.script(HITS, "503")
        with client.open(HITS, {}) as response:
            assert response.status_code == 503
            assert "returned 503" in str(client.build_error(HITS, response))
        for encoding in ("gzip", "identity"):
            before = client.traffic.bytes
            with client.open(HITS, {}, {"Accept-Encoding": encoding}) as response:
                assert client.build_error(HITS, response) is None
                response.read()
            assert len(response.json()) == 2
            assert client.traffic.bytes - before == int(response.headers["content-length"])
        assert (client.traffic.requests, client.traffic.retries) == (3, 0)


@pytest.mark.parametrize("key", ["two\nl1nes", "null\0byte", "cl\xe9-accent\xe9e", "t\x7fb", "l\u2028s"])
def test_client_hides_a_key_that_is_no_header(key):
    with pytest.raises(PermanentError, match="NP6_API_KEY") as caught:
        NP6Client("http://127.0.0.1:1", key)
    assert key not in format_chain(caught.value)
    assert repr(key)[1:-1] not in format_chain(caught.value)


@pytest.mark.parametrize(
    "address",
    ["http://[::1", "ftp://127.0.0.1", "127.0.0.1", "nonsense", "", "http://a..b", f"http://{'a' * 70}.example"],
)
def test_client_reports_an_invalid_address_in_one_line(address):
    with pytest.raises(PermanentError, match="NP6_BASE_URL is not an http address"):
        NP6Client(address, KEY).get_list("/notifications")


@pytest.mark.parametrize("where", ["another server", "", "//127.0.0.1:1", "http://[bad", "ftp://127.0.0.1"])
def test_client_follows_no_redirect(where):
    with RudeServer(ACCOUNT, key=KEY) as other, serve() as (server, client):
        server.script_always("/", Act("redirect", url=other.url if where == "another server" else where))
        for what in ("day", "list", "probe"):
            error = fetch_failure(client, what)
            assert type(error) is PermanentError
            assert "returned 302" in str(error)
            assert "which is not followed; set NP6_BASE_URL" in str(error)
            assert "\n" not in str(error)
            assert KEY not in format_chain(error)
        assert (len(server.requests), other.requests) == (3, [])


# --- giving up ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["503", "429", "cut length", "html page", "trailing comma", "reset before"])
@pytest.mark.parametrize("what", ["day", "list"])
def test_client_gives_up_after_its_retries(caplog, name, what):
    caplog.set_level(logging.DEBUG)
    lines: list[str] = []
    with serve(retries=3, log=lines.append) as (server, client):
        server.script_always("/", Act(name, at=0.0))
        error = fetch_failure(client, what)
        assert (len(server.requests), client.traffic.retries) == (4, 3)
    path = HITS if what == "day" else "/notifications"
    assert isinstance(error, GaveUpError)
    assert f"GET {path} given up after 4 attempts in a row without progress" in str(error)
    assert [line.rpartition("; ")[2] for line in lines] == [
        f"retrying GET {path} in 0.0 s ({number} of 3)" for number in (1, 2, 3)
    ]
    assert not any("\n" in line for line in [*lines, str(error)])
    assert KEY not in format_chain(error) + caplog.text + "".join(lines)


# --- connections ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", TROUBLES)
def test_client_gives_up_soon_at_an_address_that_never_answered(monkeypatch, tmp_path, caplog, trouble):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setattr(client_module, "UNANSWERED_SECONDS", 0.3)
    monkeypatch.setattr("np6_assets.np6.retry.RetryPolicy.compute_wait", lambda *_: 0.01)
    with (
        open_unreachable(trouble, tmp_path) as (url, message),
        closing(NP6Client(url, KEY, timeout=0.2, retry=RetryPolicy(retries=1000))) as client,
    ):
        with pytest.raises(UnreachableError) as caught:  # not a failure of the day alone
            client.fetch(build_request(), Collectors(build_request()))
        assert 0 < client.traffic.retries < 100
    line = str(caught.value)
    assert line.startswith(message)
    assert "NP6_BASE_URL" in line
    assert "\n" not in line
    assert KEY not in format_chain(caught.value) + caplog.text


def test_client_retries_an_address_that_has_answered(monkeypatch):
    monkeypatch.setattr(client_module, "UNANSWERED_SECONDS", 0.0)
    with RudeServer(ACCOUNT, key=KEY) as server:
        client = NP6Client(server.url, KEY, timeout=1, retry=RetryPolicy(3, 0.001, 0.01))
        fetch(client)
    with closing(client):
        error = fetch_failure(client, "day")
        assert client.traffic.retries == 3
    assert type(error) is GaveUpError
    assert str(error).startswith("connection refused by 127.0.0.1:")


def test_client_names_the_proxy_that_refuses(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
    with closing(NP6Client("https://api.example.com", KEY, retry=RetryPolicy(retries=0))) as client:
        error = fetch_failure(client, "list")
    assert str(error).startswith(
        f"connection refused by 127.0.0.1:{port}, the proxy on the way to api.example.com; check"
    )


# --- waiting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["429 reset wait", "503 retry-after seconds"])
def test_client_waits_as_requested_up_to_its_limit(name):
    lines: list[str] = []
    with serve(retries=3, longest_wait=0.12, log=lines.append) as (server, client):
        server.script(HITS, Act(name, wait=3600))
        fetch(client)
        first, second = server.requests
    assert second.started - first.started >= 0.12
    [line] = lines
    assert line.startswith(f"GET {HITS} returned {name[:3]} ")
    assert "in 0.1 s (1 of 3)" in line
