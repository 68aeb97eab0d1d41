"""Run the doctor against servers with each mode of sort and of a window's end."""

from datetime import timedelta

import pytest

from np6_assets.doctor.judgements import examine
from np6_assets.doctor.probe import BODY_BYTES, Item
from np6_assets.doctor.windows import choose_window
from np6_assets_tests.doctor.account import NOW, build_account, build_examination, build_hit, run_doctor, to_ms
from np6_assets_tests.support.events import Population

LONG_AGO = to_ms(NOW - timedelta(days=9))
SAYS = {
    "half open": ("ok", "reactivityEnd is half open, as documented", ""),
    "inclusive": ("warning", "reactivityEnd is inclusive", "Nothing is lost"),
    "ignored": ("warning", "reactivityEnd is ignored", "N days ago costs N times the bytes"),
    "refused in the future": ("ok", "an end in the future: refused (it costs nothing: no run sends one)", ""),
    "by activation": ("warning", "reactivityEnd is applied to the activation's time", "all later reactions"),
    "both by activation": ("wrong", "and so is the start", "is lost"),
}


def build_mixed_hits(count=60, every=timedelta(minutes=7)):
    """Build hits, every other one two days after its send."""
    times = [NOW - (number + 1) * every for number in range(count)]
    hits = [
        build_hit(number, at, stamp_time=to_ms(at - (timedelta(days=2) if number % 2 else timedelta(seconds=1))))
        for number, at in enumerate(times)
    ]
    return Population(notifications=build_account().notifications, hits=hits)


@pytest.mark.parametrize("sorts", [True, False])
@pytest.mark.parametrize("end", SAYS)
def test_doctor_detects_the_mode_of_the_end(server, tmp_path, end, sorts):
    server.serve(build_mixed_hits())
    server.end_mode, server.sorts = end, sorts
    found = run_doctor(server.url, tmp_path)
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
def test_doctor_detects_the_mode_from_hits_of_one_send(server, tmp_path, end, sorts):
    hits = [build_hit(number, NOW - (number + 1) * timedelta(minutes=7), stamp_time=LONG_AGO) for number in range(60)]
    server.serve(Population(notifications=build_account().notifications, hits=hits))
    server.end_mode, server.sorts = end, sorts
    found = run_doctor(server.url, tmp_path)["window end"]
    assert found.values["meanings"] == [end]
    assert SAYS[end][1] in found.text


@pytest.mark.parametrize("end", ["half open", "ignored", "by activation"])
def test_doctor_says_what_one_event_tells(server, tmp_path, end):
    server.serve(build_account(hits=1))
    server.end_mode = end
    found = run_doctor(server.url, tmp_path)
    if end == "by activation":  # the hit is in every window that has both its time and its send's
        assert found["window end"].verdict == "unknown"
        assert "may be by activation or both by activation: 1 events are too few" in found["window end"].text
    else:
        assert found["window end"].values["meanings"] == [end]
    assert (found["window content"].verdict, found["sort"].verdict) == ("unknown", "unknown")
    assert "too few events" in found["sort"].text


@pytest.mark.slow
@pytest.mark.parametrize("sorts", [True, False])
@pytest.mark.parametrize("end", ["half open", "inclusive", "ignored", "by activation"])
def test_doctor_reads_little_of_a_large_account(server, tmp_path, end, sorts):
    """The last day has 3 MB of hits."""
    server.transports = ("length",)
    server.serve(build_mixed_hits(3000, timedelta(seconds=20)))
    server.end_mode, server.sorts = end, sorts
    examination = build_examination(server.url, tmp_path)
    found = {one.subject: one for one in examine(examination)}
    assert examination.traffic.requests == len(server.requests) <= (12 if sorts else 14)
    assert examination.traffic.bytes < (2 if sorts else 5) * BODY_BYTES
    if end == "by activation" and not sorts:
        assert found["window end"].verdict == "unknown"
        assert "too long" in found["window end"].text
    else:
        assert found["window end"].values["meanings"] == [end]
    assert found["sort"].verdict == ("ok" if sorts else "warning")
    assert {request.headers["x-key"] for request in server.requests} == {server.key}


def test_doctor_sends_the_requests_of_runs(server, tmp_path):
    """Only the trial windows have an end."""
    run_doctor(server.url, tmp_path, watch=15)
    feeds = [request for request in server.requests if request.path != "/notifications"]
    ends = [int(end) for request in feeds for name, end in request.query.items() if name in ("reactivityEnd", "end")]
    assert {name for request in feeds for name in request.query} == {
        "start",
        "reactivityStart",
        "reactivityEnd",
        "sort",
    }
    assert [end > to_ms(NOW) for end in ends] == [False, True]
    assert {request.headers["accept-encoding"] for request in server.requests} == {"gzip"}


def test_window_ends_in_the_past():
    """Even if sends have later times than their reactions."""
    known = [Item(f"{number}", number, number + 50) for number in range(100, 130)]
    start, end = choose_window(known, ["half open", "by activation"], 10)
    assert start < end <= 129
