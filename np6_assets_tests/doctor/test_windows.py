"""The doctor against servers that sort or not, and that make different things of the end of a window."""

from datetime import timedelta

import pytest

from np6_assets.doctor.probe import BODY_BYTES, Item, Reply
from np6_assets.doctor.windows import Trial, choose_window, find_possible_meanings
from np6_assets.np6.connection import Traffic
from np6_assets_tests.doctor.account import HITS, NOW, account, diagnosed, hit, ms
from np6_assets_tests.support.events import Population

LONG_AGO = ms(NOW - timedelta(days=9))
SAYS = {
    "half open": ("ok", "reactivityEnd is half open, as documented", ""),
    "inclusive": ("warning", "reactivityEnd is inclusive", "Nothing is lost"),
    "ignored": ("warning", "reactivityEnd is ignored", "N days ago costs N times the bytes"),
    "refused in the future": ("ok", "an end in the future: refused (it costs nothing: no run sends one)", ""),
    "by activation": ("warning", "reactivityEnd is applied to the activation's time", "all later reactions"),
    "both by activation": ("wrong", "and so is the start", "is lost"),
}


def slow_and_quick(count=60, every=timedelta(minutes=7)):
    """Hits of which every other one answers a send of two days before."""
    times = [NOW - (number + 1) * every for number in range(count)]
    hits = [
        hit(number, at, stamp_time=ms(at - (timedelta(days=2) if number % 2 else timedelta(seconds=1))))
        for number, at in enumerate(times)
    ]
    return Population(notifications=account().notifications, hits=hits)


@pytest.mark.parametrize("sorts", [True, False])
@pytest.mark.parametrize("end", SAYS)
def test_doctor_says_what_the_end_means(server, tmp_path, end, sorts):
    server.serve(slow_and_quick())
    server.end_mode, server.sorts = end, sorts
    found = diagnosed(server.url, tmp_path)
    verdict, text, advice = SAYS[end]
    assert found["window end"].verdict == verdict
    assert text in found["window end"].text
    assert advice in found["window end"].advice
    in_future = "refused" if end == "refused in the future" else "accepted"
    assert found["window end"].values["in_the_future"] == in_future
    assert found["window content"].verdict == ("wrong" if end == "both by activation" else "ok")
    assert found["sort"].verdict == ("ok" if sorts else "warning")
    assert sorts or "asc and desc ignored" in found["sort"].text
    assert sorts or "download that is cut starts again" in found["sort"].advice


@pytest.mark.parametrize("sorts", [True, False])
@pytest.mark.parametrize("end", ["half open", "inclusive", "ignored", "by activation"])
def test_doctor_tells_meanings_apart_where_every_hit_answers_one_send(server, tmp_path, end, sorts):
    hits = [hit(number, NOW - (number + 1) * timedelta(minutes=7), stamp_time=LONG_AGO) for number in range(60)]
    server.serve(Population(notifications=account().notifications, hits=hits))
    server.end_mode, server.sorts = end, sorts
    found = diagnosed(server.url, tmp_path)["window end"]
    assert found.values["meanings"] == [end]
    assert SAYS[end][1] in found.text


@pytest.mark.parametrize("end", ["half open", "ignored"])
def test_doctor_tells_meanings_apart_by_one_event(server, tmp_path, end):
    server.serve(account(hits=1))
    server.end_mode = end
    found = diagnosed(server.url, tmp_path)
    assert found["window end"].values["meanings"] == [end]
    assert (found["window content"].verdict, found["sort"].verdict) == ("unknown", "unknown")
    assert "too few events" in found["sort"].text


def test_doctor_does_not_guess_between_two_meanings(server, tmp_path):
    """The one hit is in every window that has its time and its send's."""
    server.serve(account(hits=1))
    server.end_mode = "by activation"
    found = diagnosed(server.url, tmp_path)["window end"]
    assert found.verdict == "unknown"
    assert "may be by activation or both by activation: 1 events are too few to tell" in found.text


