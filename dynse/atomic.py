"""Files that are whole or absent, and folders that one process at a time works in."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def alone_in(directory: str | os.PathLike[str]) -> Iterator[None]:
    """Keeps other processes that ask the same out of a folder, until it ends or is killed.

    Args:
        directory: a folder that exists. The lock is the kernel's, on the folder itself: it leaves
            no file.

    Raises:
        BlockingIOError: another process is in there. Not on a file system that knows no locks.
    """
    folder = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, "another process is at work there: wait for it", str(directory)
            ) from None
        except OSError:
            pass  # some network file systems lock no folders
        yield
    finally:
        os.close(folder)


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Writes a file so that a kill or a full disk leaves the old one, or none, but never a half.

    It is written beside its place, then renamed into it.

    Args:
        path: where to; missing folders are made.
        content: text is written as UTF-8.

    Returns:
        The path.

    Raises:
        OSError: the file cannot be written; names the file and its bytes.
    """
    path = Path(path)
    data = content.encode("utf-8") if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot write {len(data)} bytes: {error.strerror}", str(path)
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return path
