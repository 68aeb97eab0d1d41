"""Test a remote folder: its files while and after they are written, its requests, and its errors."""

import uuid
from collections.abc import Iterator

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from np6_assets.storage import parquet, remote
from np6_assets.storage.files import ChangedError, Folder, StoreError
from np6_assets.storage.query import open_query
from np6_assets_tests.support.bucket import SECRET, Bucket, Store, run_store
from np6_assets_tests.support.files import PLACE, read_file, write_file

pytestmark = pytest.mark.slow

OTHER = "hits/event_date=2026-03-21/part-0.parquet"


@pytest.fixture(scope="module")
def server() -> Iterator[Store]:
    with run_store() as store:
        yield store


@pytest.fixture
def bucket(server: Store, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    bucket = server.create_bucket()
    for name, value in bucket.environment.items():
        monkeypatch.setenv(name, value)
    return bucket


def test_file_is_uploaded_in_one_request(bucket: Bucket):
    folder = Folder(bucket.url)
    write_file(folder, b"old")
    with folder.replace(PLACE) as file:
        file.write(b"new" * 3_000_000)
        assert read_file(folder) == b"old"
    assert bucket.count_requests() == {"PUT": 2, "GET": 1}
    assert read_file(folder) == b"new" * 3_000_000
    assert folder.list_files("") == [PLACE]
    assert (folder.get_size(PLACE), folder.exists(OTHER)) == (9_000_000, False)
    assert folder.list_folders("hits") == ["event_date=2026-03-20"]
    folder.remove(PLACE)
    folder.remove(PLACE)
    assert not folder.exists(PLACE)


def test_large_file_is_replaced_whole(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(remote, "_PUT_AT_ONCE", 6_000_000)
    folder = Folder(bucket.url)
    write_file(folder, b"old")
    version = folder.find_version(PLACE)
    content = b"new" * 4_000_000
    with folder.replace(PLACE, before=version) as file:
        file.write(content)
    assert read_file(folder) == content
    with pytest.raises(ChangedError), folder.replace(PLACE, before=version) as file:
        file.write(content)


def test_failed_upload_keeps_the_old_file_and_a_transient_error_is_retried(bucket: Bucket):
    folder = Folder(bucket.url)
    write_file(folder, b"old")
    for status in (503, 403):
        bucket.refuse = lambda method, key, status=status: status if method == "PUT" else None
        with pytest.raises(StoreError):
            write_file(folder, b"new")
        bucket.refuse = lambda method, key: None
        assert (read_file(folder), folder.list_files("")) == (b"old", [PLACE])
    turns = iter(range(10**6))
    bucket.refuse = lambda method, key: 503 if next(turns) % 2 == 0 else None
    write_file(folder, b"new")
    assert read_file(folder) == b"new"


def test_reader_needs_few_requests_and_sees_one_version(bucket: Bucket):
    folder = Folder(bucket.url)
    content = uuid.uuid4().bytes * 700_000
    write_file(folder, content)
    bucket.count_requests()
    with folder.open(PLACE) as file:
        assert file.seek(-5, 2) == len(content) - 5
        assert file.read() == content[-5:]
        assert bucket.count_requests() == {"GET": 1}
        file.seek(0)
        assert b"".join(iter(lambda: file.read(100_000), b"")) == content
        assert bucket.count_requests() == {"GET": 3}
    with folder.open(PLACE) as file:
        write_file(folder, b"another")
        with pytest.raises(ChangedError):
            file.read()


def test_cached_folder_lists_an_asset_once_and_notices_changes(bucket: Bucket):
    folder = Folder(bucket.url)
    write_file(folder, b"one")
    write_file(folder, b"two", OTHER)
    bucket.count_requests()
    cached = folder.cache_listing()
    assert (cached.get_size(PLACE), cached.exists(OTHER), len(cached.list_folders("hits"))) == (3, True, 2)
    assert [read_file(cached, place) for place in (PLACE, OTHER, PLACE, OTHER)] == [b"one", b"two", b"one", b"two"]
    assert bucket.count_requests() == {"LIST": 1, "GET": 2}
    write_file(cached, b"three")  # through the cached folder
    assert (read_file(cached), cached.get_size(PLACE)) == (b"three", 5)
    again = folder.cache_listing()
    assert again.exists(OTHER)
    write_file(folder, b"four")  # around it
    folder.remove(OTHER)
    assert read_file(again) == b"four"
    with pytest.raises(FileNotFoundError):
        read_file(again, OTHER)


def test_duckdb_and_pandas_read_a_remote_folder(bucket: Bucket):
    folder = Folder(bucket.url)
    for number, day in enumerate(("2026-03-20", "2026-03-21")):
        parquet.write_file(folder, parquet.build_path("hits", "event_date", day), pa.table({"id": range(number, 1000)}))
    bucket.count_requests()
    with open_query(folder) as query:
        sql = "SELECT event_date, id FROM read_parquet($file, hive_partitioning = true)"
        assert len(query.fetch_rows(sql, PLACE, OTHER)) == 1999
    assert bucket.count_requests() == {"LIST": 1, "GET": 2}
    with duckdb.connect(config={"autoinstall_known_extensions": False}) as database:
        database.register_filesystem(folder.filesystem)
        sql = f"SELECT event_date, count(*) FROM '{bucket.url}/hits/*/*.parquet' GROUP BY ALL ORDER BY ALL"
        assert [count for _, count in database.execute(sql).fetchall()] == [1000, 999]
    frame = pd.read_parquet(f"{bucket.url}/hits", filesystem=folder.filesystem)
    assert frame.groupby("event_date", observed=True).size().tolist() == [1000, 999]


def test_large_parquet_file_is_read_by_column(bucket: Bucket):
    folder = Folder(bucket.url)
    ids = [uuid.uuid4().hex for _ in range(200_000)]
    parquet.write_file(folder, PLACE, pa.table({"id": ids, "number": range(200_000)}))
    data = parquet.open_partitioned_dataset(
        folder, "hits", pa.schema({"id": pa.string(), "number": pa.int64()}), "event_date", ["2026-03-20"]
    )
    assert data.to_table(columns=["number"]).column(0).to_pylist() == list(range(200_000))
    with folder.open(PLACE) as file:
        assert pq.ParquetFile(file).read().column("id").to_pylist() == ids


# --- errors ---------------------------------------------------------------------------------------------------------


def read_error(folder: Folder, action: str) -> str:
    with pytest.raises(StoreError) as caught:
        write_file(folder, b"x") if action == "write" else folder.list_folders("hits")
    line = str(caught.value)
    assert "\n" not in line
    assert SECRET not in line
    return line


@pytest.mark.parametrize("action", ["write", "list"])
def test_store_error_names_the_bucket_and_a_remedy(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, action: str):
    missing = "s3://np6-nobody-has-made-this"
    assert read_error(Folder(missing), action).startswith(f"{missing}: there is no such bucket where AWS_ENDPOINT_URL")
    bucket.refuse = lambda method, key: 403
    line = read_error(Folder(bucket.url), action)
    assert line.startswith(f"s3://{bucket.name}: refused (403 ")
    assert "AWS_ACCESS_KEY_ID" in line
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    assert "AWS_ALLOW_HTTP=true" in read_error(Folder(bucket.url), action)


def test_silent_store_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("np6_assets.storage.bucket._RETRIES", {"max_retries": 1})
    line = read_error(Folder(bucket.url), "write")
    assert line.startswith(f"s3://{bucket.name}: does not answer; check the network, and AWS_ENDPOINT_URL")