def test_doctor_does_not_guess_where_an_answer_is_too_long(server, tmp_path):
    server.serve(slow_and_quick(3000, timedelta(seconds=20)))
    server.end_mode, server.sorts = "by activation", False
    found = diagnosed(server.url, tmp_path)["window end"]
    assert found.verdict == "unknown"
    assert "too long" in found.text


@pytest.mark.parametrize("end", ["half open", "inclusive", pytest.param("ignored", marks=pytest.mark.slow)])
def test_doctor_says_what_the_end_means_in_a_large_account_without_order(server, tmp_path, end):
    server.serve(slow_and_quick(3000, timedelta(seconds=20)))
    server.end_mode, server.sorts = end, False
    found = diagnosed(server.url, tmp_path)
    assert found["window end"].values["meanings"] == [end]
    assert found["sort"].verdict == "warning"


@pytest.mark.parametrize(
    "end",
    ["half open", *(pytest.param(end, marks=pytest.mark.slow) for end in ("inclusive", "ignored", "by activation"))],
)
def test_doctor_reads_little_of_a_large_account(server, tmp_path, end):
    """3 MB of hits in the last day; what is read of them is the beginning."""
    server.transports = ("length",)
    server.serve(slow_and_quick(3000, timedelta(seconds=20)))
    server.end_mode, traffic = end, Traffic()
    found = diagnosed(server.url, tmp_path, traffic=traffic)
    assert found["window end"].values["meanings"] == [end]
    assert traffic.requests == len(server.requests) <= 12
    assert traffic.bytes < 2 * BODY_BYTES
    assert {request.headers["x-key"] for request in server.requests} == {server.key}


def test_doctor_requests_what_runs_request(server, tmp_path):
    """But for the windows that are tried, no end, as it would lie in the future."""
    diagnosed(server.url, tmp_path, watch=15)
    feeds = [request for request in server.requests if request.path != "/notifications"]
    ends = [int(end) for request in feeds for name, end in request.query.items() if name in ("reactivityEnd", "end")]
    assert {name for request in feeds for name in request.query} == {
        "start",
        "reactivityStart",
        "reactivityEnd",
        "sort",
    }
    assert [end > ms(NOW) for end in ends] == [False, True]
    assert {request.headers["accept-encoding"] for request in server.requests} == {"gzip"}


def reply(items, is_whole=True):
    return Reply(HITS, 200, {}, NOW, NOW, is_whole=is_whole, items=tuple(items))


KNOWN = [Item(f"{number}", number, number - 1) for number in range(2, 32)]


@pytest.mark.parametrize(
    ("received", "is_whole", "meanings"),
    [
        (KNOWN[:15], True, ["half open"]),
        (KNOWN[:16], True, ["inclusive", "by activation", "both by activation"]),
        (KNOWN, True, ["ignored"]),
        (KNOWN[:20], False, ["ignored"]),
        (KNOWN[:20], True, []),
        ([Item("new", 18, 16)], False, ["ignored", "by activation", "both by activation"]),
        (KNOWN[4::-1], False, ["half open", "inclusive", "ignored", "by activation", "both by activation"]),
    ],
)
def test_answers_rule_out_the_meanings_that_they_contradict(received, is_whole, meanings):
    found = find_possible_meanings(KNOWN, [Trial(1, 17, reply(received, is_whole))])
    assert found == meanings


def test_windows_end_in_the_past():
    """Even where a send is said to be later than its reaction."""
    known = [Item(f"{number}", number, number + 50) for number in range(100, 130)]
    start, end = choose_window(known, ["half open", "by activation"], 10)
    assert start < end <= 129


def test_no_window_tells_one_meaning_from_none():
    assert choose_window(KNOWN, ["half open"], 10) is None
    assert choose_window(KNOWN, [], 10) is None
