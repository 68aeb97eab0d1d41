"""Files in an object store, by obstore. A finished file is put in place by one request."""

from __future__ import annotations

import mmap
import os
import posixpath
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import IO, TYPE_CHECKING, cast
from urllib.parse import urlsplit

from obstore.exceptions import BaseError, NotSupportedError

from np6_assets.storage.bucket import open_bucket, translate_errors
from np6_assets.storage.files import ANY_VERSION, ChangedError, ExpectedVersion, FileEntry, Version
from np6_assets.storage.remote_file import TAIL_BYTES, RemoteFile
from np6_assets.storage.remote_filesystem import RemoteFilesystem

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode, UpdateVersion
    from obstore.store import ObjectStore

_PUT_AT_ONCE = 5 * 2**30
"""Up to this size a file is put by one request, which can be conditional."""

_KEPT = 256
"""Files whose last bytes stay cached: 32 MiB at most."""


class RemoteFiles:
    """The files below an address; see `files.Files`. Each call is a request."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = url.rstrip("/")
        self.scheme = parts.scheme
        self._bucket = f"{parts.scheme}://{parts.netloc}"
        place = (parts.netloc, parts.path) if parts.scheme == "memory" else (parts.path,)
        self._prefix = "/".join(one.strip("/") for one in place).strip("/")
        self._store: ObjectStore = open_bucket(url)

    def path(self, relative: str) -> str:
        """Return the address of a file."""
        return f"{self._url}/{relative}" if relative else self._url

    def relative(self, address: str) -> str:
        """Return the path of an address."""
        return address.removeprefix(self._url).strip("/")

    def cache_listing(self) -> CachedFiles:
        """Return the same files with a cached listing."""
        return CachedFiles(self._url)

    def find(self, folder: str) -> Mapping[str, FileEntry]:
        """List every file below a folder, by its path: one request for a thousand files."""
        with self._translate_errors(folder):
            pages = list(self._store.list(self._key(folder)))
        at = len(self._key("")) + 1 if self._prefix else 0
        return {one["path"][at:]: _to_entry(one) for page in pages for one in page}

    def folders(self, folder: str) -> list[str]:
        """List the names of the folders in a folder."""
        depth = len(folder.split("/")) if folder else 0
        parts = (path.split("/") for path in self.find(folder))
        return list({one[depth] for one in parts if len(one) > depth + 1})

    def entry(self, relative: str) -> FileEntry | None:
        """Look up a file; None if it does not exist."""
        try:
            with self._translate_errors(relative):
                return _to_entry(self._store.head(self._key(relative)))
        except FileNotFoundError:
            return None

    def open(self, relative: str, version: Version | None = None) -> IO[bytes]:
        """Open a file; its last bytes are read at once. Reading it raises ChangedError once it was replaced."""
        options: GetOptions = {} if version is None else {"if_match": version.tag}
        with self._translate_errors(relative):
            try:
                got = self._store.get(self._key(relative), options={**options, "range": {"suffix": TAIL_BYTES}})
                entry, tail = _to_entry(got.meta), got.bytes().to_bytes()
            except BaseError as error:
                if not _lacks_suffix_reads(error):
                    raise
                entry = _to_entry(self._store.head(self._key(relative)))
                tail = self._read(relative, version or entry.version, max(entry.size - TAIL_BYTES, 0), entry.size)
        return cast("IO[bytes]", RemoteFile(entry, tail, partial(self._read, relative, entry.version)))

    def version(self, file: IO[bytes]) -> Version:
        """Return the version of an open file."""
        assert isinstance(file, RemoteFile)
        return file.entry.version

    def remove(self, relative: str) -> None:
        """Remove a file, if it exists."""
        with self._translate_errors(relative):
            self._store.delete(self._key(relative))

    @contextmanager
    def lock(self, _who: str, _say: Callable[[str], None]) -> Iterator[None]:
        """Do nothing: writers compare the version that they replace."""
        yield

    def invalidate(self, relative: str) -> None:
        """Do nothing: nothing is cached."""

    def filesystem(self) -> RemoteFilesystem:
        """See `Folder.filesystem`."""
        return self.cache_listing().filesystem()

    @contextmanager
    def replace(self, relative: str, _mode: int | None, before: ExpectedVersion) -> Iterator[IO[bytes]]:
        """See `Folder.replace`."""
        with tempfile.TemporaryFile(prefix="np6-") as file:
            yield file
            file.flush()
            self._put(relative, file, before)

    def _put(self, relative: str, file: IO[bytes], before: ExpectedVersion) -> FileEntry:
        size = os.fstat(file.fileno()).st_size
        with self._translate_errors(relative):
            if size > _PUT_AT_ONCE:  # in parts, of which the last request makes the file, and without a condition
                if before is not ANY_VERSION and self._version(relative) != before:
                    raise ChangedError(self.path(relative))
                file.seek(0)
                made = self._store.put(self._key(relative), file, use_multipart=True)
            else:
                # mapped: the system reads it from the disk as it is sent
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
                made = self._store.put(self._key(relative), content, mode=_choose_put_mode(before), use_multipart=False)
        return FileEntry(size, Version(str(made["e_tag"]), made["version"]), datetime.now(UTC))

    def _version(self, relative: str) -> Version | None:
        found = self.entry(relative)
        return None if found is None else found.version

    def _read(self, relative: str, version: Version, start: int, end: int) -> bytes:
        if start == end:
            return b""
        try:
            with self._translate_errors(relative):
                options: GetOptions = {"if_match": version.tag, "range": (start, end)}
                return self._store.get(self._key(relative), options=options).bytes().to_bytes()
        except FileNotFoundError:
            raise ChangedError(self.path(relative)) from None

    def _key(self, relative: str) -> str:
        return posixpath.join(self._prefix, relative).rstrip("/")

    @contextmanager
    def _translate_errors(self, relative: str) -> Iterator[None]:
        with translate_errors(self._bucket, self.path(relative)):
            yield


class CachedFiles(RemoteFiles):
    """The same files; each asset is listed once, at its first use, and read bytes are cached."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._listings: dict[str, dict[str, FileEntry]] = {}
        self._opened: dict[str, RemoteFile] = {}
        self._doubted: set[str] = set()

    def find(self, folder: str) -> Mapping[str, FileEntry]:
        """List every file below a folder, by its path."""
        asset = _find_asset_folder(f"{folder}/") if folder else None
        if asset is None:
            return super().find(folder)
        listing = self._listing(asset)
        return {path: entry for path, entry in listing.items() if path.startswith(f"{folder}/")}

    def entry(self, relative: str) -> FileEntry | None:
        """Look up a file; None if it does not exist."""
        asset = _find_asset_folder(relative)
        if asset is None:
            return super().entry(relative)
        if relative in self._doubted:
            self._remember(relative, super().entry(relative))
        return self._listing(asset).get(relative)

    def open(self, relative: str, version: Version | None = None) -> IO[bytes]:
        """Open a file; if it was replaced since it was listed, the new one."""
        asset = _find_asset_folder(relative)
        if asset is None:
            return super().open(relative, version)
        listed = None if relative in self._doubted else self._listing(asset).get(relative)
        if listed is None and relative not in self._doubted:
            raise FileNotFoundError(self.path(relative))
        known = self._opened.get(relative)
        if listed is None or known is None or known.entry.version.tag != listed.version.tag:
            known = self._open_now(relative, listed)
        if version is not None and version.tag != known.entry.version.tag:
            raise ChangedError(self.path(relative))
        read = partial(self._read, relative, known.entry.version)
        return cast("IO[bytes]", RemoteFile(known.entry, known.tail, read))

    def remove(self, relative: str) -> None:
        """Remove a file, if it exists."""
        if self.entry(relative) is not None:
            super().remove(relative)
            self._remember(relative, None)

    def invalidate(self, relative: str) -> None:
        """Look up a file again at its next use."""
        self._doubted.add(relative)

    def filesystem(self) -> RemoteFilesystem:
        """See `Folder.filesystem`."""
        return RemoteFilesystem(self, self.scheme)

    def copy_listings(self, other: CachedFiles) -> None:
        """Copy the listings of another instance that are missing here."""
        self._listings = {asset: dict(listing) for asset, listing in other._listings.items()} | self._listings

    def _put(self, relative: str, file: IO[bytes], before: ExpectedVersion) -> FileEntry:
        try:
            entry = super()._put(relative, file, before)
        except ChangedError:
            self.invalidate(relative)
            raise
        self._remember(relative, entry)
        return entry

    def _listing(self, asset: str) -> dict[str, FileEntry]:
        if asset not in self._listings:
            self._listings[asset] = dict(super().find(asset))
        return self._listings[asset]

    def _open_now(self, relative: str, listed: FileEntry | None) -> RemoteFile:
        try:
            opened = super().open(relative, None if listed is None else listed.version)
        except ChangedError:
            opened = super().open(relative)
        except FileNotFoundError:
            self._remember(relative, None)
            raise
        assert isinstance(opened, RemoteFile)
        self._remember(relative, opened.entry)
        if len(self._opened) >= _KEPT:
            self._opened.pop(next(iter(self._opened)), None)
        self._opened[relative] = opened
        return opened

    def _remember(self, relative: str, entry: FileEntry | None) -> None:
        """Update the cache: what a file is now, or that it does not exist."""
        asset = _find_asset_folder(relative)
        if asset in self._listings:
            self._listings[asset].pop(relative, None)
            self._listings[asset].update({} if entry is None else {relative: entry})
        self._opened.pop(relative, None)
        self._doubted.discard(relative)


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
