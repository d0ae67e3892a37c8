"""The codec's reconstruction and adversarial losses.

A log-spectral distance alone makes noise too quiet: the best guess of a random level, in
logarithms, lies below its mean. So besides log-mel spectra (timbre, attacks) there are linear
ones (loud events get their weight), levels of whole tiles of time and frequency (which noise
can match without matching its phases), and the waveform itself below 300 Hz, where the ear
follows it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

POWER_FLOOR = 1e-7
"""Added to powers before taking logarithms; a full-scale sine has 0.25 in its bin."""


@dataclass(frozen=True)
class Scale:
    """One resolution: a window of `n_fft` samples, `n_bands` mel bands; `tile` is the number of
    frames and bands in a tile of the level loss."""

    n_fft: int
    n_bands: int
    tile: tuple[int, int]

    @property
    def hop(self) -> int:
        return self.n_fft // 4


SCALES = (
    # With so many bands, each is hardly more than a bin below 1 kHz: tones stay tones.
    Scale(2048, 200, (3, 8)),
    Scale(1024, 64, (3, 4)),
    Scale(512, 48, (4, 4)),
    Scale(256, 24, (4, 2)),
    Scale(128, 12, (6, 1)),
    # Long enough to tell bass pitches apart.
    Scale(4096, 160, (2, 8)),
)


def mel_filters(sample_rate: int, n_fft: int, n_bands: int, low_hz: float = 20.0) -> Tensor:
    """Triangular filters `[F, M]` on the mel scale, each covering at least one bin."""
    high_hz = sample_rate / 2
    mels = torch.linspace(
        2595 * torch.log10(torch.tensor(1 + low_hz / 700)).item(),
        2595 * torch.log10(torch.tensor(1 + high_hz / 700)).item(),
        n_bands + 2,
    )
    edges = (700 * (10 ** (mels / 2595) - 1)) * n_fft / sample_rate
    for i in range(1, len(edges)):
        # Low mel bands are narrower than a bin of a short transform.
        edges[i] = torch.maximum(edges[i], edges[i - 1] + 1.0)
    edges = edges * min(1.0, (n_fft / 2) / edges[-1].item())
    bins = torch.arange(n_fft // 2 + 1)[:, None]
    rise = (bins - edges[None, :-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[None, 2:] - bins) / (edges[2:] - edges[1:-1])
    filters = torch.minimum(rise, fall).clamp(0.0, 1.0)
    # The lowest bins, sub-bass included, belong to the first band.
    filters[: int(edges[1].item()) + 1, 0] = 1.0
    return filters


class Spectra(nn.Module):
    """Mel powers of waveforms at every scale.

    Args:
        sample_rate: Hz.
        phase_free: filters out, at each scale but the longest, what has less than a cycle in a
            window, and some of what has less than two. A window of 8 ms would follow the single
            cycles of an 808's 50 Hz, and its loss would demand their phase.
    """

    def __init__(self, sample_rate: int, phase_free: bool = False) -> None:
        super().__init__()
        self.sample_rate, self.phase_free = sample_rate, phase_free
        self.longest = max(scale.n_fft for scale in SCALES)
        for i, scale in enumerate(SCALES):
            self.register_buffer(
                f"filters_{i}", mel_filters(sample_rate, scale.n_fft, scale.n_bands)
            )
            self.register_buffer(f"window_{i}", torch.hann_window(scale.n_fft))

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """Powers `[B, frames, M]` at each scale of `waveform [B, N]`."""
        powers = []
        whole = torch.fft.rfft(waveform) if self.phase_free else None
        for i, scale in enumerate(SCALES):
            window: Tensor = getattr(self, f"window_{i}")
            heard = waveform
            if whole is not None and scale.n_fft < self.longest:
                heard = self._above(whole, waveform.shape[-1], self.sample_rate / scale.n_fft)
            spectrum = torch.stft(
                heard,
                scale.n_fft,
                scale.hop,
                window=window / window.sum(),
                center=True,
                return_complex=True,
            )
            parts = torch.view_as_real(spectrum)
            power = parts.pow(2).sum(-1).transpose(1, 2)
            powers.append(power @ getattr(self, f"filters_{i}"))
        return powers

    def _above(self, whole: Tensor, n_samples: int, cutoff_hz: float) -> Tensor:
        """The waveform of a spectrum after a high-pass: nothing below the cutoff, everything from
        an octave above it."""
        frequencies = torch.fft.rfftfreq(n_samples, 1 / self.sample_rate)
        rise = (frequencies / cutoff_hz - 1.0).clamp(0.0, 1.0)
        return torch.fft.irfft(whole * (0.5 - 0.5 * torch.cos(torch.pi * rise)), n_samples)


def spectral_losses(decoded: list[Tensor], original: list[Tensor]) -> dict[str, Tensor]:
    """Distances of mel powers `[B, frames, M]`, each averaged over the scales.

    Returns:
        `log`: mean absolute difference of log amplitudes, in nepers; `linear`: difference of
        amplitudes as a share of the original's; `level`: like `log`, of tiles' powers; `band`:
        like `log`, of the powers of eight bands over the whole crop.
    """
    log = linear = level = band = torch.zeros(())
    for scale, fake, real in zip(SCALES, decoded, original, strict=True):
        log = log + (log_amplitude(fake) - log_amplitude(real)).abs().mean()
        fake_amplitude, real_amplitude = (power.add(1e-10).sqrt() for power in (fake, real))
        # Half of the reference is the batch's, or else a silent crop would outweigh the others.
        reference = real_amplitude.mean((1, 2), keepdim=True) + real_amplitude.mean() + 1e-4
        linear = linear + ((fake_amplitude - real_amplitude).abs() / (0.5 * reference)).mean()
        fake_tile, real_tile = (tiles(power, scale.tile) for power in (fake, real))
        level = level + (log_amplitude(fake_tile) - log_amplitude(real_tile)).abs().mean()
        # Wide bands: with narrow ones, a tone turned into noise would again come out too quiet.
        whole = (fake.shape[1], scale.n_bands // 8 or 1)
        fake_band, real_band = (tiles(power, whole) for power in (fake, real))
        band = band + (log_amplitude(fake_band) - log_amplitude(real_band)).abs().mean()
    n_scales = len(SCALES)
    return {
        "log": log / n_scales,
        "linear": linear / n_scales,
        "level": level / n_scales,
        "band": band / n_scales,
    }


def tiles(power: Tensor, size: tuple[int, int]) -> Tensor:
    """Mean power of tiles of `size` (frames, bands), overlapping by half in time."""
    stride = (max(1, size[0] // 2), size[1])
    return F.avg_pool2d(power[:, None], size, stride)[:, 0]


def log_amplitude(power: Tensor) -> Tensor:
    return 0.5 * (power + POWER_FLOOR).log()


class LowPass(nn.Module):
    """The waveform below a cutoff, at a lower rate.

    Args:
        sample_rate: Hz.
        cutoff_hz: -6 dB point.
        stride: divisor of the rate.
    """

    kernel: Tensor

    def __init__(self, sample_rate: int, cutoff_hz: float, stride: int) -> None:
        super().__init__()
        self.stride = stride
        n_taps = 2 * round(1.5 * sample_rate / cutoff_hz) + 1
        times = torch.arange(n_taps) - n_taps // 2
        kernel = torch.special.sinc(2 * cutoff_hz / sample_rate * times)
        kernel = kernel * torch.hann_window(n_taps, periodic=False)
        self.register_buffer("kernel", (kernel / kernel.sum())[None, None])

    def forward(self, waveform: Tensor) -> Tensor:
        """`[B, N]` to `[B, about N / stride]`."""
        half = self.kernel.shape[-1] // 2
        return F.conv1d(waveform[:, None], self.kernel, stride=self.stride, padding=half)[:, 0]


def waveform_loss(decoded: Tensor, original: Tensor) -> Tensor:
    """Mean absolute difference of waveforms `[B, N]`, relative to the mean of the original's
    level and the batch's."""
    reference = 0.5 * (original.abs().mean(1, keepdim=True) + original.abs().mean()) + 1e-3
    return ((decoded - original).abs() / reference).mean()


