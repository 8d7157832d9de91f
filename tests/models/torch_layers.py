"""Layers as PyTorch has them, float64, of a tree of this library's parameters.

Signals are (B, C, T, F). `params` is the subtree of a layer, arrays of any kind.
"""

import numpy as np
import pytest


def tensor(array):
    """Of any array, float64."""
    torch = pytest.importorskip("torch")
    return torch.tensor(np.asarray(array, np.float64))


def conv2d(params, x, stride, padding):
    """Causal over time: zeros before the first frame."""
    functional = pytest.importorskip("torch.nn.functional")
    kernel = tensor(params["kernel"]).permute(3, 2, 0, 1)
    x = functional.pad(x, (0, 0, kernel.shape[2] - 1, 0))
    return functional.conv2d(
        x, kernel, tensor(params["bias"]), stride=(1, stride), padding=(0, padding)
    )


def deconv2d(params, x, stride, padding, output_padding):
    """Causal over time: the frames that it adds at the end are cut off."""
    functional = pytest.importorskip("torch.nn.functional")
    return functional.conv_transpose2d(
        x,
        tensor(params["kernel"]).permute(2, 3, 0, 1),
        tensor(params["bias"]),
        stride=(1, stride),
        padding=(0, padding),
        output_padding=(0, output_padding),
    )[:, :, : x.shape[2]]


def glu(layer, params, *arguments):
    """a * sigmoid(b)."""
    b = layer(params["sigmoid"], *arguments)
    return layer(params["linear"], *arguments) * b.sigmoid()


def depthwise(params, x, dilation):
    """Causal, of x (B, C, T)."""
    functional = pytest.importorskip("torch.nn.functional")
    kernel = tensor(params["kernel"]).T[:, None]
    x = functional.pad(x, ((kernel.shape[2] - 1) * dilation, 0))
    bias = tensor(params["bias"])
    return functional.conv1d(x, kernel, bias, dilation=dilation, groups=len(kernel))


def pointwise(params, x):
    """Of x (B, C, T)."""
    return dense(params, x.transpose(1, 2)).transpose(1, 2)


def dense(params, x):
    """Of x (..., C)."""
    return x @ tensor(params["kernel"]) + tensor(params["bias"])


def batch_norm(params, stats, x):
    """By the running statistics, of x (B, C, ...)."""
    functional = pytest.importorskip("torch.nn.functional")
    moments = tensor(stats["mean"]), tensor(stats["var"])
    return functional.batch_norm(x, *moments, tensor(params["scale"]), tensor(params["bias"]))


def layer_norm(params, x):
    """Over the last axis."""
    functional = pytest.importorskip("torch.nn.functional")
    return functional.layer_norm(x, x.shape[-1:], tensor(params["scale"]), tensor(params["bias"]))


def prelu(params, x):
    """One slope."""
    functional = pytest.importorskip("torch.nn.functional")
    return functional.prelu(x, tensor(params["slope"]).reshape(1))


def lstm(params, x):
    """From a state of zeros, of x (B, T, C)."""
    torch = pytest.importorskip("torch")
    net = torch.nn.LSTM(x.shape[-1], params["hidden_kernel"].shape[0], batch_first=True).double()
    names = {
        "weight_ih_l0": "input_kernel",
        "weight_hh_l0": "hidden_kernel",
        "bias_ih_l0": "input_bias",
        "bias_hh_l0": "hidden_bias",
    }
    with torch.no_grad():
        for name, own in names.items():
            getattr(net, name).copy_(tensor(np.transpose(params[own])))
        return net(x)[0]
