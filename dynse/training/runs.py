"""A run: one network, trained in one folder, described by one frozen configuration.

`train_run` trains it or goes on where it stopped; `load_run` gives the finished network back.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console

from dynse.audio.features import magnitude
from dynse.audio.stft import STFT
from dynse.data.augmentation import Augmentation
from dynse.data.bank import Corpus
from dynse.data.mixing import Crops, HostSource, MixingConfig, Source, load_source, mix_crops
from dynse.data.pitch import bank_pitch
from dynse.models.controlled import GateControl
from dynse.models.conv_fsenet import GateConfig
from dynse.models.nsnet2 import feature_statistics
from dynse.training.checkpoints import CheckpointError, Checkpoints
from dynse.training.crops import CropDraw
from dynse.training.exits import freeze
from dynse.training.gates import GateTraining
from dynse.training.loop import LoopConfig, train
from dynse.training.losses import compressed_spectral_loss, waveform_loss
from dynse.training.mesh import batch_mesh, on_each, on_one
from dynse.training.nets import NETS, ConvFSENetConfig, NetConfig, NsNet2Config
from dynse.training.probes import ProbeTraining
from dynse.training.step import (
    AMSGradConfig,
    Loss,
    OptimizerConfig,
    Teacher,
    TrainState,
    batch_key,
    init_train_state,
    make_train_step,
    make_validation,
    validation_key,
)

Around = Callable[[optax.GradientTransformation], optax.GradientTransformation]


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """All that decides what a run ends with, but for the corpus.

    Attributes:
        net: the network.
        stft: the transform.
        mixing: the batches.
        optimizer: AdamW or AMSGrad, and its schedule.
        loop: steps and intervals.
        valid_batches: fixed batches of the validation split that a validation scores.
        active_threshold: e_t above which a frame is active in the loss; None for our rule.
        waveform_weight: weight per dB of `waveform_loss`, beside the published loss; ours, for
            runs of minutes: the compressed spectrum alone is slow to leave loud speech intact.
        matmul: what matmuls and convolutions of a train step multiply in, "float32" or "bfloat16",
            on devices that can; sums are float32, gates decide in float32, validation is float32.
        loss: "spectral", these two, or "target", the squared error of the network's output to its
            own target, of a network that has one.
        seed: of parameters, batches and noise.
    """

    net: NetConfig = ConvFSENetConfig()
    stft: STFT = STFT()
    mixing: MixingConfig = MixingConfig()
    optimizer: OptimizerConfig | AMSGradConfig = OptimizerConfig()
    loop: LoopConfig = LoopConfig()
    valid_batches: int = 8
    active_threshold: float | None = None
    waveform_weight: float = 0.0
    loss: Literal["spectral", "target"] = "spectral"
    matmul: Literal["float32", "bfloat16"] = "float32"
    seed: int = 0

    @property
    def valid_mixing(self) -> MixingConfig:
        """The batches of a validation: without augmentation."""
        return dataclasses.replace(self.mixing, augmentation=None)

    @property
    def best_from_step(self) -> int:
        """Of a gated net the best state is looked for in the last quarter: gates keep to a budget.

        Of other nets anywhere, and in a run that may stop before.
        """
        gated = getattr(self.net, "gate_training", None) is not None
        return 3 * self.loop.steps // 4 if gated and not self.loop.patience else 0


def new_state(config: RunConfig, *, around: Around | None = None) -> TrainState:
    """The state before the first step; `around` as for `train_run`."""
    return init_train_state(
        config.net.build(config.stft.bins),
        _optimizer(config, around),
        config.net.extra_loss(config.loop.steps),
        seed=config.seed,
    )


def train_step(
    config: RunConfig,
    *,
    around: Around | None = None,
    teacher: Teacher | None = None,
    phase: int = 0,
    mesh: Mesh | None = None,
) -> Any:
    """The jitted step (state, speech, noise) -> (state, metrics), of crops from `train_crops`.

    `around`, `teacher` and `phase` as for `train_run`; `mesh` of the devices that share the batch.
    """
    return make_train_step(
        config.net.build(config.stft.bins),
        _optimizer(config, around),
        config.net.extra_loss(config.loop.steps),
        config.mixing,
        config.stft,
        seed=config.seed,
        phase=config.net.phase + phase,
        loss=run_loss(config),
        teacher=teacher,
        matmul=config.matmul,
        mesh=mesh,
    )


def train_crops(
    config: RunConfig,
    speech: Source | HostSource,
    noise: Source | HostSource,
    *,
    phase: int = 0,
    mesh: Mesh | None = None,
) -> CropDraw:
    """The crops of each train step; `phase` and `mesh` as for `train_step`."""
    key = functools.partial(batch_key, seed=config.seed, phase=config.net.phase + phase)
    return CropDraw(speech, noise, key, config.mixing, mesh=mesh)


def validation_crops(config: RunConfig, corpus: Corpus, *, mesh: Mesh | None = None) -> CropDraw:
    """The crops of each batch that a validation scores."""
    speech, noise = load_source(corpus.speech["valid"]), load_source(corpus.noise["valid"])
    key = functools.partial(validation_key, seed=config.seed)
    return CropDraw(speech, noise, key, config.valid_mixing, mesh=mesh)


def train_run(
    run_dir: str | pathlib.Path,
    config: RunConfig,
    corpus: Corpus,
    *,
    variables: Mapping[str, Any] | None = None,
    teacher: Teacher | None = None,
    around: Around | None = None,
    told: Mapping[str, Any] | None = None,
    phase: int = 0,
    cache_dir: str | pathlib.Path | None = None,
    title: str = "train",
    console: Console | None = None,
) -> tuple[Any, dict[str, Any], list[dict[str, Any]]]:
    """Train a network in a folder, or go on there; on all devices that divide the batch.

    Args:
        run_dir: the folder.
        config: what is trained, and how.
        corpus: what is trained on.
        variables: "params" and "batch_stats" to start from, in place of fresh ones.
        teacher: a trained network whose output this one learns from beside the clean signal.
        around: makes the run's optimiser another one: adds a regulariser's gradient, masks. Not
            known to `load_run`, which does not read such a run.
        told: what `around` does, as JSON, for `config.json`.
        phase: of a training in several runs, each of which draws batches of its own.
        cache_dir: where the F0 of the speech is kept, where the training needs it.
        title: name on the progress bar.
        console: where to draw it.

    Returns:
        The network, its best variables and the lines of metrics.

    Raises:
        ValueError: where the folder holds another run, or where given pairs are asked of a corpus
            that has none in a split.
        DivergedError: where the gradients stay wild.
    """
    missing = {"train", "valid"} - corpus.pairs
    if config.mixing.pairs and missing:
        raise ValueError(
            f"the corpus {corpus.name!r} has no given pairs in {', '.join(sorted(missing))}: "
            "MixingConfig.pairs needs them in train and valid"
        )
    pitch = None
    if getattr(config.net, "probe_training", None) is not None:
        pitch = bank_pitch(corpus.speech["train"], cache_dir=cache_dir)
    mesh = batch_mesh(config.mixing.batch_size)
    speech = load_source(corpus.speech["train"], pitch)
    noise = load_source(corpus.noise["train"])
    step = train_step(config, around=around, teacher=teacher, phase=phase, mesh=mesh)
    validate = make_validation(
        config.net.build(config.stft.bins),
        config.valid_mixing,
        config.stft,
        seed=config.seed,
        batches=config.valid_batches,
        loss=run_loss(config),
        weights=config.net.loss_weights,
        mesh=mesh,
    )
    start = new_state(config, around=around)
    identity: dict[str, Any] = {
        "run": dataclasses.asdict(config),
        "corpus": {"name": corpus.name, "fingerprint": corpus.fingerprint},
        **(told or {}),
    }
    if phase:
        identity["phase"] = phase
    if teacher is not None:
        digest = variables_digest(teacher.variables)
        identity["teacher"] = {"variables": digest, "weight": teacher.weight}
    # Copied: the train step gives the buffers of its state away.
    if around is not None:
        start = start._replace(opt_state=jax.tree.map(jnp.array, start.opt_state))
    if variables is not None:
        start = start._replace(**jax.tree.map(jnp.array, dict(variables)))
        identity["start"] = variables_digest(variables)
    if isinstance(config.net, NsNet2Config) and "batch_stats" not in (variables or {}):
        statistics = feature_statistics(noisy_magnitudes(config, speech, noise))
        start = start._replace(batch_stats=statistics)
    crops = train_crops(config, speech, noise, phase=phase, mesh=mesh)
    del speech, noise  # of a mesh's devices each has its own by now
    valid = validation_crops(config, corpus, mesh=mesh)
    state, lines = train(
        run_dir,
        config.loop,
        on_each(mesh, start),
        step,
        crops.each,
        lambda state: validate(state, valid),
        identity=identity,
        audio_s_per_step=config.mixing.batch_size * config.mixing.crop_s,
        title=title,
        console=console,
        best_from_step=config.best_from_step,
    )
    return config.net.build(config.stft.bins), _variables(on_one(mesh, state)), lines


def load_run(run_dir: str | pathlib.Path) -> tuple[Any, dict[str, Any], RunConfig]:
    """The network of a run folder with its best variables.

    Raises:
        CheckpointError: where there is no run, no checkpoint, or one of another network.
    """
    run_dir = pathlib.Path(run_dir)
    try:
        found = json.loads((run_dir / "config.json").read_text())["run"]
    except (OSError, json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(
            f"{run_dir} holds no run: config.json is missing or broken"
        ) from error
    config = run_config(found)
    checkpoints = Checkpoints(run_dir)
    try:
        state = checkpoints.restore("best", jax.eval_shape(functools.partial(new_state, config)))
    finally:
        checkpoints.close()
    return config.net.build(config.stft.bins), _variables(state), config


def run_config(content: Mapping[str, Any]) -> RunConfig:
    """A `RunConfig` from its JSON."""
    return _from_json(RunConfig, content)


def noisy_magnitudes(
    config: RunConfig,
    speech: Source | HostSource,
    noise: Source | HostSource,
    batches: int = 32,
) -> Iterator[jax.Array]:
    """Magnitudes (B, T, bins) of training batches that the training itself does not draw.

    For the statistics of features before training, and to calibrate a quantised net after it.
    """

    def key(index: jax.Array) -> jax.Array:
        return jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), 3), index)

    @jax.jit
    def magnitudes(speech: Crops, noise: Crops, index: jax.Array) -> jax.Array:
        batch = mix_crops(speech, noise, key(index), config.mixing)
        return magnitude(config.stft.forward(batch.noisy))

    crops = CropDraw(speech, noise, key, config.mixing)
    for index in range(batches):
        yield magnitudes(*crops(index), index)


def variables_digest(variables: Mapping[str, Any]) -> str:
    """SHA-256 (hex) over all arrays, in the order of their paths."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}\n".encode())
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _variables(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _optimizer(config: RunConfig, around: Around | None) -> optax.GradientTransformation:
    """The optimiser of the layers that train."""
    optimizer = config.optimizer.build(config.loop.steps)
    layers = config.net.trained_layers(config.stft.bins)
    if layers is not None:
        optimizer = freeze(optimizer, layers)
    return optimizer if around is None else around(optimizer)


def run_loss(config: RunConfig) -> Loss:
    """The loss that a run trains and validates by."""
    if config.loss == "target":
        return None

    def loss(enhanced: jax.Array, clean: jax.Array, *, stft: STFT) -> jax.Array:
        spectral = compressed_spectral_loss(
            enhanced, clean, stft=stft, threshold=config.active_threshold
        )
        if not config.waveform_weight:
            return spectral
        return spectral + config.waveform_weight * waveform_loss(enhanced, clean)

    return loss


_NESTED = {
    "gate": GateConfig,
    "gate_training": GateTraining,
    "control": GateControl,
    "probe_training": ProbeTraining,
    "stft": STFT,
    "mixing": MixingConfig,
    "augmentation": Augmentation,
    "optimizer": OptimizerConfig,
    "loop": LoopConfig,
}


def _from_json(kind: type, content: Mapping[str, Any]) -> Any:
    """A frozen dataclass from JSON: nested ones by their field's name, lists as tuples."""

    def value(name: str, found: Any) -> Any:
        if name == "net":
            return _from_json(NETS[found["kind"]], found)
        if name == "optimizer" and found.get("kind") == "amsgrad":
            return _from_json(AMSGradConfig, found)
        if isinstance(found, Mapping):
            return _from_json(_NESTED[name], found)
        return _tuples(found)

    return kind(**{name: value(name, found) for name, found in content.items()})


def _tuples(found: Any) -> Any:
    """Lists as tuples, at any depth."""
    return tuple(map(_tuples, found)) if isinstance(found, list) else found
