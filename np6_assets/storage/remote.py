"""Files in an object store, by obstore. A finished file is one request that puts it in its place."""

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

from np6_assets.storage.bucket import open_bucket, plain_errors
from np6_assets.storage.files import ANYTHING, Before, ChangedError, Entry, Version
from np6_assets.storage.remote_file import TAIL_BYTES, RemoteFile
from np6_assets.storage.remote_filesystem import RemoteFilesystem

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta, PutMode, UpdateVersion
    from obstore.store import ObjectStore

_PUT_AT_ONCE = 5 * 2**30
"""Up to this size a store takes a file in one request, and so under a condition."""

_KEPT = 256
"""Files of which what was read as they were opened is kept: 32 MiB at most."""


class RemoteFiles:
    """The files below an address; see `files.Files`. Each look asks the store."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._url = url.rstrip("/")
        self.scheme = parts.scheme
        self._bucket = f"{parts.scheme}://{parts.netloc}"
        place = (parts.netloc, parts.path) if parts.scheme == "memory" else (parts.path,)
        self._prefix = "/".join(one.strip("/") for one in place).strip("/")
        self._store: ObjectStore = open_bucket(url)

    def path(self, relative: str) -> str:
        """The address of a file."""
        return f"{self._url}/{relative}" if relative else self._url

    def relative(self, address: str) -> str:
        """The path of a file of that address."""
        return address.removeprefix(self._url).strip("/")

    def listed(self) -> ListedFiles:
        """The same files, as a listing that is made now has them."""
        return ListedFiles(self._url)

    def find(self, folder: str) -> Mapping[str, Entry]:
        """Every file below a folder, by its path: a request a thousand."""
        with self._errors(folder):
            pages = list(self._store.list(self._key(folder)))
        at = len(self._key("")) + 1 if self._prefix else 0
        return {one["path"][at:]: _entry(one) for page in pages for one in page}

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder."""
        depth = len(folder.split("/")) if folder else 0
        parts = (path.split("/") for path in self.find(folder))
        return list({one[depth] for one in parts if len(one) > depth + 1})

    def entry(self, relative: str) -> Entry | None:
        """A file; None where there is none."""
        try:
            with self._errors(relative):
                return _entry(self._store.head(self._key(relative)))
        except FileNotFoundError:
            return None

    def open(self, relative: str, version: Version | None = None) -> IO[bytes]:
        """A file, to be read; its end is read at once. Reading it raises ChangedError once it was replaced."""
        options: GetOptions = {} if version is None else {"if_match": version.tag}
        with self._errors(relative):
            try:
                got = self._store.get(self._key(relative), options={**options, "range": {"suffix": TAIL_BYTES}})
                entry, tail = _entry(got.meta), got.bytes().to_bytes()
            except BaseError as error:
                if not _reads_no_ends(error):
                    raise
                entry = _entry(self._store.head(self._key(relative)))
                tail = self._read(relative, version or entry.version, max(entry.size - TAIL_BYTES, 0), entry.size)
        return cast("IO[bytes]", RemoteFile(entry, tail, partial(self._read, relative, entry.version)))

    def version(self, file: IO[bytes]) -> Version:
        """The version of a file that was opened."""
        assert isinstance(file, RemoteFile)
        return file.entry.version

    def remove(self, relative: str) -> None:
        """Remove a file, if there is one."""
        with self._errors(relative):
            self._store.delete(self._key(relative))

    @contextmanager
    def alone(self, _who: str, _say: Callable[[str], None]) -> Iterator[None]:
        """Nobody is kept out: who writes says what was there before."""
        yield

    def doubt(self, relative: str) -> None:
        """Nothing is remembered."""

    def filesystem(self) -> RemoteFilesystem:
        """See `Folder.filesystem`."""
        return self.listed().filesystem()

    @contextmanager
    def replacing(self, relative: str, _mode: int | None, before: Before) -> Iterator[IO[bytes]]:
        """See `Folder.replacing`."""
        with tempfile.TemporaryFile(prefix="np6-") as file:
            yield file
            file.flush()
            self._put(relative, file, before)

    def _put(self, relative: str, file: IO[bytes], before: Before) -> Entry:
        size = os.fstat(file.fileno()).st_size
        with self._errors(relative):
            if size > _PUT_AT_ONCE:  # in parts, of which the last request makes the file, and without a condition
                if before is not ANYTHING and self._version(relative) != before:
                    raise ChangedError(self.path(relative))
                file.seek(0)
                made = self._store.put(self._key(relative), file, use_multipart=True)
            else:
                # mapped: the system reads it from the disk as it is sent
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
                made = self._store.put(self._key(relative), content, mode=_mode_of(before), use_multipart=False)
        return Entry(size, Version(str(made["e_tag"]), made["version"]), datetime.now(UTC))

    def _version(self, relative: str) -> Version | None:
        found = self.entry(relative)
        return None if found is None else found.version

    def _read(self, relative: str, version: Version, start: int, end: int) -> bytes:
        if start == end:
            return b""
        try:
            with self._errors(relative):
                options: GetOptions = {"if_match": version.tag, "range": (start, end)}
                return self._store.get(self._key(relative), options=options).bytes().to_bytes()
        except FileNotFoundError:
            raise ChangedError(self.path(relative)) from None

    def _key(self, relative: str) -> str:
        return posixpath.join(self._prefix, relative).rstrip("/")

    @contextmanager
    def _errors(self, relative: str) -> Iterator[None]:
        with plain_errors(self._bucket, self.path(relative)):
            yield


