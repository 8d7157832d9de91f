"""Settings of every test.

Accelerators multiply float32 matrices in a lower precision unless told not to; the tests compare
to 1e-5. Set through the environment, so that processes which a test starts have it as well.
"""

import os
import pathlib

import pytest

os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "float32")
# Most of the time goes into compiling, and several tests, processes and workers need the same
# programs: each is compiled once and kept for the next time.
_PROGRAMS = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "programs"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_PROGRAMS))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
# A newcomer's machine may have an accelerator: do not take all its memory for small tests.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def pytest_configure(config):
    """A plugin may have imported jax before this file: then only its own setting counts."""
    import jax

    jax.config.update("jax_default_matmul_precision", "float32")


@pytest.fixture(scope="module")
def quick_programs():
    """Programs of this module are compiled with few optimisations: half the time to compile.

    For tests of whole runs, where compiling is most of the time and nothing depends on speed.
    """
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
