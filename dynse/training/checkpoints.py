"""Checkpoints of a run, best and last, by Orbax: whole or not there.

    RUN/checkpoints/last/<step>    the newest, from which a run resumes
    RUN/checkpoints/best/<step>    the one with the lowest validation loss

Orbax writes beside and renames; what a kill left half written is removed at the next start.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import orbax.checkpoint as ocp


class CheckpointError(ValueError):
    """A checkpoint that is missing, damaged, or of another network."""


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run_dir: str | pathlib.Path) -> None:
        root = pathlib.Path(run_dir).resolve() / "checkpoints"
        options = ocp.CheckpointManagerOptions(
            max_to_keep=1, enable_async_checkpointing=False, cleanup_tmp_directories=True
        )
        self._managers = {
            name: ocp.CheckpointManager(root / name, options=options) for name in ("last", "best")
        }
        self._root = root

    def save(self, name: str, step: int, state: Any) -> None:
        """Save a state as "last" or "best"; a step that is there already is left alone."""
        manager = self._managers[name]
        if manager.latest_step() != step:
            manager.save(step, args=ocp.args.StandardSave(state), force=True)

    def step(self, name: str) -> int | None:
        """Step of the newest "last" or "best", None where there is none."""
        return self._managers[name].latest_step()

    def restore(self, name: str, like: Any) -> Any:
        """The newest "last" or "best" state.

        Args:
            name: "last" or "best".
            like: a state of the same structure, shapes and dtypes.

        Raises:
            CheckpointError: where there is none, or it does not fit `like`.
        """
        manager = self._managers[name]
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f"no {name} checkpoint in {self._root}")
        abstract = jax.tree.map(_abstract, like)
        try:
            state = manager.restore(step, args=ocp.args.StandardRestore(abstract))
        except Exception as error:  # Orbax raises many kinds for damage and for a wrong structure
            raise CheckpointError(
                f"the {name} checkpoint of step {step} in {self._root} does not fit this network: "
                f"{str(error).splitlines()[0] if str(error) else type(error).__name__}"
            ) from error
        _check_shapes(state, like, f"the {name} checkpoint of step {step} in {self._root}")
        return state

    def close(self) -> None:
        """Release Orbax's threads."""
        for manager in self._managers.values():
            manager.close()


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    """Where an array shall lie: as `like`, else on one device, wherever it was saved from."""
    sharding = getattr(leaf, "sharding", None)
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _check_shapes(state: Any, like: Any, what: str) -> None:
    for (path, leaf), expected in zip(
        jax.tree_util.tree_leaves_with_path(state), jax.tree.leaves(like), strict=True
    ):
        if leaf.shape != expected.shape or leaf.dtype != expected.dtype:
            raise CheckpointError(
                f"{what} has {jax.tree_util.keystr(path)} of {leaf.shape} {leaf.dtype}, "
                f"expected {expected.shape} {expected.dtype}"
            )
