"""What every experiment does first: memory, precision, compiled programs, devices."""

from __future__ import annotations

import os
import pathlib

import jax
from rich.console import Console

from dynse.data.bank import default_cache_dir
from dynse.training.memory import keep_freed_memory

NVIDIA = pathlib.Path("/proc/driver/nvidia")


def start_experiment(cache_dir: str | os.PathLike[str] | None = None) -> Console:
    """Set JAX up and print the devices; to be called before anything is computed.

    Freed memory stays in the process, float32 matmuls are float32 on accelerators too, and
    compiled programs are kept in the cache, so that what resumes does not compile again.

    Args:
        cache_dir: where caches are; the default place if None.

    Returns:
        The console to print and to draw progress on.
    """
    keep_freed_memory()
    jax.config.update("jax_default_matmul_precision", "float32")
    cache = pathlib.Path(cache_dir) if cache_dir is not None else default_cache_dir()
    jax.config.update("jax_compilation_cache_dir", str(cache / "programs"))
    console = Console()
    devices = jax.devices()
    console.print(f"devices: {', '.join(str(device) for device in devices)}")
    if devices[0].platform == "cpu" and NVIDIA.exists():
        console.print("An NVIDIA GPU is here but JAX does not use it: pip install 'jax[cuda13]'")
    return console
