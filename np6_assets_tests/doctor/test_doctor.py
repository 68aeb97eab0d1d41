"""The doctor against a real server that behaves in every way that it has an opinion on."""

import socket
import ssl
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import fsspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from np6_assets.doctor import judge, probe
from np6_assets.doctor.command import examine
from np6_assets.doctor.finding import Finding, worst
from np6_assets.np6.client import Traffic
from np6_assets_tests.support.events import Population, event
from np6_assets_tests.support.rude_server import Act, RudeServer

KEY = "s3cret-key-of-the-account"
NOW = datetime(2026, 4, 12, 15, 0, tzinfo=UTC)
HITS = "/notifications/reactivities/hits"
ANSWERED = ("window end", "window content", "sort=asc")


def ms(moment):
    return round(moment.timestamp() * 1000)


def hit(number, at, **fields):
    return event("hits", id=f"hit-{number:06d}", timestamp=ms(at), **fields)


def account(hits=60, every=timedelta(minutes=7), **feeds):
    """An account whose newest hit is seven minutes old."""
    made = [hit(number, NOW - (number + 1) * every) for number in range(hits)]
    activations = [event("activations", id="send", timestamp=ms(NOW - timedelta(hours=2)))]
    kinds = {"hits": made, "activations": activations, **feeds}
    return Population(notifications=[{"id": 156, "name": "Spring sale"}], **kinds)


def dated(moment=NOW, **more):
    return lambda: {"Date": format_datetime(moment, usegmt=True), **more}


@pytest.fixture
def server():
    with RudeServer(account(), key=KEY, headers=dated()) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


def diagnosed(url, tmp_path, watch=0, now=lambda: NOW, wait=lambda seconds: None, **settings) -> dict[str, Finding]:
    environment = {"NP6_API_KEY": KEY, "NP6_BASE_URL": url, "NP6_DATA_DIR": str(tmp_path / "data"), **settings}
    return {found.subject: found for found in examine(environment, Traffic(), watch, now=now, wait=wait)}


def test_an_account_in_good_health(server, tmp_path):
    found = diagnosed(server.url, tmp_path)
    verdicts = {subject: one.verdict for subject, one in found.items()}
    assert verdicts.pop("compression") in ("ok", "warning")  # the server compresses when it likes to
    assert {subject for subject, verdict in verdicts.items() if verdict != "ok"} == {
        "rate limit",  # no headers
        "lateness",  # not watched
        "bounce verdicts",  # no bounces
    }
    assert set(verdicts.values()) == {"ok", "unknown"}
    assert found["lateness"].values["newest_event_seconds"] == 420
    assert found["window content"].values["known"] == 30
    assert not (tmp_path / "data").exists()


# --- The account ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "subject", "says", "advises"),
    [
        ("401", "key", "answered 401 Unauthorized (x-request-id req-", "Copy the key again"),
        ("403", "key", "answered 403", "gives the right"),
        ("404", "reachability", "answered 404", "NP6_BASE_URL"),
        ("503", "reachability", "answered 503", "Try again later"),
        ("html page", "reachability", "HTML page", "NP6_BASE_URL"),
        ("not an array", "reachability", "not a JSON array", "NP6_BASE_URL"),
        ("empty body", "reachability", "ended before", "NP6_BASE_URL"),
        (Act("redirect", url="https://login.example.com"), "reachability", "redirect to login.example.com", "NP6_BASE"),
        ("reset before", "reachability", "GET /notifications", "network"),
        ("no answer", "reachability", "GET /notifications", "network"),
    ],
)
def test_what_is_wrong_with_the_way_to_the_account(server, tmp_path, act, subject, says, advises):
    server.always("/notifications", act)
    found = diagnosed(server.url, tmp_path)
    assert found[subject].verdict == "wrong"
    assert says in found[subject].text
    assert advises in found[subject].advice
    assert [subject for subject, one in found.items() if one.verdict == "wrong"] == [subject]
    assert len(server.requests) == 1  # there is no point in asking more


