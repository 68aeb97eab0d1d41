"""Remove contact data from free text, and nothing else."""

import hashlib
import time
from urllib.parse import quote, quote_plus

import pyarrow as pa
import pytest

from np6_assets.contact.free_text import REMOVED, TextRedactor

MD5 = hashlib.md5(b"zoe@example.com").hexdigest()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # addresses, as they stand and encoded, once or twice
        ("550 no such user <zoé.martin+push@mail.example.com>", "550 no such user <[removed]>"),
        ("https://a.example/p/zoe%40example.com/x", "https://a.example/p/[removed]/x"),
        ("https://a.example/?u=https%3A%2F%2Fb.example%2Fzoe%2540example%252Ecom%26x%3D1", None),
        ("a@b.example, c@d.example", "[removed], [removed]"),
        # phone numbers
        ("call +33612345678.", "call [removed]."),
        ("tel:%2B33612345678&x=1", "tel:[removed]&x=1"),
        ("SMS to 0033612345678", "SMS to [removed]"),
        ("+33 6 12 34 56 78 or 06.12.34.56.78 or 0612345678", "[removed] or [removed] or [removed]"),
        ("https://a.example/?q=call%200612345678", "https://a.example/?q=call%20[removed]"),
        # hashes
        (f"https://a.example/u/{MD5}/open", "https://a.example/u/[removed]/open"),
        (f"{MD5.upper()}", "[removed]"),
        ("a" * 23 + " " + "b" * 24, "a" * 23 + " [removed]"),
        # URL parameters whose name says contact data
        ("https://a.example/?email=zoe&id=5", "https://a.example/?email=[removed]&id=5"),
        ("https://a.example/?id=5&firstName=Zo%C3%A9#top", "https://a.example/?id=5&firstName=[removed]#top"),
        ("https://a.example/?tel=12345&hotel=594", "https://a.example/?tel=[removed]&hotel=594"),
        ("https://a.example/?MSISDN=1;user_phone=2&x=3", "https://a.example/?MSISDN=[removed]&x=3"),
        (
            "https://a.example/?r=https%3A%2F%2Fb%3Fname%3DZoe%26id%3D5",
            "https://a.example/?r=https%3A%2F%2Fb%3Fname%3D[removed]%26id%3D5",
        ),
        ("mail=zoe", "mail=[removed]"),
    ],
)
def test_redactor_removes_contact_data(text: str, expected: str | None):
    treated = TextRedactor().redact(text)
    if expected is None:
        assert "zoe" not in treated
    else:
        assert treated == expected
    assert TextRedactor().redact(treated) == treated  # stored texts are treated again


def test_redactor_keeps_other_text():
    for text in (
        "https://www.example.com/product?id=594&utm_source=push#reviews",
        "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
        "order 1234567890123 of 2026-03-24T00:12:00+00:00, 01-02-2026 12:30",
        "price @ 5 EUR, hero@2x, @handle, a+b=c",
        "code 550 5.1.1, 612345678",
        "",
    ):
        assert TextRedactor().redact(text) == text
    # of the receiver, short values
    assert TextRedactor().redact("https://a.example/1234?x=12345", ["12345", "a"]) == "https://a.example/1234?x=12345"


@pytest.mark.parametrize("own", ["Zoé Martin/7", "C-12345", "zoe@example.com"])
def test_redactor_removes_the_receivers_values_in_any_form_and_case(own: str):
    for form in (own, own.upper(), quote(own), quote(own, safe=""), quote(own, safe="").lower(), quote_plus(own)):
        text = f"https://a.example/p/{form}/x?id=5"
        assert TextRedactor().redact(text, [own]) == f"https://a.example/p/{REMOVED}/x?id=5"
    assert TextRedactor().redact("a text about others", [own]) == "a text about others"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/p?id=594&q=zoe&src=push#top", "https://a.example/p?id=594&q=[removed]&src=push#top"),
        ("https://a.example/p?zoe", "https://a.example/p?[removed]"),
        ("https://a.example/p?src=zoe@example.com", "https://a.example/p?src=[removed]"),
        ("https://a.example/p#/x?q=zoe&id=5", "https://a.example/p#/x?q=[removed]&id=5"),
        ("https://a.example/p?q=a;zoe&id=5", "https://a.example/p?q=[removed];[removed]&id=5"),
        ("https://a.example/p", "https://a.example/p"),
    ],
)
def test_redactor_keeps_the_values_of_named_parameters_only(url: str, expected: str):
    strict = TextRedactor(frozenset({"id", "src", "top", "/x"}))
    assert strict.redact(url) == expected
    assert strict.redact(expected) == expected


def test_redactor_removes_from_each_text_the_values_of_its_row():
    texts = ["p/C-12345?id=5", "p/C-12345?id=5", None, "to zoe@example.com", "p/C-12345?id=5"]
    unicities = ["C-12345", "C-99999", "C-12345", "zoe@example.com", None]
    hashes = [None, None, MD5, MD5, MD5]
    labels = [None, "C-99999", None, "for C-12345", None]
    found = TextRedactor().redact_columns(
        [pa.chunked_array([pa.array(column)]) for column in (texts, labels)],
        [pa.chunked_array([pa.array(other_column)]) for other_column in (unicities, hashes)],
    )
    assert found[0].to_pylist() == ["p/[removed]?id=5", texts[1], None, "to [removed]", texts[4]]
    assert found[1].to_pylist() == [None, "[removed]", None, "for C-12345", None]
    assert {column.type for column in found} == {pa.string()}


def test_redactor_is_fast_on_repeated_texts():
    rows = 100_000
    texts = pa.chunked_array([pa.array([f"https://a.example/?id={number % 50}" for number in range(rows)])])
    own = pa.chunked_array([pa.array([f"user{number}@example.com" for number in range(rows)])])
    begun = time.process_time()
    [found] = TextRedactor().redact_columns([texts], [own])
    assert found.to_pylist()[:2] == texts.to_pylist()[:2]
    assert time.process_time() - begun < 0.5  # seconds if each is redacted by itself


def test_redactor_takes_linear_time():
    length = 2**17
    for unit in ("a", "?name", "a@", "0 ", "%25", "?", "%2F", "%2525", "+1", "x="):
        begun = time.process_time()
        TextRedactor().redact(unit * (length // len(unit)))
        assert time.process_time() - begun < 2, unit  # a minute if it were quadratic
