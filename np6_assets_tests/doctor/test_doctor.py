"""Run the doctor against a server with each fault that it diagnoses."""

import socket
import threading
from datetime import UTC, datetime, timedelta

import pytest

from np6_assets.doctor import judge_events
from np6_assets.doctor.diagnosis import find_worst
from np6_assets.doctor.probe import Item, Reply
from np6_assets.doctor.survey import Survey
from np6_assets_tests.doctor.account import HITS, NOW, build_account, build_hit, run_doctor, to_ms
from np6_assets_tests.support.events import Population, build_event
from np6_assets_tests.support.rude_server import Act

ANSWERED = ("window end", "window content", "sort")


def test_doctor_accepts_a_good_account(server, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the working directory may have a Dagster home
    found = run_doctor(server.url, tmp_path)
    verdicts = {subject: one.verdict for subject, one in found.items()}
    assert {subject for subject, verdict in verdicts.items() if verdict != "ok"} == {
        "rate limit",  # no headers
        "lateness",  # not watched
        "bounce verdicts",  # no bounces
        "late events",  # no DAGSTER_HOME
    }
    assert set(verdicts.values()) == {"ok", "unknown"}
    assert found["lateness"].values["newest_event_seconds"] == 420
    assert found["window content"].values["known"] == 30
    assert not (tmp_path / "data").exists()


# --- The account ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "subject", "text", "advice"),
    [
        ("401", "key", "returned 401 Unauthorized (x-request-id req-", "Copy the key again"),
        ("403", "key", "returned 403", "gives the right"),
        ("404", "reachability", "returned 404", "NP6_BASE_URL"),
        ("503", "reachability", "returned 503", "Try again later"),
        ("html page", "reachability", "an HTML or XML page", "NP6_BASE_URL"),
        ("not an array", "reachability", "not a JSON array", "NP6_BASE_URL"),
        ("empty body", "reachability", "the body is empty", "NP6_BASE_URL"),
        (Act("redirect", url="https://login.example.com"), "reachability", "redirect to login.example.com", "NP6_BASE"),
        ("reset before", "reachability", "GET /notifications", "network"),
        ("no answer", "reachability", "GET /notifications", "network"),
    ],
)
def test_doctor_stops_at_an_unreachable_account(server, tmp_path, act, subject, text, advice):
    server.script_always("/notifications", act)
    found = run_doctor(server.url, tmp_path)
    assert found[subject].verdict == "wrong"
    assert text in found[subject].text
    assert advice in found[subject].advice
    assert [subject for subject, one in found.items() if one.verdict == "wrong"] == [subject]
    assert len(server.requests) == 1  # no further request


