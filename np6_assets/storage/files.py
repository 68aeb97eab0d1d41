"""Files that appear whole or not at all, in a local folder or under any fsspec URL.

A local file has no name while it is written (Linux; elsewhere a hidden one): a process killed at any moment leaves the
old file or the new one. A remote one is uploaded under a hidden name and then moved.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import posixpath
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import fsspec
from fsspec.implementations.local import LocalFileSystem

_STALE_SECONDS = 24 * 3600

PRIVATE = 0o640
"""The mode of files with contact data."""


class Folder:
    """A root folder, local or remote. Paths below it are relative, with forward slashes."""

    def __init__(self, url: str) -> None:
        self.filesystem, self.root = fsspec.core.url_to_fs(url)
        self.is_local = isinstance(self.filesystem, LocalFileSystem)

    def path(self, relative: str) -> str:
        """The path of a file as the file system and a reader's error message know it."""
        return posixpath.join(self.root, relative)

    def exists(self, relative: str) -> bool:
        """Whether a file is there."""
        return bool(self.filesystem.exists(self.path(relative)))

    def open(self, relative: str) -> IO[bytes]:
        """A file, to be read."""
        file: IO[bytes] = self.filesystem.open(self.path(relative), "rb")
        return file

    def size(self, relative: str) -> int:
        """Size of a file in bytes."""
        return int(self.filesystem.size(self.path(relative)))

    def folders(self, relative: str) -> list[str]:
        """The names of the folders in a folder; none where there is no such folder."""
        path = self.path(relative)
        if not self.filesystem.isdir(path):
            return []
        listed = self.filesystem.ls(path, detail=True)
        return sorted(posixpath.basename(one["name"].rstrip("/")) for one in listed if one["type"] == "directory")

    def fingerprints(self, relative: str, name: str) -> dict[str, str]:
        """The files of that name in the folders of a folder, by folder: what tells each from the one that it replaces.

        From the listing alone, as it is now: no file is opened.
        """
        path = self.path(relative)
        if self.is_local:
            return dict(_local_fingerprints(Path(path), name))
        self.filesystem.invalidate_cache(path)
        found = self.filesystem.find(path, detail=True)
        files = {file: info for file, info in found.items() if posixpath.basename(file) == name}
        return {posixpath.basename(posixpath.dirname(file)): repr(sorted(info.items())) for file, info in files.items()}

    def left_behind(self, relative: str) -> list[str]:
        """The unfinished files that killed writers of a file left beside it."""
        folder, name = posixpath.split(relative)
        path = self.path(folder)
        if not self.filesystem.isdir(path):
            return []
        names = (posixpath.basename(one.rstrip("/")) for one in self.filesystem.ls(path, detail=False))
        return sorted(posixpath.join(folder, one) for one in names if _is_hidden(one, name))

    def remove(self, relative: str) -> None:
        """Remove a file, and its folder if that is empty then; nothing happens where there is none."""
        if self.exists(relative):
            self.filesystem.rm_file(self.path(relative))
        if self.is_local:
            with contextlib.suppress(OSError):
                Path(self.path(relative)).parent.rmdir()

    @contextmanager
    def alone(self, waits: Callable[[], None]) -> Iterator[None]:
        """Hold a local folder alone, among all on this machine that ask for that; `waits` is called before a wait.

        The system lets go of it when the process ends, however it ends. Nobody is kept out of a remote folder.
        """
        if not self.is_local:
            yield
            return
        Path(self.root).mkdir(parents=True, exist_ok=True)
        held = os.open(self.root, os.O_RDONLY)
        try:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waits()
                fcntl.flock(held, fcntl.LOCK_EX)
            yield
        finally:
            os.close(held)

    @contextmanager
    def replacing(self, relative: str, mode: int | None = None) -> Iterator[IO[bytes]]:
        """A file to write to, which takes the place of `relative` when the block ends without an error.

        A local file has the mode, whatever the umask; None: as the umask says.
        """
        target = self.path(relative)
        if not self.is_local:
            with self._replacing_remote(target) as file:
                yield file
            return
        with _replacing_local(Path(self.root), Path(target)) as file:
            if mode is not None:
                os.fchmod(file.fileno(), mode)
            yield file

    @contextmanager
    def _replacing_remote(self, target: str) -> Iterator[IO[bytes]]:
        with tempfile.TemporaryFile(prefix="np6-") as file:
            yield file
            file.flush()
            hidden = _hidden(target)
            self.filesystem.makedirs(posixpath.dirname(target), exist_ok=True)
            try:
                self.filesystem.put_file(f"/dev/fd/{file.fileno()}", hidden)
                self.filesystem.mv(hidden, target)
            except BaseException:
                with contextlib.suppress(Exception):  # the first error is the one to tell
                    self.filesystem.rm_file(hidden)
                raise


def _local_fingerprints(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as folders:
        for one in folders:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                found = Path(one.path, name).stat()
                yield one.name, f"{found.st_ino} {found.st_size} {found.st_mtime_ns}"


@contextmanager
def _replacing_local(root: Path, target: Path) -> Iterator[IO[bytes]]:
    root.mkdir(parents=True, exist_ok=True)
    hidden = Path(_hidden(str(target)))
    nameless = _nameless(root)
    if nameless is not None:
        with nameless as file:
            yield file
            _to_disk(file)
            target.parent.mkdir(parents=True, exist_ok=True)
            # naming a directory makes Python follow the link to the file that has no name (linkat)
            folder = os.open(target.parent, os.O_RDONLY)
            try:
                os.link(f"/proc/self/fd/{file.fileno()}", hidden.name, dst_dir_fd=folder, follow_symlinks=True)
            finally:
                os.close(folder)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with hidden.open("xb") as file:
                yield file
                _to_disk(file)
        except BaseException:
            hidden.unlink(missing_ok=True)
            raise
    hidden.replace(target)
    for parent in target.parents:  # each knows the one below it, which may be new
        _folder_to_disk(parent)
        if parent == root:
            break
    _sweep(target)


def _nameless(folder: Path) -> IO[bytes] | None:
    """A file without a name on the folder's file system; None where that is not to be had."""
    if not hasattr(os, "O_TMPFILE") or not Path("/proc/self/fd").is_dir():
        return None
    try:
        descriptor = os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666)
    except OSError:
        return None
    return os.fdopen(descriptor, "w+b")


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    """Make the names in a folder durable, so that a power cut does not bring back a file that was replaced."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hidden(target: str) -> str:
    """A name beside the target that readers pass over."""
    folder, name = posixpath.split(target)
    return posixpath.join(folder, f".{name}.{uuid.uuid4().hex}.tmp")


def _is_hidden(name: str, of: str) -> bool:
    return name.startswith(f".{of}.") and name.endswith(".tmp")


def _sweep(target: Path) -> None:
    """Remove what a process killed long ago left beside the target."""
    for left in target.parent.glob(f".{target.name}.*.tmp"):
        with contextlib.suppress(FileNotFoundError):
            if left.stat().st_mtime < time.time() - _STALE_SECONDS:
                left.unlink()
