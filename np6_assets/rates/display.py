"""The rates in Markdown, as Dagster's UI shows them: the chart, a line, and a table of the notifications by name."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import date

from np6_assets import markdown
from np6_assets.rates.pictures import (
    BOUNCE,
    HIT,
    NONE,
    OPTOUT,
    Cohort,
    Row,
    Share,
    by,
    percent,
    rates_chart,
    sends_of,
    status_of,
)

_TABLE_ROWS = 20
_NAME_LENGTH = 40


def chart_markdown(cohorts: Sequence[Cohort], today: date) -> str:
    """The chart as a picture in Markdown, with what it shows in words.

    Today is left out where there are other days: it has just begun, and would look like a fall.
    """
    drawn = [cohort for cohort in cohorts if cohort.day < today] or cohorts
    image = base64.b64encode(rates_chart(drawn, columns=3, width=10).encode()).decode()
    first, last = drawn[0].day, drawn[-1].day
    left_out = "" if last == cohorts[-1].day else f" {cohorts[-1].day} is not over, and left out."
    return (
        f"![Hit, optout and bounce rate of the cohorts {first} to {last}](data:image/svg+xml;base64,{image})\n\n"
        f"Cohorts {first} to {last}.{left_out} Band: 95 % interval of each day. "
        "Hollow dots and dashed lines: provisional, these rates still move. "
        "Hollow diamonds: incomplete, events are missing."
    )


def summary(rates: Sequence[Row], *, is_over: bool) -> str:
    """A cohort's rates in a line."""
    sends = sends_of(rates)
    if not rates or sends is None:
        return "nothing was sent" if not rates else "how many were sent is not known"
    told = f"hit {with_interval(HIT.of(rates))}, optout {percent(OPTOUT.of(rates).rate)}, "
    told += f"bounce {percent(BOUNCE.of(rates).rate)} of {sends:,} sends"
    if not is_over:
        return f"{told}; the day is not over"
    return told + {"final": "", "open": "; provisional", "incomplete": "; incomplete"}[status_of(rates)]


def notifications_markdown(rates: Sequence[Row], names: Mapping[int, str]) -> str:
    """A Markdown table of a cohort's notifications, those with the most sends first."""
    groups = sorted(by("activation_id", rates), key=lambda group: -(sends_of(group[1]) or 0))
    head = ("Notification", "Sends", "Hit rate", "95 % interval", "Optout rate", "Bounce rate")
    lines = [markdown.table(head, [_cells(key, rows, names) for key, rows in groups[:_TABLE_ROWS]])]
    if len(groups) > _TABLE_ROWS:
        lines.append(f"and {len(groups) - _TABLE_ROWS} more with fewer sends")
    if any(row["status"] == "open" for row in rates):
        lines.append("**Provisional**: these rates still move.")
    if lacking := sorted({row["activation_id"] for row in rates if row["status"] == "incomplete"}):
        which = ", ".join(markdown.escaped(names.get(key, f"notification {key}")) for key in lacking[:_TABLE_ROWS])
        more = f" and {len(lacking) - _TABLE_ROWS} more" if len(lacking) > _TABLE_ROWS else ""
        lines.append(f"**Incomplete**, as events are missing, and in no rate above: {which}{more}.")
    return "\n\n".join(lines)


def _cells(key: int, rows: Sequence[Row], names: Mapping[int, str]) -> tuple[str, ...]:
    sends, hit = sends_of(rows), HIT.of(rows)
    return (
        markdown.escaped(_shown(names.get(key, f"notification {key}"))),
        NONE if sends is None else f"{sends:,}",
        percent(hit.rate),
        NONE if hit.interval is None else "{:.1%} to {:.1%}".format(*hit.interval).replace(" ", "\N{NO-BREAK SPACE}"),
        percent(OPTOUT.of(rows).rate),
        percent(BOUNCE.of(rows).rate),
    )


def _shown(name: str) -> str:
    """A name that leaves room for the numbers."""
    return name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"


def with_interval(share: Share) -> str:
    """A rate with its 95 % interval as people read it; a dash where there is none."""
    if share.interval is None:
        return percent(share.rate)
    return "{} ({:.1%} to {:.1%})".format(percent(share.rate), *share.interval)
