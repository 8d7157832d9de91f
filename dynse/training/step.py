"""One train step: mix a batch, enhance it, differentiate, update. Jitted and donated.

    loss = spectral loss(enhanced, clean) + extra loss(aux)

or, in place of the spectral loss, the squared error of the network's output to its own target. With
a teacher the clean signal is in part replaced by what the teacher makes of the noisy one:

    loss = (1 - w) spectral loss(enhanced, clean) + w spectral loss(enhanced, taught) + extra loss

The step is a pure function of the state and the step's crops: every random draw, of the crops too,
comes from the seed folded with the step's number, so a run that is resumed from a checkpoint goes
on bit for bit as if it had not stopped.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dynse.audio.sdr import si_sdr
from dynse.audio.stft import STFT
from dynse.data.mixing import Batch, Crops, MixingConfig, mix_crops
from dynse.exits import joint_loss
from dynse.gating import kept_fraction
from dynse.models.waveform import signal_path
from dynse.training.losses import compressed_spectral_loss, squared_error
from dynse.training.mesh import split

# (enhanced (B, N), clean (B, N), stft=) -> (B,); None is the squared error of a network's output to
# the network's own target.
Loss = Callable[..., jax.Array] | None

# JAX's "bfloat16" leaves it to the device what it does; this names the algorithm.
MATMULS = {"float32": "float32", "bfloat16": "BF16_BF16_F32"}
# A gradient this large for this many steps on end is a run that will not come back.
DIVERGED_NORM = 1e3
DIVERGED_STEPS = 20


class TrainState(NamedTuple):
    """All that a run carries from step to step.

    Attributes:
        step: () int32, steps done.
        params: the network's parameters.
        batch_stats: its running statistics.
        opt_state: the optimiser's.
        extra: the extra loss's own state.
        wild_steps: () int32, steps on end whose gradient norm was above 1e3 or not a number;
            stays once it has reached 20.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    extra: Any
    wild_steps: jax.Array


class ExtraLoss(Protocol):
    """A further loss on what the network tells beside its output, with a state of its own.

    In the place of the gains of a network's exits, the last one's aside, it is given their losses.
    """

    def init(self) -> Any:
        """State before the first step."""

    def forward_options(self, step: jax.Array) -> dict[str, Any]:
        """Keyword arguments for the network's `apply` in this step."""

    def __call__(
        self, state: Any, aux: Any, batch: Batch, step: jax.Array
    ) -> tuple[jax.Array, Any, dict[str, jax.Array]]:
        """Loss (), next state and metrics."""


class Teacher(NamedTuple):
    """A trained network that another one learns from.

    Attributes:
        model: the network, of the same kind of input and output.
        variables: its variables.
        weight: w, of the loss against its output, 0 to 1. That output then sets the loss' own level
            and active frames.
    """

    model: Any
    variables: Any
    weight: float


class NoExtraLoss:
    """Nothing beside the spectral loss."""

    def init(self) -> tuple[()]:
        return ()

    def forward_options(self, step: jax.Array) -> dict[str, Any]:
        return {}

    def __call__(self, state, aux, batch, step):
        return jnp.zeros(()), state, {}


@dataclasses.dataclass(frozen=True)
class AMSGradConfig:
    """AMSGrad with a learning rate that falls in steps; the recipe of Tan and Wang.

    Attributes:
        learning_rate: at the start.
        decay: what it is multiplied with.
        decays: how often in a run; the recipe's 30 epochs have one every two.
        clip_norm: limit of the gradient's global norm, a regulariser's too; published of the GCRN.
    """

    learning_rate: float = 1e-3
    decay: float = 0.98
    decays: int = 15
    clip_norm: float = 5.0
    kind: Literal["amsgrad"] = "amsgrad"

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of so many steps."""
        interval = max(1, -(-steps // self.decays))
        schedule = optax.exponential_decay(self.learning_rate, interval, self.decay, staircase=True)
        return optax.chain(optax.clip_by_global_norm(self.clip_norm), optax.amsgrad(schedule))


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW with a cosine schedule; the published recipe of the static net.

    Attributes:
        learning_rate: peak.
        final_learning_rate: at the last step.
        warmup_steps: linear rise before the peak.
        weight_decay: decoupled, on matrices and taps alone (not published; PyTorch's default).
        clip_norm: limit of the gradient's global norm.
    """

    learning_rate: float = 8e-4
    final_learning_rate: float = 1e-5
    warmup_steps: int = 0
    weight_decay: float = 0.01
    clip_norm: float = 5.0

    def build(self, steps: int) -> optax.GradientTransformation:
        """The optimiser for a run of so many steps."""
        schedule = optax.warmup_cosine_decay_schedule(
            init_value=self.learning_rate if self.warmup_steps == 0 else 0.0,
            peak_value=self.learning_rate,
            warmup_steps=self.warmup_steps,
            decay_steps=max(steps, self.warmup_steps + 1),
            end_value=self.final_learning_rate,
        )

        def is_weight(params: Any) -> Any:
            return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)

        return optax.chain(
            optax.clip_by_global_norm(self.clip_norm),
            optax.adamw(schedule, b1=0.9, b2=0.999, weight_decay=self.weight_decay, mask=is_weight),
        )


