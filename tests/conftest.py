"""Settings of every test.

Accelerators multiply float32 matrices in a lower precision unless told not to; the tests compare
to 1e-5. Set through the environment, so that processes which a test starts have it as well.
"""

import os
import pathlib

os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "float32")
# Most of the time goes into compiling, and several tests, processes and workers need the same
# programs: each is compiled once and kept for the next time.
_PROGRAMS = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "programs"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# No test depends on speed, and with few optimisations compiling takes half the time. Set to false,
# the suite runs the programs that users run.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "true")
# XLA's newer emitters of fused loops for CPUs take three times as long to compile a train step.
os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_cpu_use_fusion_emitters=false"
# A newcomer's machine may have an accelerator: do not take all its memory for small tests.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def pytest_configure(config):
    """A plugin may have imported jax before this file: then only its own setting counts."""
    import jax

    jax.config.update("jax_default_matmul_precision", "float32")
    quick = os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"].lower() in ("1", "true")
    jax.config.update("jax_disable_most_optimizations", quick)
