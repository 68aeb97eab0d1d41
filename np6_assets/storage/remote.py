"""Files in an object store, by obstore. A finished file is put in place by one request."""

from __future__ import annotations

import io
import mmap
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import IO, TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, NotSupportedError

from np6_assets.storage.bucket import open_bucket, translate_errors
from np6_assets.storage.files import ANY_VERSION, ChangedError, ExpectedVersion, FileEntry, Folder, Version
from np6_assets.storage.remote_file import BLOCK_BYTES, TAIL_BYTES, Opened, RemoteFile
from np6_assets.storage.remote_filesystem import RemoteFilesystem

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode, UpdateVersion
    from obstore.store import ObjectStore

_PUT_AT_ONCE = 5 * 2**30
"""Up to this size a file is put by one request, which can be conditional."""

_KEPT = 256
"""Files whose last bytes stay cached: 32 MiB at most."""


class RemoteFolder(Folder):
    """A folder in an object store. Each call is a request, unless its listing is cached."""

    is_local = False

    def __init__(self, url: str) -> None:
        super().__init__(url.rstrip("/"))
        parts = urlsplit(url)
        self._scheme = parts.scheme
        self._bucket = f"{parts.scheme}://{parts.netloc}"
        place = (parts.netloc, parts.path) if parts.scheme == "memory" else (parts.path,)
        self._prefix = "/".join(one.strip("/") for one in place).strip("/")
        self._store: ObjectStore = open_bucket(url)
        # the cache: each asset is listed once, at its first use, and the last bytes of opened files stay
        self._listings: dict[str, dict[str, FileEntry]] | None = None
        self._opened: dict[str, Opened] = {}
        self._written_since: set[str] = set()

    def path(self, relative: str) -> str:
        return f"{self.root}/{relative}" if relative else self.root

    def relative(self, address: str) -> str:
        """Return the path of an address."""
        return address.removeprefix(self.root).strip("/")

    @property
    def filesystem(self) -> RemoteFilesystem:
        return RemoteFilesystem(self.cache_listing() if self._listings is None else self, self._scheme)

    def cache_listing(self) -> RemoteFolder:
        cached = RemoteFolder(self.root)
        cached._listings = {}
        return cached

    def invalidate(self, relative: str) -> None:
        self._written_since.add(relative)
        self._opened.pop(relative, None)

    def find(self, relative: str) -> dict[str, FileEntry]:
        listing = self._get_listing(f"{relative}/") if relative else None
        if listing is None:
            return self._request_listing(relative)
        return {path: entry for path, entry in listing.items() if path.startswith(f"{relative}/")}

    def list_folders(self, relative: str) -> list[str]:
        depth = len(relative.split("/")) if relative else 0
        parts = (path.split("/") for path in self.find(relative))
        return sorted({one[depth] for one in parts if len(one) > depth + 1})

    def find_entry(self, relative: str) -> FileEntry | None:
        listing = self._get_listing(relative)
        if listing is not None:
            return listing.get(relative)
        entry = None
        with suppress(FileNotFoundError), self._translate_errors(relative):
            entry = _to_entry(self._store.head(self._key(relative)))
        self._remember(relative, entry)
        return entry

    def open(self, relative: str, version: Version | None = None) -> IO[bytes]:
        listing = self._get_listing(relative)
        if listing is not None and relative not in listing:
            raise FileNotFoundError(self.path(relative))
        opened = self._opened.get(relative) or self._request_file(relative)
        if version is not None and version.tag != opened.entry.version.tag:
            raise ChangedError(self.path(relative))
        read = partial(self._request_bytes, relative, opened.entry.version)
        return io.BufferedReader(RemoteFile(opened, read), BLOCK_BYTES)  # type: ignore[type-var]  # typeshed wants `read`

    @contextmanager
    def lock(self, who: str, say: Callable[[str], None]) -> Iterator[None]:
        yield

    def get_version(self, file: IO[bytes]) -> Version:
        assert isinstance(file, io.BufferedReader)
        assert isinstance(file.raw, RemoteFile)
        return file.raw.opened.entry.version

    def remove(self, relative: str) -> None:
        if self._get_listing(relative) is None or self.exists(relative):
            with self._translate_errors(relative):
                self._store.delete(self._key(relative))
            self._remember(relative, None)

    @contextmanager
    def replace(
        self, relative: str, mode: int | None = None, before: ExpectedVersion = ANY_VERSION
    ) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryFile(prefix="np6-") as file:
            yield file
            file.flush()
            try:
                entry = self._put(relative, file, before)
            except ChangedError:
                self.invalidate(relative)
                raise
            self._remember(relative, entry)

    def _put(self, relative: str, file: IO[bytes], before: ExpectedVersion) -> FileEntry:
        size = os.fstat(file.fileno()).st_size
        with self._translate_errors(relative):
            if size > _PUT_AT_ONCE:  # in parts, of which the last request makes the file, and without a condition
                self.invalidate(relative)
                if before is not ANY_VERSION and self.find_version(relative) != before:
                    raise ChangedError(self.path(relative))
                file.seek(0)
                made = self._store.put(self._key(relative), file, use_multipart=True)
            else:
                # mapped: the system reads it from the disk as it is sent
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
                made = self._store.put(self._key(relative), content, mode=_choose_put_mode(before), use_multipart=False)
        return FileEntry(size, Version(str(made["e_tag"]), made["version"]), datetime.now(UTC))

    def _request_listing(self, relative: str) -> dict[str, FileEntry]:
        """List a folder: one request for a thousand files."""
        with self._translate_errors(relative):
            pages = list(self._store.list(self._key(relative)))
        at = len(self._prefix) + 1 if self._prefix else 0
        return {one["path"][at:]: _to_entry(one) for page in pages for one in page}

    def _request_file(self, relative: str) -> Opened:
        """Open a file as it is now, and read its last bytes."""
        try:
            with self._translate_errors(relative):
                try:
                    got = self._store.get(self._key(relative), options={"range": {"suffix": TAIL_BYTES}})
                    opened = Opened(_to_entry(got.meta), got.bytes().to_bytes())
                except BaseError as error:
                    if not _lacks_suffix_reads(error):
                        raise
                    entry = _to_entry(self._store.head(self._key(relative)))
                    start = max(entry.size - TAIL_BYTES, 0)
                    opened = Opened(entry, self._request_bytes(relative, entry.version, start, entry.size))
        except FileNotFoundError:
            self._remember(relative, None)
            raise
        self._remember(relative, opened.entry, opened)
        return opened

    def _request_bytes(self, relative: str, version: Version, start: int, end: int) -> bytes:
        """Read bytes of a version of a file. Raises ChangedError once it was replaced or removed."""
        if start == end:
            return b""
        try:
            with self._translate_errors(relative):
                options: GetOptions = {"if_match": version.tag, "range": (start, end)}
                return self._store.get(self._key(relative), options=options).bytes().to_bytes()
        except FileNotFoundError:
            raise ChangedError(self.path(relative)) from None

    def _get_listing(self, relative: str) -> dict[str, FileEntry] | None:
        """Return the cached listing of a file's asset; None if there is none, or the file was written since."""
        asset = _find_asset_folder(relative)
        if self._listings is None or asset is None or relative in self._written_since:
            return None
        if asset not in self._listings:
            self._listings[asset] = self._request_listing(asset)
        return self._listings[asset]

    def _remember(self, relative: str, entry: FileEntry | None, opened: Opened | None = None) -> None:
        """Update the cache: what a file is now, or that it does not exist."""
        self._written_since.discard(relative)
        self._opened.pop(relative, None)
        listing = (self._listings or {}).get(_find_asset_folder(relative) or "")
        if listing is None:
            return
        listing.pop(relative, None)
        if entry is not None:
            listing[relative] = entry
        if opened is not None:
            if len(self._opened) >= _KEPT:
                self._opened.pop(next(iter(self._opened)), None)
            self._opened[relative] = opened

    def _key(self, relative: str) -> str:
        return posixpath.join(self._prefix, relative).rstrip("/")

    def _translate_errors(self, relative: str) -> AbstractContextManager[None]:
        return translate_errors(self._bucket, self.path(relative))


def _find_asset_folder(relative: str) -> str | None:
    """Find the asset's folder of a file; None for a file outside of assets."""
    parent, last = posixpath.split(posixpath.dirname(relative))
    asset = parent if "=" in last else posixpath.join(parent, last)
    return None if not asset or asset.startswith(".") else asset


def _to_entry(meta: ObjectMeta) -> FileEntry:
    return FileEntry(meta["size"], Version(str(meta["e_tag"]), meta["version"]), meta["last_modified"])


def _choose_put_mode(before: ExpectedVersion) -> PutMode:
    if not isinstance(before, Version):
        return "create" if before is None else "overwrite"
    update: UpdateVersion = {"e_tag": before.tag}
    if before.generation is not None:  # Google compares this one
        update["version"] = before.generation
    return update


def _lacks_suffix_reads(error: BaseError) -> bool:
    """Whether a store cannot read the last bytes: Azure, and others for an empty file."""
    return isinstance(error, NotSupportedError) or "non-partial" in str(error) or "416" in str(error)
