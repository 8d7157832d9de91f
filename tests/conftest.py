"""Settings of every test.

Accelerators multiply float32 matrices in a lower precision unless told not to; the tests compare
to 1e-5. Set through the environment, so that processes which a test starts have it as well.
"""

import os

os.environ.setdefault("JAX_DEFAULT_MATMUL_PRECISION", "float32")
# A newcomer's machine may have an accelerator: do not take all its memory for small tests.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def pytest_configure(config):
    """A plugin may have imported jax before this file: then only its own setting counts."""
    import jax

    jax.config.update("jax_default_matmul_precision", "float32")
