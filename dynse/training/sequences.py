"""Train a small net on whole sequences: Adam over shuffled epochs, the best epoch by validation.

    theta <- Adam(grad of loss(theta, rows of one batch)),     batches = permutation(seed, epoch)

An epoch is one jitted call: the data lies on the device, and the batches are gathered inside. The
loss is any function of (params, rows, *context), so one loop trains a float net, and fine-tunes a
quantised one whose bit widths are the context.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from rich.console import Console

from dynse.models.gru_classifier import last_valid
from dynse.progress import progress_bar


@dataclasses.dataclass(frozen=True)
class SequenceTraining:
    """How a net is trained on sequences.

    Attributes:
        epochs: passes over the training split.
        batch_size: sequences per step; what is left over at an epoch's end is not used in it.
        learning_rate: peak of the cosine schedule, which ends at a hundredth of it.
        weight_decay: decoupled, on matrices alone.
        input_noise: standard deviation of Gaussian noise on the standardised features.
        clip_norm: limit of the gradient's global norm.
    """

    epochs: int = 40
    batch_size: int = 32
    learning_rate: float = 4e-3
    weight_decay: float = 1e-2
    input_noise: float = 0.0
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs and batch_size must be positive, got {self}")

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of so many steps."""
        schedule = optax.cosine_decay_schedule(self.learning_rate, steps, alpha=0.01)

        def is_matrix(params: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)

        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(schedule, weight_decay=self.weight_decay, mask=is_matrix),
        )


def classification_loss(logits: jax.Array, lengths: jax.Array, labels: jax.Array) -> jax.Array:
    """Mean cross entropy of the last valid frame.

    Args:
        logits: (B, T, K).
        lengths: (B,) valid frames, at least 1.
        labels: (B,) in 0 to K - 1.
    """
    last = last_valid(logits, lengths)
    return optax.softmax_cross_entropy_with_integer_labels(last, labels).mean()


def gain_loss(gains: jax.Array, lengths: jax.Array, targets: jax.Array) -> jax.Array:
    """Mean squared error of the gains over valid frames.

    Args:
        gains: (B, T, K) in 0 to 1.
        lengths: (B,) valid frames.
        targets: (B, T, K), the ideal gains.
    """
    valid = jnp.arange(gains.shape[1]) < lengths[:, None]
    error = jnp.where(valid[..., None], jnp.square(gains - targets), 0)
    return error.sum() / (valid.sum() * gains.shape[-1])


class SequenceTrainer:
    """Trains with one loss on one data set, any number of times: all runs share two programs."""

    def __init__(
        self,
        loss: Callable[..., jax.Array],
        train: Any,
        valid: Any,
        config: SequenceTraining,
    ) -> None:
        """What is shared by all runs.

        Args:
            loss: (params, rows, *context) -> mean loss (); rows are a batch of `train`.
            train: pytree of arrays that share their first axis N; its first leaf, the features,
                gets the input noise.
            valid: the same for validation, scored at once.
            config: epochs and optimiser.

        Raises:
            ValueError: where there are fewer sequences than one batch.
        """
        count = jax.tree.leaves(train)[0].shape[0]
        batches = count // config.batch_size
        if batches == 0:
            raise ValueError(f"expected at least {config.batch_size} sequences, got {count}")
        self._train, self._valid, self._config = train, valid, config
        self._optimizer = config.build(config.epochs * batches)
        self._score = jax.jit(loss)

        @jax.jit
        def run_epoch(params, opt_state, key, train, context):
            order_key, noise_key = jax.random.split(key)
            order = jax.random.permutation(order_key, count)[: batches * config.batch_size]

            def step(carry, inputs):
                params, opt_state = carry
                index, key = inputs
                rows = jax.tree.map(lambda leaf: leaf[index], train)
                if config.input_noise:
                    rows = with_input_noise(rows, config.input_noise, key)
                value, gradient = jax.value_and_grad(loss)(params, rows, *context)
                updates, opt_state = self._optimizer.update(gradient, opt_state, params)
                return (optax.apply_updates(params, updates), opt_state), value

            inputs = order.reshape(batches, -1), jax.random.split(noise_key, batches)
            (params, opt_state), losses = jax.lax.scan(step, (params, opt_state), inputs)
            return params, opt_state, losses.mean()

        self._run_epoch = run_epoch

    def __call__(
        self,
        params: Any,
        *context: Any,
        seed: int,
        title: str = "train",
        console: Console | None = None,
    ) -> tuple[Any, list[dict[str, float]]]:
        """Train to the end.

        Args:
            params: the start.
            *context: further traced arguments of the loss.
            seed: of the order and the noise.
            title: name on the progress bar.
            console: where to draw it.

        Returns:
            The parameters of the epoch with the lowest validation loss (the start counts as
            epoch 0, so that training on never ends worse than it began), and one line per epoch:
            "epoch", "loss", "valid_loss".

        Raises:
            FloatingPointError: where the loss is not a number.
        """
        config = self._config
        opt_state = self._optimizer.init(params)
        best, best_loss = params, float(self._score(params, self._valid, *context))
        if not math.isfinite(best_loss):
            raise FloatingPointError(f"the validation loss of the start is {best_loss}")
        lines = [{"epoch": 0, "valid_loss": best_loss}]
        with progress_bar(console) as progress:
            bar = progress.add_task(title, total=config.epochs, status="compiling")
            for epoch in range(1, config.epochs + 1):
                key = jax.random.fold_in(jax.random.key(seed), epoch)
                params, opt_state, mean = self._run_epoch(
                    params, opt_state, key, self._train, context
                )
                valid_loss = float(self._score(params, self._valid, *context))
                if not math.isfinite(float(mean)):
                    raise FloatingPointError(
                        f"the loss of epoch {epoch} is {float(mean)}: a lower learning_rate than "
                        f"{config.learning_rate} helps"
                    )
                lines.append({"epoch": epoch, "loss": float(mean), "valid_loss": valid_loss})
                if valid_loss < best_loss:
                    best, best_loss = params, valid_loss
                status = f"loss {float(mean):.4f}  valid {valid_loss:.4f}"
                progress.update(bar, completed=epoch, status=status)
        return best, lines


def with_input_noise(rows: Any, scale: float, key: jax.Array) -> Any:
    """Rows with Gaussian noise on their first leaf, the features."""
    leaves, structure = jax.tree.flatten(rows)
    noise = scale * jax.random.normal(key, leaves[0].shape)
    return jax.tree.unflatten(structure, [leaves[0] + noise, *leaves[1:]])
