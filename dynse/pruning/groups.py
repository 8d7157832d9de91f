"""Weight groups: which weights of a tensor are pruned together; and tensors by their path.

Tan and Wang, "Towards Model Compression for Deep Learning Based Speech Enhancement", IEEE/ACM
TASLP 29, 2021. A group of a tensor is named by the axes that lie within it; the other axes number
the groups.

    2-D convolution (K1, K2, in, out)       (0, 1)    one K1 x K2 kernel
    1-D convolution (K, in, out)            (0,)      one length-K vector
    depthwise convolution (K, C)            (0,)      one length-K vector
    recurrent input and hidden kernel       (1,)      all that leaves one input, to every gate
    matrix (in, out)                        (1,)      all that leaves one input
    1x1 convolution (in, out)               ()        one weight

The last four are of rank 2 and told apart by name alone. Biases, scales and slopes have no group:
they are never pruned.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

import jax

Groups = Mapping[str, tuple[int, ...]]

NOT_WEIGHTS = ("bias", "scale", "slope")
RECURRENT = ("input_kernel", "hidden_kernel")
NO_OVERRIDES: Mapping[str, tuple[int, ...] | None] = types.MappingProxyType({})


def groups_by_rank(
    params: Any, *, overrides: Mapping[str, tuple[int, ...] | None] = NO_OVERRIDES
) -> dict[str, tuple[int, ...]]:
    """The groups of a net, by rank and name of its tensors.

    A tensor is a weight where its rank is at least 2 and its name does not end in bias, scale or
    slope. Output axes are last, as in Flax. Of rank 2, the tensor of a module with "depthwise" in
    its name is a depthwise convolution's, that of another with "conv" in it a 1x1 convolution's,
    all others are matrices. Where a net's names say something else, its exceptions go into
    `overrides`.

    Args:
        params: pytree of arrays (or shapes).
        overrides: path to the axes within a group, or to None for a tensor never to be pruned.

    Returns:
        Path to the axes within a group, of every tensor to be pruned.

    Raises:
        ValueError: where an override's path is not there or its axes are not of its tensor.
    """
    tensors = named_tensors(params)
    for path, axes in overrides.items():
        rank = get_tensor(params, path).ndim
        if axes is not None and not (set(axes) <= set(range(rank)) and len(set(axes)) == len(axes)):
            raise ValueError(f"expected different axes below {rank} for {path}, got {axes}")
    groups = {
        path: overrides[path] if path in overrides else _axes(path, tensor.ndim)
        for path, tensor in tensors.items()
    }
    return {path: tuple(axes) for path, axes in groups.items() if axes is not None}


def _axes(path: str, rank: int) -> tuple[int, ...] | None:
    *modules, name = path.split("/")
    module = modules[-1] if modules else ""
    if rank < 2 or name.endswith(NOT_WEIGHTS):
        return None
    if name in RECURRENT:
        return (rank - 1,)
    if rank > 2:
        return tuple(range(rank - 2))
    if "depthwise" in module:
        return (0,)
    return () if "conv" in module else (1,)


def unstructured(groups: Groups) -> dict[str, tuple[int, ...]]:
    """The same tensors with each weight a group of its own."""
    return dict.fromkeys(groups, ())


def named_tensors(params: Any) -> dict[str, Any]:
    """Path, its names joined by "/", to tensor; of any pytree, None being no tensor."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {_name(path): leaf for path, leaf in leaves}


def get_tensor(params: Any, path: str) -> Any:
    """The tensor of a path.

    Raises:
        ValueError: where there is none.
    """
    tensors = named_tensors(params)
    if path not in tensors:
        raise ValueError(f"expected a path of {', '.join(tensors)}; got {path!r}")
    return tensors[path]


def set_tensors(params: Any, tensors: Mapping[str, Any]) -> Any:
    """The pytree with other tensors at these paths, of any shape.

    Raises:
        ValueError: where a path is not there.
    """
    for path in tensors.keys() - named_tensors(params).keys():
        get_tensor(params, path)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: tensors.get(_name(path), leaf), params
    )


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
