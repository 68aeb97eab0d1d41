"""The job `recount_events`: counts anew, from the files, what the writer guarantees. Launched by hand."""

from collections.abc import Sequence

import dagster as dg

from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE, Day, daily, parse_day
from np6_assets.resources import STORE, get_store, list_resource_keys
from np6_assets.settings import Settings
from np6_assets.storage.files import Folder

_SQL = """
    SELECT count(*),
           count(*) - count(DISTINCT event_id),
           count(*) FILTER (epoch_ms(event_time) < $start OR epoch_ms(event_time) >= $end),
           count(*) FILTER ((event_time, event_id) <= before)
    FROM (
        SELECT event_id, event_time, lag((event_time, event_id)) OVER (ORDER BY file_row_number) AS before
        FROM read_parquet($file, file_row_number = true)
    )
"""


def recount_file(folder: Folder, file: str, day: Day) -> dict[str, int]:
    """Count a day's file: rows, ids beyond the first of each, rows outside the day, rows out of order."""
    from np6_assets.storage.query import open_query

    with open_query(folder) as query:
        [counts] = query.fetch_rows(_SQL, file, start=day.start_ms, end=day.end_ms)
    return dict(zip(("rows", "repeated_ids", "outside_day", "out_of_order"), counts, strict=True))


def recount_days(folder: Folder, days: Sequence[str], timezone: str) -> tuple[int, dict[str, dict[str, int]]]:
    """Count the rows of the days' files; also returns what is wrong, by asset and day."""
    from np6_assets.storage.parquet import build_path

    wrong: dict[str, dict[str, int]] = {}
    rows = 0
    for key in days:
        for kind in KINDS:
            file = build_path(kind.asset, EVENT_DATE, key)
            if folder.exists(file):
                counts = recount_file(folder, file, parse_day(key, timezone))
                rows += counts.pop("rows")
                if any(counts.values()):
                    wrong[f"{kind.asset} {key}"] = counts
    return rows, wrong


def recount_job(settings: Settings) -> dg.JobDefinition:
    """Define the job, of a day or a range of days."""
    days = daily(settings.start_date, settings.timezone)

    @dg.op(
        name=settings.named("recount"),
        out=dg.Out(dg.Nothing),
        required_resource_keys=list_resource_keys(settings, STORE),
    )
    def recount(context: dg.OpExecutionContext) -> None:
        keys = days.get_partition_keys_in_range(context.partition_key_range)
        rows, wrong = recount_days(get_store(context, settings).open_folder().cache_listing(), keys, settings.timezone)
        context.add_output_metadata({"rows": rows, "wrong": dg.MetadataValue.json(wrong)})
        if wrong:
            text = "; ".join(f"{file}: {counts}" for file, counts in wrong.items())
            raise dg.Failure(f"materialize again with full_refresh: {text}", allow_retries=False)

    @dg.job(
        name=settings.named("recount_events"),
        executor_def=dg.in_process_executor,
        partitions_def=days,
        description="Counts the stored days anew: ids are unique, rows in order and inside their day. Changes nothing.",
    )
    def job() -> None:
        recount()

    return job