class ListedFiles(RemoteFiles):
    """The same, each asset listed once, when it is asked for first. What was read as a file was opened is kept."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._listings: dict[str, dict[str, Entry]] = {}
        self._opened: dict[str, RemoteFile] = {}
        self._doubted: set[str] = set()

    def find(self, folder: str) -> Mapping[str, Entry]:
        """Every file below a folder, by its path."""
        asset = _asset_of(f"{folder}/") if folder else None
        if asset is None:
            return super().find(folder)
        listing = self._listing(asset)
        return {path: entry for path, entry in listing.items() if path.startswith(f"{folder}/")}

    def entry(self, relative: str) -> Entry | None:
        """A file; None where there is none."""
        asset = _asset_of(relative)
        if asset is None:
            return super().entry(relative)
        if relative in self._doubted:
            self._know(relative, super().entry(relative))
        return self._listing(asset).get(relative)

    def open(self, relative: str, version: Version | None = None) -> IO[bytes]:
        """A file, to be read: as it is now, where it was replaced since it was listed."""
        asset = _asset_of(relative)
        if asset is None:
            return super().open(relative, version)
        listed = None if relative in self._doubted else self._listing(asset).get(relative)
        if listed is None and relative not in self._doubted:
            raise FileNotFoundError(self.path(relative))
        known = self._opened.get(relative)
        if listed is None or known is None or known.entry.version.tag != listed.version.tag:
            known = self._opened_now(relative, listed)
        if version is not None and version.tag != known.entry.version.tag:
            raise ChangedError(self.path(relative))
        read = partial(self._read, relative, known.entry.version)
        return cast("IO[bytes]", RemoteFile(known.entry, known.tail, read))

    def remove(self, relative: str) -> None:
        """Remove a file, if there is one."""
        if self.entry(relative) is not None:
            super().remove(relative)
            self._know(relative, None)

    def doubt(self, relative: str) -> None:
        """Look anew at a file when it is asked for next."""
        self._doubted.add(relative)

    def filesystem(self) -> RemoteFilesystem:
        """See `Folder.filesystem`."""
        return RemoteFilesystem(self, self.scheme)

    def adopt(self, other: ListedFiles) -> None:
        """Take over what another one has listed that is not listed here."""
        self._listings = {asset: dict(listing) for asset, listing in other._listings.items()} | self._listings

    def _put(self, relative: str, file: IO[bytes], before: Before) -> Entry:
        try:
            entry = super()._put(relative, file, before)
        except ChangedError:
            self.doubt(relative)
            raise
        self._know(relative, entry)
        return entry

    def _listing(self, asset: str) -> dict[str, Entry]:
        if asset not in self._listings:
            self._listings[asset] = dict(super().find(asset))
        return self._listings[asset]

    def _opened_now(self, relative: str, listed: Entry | None) -> RemoteFile:
        try:
            opened = super().open(relative, None if listed is None else listed.version)
        except ChangedError:
            opened = super().open(relative)
        except FileNotFoundError:
            self._know(relative, None)
            raise
        assert isinstance(opened, RemoteFile)
        self._know(relative, opened.entry)
        if len(self._opened) >= _KEPT:
            self._opened.pop(next(iter(self._opened)), None)
        self._opened[relative] = opened
        return opened

    def _know(self, relative: str, entry: Entry | None) -> None:
        """Remember what a file is now, or that there is none."""
        asset = _asset_of(relative)
        if asset in self._listings:
            self._listings[asset].pop(relative, None)
            self._listings[asset].update({} if entry is None else {relative: entry})
        self._opened.pop(relative, None)
        self._doubted.discard(relative)


def _asset_of(relative: str) -> str | None:
    """The folder of the asset that a file is of, or of one of its partitions; None of a file that stands alone."""
    parent, last = posixpath.split(posixpath.dirname(relative))
    asset = parent if "=" in last else posixpath.join(parent, last)
    return None if not asset or asset.startswith(".") else asset


def _entry(meta: ObjectMeta) -> Entry:
    return Entry(meta["size"], Version(str(meta["e_tag"]), meta["version"]), meta["last_modified"])


def _mode_of(before: Before) -> PutMode:
    if not isinstance(before, Version):
        return "create" if before is None else "overwrite"
    update: UpdateVersion = {"e_tag": before.tag}
    if before.generation is not None:  # Google compares this one
        update["version"] = before.generation
    return update


def _reads_no_ends(error: BaseError) -> bool:
    """Whether a store reads no last bytes: Azure, and others of an empty file."""
    return isinstance(error, NotSupportedError) or "non-partial" in str(error) or "416" in str(error)