def test_nothing_listens(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    found = diagnosed(f"http://127.0.0.1:{port}", tmp_path, HTTPS_PROXY="http://proxy.example.com")
    assert found["reachability"].verdict == "wrong"
    assert "connection refused" in found["reachability"].text
    assert "proxy in HTTPS_PROXY" in found["reachability"].advice
    assert found["key"].verdict == found["clock"].verdict == "unknown"


def test_no_answer_in_time(server, tmp_path, monkeypatch):
    monkeypatch.setattr("np6_assets.doctor.command._READ_SECONDS", 0.1)
    server.always("/notifications", "stall before")
    found = diagnosed(server.url, tmp_path)
    assert (found["reachability"].verdict, found["reachability"].values["trouble"]) == ("wrong", "timeout")


def test_a_feed_that_the_key_may_not_read(server, tmp_path):
    server.always("/notifications/reactivities/bounces", "403")
    found = diagnosed(server.url, tmp_path)
    assert found["feeds"].verdict == "wrong"
    assert "reactivities/bounces answered 403" in found["feeds"].text
    assert found["feeds"].values["read"] == ["hits", "optouts", "impressions", "activations"]
    assert found["key"].verdict == found["window end"].verdict == "ok"


def test_a_feed_that_is_no_feed(server, tmp_path):
    server.always(HITS, "html page")
    found = diagnosed(server.url, tmp_path)
    assert (found["feeds"].verdict, found["key"].verdict) == ("wrong", "ok")
    assert "HTML page" in found["feeds"].text


def test_an_account_in_which_nothing_was_ever_sent(server, tmp_path):
    server.serve(Population())
    found = diagnosed(server.url, tmp_path)
    assert found["notifications"].verdict == "warning"
    assert {found[subject].verdict for subject in (*ANSWERED, "feeds", "lateness", "link types")} == {"unknown"}
    assert worst(found.values()) == "warning"


@pytest.mark.parametrize(
    ("ahead", "verdict", "says"),
    [
        (timedelta(seconds=0), "ok", "the same as"),
        (timedelta(seconds=4), "ok", "4 s ahead of"),
        (timedelta(seconds=30), "warning", "30 s ahead of"),
        (timedelta(minutes=-5), "wrong", "5 minutes behind"),
        (timedelta(hours=3), "wrong", "3 hours ahead of"),
    ],
)
def test_the_clock(server, tmp_path, ahead, verdict, says):
    server.headers = dated(NOW - ahead)
    found = diagnosed(server.url, tmp_path)["clock"]
    assert found.verdict == verdict
    assert says in found.text
    assert abs(found.values["ahead_seconds"] - ahead.total_seconds()) <= 0.5


@pytest.mark.parametrize("headers", [{}, {"Date": "yesterday"}])
def test_an_api_that_does_not_say_what_time_it_is(server, tmp_path, headers):
    server.headers = lambda: headers
    assert diagnosed(server.url, tmp_path)["clock"].verdict == "unknown"


@pytest.mark.parametrize(
    ("reset", "verdict", "counts", "seconds"),
    [
        (f"{NOW.timestamp() + 30:.0f}", "ok", "epoch seconds", 30),
        (f"{ms(NOW) + 30_000}", "ok", "epoch milliseconds", 30),
        ("30", "ok", "seconds to wait", 30),
        (f"{NOW.timestamp() + 10 * 86400:.0f}", "warning", "epoch seconds", 864_000),
        ("500000", "warning", "seconds to wait", 500_000),
        ("soon", "warning", None, None),
        ("", "unknown", None, None),
    ],
)
def test_what_reset_counts(server, tmp_path, reset, verdict, counts, seconds):
    more = {"X-RateLimit-Limit": "600", "X-RateLimit-Remaining": "590"} | (
        {"X-RateLimit-Reset": reset} if reset else {}
    )
    server.headers = dated(**more)
    found = diagnosed(server.url, tmp_path)["rate limit"]
    assert found.verdict == verdict
    assert found.values.get("reset_counts") == counts
    assert found.values.get("reset_seconds") == seconds
    assert (found.values["limit"], found.values["remaining"]) == (600, 590)
    assert (counts or "Reset") in found.text


def test_requests_that_are_used_up(server, tmp_path):
    server.headers = dated(**{"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "30"})
    assert diagnosed(server.url, tmp_path)["rate limit"].verdict == "warning"


def test_over_the_rate_limit_it_asks_no_more(server, tmp_path):
    server.script(HITS, Act("429 retry-after seconds", wait=90))
    found = diagnosed(server.url, tmp_path)
    assert len(server.requests) == 2
    assert found["rate limit"].verdict == "warning"
    assert found["rate limit"].values["wait_seconds"] == 90
    assert "in 90 s" in found["rate limit"].advice


# --- What the reference leaves open ---------------------------------------------------------------


def test_an_end_that_is_ignored(server, tmp_path):
    server.always(HITS, "end ignored")
    found = diagnosed(server.url, tmp_path)
    assert found["window end"].verdict == "warning"
    assert "reactivityEnd does not filter events: 30 of 60" in found["window end"].text
    assert found["window content"].verdict == "ok"


def test_an_end_that_filters_by_the_time_of_the_send(server, tmp_path):
    """Every other hit answers a send of two days before, so of those after the end half are there."""
    hits = [
        hit(
            number,
            at := NOW - (number + 1) * timedelta(minutes=7),
            stamp_time=ms(at - timedelta(days=2 * (number % 2))),
        )
        for number in range(60)
    ]
    server.serve(Population(notifications=account().notifications, hits=hits))
    server.always(HITS, "end of the send")
    found = diagnosed(server.url, tmp_path)["window end"]
    assert found.verdict == "warning"
    assert "by when the send went out" in found.text


def test_an_ignored_end_is_not_taken_for_the_sends_where_all_were_sent_before_it(server, tmp_path):
    long_ago = ms(NOW - timedelta(days=9))
    hits = [hit(number, NOW - (number + 1) * timedelta(minutes=7), stamp_time=long_ago) for number in range(60)]
    server.serve(Population(notifications=account().notifications, hits=hits))
    server.always(HITS, "end ignored")
    found = diagnosed(server.url, tmp_path)["window end"]
    assert found.verdict == "warning"
    assert "does not filter events" in found.text


def test_one_event_is_enough_to_tell_what_the_end_does(server, tmp_path):
    server.serve(account(hits=1))
    assert diagnosed(server.url, tmp_path)["window end"].verdict == "ok"
    server.always(HITS, "end ignored")
    assert diagnosed(server.url, tmp_path)["window end"].verdict == "warning"


def test_a_closed_window_is_told_from_an_ignored_end():
    known = tuple(probe.Item(f"{number}", number) for number in range(10))
    answer = probe.Answer(HITS, 200, {}, NOW, NOW, body=probe.Body.WHOLE, items=known[:6])
    end, content, _ = judge.windows(probe.Window("hits", 0, 5, known, answer))
    assert (end.verdict, content.verdict) == ("warning", "ok")
    assert "closed, not half open" in end.text


def test_events_that_a_window_should_have_held_are_missed():
    known = tuple(probe.Item(f"{number}", number) for number in range(10))
    answer = probe.Answer(HITS, 200, {}, NOW, NOW, body=probe.Body.WHOLE, items=known[1:5])
    _, content, _ = judge.windows(probe.Window("hits", 0, 5, known, answer))
    assert content.verdict == "wrong"
    assert content.values["missing"] == 1


def test_a_feed_that_does_not_sort(server, tmp_path):
    server.always(HITS, "shuffled")
    found = diagnosed(server.url, tmp_path)
    assert found["sort=asc"].verdict == "warning"
    assert found["sort=asc"].values["out_of_order"] > 0
    assert found["window end"].verdict == "ok"


@pytest.mark.parametrize(("encoding", "verdict"), [("gzip", "ok"), ("zstd", "ok"), ("", "warning")])
def test_compression(server, tmp_path, monkeypatch, encoding, verdict):
    monkeypatch.setattr("np6_assets_tests.support.rude_server._Handler._encoding", lambda self: encoding)
    found = diagnosed(server.url, tmp_path)["compression"]
    assert found.verdict == verdict
    assert list(found.values["encodings"]) == [encoding or "none"]


def test_which_link_types_and_verdicts_occur(server, tmp_path):
    types = ["redirection"] * 5 + ["dismissal"] * 3 + [None]
    hits = [hit(number, NOW - timedelta(minutes=number + 1), link_type=one) for number, one in enumerate(types)]
    bounces = [
        event("bounces", id=f"b{number}", timestamp=ms(NOW - timedelta(minutes=number + 1)), verdict=one)
        for number, one in enumerate(["hard", "hard", "blocked"])
    ]
    server.serve(Population(notifications=account().notifications, hits=hits, bounces=bounces))
    found = diagnosed(server.url, tmp_path)
    assert found["link types"].values["counts"] == {"redirection": 5, "dismissal": 3, "null": 1}
    assert found["bounce verdicts"].values["counts"] == {"hard": 2, "blocked": 1}
    assert found["link types"].verdict == found["bounce verdicts"].verdict == "ok"
    assert "other_hits" in found["link types"].text
    assert "bounces_other" in found["bounce verdicts"].text


def test_link_types_among_which_none_is_known(server, tmp_path):
    server.serve(Population(notifications=account().notifications, hits=[hit(1, NOW, link_type="click")]))
    assert diagnosed(server.url, tmp_path, now=lambda: NOW + timedelta(seconds=1))["link types"].verdict == "warning"


class Passing:
    """A clock that passes only where the doctor waits, and an account in which hits appear `late` seconds late."""

    def __init__(self, server, late):
        self.server, self.late, self.now = server, late, NOW
        server.headers = lambda: dated(self.now)()
        self.before = account().hits

    def __call__(self):
        return self.now

    def wait(self, seconds):
        self.now += timedelta(seconds=seconds)
        fresh = hit(ms(self.now), self.now - timedelta(seconds=self.late))
        self.before = [*self.before, fresh]
        self.server.serve(Population(notifications=account().notifications, hits=self.before))


@pytest.mark.parametrize(("late", "verdict"), [(10, "ok"), (1500, "ok"), (7200, "warning")])
def test_how_late_events_are_published(server, tmp_path, late, verdict):
    clock = Passing(server, late)
    found = diagnosed(server.url, tmp_path, watch=60, now=clock, wait=clock.wait)["lateness"]
    assert found.verdict == verdict
    assert found.values["appeared"] == 4
    assert found.values["watched_seconds"] == 60
    assert found.values["latest_seconds"] == late


def looked(seconds, body, *ages):
    """A look so many seconds after NOW, at events that were so many seconds old at NOW."""
    time = NOW + timedelta(seconds=seconds)
    items = tuple(probe.Item(f"{age}", ms(NOW - timedelta(seconds=age))) for age in ages)
    return probe.Look(time, probe.Answer(HITS, 200, {}, time, time, body=body, items=items))


def test_an_event_that_the_look_before_did_not_reach_has_not_appeared():
    looks = [looked(0, probe.Body.LEFT, 10, 20, 30), looked(15, probe.Body.WHOLE, 5, 10, 20, 30, 4000)]
    found = judge.lateness(probe.Survey(looks[0].answer, looks=looks), timedelta(hours=1))
    assert found.values["appeared"] == 1
    assert found.values["latest_seconds"] == 20
    assert (found.verdict, found.values["reach_seconds"]) == ("unknown", 45)  # less than the hour that counts


def test_watching_where_nothing_happens(server, tmp_path):
    found = diagnosed(server.url, tmp_path, watch=30)["lateness"]
    assert (found.verdict, found.values["appeared"]) == ("unknown", 0)


def test_a_large_account_costs_little(server, tmp_path):
    """3 MB of hits in the last day; what is read of them is the beginning."""
    server.transports = ("length",)
    server.serve(account(hits=3000, every=timedelta(seconds=20)))
    traffic = Traffic()
    environment = {"NP6_API_KEY": KEY, "NP6_BASE_URL": server.url, "NP6_DATA_DIR": str(tmp_path)}
    found = {one.subject: one for one in examine(environment, traffic, now=lambda: NOW)}
    assert found["window end"].verdict == "ok"
    assert traffic.requests == len(server.requests) <= 12
    assert traffic.bytes < 3 * probe.BODY_BYTES
    assert {request.headers["x-key"] for request in server.requests} == {KEY}


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def issue(tmp_path_factory):
    """Makes a certificate for localhost that is valid for so long; gives its file and a server's context."""
    folder = tmp_path_factory.mktemp("tls")

    def make(valid: timedelta) -> tuple[Path, ssl.SSLContext]:
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
        end = datetime.now(UTC) + valid
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(end - timedelta(days=400))
            .not_valid_after(end)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        file = folder / f"{x509.random_serial_number()}.pem"
        public = certificate.public_bytes(serialization.Encoding.PEM)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file.write_bytes(private + public)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        return file, context

    return make


@pytest.mark.parametrize(
    ("days", "trusted", "verdict", "says"),
    [
        (90, True, "ok", "valid for 89 more days"),
        (10, True, "warning", "valid for 9 more days"),
        (-1, True, "wrong", "certificate has expired"),
        (90, False, "wrong", "self-signed certificate"),
    ],
)
def test_the_certificate(issue, tmp_path, monkeypatch, days, trusted, verdict, says):
    file, context = issue(timedelta(days=days))
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
    with RudeServer(account(), key=KEY, tls=context) as server:
        found = diagnosed(server.url, tmp_path, now=lambda: datetime.now(UTC))
    assert found["TLS"].verdict == verdict
    assert says in found["TLS"].text.replace("self signed", "self-signed")
    assert found["reachability"].verdict == ("wrong" if verdict == "wrong" else "ok")


def test_https_where_the_server_speaks_http(server, tmp_path):
    found = diagnosed(server.url.replace("http://", "https://"), tmp_path)
    assert found["TLS"].verdict == found["reachability"].verdict == "wrong"
    assert "https" in found["reachability"].advice


# --- This machine ---------------------------------------------------------------------------------


def test_settings_that_are_wrong_come_first(server, tmp_path):
    found = diagnosed(server.url, tmp_path, NP6_TIMEZONE="Mars/Base")
    assert found["settings"].verdict == "wrong"
    assert "NP6_TIMEZONE='Mars/Base'" in found["settings"].text
    assert (found["API"].verdict, found["temporary files"].verdict) == ("unknown", "ok")
    assert server.requests == []


def test_no_key(tmp_path):
    found = diagnosed("https://api-cm.np6.com", tmp_path, NP6_API_KEY="")
    assert found["key"].verdict == "wrong"
    assert "NP6_API_KEY is not set" in found["key"].text
    assert found["API"].verdict == "unknown"


def test_a_setting_whose_name_is_misspelt(server, tmp_path):
    found = diagnosed(server.url, tmp_path, NP6_TIME_ZONE="Europe/Paris")["settings"]
    assert (found.verdict, found.values["unread"]) == ("warning", ["NP6_TIME_ZONE"])


def test_a_first_day_that_has_not_come(server, tmp_path):
    assert diagnosed(server.url, tmp_path, NP6_START_DATE="2027-01-01")["settings"].verdict == "warning"


def test_a_data_folder_in_which_nothing_can_be_written(server, tmp_path):
    (tmp_path / "file").write_text("a folder cannot be made in here\n")
    found = diagnosed(server.url, tmp_path, NP6_DATA_DIR=str(tmp_path / "file/data"))["data folder"]
    assert found.verdict == "wrong"
    assert "NP6_DATA_DIR" in found.advice


def test_a_data_folder_elsewhere_is_left_as_it_was(server, tmp_path):
    found = diagnosed(server.url, tmp_path, NP6_DATA_DIR="memory://doctored/data")["data folder"]
    assert found.verdict == "ok"
    assert fsspec.filesystem("memory").find("/doctored") == []


@pytest.mark.parametrize(("free", "verdict"), [(2**40, "ok"), (2**30, "warning"), (2**20, "wrong")])
def test_free_space(server, tmp_path, monkeypatch, free, verdict):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": free})())
    found = diagnosed(server.url, tmp_path)
    assert found["data folder"].verdict == found["temporary files"].verdict == verdict
    assert found["data folder"].values["free_bytes"] == free


PROJECT_CONFIG = (Path(__file__).parents[2] / "dagster.yaml").read_text()


@pytest.mark.parametrize(
    ("config", "verdict", "says"),
    [
        (PROJECT_CONFIG, "ok", "with a dagster.yaml"),
        (None, "warning", "has no dagster.yaml"),
        ("telemetry:\n  enabled: false\n", "warning", "concurrency.pools"),
        ("storage: [password: hunter2hunter2\n", "wrong", "not YAML"),
        ("- a list\n", "wrong", "not a YAML mapping"),
        ("", "warning", "run_monitoring"),
    ],
)
def test_dagsters_home(server, tmp_path, config, verdict, says):
    home = tmp_path / "home"
    home.mkdir()
    if config is not None:
        (home / "dagster.yaml").write_text(config)
    found = diagnosed(server.url, tmp_path, DAGSTER_HOME=str(home))["DAGSTER_HOME"]
    assert found.verdict == verdict
    assert says in found.text
    assert "hunter2" not in found.text


def test_a_home_of_dagsters_that_is_none(server, tmp_path):
    for home in ("relative", str(tmp_path / "nothing")):
        assert diagnosed(server.url, tmp_path, DAGSTER_HOME=home)["DAGSTER_HOME"].verdict == "wrong"


# --- What it says ---------------------------------------------------------------------------------


def test_a_secret_that_a_server_sends_back_is_taken_out():
    finding = Finding("x", "wrong", f"says {KEY}", f"not {KEY}", {"seen": [KEY], KEY: 1})
    assert KEY not in str(finding.without([KEY, ""]))