class Discriminator(nn.Module):
    """Tells decoded from original log-mel spectra, patch by patch, at several scales.

    It sees mel bands instead of the spectrum: a thirtieth of the arithmetic, and enough to punish
    what a mean error rewards, namely smoothed attacks and noise.
    """

    def __init__(self, scales: tuple[int, ...] = (1, 2, 4), width: int = 24) -> None:
        super().__init__()
        self.scales = scales
        self.nets = nn.ModuleList(_patch_net(width) for _ in scales)

    def forward(self, powers: list[Tensor]) -> list[list[Tensor]]:
        """Takes mel powers of all scales, `[B, frames, M]`; returns the layers' outputs
        `[B, C, .., ..]` of each net, the last of which is the verdict, positive for original."""
        outputs = []
        for scale, net in zip(self.scales, self.nets, strict=True):
            image = 0.25 * log_amplitude(powers[scale])[:, None] + 1.0
            # What is plausible depends on frequency, which a convolution doesn't know.
            height = torch.linspace(-1.0, 1.0, image.shape[-1]).expand_as(image)
            hidden = torch.cat([image, height], dim=1)
            layers = []
            assert isinstance(net, nn.ModuleList)
            for layer in net:
                hidden = layer(hidden)
                layers.append(hidden)
            outputs.append(layers)
        return outputs


def _patch_net(width: int) -> nn.ModuleList:
    def block(n_in: int, n_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Module:
        padding = (kernel[0] // 2, kernel[1] // 2)
        conv = nn.utils.parametrizations.weight_norm(
            nn.Conv2d(n_in, n_out, kernel, stride, padding)
        )
        return nn.Sequential(conv, nn.LeakyReLU(0.2))

    last = nn.utils.parametrizations.weight_norm(nn.Conv2d(2 * width, 1, 3, 1, 1))
    return nn.ModuleList(
        [
            block(2, width, (5, 3), (2, 1)),
            block(width, width, (3, 3), (1, 2)),
            block(width, 2 * width, (3, 3), (2, 1)),
            block(2 * width, 2 * width, (3, 3), (1, 2)),
            last,
        ]
    )


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Hinge loss of the discriminator."""
    terms = [
        F.relu(1.0 - r[-1]).mean() + F.relu(1.0 + f[-1]).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def generator_losses(real: list[list[Tensor]], fake: list[list[Tensor]]) -> tuple[Tensor, Tensor]:
    """The codec's adversarial loss, and the distance of the discriminator's features."""
    adversarial = torch.stack([-f[-1].mean() for f in fake]).mean()
    terms = [
        (r - f).abs().mean() / r.abs().mean().clamp_min(1e-3)
        for real_layers, fake_layers in zip(real, fake, strict=True)
        for r, f in zip(real_layers[:-1], fake_layers[:-1], strict=True)
    ]
    return adversarial, torch.stack(terms).mean()
