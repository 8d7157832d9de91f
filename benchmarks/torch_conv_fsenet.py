"""The dense Conv-FSENet and its train step in plain PyTorch: the opponent of `train_step.py`.

Written as a PyTorch user would write it: `nn.Conv1d`, `nn.BatchNorm1d`, `torch.stft`, autograd,
`torch.optim.AdamW`. Weights are copied from ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from dynse.audio.stft import STFT
from dynse.training.step import OptimizerConfig


class Block(nn.Module):
    """x + f(x): 1x1, norm, ReLU, causal depthwise, norm, ReLU, 1x1; (B, C, T)."""

    def __init__(self, width: int, inner: int, taps: int, dilation: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(width, inner, 1)
        self.norm1 = nn.BatchNorm1d(inner)
        self.depthwise = nn.Conv1d(inner, inner, taps, dilation=dilation, groups=inner, bias=False)
        self.norm2 = nn.BatchNorm1d(inner)
        self.conv2 = nn.Conv1d(inner, width, 1, bias=False)
        self.padding = (taps - 1) * dilation

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        u = torch.relu(self.norm1(self.conv1(x)))
        v = self.depthwise(nn.functional.pad(u, (self.padding, 0)))
        return x + self.conv2(torch.relu(self.norm2(v)))


class TorchConvFSENet(nn.Module):
    """Magnitudes (B, F, T) -> gains (B, F, T)."""

    def __init__(self, bins: int = 257, width: int = 128, inner: int = 256) -> None:
        super().__init__()
        self.front = nn.Conv1d(bins, width, 1)
        self.blocks = nn.Sequential(
            *(Block(width, inner, 3, 2 ** (index % 3)) for index in range(9))
        )
        self.back = nn.Conv1d(width, bins, 1)

    def forward(self, magnitudes: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.front((magnitudes + 1e-9) ** 0.3))
        return torch.sigmoid(self.back(self.blocks(h)))


def copy_weights(net: TorchConvFSENet, params: Mapping[str, Any]) -> None:
    """Ours into PyTorch's."""

    def kernel(layer: Mapping[str, Any]) -> torch.Tensor:
        return torch.tensor(np.array(layer["kernel"]).T[..., None])  # (out, in, 1)

    with torch.no_grad():
        for ours, theirs in (("front", net.front), ("back", net.back)):
            theirs.weight.copy_(kernel(params[ours]))
            theirs.bias.copy_(torch.tensor(np.array(params[ours]["bias"])))
        for index, block in enumerate(net.blocks):
            ours = params[f"block{index}"]
            block.conv1.weight.copy_(kernel(ours["conv1"]))
            block.conv1.bias.copy_(torch.tensor(np.array(ours["conv1"]["bias"])))
            block.conv2.weight.copy_(kernel(ours["conv2"]))
            taps = np.array(ours["depthwise"]["kernel"])  # (K, C)
            block.depthwise.weight.copy_(torch.tensor(taps.T[:, None]))
            for name in ("norm1", "norm2"):
                norm = getattr(block, name)
                norm.weight.copy_(torch.tensor(np.array(ours[name]["scale"])))
                norm.bias.copy_(torch.tensor(np.array(ours[name]["bias"])))


class Transform:
    """Our STFT with PyTorch's functions: (B, N) <-> (B, F, T) complex."""

    def __init__(self, stft: STFT) -> None:
        self.options = {
            "n_fft": stft.n_fft,
            "hop_length": stft.hop_length,
            "win_length": stft.win_length,
            "window": torch.tensor(stft.window),
            "center": True,
        }

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        return torch.stft(samples, **self.options, pad_mode="constant", return_complex=True)

    def inverse(self, spectrum: torch.Tensor, length: int) -> torch.Tensor:
        return torch.istft(spectrum, **self.options, length=length)


def compressed_loss(
    enhanced: torch.Tensor,
    clean: torch.Tensor,
    transform: Transform,
    threshold: float,
    compare: Callable,
) -> torch.Tensor:
    """`dynse.training.losses.compressed_spectral_loss`, its mean over the batch."""
    target = transform.forward(clean)
    energy = target.abs().square().sum(1).mul(2).sqrt() / transform.options["n_fft"]
    active = energy > threshold
    count = active.sum(-1)
    sigma = torch.where(count > 0, (energy * active).sum(-1) / count.clamp(min=1), 1.0)
    sigma = sigma[:, None, None]

    spectra = transform.forward(enhanced / sigma[..., 0]), target / sigma
    return compare(*map(torch.view_as_real, spectra))


def _compare(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """The loss of two spectra (B, F, T, 2)."""

    def bend(spectrum: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        real, imag = spectrum[..., 0], spectrum[..., 1]
        log_power = torch.log(real.square() + imag.square() + 1e-9)
        factor = torch.exp(-0.35 * log_power)
        return torch.exp(0.15 * log_power), real * factor, imag * factor

    ours, theirs = bend(found), bend(wanted)
    by_magnitude, by_real, by_imag = (
        (a - b).square().mean() for a, b in zip(ours, theirs, strict=True)
    )
    return 0.7 * by_magnitude + 0.3 * (by_real + by_imag)


class Trainer:
    """A train step (noisy, clean) -> loss; each (B, N)."""

    def __init__(
        self, params: Mapping[str, Any], stft: STFT, threshold: float, *, compiled: bool = False
    ) -> None:
        self.net = TorchConvFSENet(stft.bins).train()
        copy_weights(self.net, params)
        self.transform, self.threshold = Transform(stft), threshold
        self.run: Callable = torch.compile(self.net) if compiled else self.net
        self.compare: Callable = torch.compile(_compare) if compiled else _compare
        weights, rest = [], []
        for one in self.net.parameters():
            (weights if one.ndim > 1 else rest).append(one)
        config = OptimizerConfig()
        self.clip_norm = config.clip_norm
        self.optimizer = torch.optim.AdamW(
            [
                {"params": weights, "weight_decay": config.weight_decay},
                {"params": rest, "weight_decay": 0.0},
            ],
            lr=config.learning_rate,
            betas=(0.9, 0.999),
            fused=True,
        )

    def loss(self, noisy: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """Of the enhanced batch."""
        spectrum = self.transform.forward(noisy)
        gain = self.run(spectrum.abs())
        enhanced = self.transform.inverse(gain * spectrum, noisy.shape[1])
        return compressed_loss(enhanced, clean, self.transform, self.threshold, self.compare)

    def gradients(self, noisy: torch.Tensor, clean: torch.Tensor) -> float:
        """The loss; the gradients are left in the network."""
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(noisy, clean)
        loss.backward()
        return loss.item()

    def step(self, noisy: torch.Tensor, clean: torch.Tensor) -> None:
        """One step of training."""
        self.gradients(noisy, clean)
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.clip_norm)
        self.optimizer.step()
