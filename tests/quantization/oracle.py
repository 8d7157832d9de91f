"""Integer GRU and dense layer in NumPy int64, from the equations: loops over time and over
operations, exact arithmetic, no code of the library.

It reads the arrays that `build` made, as a C program would read them from a file, and takes and
gives codes, not centred ones:

    rescale   sign(a) ((|a| M + 2^(s-1)) >> s)
    linear    clip(rescale(sum_i w_i (x_i - Z_x) + b) + Z_y, 0, 2^b - 1)
"""

import numpy as np


def round_away(value, shift):
    """value / 2^shift, rounded to the nearest, halves away from zero."""
    magnitude = np.abs(value)
    return np.sign(value) * ((magnitude + (np.int64(1) << (shift - 1))) >> shift)


def half_to_even(value, shift):
    """The rounding that this arithmetic does not have: for negative controls."""
    down = value >> shift
    rest, half = value - (down << shift), np.int64(1) << (shift - 1)
    return down + ((rest > half) | ((rest == half) & (down % 2 == 1)))


def at(array, *bits):
    """Entry of a table over widths, as int64."""
    return np.asarray(array)[tuple(int(b) - 2 for b in bits)].astype(np.int64)


class Oracle:
    """One net at one genome.

    Args:
        net: IntegerNet.
        genome: widths.
        rounding: of `value / 2^shift`.
    """

    def __init__(self, net, genome, rounding=round_away):
        self.net = net
        self.genome = [int(gene) for gene in genome]
        self.rounding = rounding
        self.saturated = 0  # results that were clipped
        self.results = 0

    def clip(self, value, zero_point, bits):
        code = value + zero_point
        clipped = np.clip(code, 0, 2**bits - 1)
        self.saturated += int((code != clipped).sum())
        self.results += code.size
        return clipped

    def linear(self, part, x, x_zero, x_bits, grid, bits):
        sums = (x - x_zero) @ at(part.kernel, bits) + at(part.bias, bits, x_bits)
        assert np.abs(sums).max() < 2**31
        multiplier, shift = at(part.multiplier, bits, x_bits), at(part.shift, bits, x_bits)
        return self.clip(self.rounding(sums * multiplier, shift), at(grid.zero_point, bits), bits)

    def sum(self, gru, name, a, b, bits):
        (codes_a, name_a), (codes_b, name_b) = a, b
        widths = bits[name_a], bits[name_b], bits[name]
        multiplier_a, multiplier_b, shift = (at(array, *widths) for array in gru.sums[name])
        total = multiplier_a * (codes_a - self.zero(gru, name_a, bits))
        total = total + multiplier_b * (codes_b - self.zero(gru, name_b, bits))
        return self.clip(self.rounding(total, shift), self.zero(gru, name, bits), bits[name])

    def product(self, gru, name, a, b, bits):
        (codes_a, name_a), (codes_b, name_b) = a, b
        multiplier, shift = (
            at(array, bits[name_a], bits[name_b], bits[name]) for array in gru.products[name]
        )
        centred_a = codes_a - self.zero(gru, name_a, bits)
        product = centred_a * (codes_b - self.zero(gru, name_b, bits))
        code = self.rounding(product * multiplier, shift)
        return self.clip(code, self.zero(gru, name, bits), bits[name])

    def zero(self, gru, name, bits):
        return at(gru.grids[name].zero_point, bits[name])

    def gru(self, gru, bits, h, x, x_zero, x_bits):
        """h (B, H) and x (B, T, D) codes to the last h and (B, T, H)."""
        outputs = []
        for t in range(x.shape[1]):
            q = {}
            for name, part in gru.linears.items():
                of_x = name in ("W_ir", "W_iz", "W_in")
                source = (
                    (x[:, t], x_zero, x_bits) if of_x else (h, self.zero(gru, "h", bits), bits["h"])
                )
                q[name] = self.linear(part, *source, gru.grids[name], bits[name])

            def pair(name, q=q):
                return q[name], name

            for gate in "rz":
                pre = f"{gate}_pre"
                q[pre] = self.sum(gru, pre, pair(f"W_i{gate}"), pair(f"W_h{gate}"), bits)
                q[gate] = at(gru.tables[gate], bits[pre], bits[gate])[q[pre]]
            q["r*hn"] = self.product(gru, "r*hn", pair("r"), pair("W_hn"), bits)
            q["n_pre"] = self.sum(gru, "n_pre", pair("W_in"), pair("r*hn"), bits)
            q["n"] = at(gru.tables["n"], bits["n_pre"], bits["n"])[q["n_pre"]]
            one_minus = 2 ** bits["z"] - 1 - q["z"]
            multiplier, shift = (at(array, bits["z"], bits["1-z"]) for array in gru.complement)
            q["1-z"] = self.clip(self.rounding(one_minus * multiplier, shift), 0, bits["1-z"])
            q["(1-z)*n"] = self.product(gru, "(1-z)*n", pair("1-z"), pair("n"), bits)
            q["z*h"] = self.product(gru, "z*h", pair("z"), (h, "h"), bits)
            h = self.sum(gru, "h", pair("(1-z)*n"), pair("z*h"), bits)
            outputs.append(h)
        return h, np.stack(outputs, axis=1)

    def dense(self, dense, bits, x, x_zero, x_bits):
        y = self.linear(dense.linear, x, x_zero, x_bits, dense.linear_grid, bits)
        return y if dense.table is None else at(dense.table, bits)[y]

    def __call__(self, state, qx):
        """State (a list, (B, H) codes or None a layer) and codes (B, T, D) to the same."""
        genes = iter(self.genome)
        x, bits = np.asarray(qx, np.int64), 8
        zero = at(self.net.input_grid.zero_point, 8)
        states = []
        for part, h in zip(self.net.parts, state, strict=True):
            if hasattr(part, "linears"):
                widths = {name: next(genes) for name in GRU_GENES}
                h, x = self.gru(part, widths, np.asarray(h, np.int64), x, zero, bits)
                bits, zero = widths["h"], self.zero(part, "h", widths)
            else:
                own = next(genes)
                x = self.dense(part, own, x, zero, bits)
                bits, zero = own, at(part.grid.zero_point, own)
            states.append(h)
        return states, x


# The order of the genes, written down once more: the library's own is what is tested.
GRU_GENES = [
    "W_ir",
    "W_iz",
    "W_in",
    "W_hr",
    "W_hz",
    "W_hn",
    "r_pre",
    "z_pre",
    "n_pre",
    "r",
    "z",
    "n",
    "r*hn",
    "(1-z)*n",
    "z*h",
    "1-z",
    "h",
]
