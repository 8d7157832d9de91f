"""Does switching between exits click? Jumps from one sample to the next, against the net's own.

    jump(x) = max over n of |x[n + 1] - x[n]|
    a stream clicks where    jump(switched - full) > jump(full - clean)

`switched` is the output while exits change, `full` that of the whole net on the same input. What
the whole net itself adds to the clean signal is the measure: a jump below it is none of its kind.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Click(NamedTuple):
    """Largest jumps of each row (B,).

    Attributes:
        switching: of switched - full.
        own: of full - clean.
    """

    switching: Any
    own: Any

    @property
    def heard(self) -> Any:
        """Where the switching jumps further than the net itself (B,)."""
        return self.switching > self.own


def largest_jump(signal: Any) -> Any:
    """Largest step between neighbouring samples: (..., N) -> (...), N >= 2."""
    return abs(signal[..., 1:] - signal[..., :-1]).max(-1)


def switching_click(switched: Any, full: Any, clean: Any) -> Click:
    """Compare the jumps.

    Args:
        switched: output while exits change (B, N).
        full: output of the whole net (B, N).
        clean: (B, N).

    Raises:
        ValueError: where the signals differ in shape.
    """
    if not switched.shape == full.shape == clean.shape:
        raise ValueError(
            f"expected signals of one shape, got {switched.shape}, {full.shape}, {clean.shape}"
        )
    return Click(largest_jump(switched - full), largest_jump(full - clean))