def init_train_state(
    model: Any,
    optimizer: optax.GradientTransformation,
    extra_loss: ExtraLoss,
    *,
    seed: int,
) -> TrainState:
    """State before the first step.

    Args:
        model: the network.
        optimizer: from `OptimizerConfig.build`.
        extra_loss: the further loss.
        seed: of the parameters.
    """
    frames = jnp.zeros((1, 1, *signal_path(model).frame_shape))
    # Compiled as one program: op by op, an initialisation takes many times as long.
    variables = jax.jit(model.init)(jax.random.key(seed), frames)
    initial = variables["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=initial,
        batch_stats=variables.get("batch_stats", {}),
        opt_state=optimizer.init(initial),
        extra=extra_loss.init(),
        wild_steps=jnp.zeros((), jnp.int32),
    )


def make_train_step(
    model: Any,
    optimizer: optax.GradientTransformation,
    extra_loss: ExtraLoss,
    mixing: MixingConfig,
    stft: STFT,
    *,
    seed: int,
    phase: int = 0,
    loss: Loss = compressed_spectral_loss,
    teacher: Teacher | None = None,
    matmul: Literal["float32", "bfloat16"] = "float32",
    mesh: Mesh | None = None,
) -> Callable[[TrainState, Crops, Crops], tuple[TrainState, dict[str, jax.Array]]]:
    """The jitted step (state, speech, noise) -> (state, metrics); the state is donated.

    The crops are those of the step's `batch_key`. Metrics: "loss" (against the clean signal,
    without the extra one), "taught" (against the teacher's, where there is one), "grad_norm" before
    clipping, and those of the extra loss. Matmuls and convolutions, also of the
    gradient, multiply in float32 or bfloat16 where the device can, and add in float32. The devices
    of a mesh share the batch; the state lies `on_each`.
    """
    if teacher is not None and not 0 <= teacher.weight <= 1:
        raise ValueError(f"a teacher's weight must lie in 0 to 1, got {teacher.weight}")
    noise_key = _run_keys(seed, phase)[1]

    def objective(params, state: TrainState, batch: Batch):
        path = signal_path(model)
        frames = path.transform(stft).forward(batch.noisy)
        (_, output, aux), updated = model.apply(
            {"params": params, "batch_stats": state.batch_stats},
            path.inputs(frames),
            train=True,
            mutable=["batch_stats"],
            key=jax.random.fold_in(noise_key, state.step),
            **extra_loss.forward_options(state.step),
        )
        batch_stats = updated.get("batch_stats", {})

        taught = None
        if teacher is not None:
            heard = teacher.model.apply(teacher.variables, path.inputs(frames))[1]
            transform = path.transform(stft)
            taught = batch._replace(
                clean=transform.inverse(path.estimate(frames, heard), batch.noisy.shape[1])
            )

        def output_loss(output, against=batch):
            return _utterance_losses(model, stft, loss, against, frames, output).mean()

        spectral, told = output_loss(output), {}
        total = spectral
        if taught is not None:
            told = {"taught": output_loss(output, taught)}
            total = (1 - teacher.weight) * spectral + teacher.weight * told["taught"]
        if getattr(aux, "exits", ()):
            aux = aux._replace(exits=tuple(map(output_loss, aux.exits[:-1])))
        extra, extra_state, metrics = extra_loss(state.extra, aux, batch, state.step)
        return total + extra, (batch_stats, extra_state, {"loss": spectral, **told, **metrics})

    def step(state: TrainState, speech: Crops, noise: Crops):
        key = batch_key(state.step, seed=seed, phase=phase)
        batch = split(mesh, mix_crops(speech, noise, key, mixing))
        with jax.default_matmul_precision(MATMULS[matmul]):
            gradient, (batch_stats, extra, metrics) = jax.grad(objective, has_aux=True)(
                state.params, state, batch
            )
        norm = optax.tree.norm(gradient)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        wild = ~(norm <= DIVERGED_NORM)  # a NaN is wild as well
        wild_steps = jnp.where(wild | (state.wild_steps >= DIVERGED_STEPS), state.wild_steps + 1, 0)
        new_state = TrainState(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            batch_stats=batch_stats,
            opt_state=opt_state,
            extra=extra,
            wild_steps=wild_steps,
        )
        return new_state, {**metrics, "grad_norm": norm, "wild_steps": wild_steps}

    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
    return jax.jit(step, donate_argnums=0, out_shardings=everywhere)


