"""The job `recount_events`: counts anew, from the files, what the writer makes sure of. Launched by hand."""

import dagster as dg

from np6_assets.events.kinds import KINDS
from np6_assets.partitions import EVENT_DATE, Day, daily, day_of
from np6_assets.resources import STORE, keys_of, store_of
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


def recount(folder: Folder, file: str, day: Day) -> dict[str, int]:
    """Rows of a day's file, ids beyond the first of each, rows outside the day, rows out of order."""
    from np6_assets.storage.query import querying

    with querying(folder) as query:
        [counts] = query.rows(_SQL, file, start=day.start_ms, end=day.end_ms)
    return dict(zip(("rows", "repeated_ids", "outside_day", "out_of_order"), counts, strict=True))


def recount_job(settings: Settings) -> dg.JobDefinition:
    """The job, of a day or a range of days."""
    days = daily(settings.start_date, settings.timezone)

    @dg.op(name=settings.named("recount"), out=dg.Out(dg.Nothing), required_resource_keys=keys_of(settings, STORE))
    def count(context: dg.OpExecutionContext) -> None:
        from np6_assets.storage.parquet import file_of

        folder = store_of(context, settings).folder().listed()
        wrong: dict[str, dict[str, int]] = {}
        rows = 0
        for key in days.get_partition_keys_in_range(context.partition_key_range):
            for kind in KINDS:
                file = file_of(kind.asset, EVENT_DATE, key)
                if folder.exists(file):
                    counts = recount(folder, file, day_of(key, settings.timezone))
                    rows += counts.pop("rows")
                    if any(counts.values()):
                        wrong[f"{kind.asset} {key}"] = counts
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
        count()

    return job
