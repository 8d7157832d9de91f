"""The progress bar of all that takes long: name, bar, count, a line of figures, time left."""

from __future__ import annotations

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


def progress_bar(console: Console | None = None) -> Progress:
    """A bar whose tasks have a `status`, a short text: `add_task(title, total=n, status="...")`.

    Args:
        console: where to draw it; None: the standard output.
    """
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TextColumn("{task.fields[status]}"),
        TimeRemainingColumn(),
        console=console,
    )
