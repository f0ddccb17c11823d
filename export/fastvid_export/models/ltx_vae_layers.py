"""The layers of LTX-Video's autoencoder, under diffusers' names, a few frames at a time.

What a layer needs of frames (1, C, n, H, W) that came before it keeps (`Tape`); a convolution that
looks at the next frame too gives its frames one later. Before the first frame and after the last
stand copies of them, in front of every convolution anew, which is why a layer must know where in
the clip its frames are (`Span`).

Weights are used as they lie in the file: nothing is computed of them alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export.models.ltx_transformer import TimeEmbedding

_TAPS = 3
_NORM_EPSILON = 1e-8
_SCALED = 4
"""Shift and scale of both norms of a block."""


@dataclass(frozen=True)
class Span:
    """Where frames are in their clip."""

    start: Tensor
    """int64 (): number of the first; below 0 it is not one yet."""
    total: Tensor
    """int64 (): frames of the clip."""

    def later(self, frames: int) -> Span:
        """Of what comes out of a layer that waits for so many frames."""
        return replace(self, start=self.start - frames)

    def doubled(self) -> Span:
        """After every frame became two, and of the first pair one."""
        return Span(2 * self.start - 1, 2 * self.total - 1)


@dataclass
class Tape:
    """What layers keep from one piece of a clip to the next, in the order they run in."""

    caches: Sequence[Tensor] | None
    """Of the piece before; None at the beginning of a clip, where the first frame is repeated."""
    kept: list[Tensor] = field(default_factory=list)
    """For the piece that comes next."""
    noise: Tensor | None = None
    """(sites, h, w), noise that blocks add, in the order they run in."""
    _sites: int = 0

    def window(self, x: Tensor, before: int) -> Tensor:
        """`x` with the frames that came before it."""
        if self.caches is None:
            earlier = x[:, :, :1].expand(-1, -1, before, -1, -1)
        else:
            earlier = self.caches[len(self.kept)]
        window = torch.cat([earlier, x], 2)
        self.kept.append(window[:, :, window.shape[2] - before :])
        return window

    def draw(self) -> Tensor:
        """Noise of the next site, (h, w)."""
        assert self.noise is not None
        self._sites += 1
        return self.noise[self._sites - 1]


class TimeConv(nn.Module):
    """A convolution over three frames, or over one of them with `kernel` 1."""

    def __init__(
        self, channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1
    ) -> None:
        super().__init__()
        side = kernel // 2
        self.conv = nn.Conv3d(channels, out_channels, kernel, stride, (0, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """(1, C, n, H, W) with the frames around to (1, C', n - 2, H, W)."""
        y: Tensor = self.conv(x)
        return y


def edged(window: Tensor, span: Span | None, *, causal: bool) -> Tensor:
    """Frames with copies of the first and the last of the clip where they are out of it.

    Args:
        window: (1, C, n, H, W).
        span: Of the window; None where no frame of it is out of the clip.
        causal: Whether what is behind the end is of no use, and left as it is.
    """
    if span is None:
        return window
    size = window.shape[2]
    place = (span.start + torch.arange(size)).clamp(min=0)
    place = place if causal else torch.minimum(place, span.total - 1)
    return window.index_select(2, (place - span.start).clamp(0, size - 1))


@dataclass(frozen=True)
class BlockOptions:
    """What blocks of one network share."""

    causal: bool
    eps: float
    timed: bool = False
    """Whether a timestep modulates it."""


class ResnetBlock(nn.Module):
    """Norm, activation and convolution, twice, beside an identity."""

    def __init__(
        self, channels: int, out_channels: int, options: BlockOptions, *, noisy: bool = False
    ) -> None:
        super().__init__()
        self.options = options
        self.conv1 = TimeConv(channels, out_channels)
        self.conv2 = TimeConv(out_channels, out_channels)
        self.norm3 = self.conv_shortcut = None
        if channels != out_channels:
            self.norm3 = nn.LayerNorm(channels, eps=options.eps)
            self.conv_shortcut = TimeConv(channels, out_channels, kernel=1)
        self.per_channel_scale1 = self.per_channel_scale2 = None
        if noisy:
            self.per_channel_scale1 = nn.Parameter(torch.zeros(channels, 1, 1))
            self.per_channel_scale2 = nn.Parameter(torch.zeros(channels, 1, 1))
        table = torch.randn(_SCALED, channels) / channels**0.5
        self.scale_shift_table = nn.Parameter(table) if options.timed else None

    def forward(
        self, x: Tensor, tape: Tape, span: Span | None, time: Tensor | None
    ) -> tuple[Tensor, Span | None]:
        """Frames (1, C, n, H, W), where they are, and an embedded timestep (1, 4 C)."""
        causal = self.options.causal
        shift1 = scale1 = shift2 = scale2 = None
        if self.scale_shift_table is not None:
            assert time is not None
            table = self.scale_shift_table + time.unflatten(1, (_SCALED, -1))
            shift1, scale1, shift2, scale2 = table[..., None, None, None].unbind(1)
        window = tape.window(x, _TAPS - 1)
        y = _activated(window, shift1, scale1)
        y = self.conv1(edged(y, _before(span), causal=causal))
        if self.per_channel_scale1 is not None:
            y = y + (tape.draw() * self.per_channel_scale1)[:, None]
        span = span if span is None or causal else span.later(1)
        y = _activated(tape.window(y, _TAPS - 1), shift2, scale2)
        y = self.conv2(edged(y, _before(span), causal=causal))
        if self.per_channel_scale2 is not None:
            y = y + (tape.draw() * self.per_channel_scale2)[:, None]
        span = span if span is None or causal else span.later(1)
        # What went around the convolutions waits as long as they did.
        around = x if causal else window[:, :, : x.shape[2]]
        if self.norm3 is not None and self.conv_shortcut is not None:
            normed: Tensor = self.norm3(around.movedim(1, -1))
            around = self.conv_shortcut(normed.movedim(-1, 1))
        return y + around, span


class Resnets(nn.Module):
    """Blocks one after another, with a timestep of their own where the network has one."""

    def __init__(
        self, channels: int, count: int, options: BlockOptions, *, noisy: bool = False
    ) -> None:
        super().__init__()
        self.time_embedder = TimeEmbedding(_SCALED * channels) if options.timed else None
        self.resnets = nn.ModuleList(
            ResnetBlock(channels, channels, options, noisy=noisy) for _ in range(count)
        )

    def forward(
        self, x: Tensor, tape: Tape, span: Span | None, time: Tensor | None
    ) -> tuple[Tensor, Span | None]:
        """Frames (1, C, n, H, W), where they are, and the timestep (1,)."""
        if self.time_embedder is not None:
            time = self.time_embedder(time)
        for block in self.resnets:
            x, span = block(x, tape, span, time)
        return x, span


class PlainConv(TimeConv):
    """A convolution of frames alone: at the edges of a network, and where resolution changes."""

    def __init__(self, channels: int, out_channels: int, *, causal: bool, stride: int = 1) -> None:
        super().__init__(channels, out_channels, stride=stride)
        self.causal, self.stride = causal, stride

    def run(self, x: Tensor, tape: Tape, span: Span | None) -> tuple[Tensor, Tensor, Span | None]:
        """The result, the frames that it belongs to, and where they are."""
        # Of two frames that become one, one is new to the next: it meets one from before.
        kept = _TAPS - self.stride
        window = tape.window(x, _TAPS - 1 if tape.caches is None else kept)
        if tape.caches is None:
            tape.kept[-1] = window[:, :, window.shape[2] - kept :]
        y = self(edged(window, _before(span), causal=self.causal))
        if self.causal:
            return y, x, span
        assert span is not None
        return y, window[:, :, 1 : 1 + x.shape[2]], span.later(1)


def rms_norm(x: Tensor) -> Tensor:
    """Norm over the channels of (1, C, n, H, W)."""
    return x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + _NORM_EPSILON)


def _activated(x: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    x = rms_norm(x)
    if shift is not None and scale is not None:
        x = x * (1 + scale) + shift
    return F.silu(x)


def _before(span: Span | None) -> Span | None:
    """Of a window that begins two frames earlier."""
    return None if span is None else span.later(_TAPS - 1)
