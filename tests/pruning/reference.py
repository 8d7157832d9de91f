"""A small net in JAX and in NumPy, and Algorithms 1 and 2 as plain NumPy loops over it."""

import jax
import jax.numpy as jnp
import numpy as np

from dynse.pruning import groups_by_rank

BATCHES = 2


def make_params(seed=0):
    """A convolution (3, 4, 6) and two matrices; many small weights and few large ones."""
    rng = np.random.default_rng(seed)

    def kernel(*shape):
        fan_in = np.prod(shape[:-1])
        return (rng.standard_normal(shape) ** 3 / fan_in**0.5 / 2).astype(np.float32)

    def bias(width):
        return rng.normal(0, 0.1, width).astype(np.float32)

    return {
        "conv": {"kernel": kernel(3, 4, 6), "bias": bias(6)},
        "fc1": {"kernel": kernel(36, 20), "bias": bias(20)},
        "fc2": {"kernel": kernel(20, 5), "bias": bias(5)},
    }


def forward(params, x, np=jnp):
    """(B, 8, 4) -> (B, 5), in JAX or in NumPy."""
    taps = params["conv"]["kernel"]
    h = sum(x[:, k : k + 6] @ taps[k] for k in range(3)) + params["conv"]["bias"]
    h = np.maximum(h, 0).reshape(len(x), 36)
    h = np.maximum(h @ params["fc1"]["kernel"] + params["fc1"]["bias"], 0)
    return h @ params["fc2"]["kernel"] + params["fc2"]["bias"]


def mean_square(params, batch, np=jnp):
    """() of one batch (x, target)."""
    return ((forward(params, batch[0], np) - batch[1]) ** 2).mean()


def make_batches(params, seed=1):
    rng = np.random.default_rng(seed)
    batches = []
    for _ in range(BATCHES):
        x = rng.standard_normal((16, 8, 4)).astype(np.float32)
        target = forward(params, x, np) + rng.normal(0, 0.1, (16, 5))
        batches.append((x, target.astype(np.float32)))
    return batches


GROUPS = groups_by_rank(make_params())


def wide(params):
    return {
        module: {name: np.array(tensor, np.float64) for name, tensor in layer.items()}
        for module, layer in params.items()
    }


def validation_loss(params, batches):
    return np.mean([mean_square(params, batch, np) for batch in batches])


def group_norms(tensor, axes):
    """(l1 norm, index) of every group, the index a slice on each axis within the group."""
    norms = []
    for index in np.ndindex(*(1 if axis in axes else n for axis, n in enumerate(tensor.shape))):
        where = tuple(slice(None) if axis in axes else i for axis, i in enumerate(index))
        norms.append((np.abs(tensor[where]).sum(), where))
    return norms


def prune_tensor(tensor, axes, ratio):
    """A copy with this percentage of the non-zero groups zeroed."""
    alive = [entry for entry in group_norms(tensor, axes) if entry[0] > 0]
    alive.sort(key=lambda entry: entry[0])
    pruned = tensor.copy()
    for _, where in alive[: len(alive) * ratio // 100]:
        pruned[where] = 0
    return pruned


def algorithm1(params, groups, batches, alpha, step=5):
    """Ratios, increases of what was evaluated, and how close one came to alpha."""
    params = wide(params)
    base = validation_loss(params, batches)
    ratios, curves, margin = {}, {}, np.inf
    for path, axes in groups.items():
        module, name = path.split("/")
        ratios[path], curves[path] = 100, {}
        for ratio in range(0, 101, step):
            tensor = prune_tensor(params[module][name], axes, ratio)
            candidate = {**params, module: {**params[module], name: tensor}}
            increase = curves[path][ratio] = validation_loss(candidate, batches) - base
            margin = min(margin, abs(increase - alpha))
            if increase > alpha:
                ratios[path] = ratio - step
                break
    return ratios, curves, margin


def algorithm2(params, groups, batches, alpha, finetune, iterations):
    """Ratios of every iteration and the parameters after the last."""
    history, params = [], wide(params)
    for iteration in range(1, iterations + 1):
        ratios, _, margin = algorithm1(params, groups, batches, alpha)
        assert margin > 1e-6
        masks = {}
        for path, axes in groups.items():
            module, name = path.split("/")
            params[module][name] = prune_tensor(params[module][name], axes, ratios[path])
            masks[path] = params[module][name] != 0
        params = wide(finetune(params, masks, iteration))
        history.append(ratios)
    return history, params


gradient = jax.jit(jax.grad(mean_square))


def masked_descent(params, masks, iteration, batch):
    """A few steps of gradient descent that leave pruned weights at zero; masks by path."""
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
    for _ in range(3):
        slope = gradient(params, batch)
        params = jax.tree.map(lambda p, g: np.array(p - 0.02 / iteration * g), params, slope)
        for path, mask in masks.items():
            params[path.split("/")[0]]["kernel"] *= np.asarray(mask)
    return params