def batch_key(step: jax.Array, *, seed: int, phase: int = 0) -> jax.Array:
    """The key of a step's batch; each phase of a training in several has batches of its own."""
    return jax.random.fold_in(_run_keys(seed, phase)[0], step)


def _run_keys(seed: int, phase: int) -> jax.Array:
    """Of the batches, and of what the network draws."""
    key = jax.random.fold_in(jax.random.key(seed), 1)
    return jax.random.split(jax.random.fold_in(key, phase) if phase else key)


def make_validation(
    model: Any,
    mixing: MixingConfig,
    stft: STFT,
    *,
    seed: int,
    batches: int,
    loss: Loss = compressed_spectral_loss,
    weights: Sequence[float] = (1.0,),
    mesh: Mesh | None = None,
) -> Callable[[TrainState, Callable[[int], tuple[Crops, Crops]]], dict[str, float]]:
    """Mean loss, SI-SDR in dB and kept fraction over fixed batches of the validation split.

    It is given a state and the crops of speech and noise by the number of their batch, drawn by
    its `validation_key`.

    Of a network with several exits, whose losses have these weights, "loss" is their weighted sum,
    "loss_exit0", "loss_exit1", ... are those of each; the SI-SDR is the last one's.
    """
    path = signal_path(model)
    transform = path.transform(stft)

    @jax.jit
    def score(params, batch_stats, speech: Crops, noise: Crops, index: jax.Array):
        key = validation_key(index, seed=seed)
        batch = split(mesh, mix_crops(speech, noise, key, mixing))
        frames = transform.forward(batch.noisy)
        variables = {"params": params, "batch_stats": batch_stats}
        _, output, aux = model.apply(variables, path.inputs(frames))
        enhanced = transform.inverse(path.estimate(frames, output), batch.noisy.shape[1])
        sdr = si_sdr(enhanced, batch.clean)
        gates = getattr(aux, "gates", ())

        def output_loss(output):
            return _utterance_losses(model, stft, loss, batch, frames, output).mean()

        scores = {
            "loss": output_loss(output),
            "si_sdr_db": jnp.nanmean(sdr),
            "kept": kept_fraction(gates) if gates else jnp.ones(()),
        }
        if len(weights) == 1:
            return scores
        losses = [output_loss(exit_) for exit_ in aux.exits]
        by_exit = {f"loss_exit{index}": value for index, value in enumerate(losses)}
        return {**scores, "loss": joint_loss(losses, weights), **by_exit}

    def validate(
        state: TrainState, crops: Callable[[int], tuple[Crops, Crops]]
    ) -> dict[str, float]:
        scores = [
            score(state.params, state.batch_stats, *crops(index), index) for index in range(batches)
        ]
        return {
            name: float(sum(float(one[name]) for one in scores) / batches) for name in scores[0]
        }

    return validate


def validation_key(index: jax.Array, *, seed: int) -> jax.Array:
    """The key of one of the fixed batches of the validation split."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), index)


def batch_loss(
    model: Any, variables: Any, batch: Batch, stft: STFT, loss: Loss = compressed_spectral_loss
) -> jax.Array:
    """The loss () of a network at inference on one batch."""
    path = signal_path(model)
    frames = path.transform(stft).forward(batch.noisy)
    output = model.apply(variables, path.inputs(frames))[1]
    return _utterance_losses(model, stft, loss, batch, frames, output).mean()


def _utterance_losses(model, stft, loss, batch, frames, output):
    """(B,), of a network's output for the frames of the noisy signal."""
    path = signal_path(model)
    transform = path.transform(stft)
    if loss is None:
        return squared_error(output, model.target(transform.forward(batch.clean), frames))
    enhanced = transform.inverse(path.estimate(frames, output), batch.noisy.shape[1])
    return loss(enhanced, batch.clean, stft=stft)
