"""The float net frame by frame in NumPy float64, and the model of what integers cost it.

The model of quantisation noise (Widrow, "Statistical analysis of amplitude-quantized sampled-data
systems", 1961): each rounding to a step S adds noise of its own, uniform within S / 2, power
S^2 / 12. It predicts the SNR of an integer net as long as little is clipped and errors are small,
and 20 log10(2) = 6.02 dB more of it with each bit.
"""

import numpy as np

from dynse.quantization import DenseLayer


class Exact:
    """Nothing is rounded."""

    def weights(self, kernel):
        return kernel

    def value(self, name, value):
        return value


class UniformNoise:
    """Every rounding of the integer net at one width, as noise.

    Args:
        ranges: (low, high) of the net's tensors, each (7,).
        bits: width of all operations; the input has 8.
        seed: of the noise.
    """

    def __init__(self, ranges, bits, seed):
        self.ranges = ranges
        self.bits = bits
        self.draw = np.random.default_rng(seed)

    def _add(self, value, step):
        return value + step * self.draw.uniform(-0.5, 0.5, value.shape)

    def weights(self, kernel):
        return self._add(kernel, np.abs(kernel).max() / (2 ** (self.bits - 1) - 1))

    def value(self, name, value):
        bits = 8 if name == "input" else self.bits
        own = name.split("/")[-1]
        if own in ("r", "z", "sigmoid"):
            low, high = 0.0, 1.0
        elif own == "n":
            low, high = -1.0, 1.0
        else:
            low, high = (bound[bits - 2] for bound in self.ranges[name])
        return self._add(value, (high - low) / (2**bits - 1))


def float_output(layers, params, x, rounding=None):
    """The net's output (B, T, K) for x (B, T, D), its values passed through a rounding."""
    rounding = rounding or Exact()
    x = rounding.value("input", np.asarray(x, np.float64))
    for layer in layers:
        own = {name: np.asarray(leaf, np.float64) for name, leaf in params[layer.name].items()}
        run = _dense if isinstance(layer, DenseLayer) else _gru
        x = run(layer, own, x, rounding)
    return x


def _sigmoid(a):
    return 1 / (1 + np.exp(-a))


def _dense(layer, own, x, rounding):
    y = rounding.value(layer.name, x @ rounding.weights(own["kernel"]) + own["bias"])
    if layer.activation == "relu":
        return np.maximum(y, 0)
    if layer.activation == "sigmoid":
        return rounding.value(f"{layer.name}/sigmoid", _sigmoid(y))
    return y


def _gru(layer, own, x, rounding):
    kernels = {
        side: [rounding.weights(part) for part in np.split(own[f"{side}_kernel"], 3, axis=1)]
        for side in ("input", "hidden")
    }

    def at(name, value):
        return rounding.value(f"{layer.name}/{name}", value)

    def linears(side, values):
        biases = np.split(own[f"{side}_bias"], 3)
        return [
            at(f"W_{side[0]}{gate}", values @ kernel + bias)
            for gate, kernel, bias in zip("rzn", kernels[side], biases, strict=True)
        ]

    h, hs = np.zeros((len(x), own["hidden_kernel"].shape[0])), []
    for t in range(x.shape[1]):
        of_x, of_h = linears("input", x[:, t]), linears("hidden", h)
        r = at("r", _sigmoid(at("r_pre", of_x[0] + of_h[0])))
        z = at("z", _sigmoid(at("z_pre", of_x[1] + of_h[1])))
        n = at("n", np.tanh(at("n_pre", of_x[2] + at("r*hn", r * of_h[2]))))
        # 1 - z is exact on z's grid.
        h = at("h", at("(1-z)*n", (1 - z) * n) + at("z*h", z * h))
        hs.append(h)
    return np.stack(hs, axis=1)


def snr_db(value, reference):
    """Power of what varies in the reference over that of the error, dB."""
    return 10 * np.log10(np.var(reference) / np.square(value - reference).mean())


def predicted_snr_db(layers, params, ranges, x, bits, draws=32):
    """Mean and standard deviation, over draws of the noise, of the SNR under the model."""
    y = float_output(layers, params, x)
    found = [
        snr_db(float_output(layers, params, x, UniformNoise(ranges, bits, seed)), y)
        for seed in range(draws)
    ]
    return np.mean(found), np.std(found)