def test_reachability_names_a_refused_connection_and_the_proxy(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    found = run_doctor(f"http://127.0.0.1:{port}", tmp_path, HTTPS_PROXY="http://proxy.example.com")
    assert found["reachability"].verdict == "wrong"
    assert "connection refused" in found["reachability"].text
    assert "proxy in HTTPS_PROXY" in found["reachability"].advice
    assert found["key"].verdict == found["clock"].verdict == "unknown"


def test_reachability_names_a_timeout(server, tmp_path, monkeypatch):
    monkeypatch.setattr("np6_assets.doctor.examination._READ_SECONDS", 0.1)
    server.script_always("/notifications", "stall before")
    found = run_doctor(server.url, tmp_path)
    assert (found["reachability"].verdict, found["reachability"].values["trouble"]) == ("wrong", "timeout")


def test_feeds_names_a_feed_that_the_key_may_not_read(server, tmp_path):
    server.script_always("/notifications/reactivities/bounces", "403")
    found = run_doctor(server.url, tmp_path)
    assert found["feeds"].verdict == "wrong"
    assert "reactivities/bounces returned 403" in found["feeds"].text
    assert found["feeds"].values["read"] == ["hits", "optouts", "impressions", "activations"]
    assert found["key"].verdict == found["window end"].verdict == "ok"


@pytest.mark.parametrize(
    ("act", "text"),
    [
        ("html page", "an HTML or XML page, not a JSON array"),
        ("not an array", "a JSON object, not a JSON array"),
        ("object around the array", "a JSON object, not a JSON array"),
        ("empty body", "the body is empty"),
        ("cut before bracket", "the body ends before its array is closed"),
        ("cut chunked", "the connection broke before the body was over"),
        ("trailing comma", "a comma before the end of the array"),
        ("garbage after", "the body goes on after the end of its array"),
        ("two arrays", "the body goes on after the end of its array"),
        ("unknown encoding", "a content encoding that was not accepted"),
    ],
)
def test_feeds_describes_a_wrong_body(server, tmp_path, act, text):
    server.script_always(HITS, act)
    found = run_doctor(server.url, tmp_path)
    assert (found["feeds"].verdict, found["key"].verdict) == ("wrong", "ok")
    assert text in found["feeds"].text


@pytest.mark.parametrize("act", ["BOM", "204", "wrong content type", "gzip bomb"])
def test_feeds_accepts_bodies_that_runs_accept(server, tmp_path, act):
    server.script_always(HITS, act)
    assert run_doctor(server.url, tmp_path)["feeds"].verdict == "ok"


def test_feeds_names_a_feed_that_trickles(server, tmp_path, monkeypatch):
    monkeypatch.setattr("np6_assets.doctor.probe.LONGEST_BODY", timedelta(seconds=2))
    server.script_always(HITS, "trickle")
    found = run_doctor(server.url, tmp_path, now=lambda: datetime.now(UTC))["feeds"]
    assert (found.verdict, "no whole event for 2 seconds" in found.text) == ("wrong", True)


def test_reachability_quotes_no_answer(tmp_path):
    def answer():
        with listener.accept()[0] as connection:
            connection.sendall(b"canary.person@example.com\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        found = run_doctor(f"http://127.0.0.1:{listener.getsockname()[1]}", tmp_path)["reachability"]
        thread.join()
    assert (found.verdict, found.values["trouble"]) == ("wrong", "other")
    assert "canary" not in found.text


def test_doctor_reports_unknown_for_an_empty_account(server, tmp_path):
    server.serve(Population())
    found = run_doctor(server.url, tmp_path)
    assert found["notifications"].verdict == "warning"
    assert {found[subject].verdict for subject in (*ANSWERED, "feeds", "lateness", "link types")} == {"unknown"}
    assert find_worst(found.values()) == "warning"


@pytest.mark.parametrize(
    ("ahead", "verdict", "text"),
    [
        (timedelta(seconds=0), "ok", "the same as"),
        (timedelta(seconds=4), "ok", "4 s ahead of"),
        (timedelta(seconds=30), "warning", "30 s ahead of"),
        (timedelta(minutes=-5), "wrong", "5 min 0 s behind"),
        (timedelta(hours=3), "wrong", "3 h 0 min ahead of"),
    ],
)
def test_clock_compares_with_the_date_header(server, tmp_path, ahead, verdict, text):
    server.date = lambda: NOW - ahead
    found = run_doctor(server.url, tmp_path)["clock"]
    assert found.verdict == verdict
    assert text in found.text
    assert abs(found.values["ahead_seconds"] - ahead.total_seconds()) <= 0.5


def test_clock_is_unknown_without_a_date_header(server, tmp_path):
    server.date = lambda: None
    assert run_doctor(server.url, tmp_path)["clock"].verdict == "unknown"


@pytest.mark.parametrize(
    ("reset", "verdict", "counts", "seconds"),
    [
        (f"{NOW.timestamp() + 30:.0f}", "ok", "epoch seconds", 30),
        (f"{to_ms(NOW) + 30_000}", "ok", "epoch milliseconds", 30),
        ("30", "ok", "seconds to wait", 30),
        (f"{NOW.timestamp() + 10 * 86400:.0f}", "warning", "epoch seconds", 864_000),
        ("500000", "warning", "seconds to wait", 500_000),
        ("soon", "unknown", None, None),
        ("", "unknown", None, None),
    ],
)
def test_rate_limit_detects_the_unit_of_reset(server, tmp_path, reset, verdict, counts, seconds):
    more = {"X-RateLimit-Limit": "600", "X-RateLimit-Remaining": "590"} | (
        {"X-RateLimit-Reset": reset} if reset else {}
    )
    server.headers = lambda: more
    found = run_doctor(server.url, tmp_path)["rate limit"]
    assert found.verdict == verdict
    assert found.values.get("reset_counts") == counts
    assert found.values.get("reset_seconds") == seconds
    assert (found.values["limit"], found.values["remaining"]) == (600, 590)
    assert (counts or "Reset") in found.text
    more["X-RateLimit-Remaining"] = "0"
    assert run_doctor(server.url, tmp_path)["rate limit"].verdict == ("warning" if counts else "unknown")


def test_doctor_stops_after_429(server, tmp_path):
    server.script(HITS, Act("429 retry-after seconds", wait=90))
    found = run_doctor(server.url, tmp_path)
    assert len(server.requests) == 2
    assert found["rate limit"].verdict == "warning"
    assert found["rate limit"].values["wait_seconds"] == 90
    assert "in 1 min 30 s" in found["rate limit"].advice


# --- What the reference leaves open ---------------------------------------------------------------


def test_sort_counts_events_out_of_order(server, tmp_path):
    server.script_always(HITS, "shuffled")
    found = run_doctor(server.url, tmp_path)
    assert found["sort"].verdict == "warning"
    assert all(found["sort"].values[order]["out_of_order"] > 0 for order in ("asc", "desc"))
    assert found["window end"].verdict == "ok"


def test_values_are_counted(server, tmp_path):
    types = ["redirection"] * 5 + ["dismissal"] * 3 + [None]
    hits = [build_hit(number, NOW - timedelta(minutes=number + 1), link_type=one) for number, one in enumerate(types)]
    bounces = [
        build_event("bounces", id=f"b{number}", timestamp=to_ms(NOW - timedelta(minutes=number + 1)), verdict=one)
        for number, one in enumerate(["hard", "hard", "blocked"])
    ]
    server.serve(Population(notifications=build_account().notifications, hits=hits, bounces=bounces))
    found = run_doctor(server.url, tmp_path)
    assert found["link types"].values["counts"] == {"redirection": 5, "dismissal": 3, "null": 1}
    assert found["bounce verdicts"].values["counts"] == {"hard": 2, "blocked": 1}
    assert found["link types"].verdict == found["bounce verdicts"].verdict == "ok"
    assert "other_hits" in found["link types"].text
    assert "bounces_other" in found["bounce verdicts"].text
    server.serve(Population(notifications=build_account().notifications, hits=[build_hit(1, NOW, link_type="click")]))
    found = run_doctor(server.url, tmp_path, now=lambda: NOW + timedelta(seconds=1))
    assert (found["link types"].verdict, found["bounce verdicts"].verdict) == ("warning", "unknown")


class WaitClock:
    """A clock that advances when the doctor waits; each time a hit appears, `late` seconds late."""

    def __init__(self, server, late):
        self.server, self.late, self.now = server, late, NOW
        server.date = lambda: self.now
        self.hits = build_account().hits

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)
        fresh = build_hit(to_ms(self.now), self.now - timedelta(seconds=self.late))
        self.hits = [*self.hits, fresh]
        self.server.serve(Population(notifications=build_account().notifications, hits=self.hits))


@pytest.mark.parametrize(("late", "verdict"), [(10, "ok"), (1500, "ok"), (7200, "warning")])
def test_lateness_measures_events_as_they_appear(server, tmp_path, late, verdict):
    clock = WaitClock(server, late)
    found = run_doctor(server.url, tmp_path, watch=60, now=clock, wait=clock.wait)["lateness"]
    assert found.verdict == verdict
    assert found.values["appeared"] == 4
    assert found.values["watched_seconds"] == 60
    assert found.values["latest_seconds"] == late


def build_sample(seconds, is_whole, *ages):
    """Build a sample taken `seconds` after NOW, of events of these ages at NOW."""
    time = NOW + timedelta(seconds=seconds)
    items = tuple(Item(f"{age}", to_ms(NOW - timedelta(seconds=age))) for age in ages)
    return Reply(HITS, 200, {}, time, time, is_whole=is_whole, items=items)


def test_lateness_ignores_events_beyond_the_previous_sample():
    samples = [build_sample(0, False, 10, 20, 30), build_sample(15, True, 5, 10, 20, 30, 4000)]
    found = judge_events.judge_lateness(Survey(samples[0], samples=samples), timedelta(hours=1))
    assert found.values["appeared"] == 1
    assert found.values["latest_seconds"] == 20
    assert (found.verdict, found.values["reach_seconds"]) == ("unknown", 45)  # less than an hour


def test_lateness_is_unknown_without_new_events(server, tmp_path):
    found = run_doctor(server.url, tmp_path, watch=30)["lateness"]
    assert (found.verdict, found.values["appeared"]) == ("unknown", 0)
