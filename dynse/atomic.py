"""Files that are whole or absent: written beside their place, then renamed into it."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: str | os.PathLike[str], content: bytes | str) -> Path:
    """Writes a file so that a kill or a full disk leaves the old one, or none, but never a half.

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
