"""Write the rates in Markdown for Dagster's UI: the chart, a line, and a table of the notifications by name."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from datetime import date

from np6_assets import markdown
from np6_assets.rates.chart import draw_chart
from np6_assets.rates.measures import (
    BOUNCE,
    HIT,
    NONE,
    OPTOUT,
    Cohort,
    Row,
    combine_status,
    format_percent,
    group_rows,
    sum_sends,
)

_TABLE_ROWS = 20
_NAME_LENGTH = 40


def write_chart(cohorts: Sequence[Cohort], today: date) -> str:
    """Write the chart as a picture in Markdown, and its legend.

    Today is left out where there are other days: it has just begun, and would look like a decline.
    """
    drawn = [cohort for cohort in cohorts if cohort.day < today] or cohorts
    image = base64.b64encode(draw_chart(drawn).encode()).decode()
    first, last = drawn[0].day, drawn[-1].day
    left_out = "" if last == cohorts[-1].day else f" {cohorts[-1].day} is not over, and left out."
    return (
        f"![Hit, optout and bounce rate of the cohorts {first} to {last}](data:image/svg+xml;base64,{image})\n\n"
        f"Cohorts {first} to {last}.{left_out} Band: 95 % interval of each day. "
        "Hollow dots and dashed lines: provisional, these rates still move. "
        "Hollow squares: incomplete, events are missing."
    )


def summarize_rates(rates: Sequence[Row], *, is_over: bool) -> str:
    """Summarize a cohort's rates in a line."""
    sends = sum_sends(rates)
    if not rates or sends is None:
        return "nothing was sent" if not rates else "how many were sent is not known"
    hit = HIT.of(rates)
    interval = " ({:.1%} to {:.1%})".format(*hit.interval) if hit.interval else ""
    text = f"hit {format_percent(hit.rate)}{interval}, optout {format_percent(OPTOUT.of(rates).rate)}, "
    text += f"bounce {format_percent(BOUNCE.of(rates).rate)} of {sends:,} sends"
    if not is_over:
        return f"{text}; the day is not over"
    return text + {"final": "", "open": "; provisional", "incomplete": "; incomplete"}[combine_status(rates)]


def write_notifications(rates: Sequence[Row], names: Mapping[int, str]) -> str:
    """Write a Markdown table of a cohort's notifications, those with the most sends first."""
    groups = sorted(group_rows("activation_id", rates), key=lambda group: -(sum_sends(group[1]) or 0))
    head = ("Notification", "Sends", "Hit rate", "95 % interval", "Optout rate", "Bounce rate")
    lines = [markdown.table(head, [_format_cells(key, rows, names) for key, rows in groups[:_TABLE_ROWS]])]
    if len(groups) > _TABLE_ROWS:
        lines.append(f"and {len(groups) - _TABLE_ROWS} more with fewer sends")
    if any(row["status"] == "open" for row in rates):
        lines.append("**Provisional**: these rates still move.")
    if lacking := sorted({row["activation_id"] for row in rates if row["status"] == "incomplete"}):
        which = ", ".join(markdown.escaped(names.get(key, f"notification {key}")) for key in lacking[:_TABLE_ROWS])
        which += f" and {len(lacking) - _TABLE_ROWS} more" if len(lacking) > _TABLE_ROWS else ""
        lines.append(f"**Incomplete**, as events are missing, and in no rate above: {which}.")
    return "\n\n".join(lines)


def _format_cells(key: int, rows: Sequence[Row], names: Mapping[int, str]) -> tuple[str, ...]:
    sends, hit = sum_sends(rows), HIT.of(rows)
    name = names.get(key, f"notification {key}")
    return (
        markdown.escaped(name if len(name) <= _NAME_LENGTH else f"{name[: _NAME_LENGTH - 1]}…"),
        NONE if sends is None else f"{sends:,}",
        format_percent(hit.rate),
        NONE if hit.interval is None else "{:.1%} to {:.1%}".format(*hit.interval).replace(" ", "\N{NO-BREAK SPACE}"),
        format_percent(OPTOUT.of(rows).rate),
        format_percent(BOUNCE.of(rows).rate),
    )
