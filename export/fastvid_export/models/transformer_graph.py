"""The transformer as its graph computes it: the same numbers in fewer passes over memory.

In a graph every operation is a pass, and at a few hundred tokens passes cost as much as products.
So what depends on the timestep and the prompt alone is computed for all blocks at once, projections
that were one matrix are several that need no copy to be taken apart, and norms are written as the
pattern that runtimes have one kernel for.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export.models.text_encoder import attend
from fastvid_export.models.video_transformer import (
    EPSILON,
    Block,
    VideoTransformer,
    mean_of_prompt,
    norm_and_rotate,
    patchify,
    places,
    rope_table_3d,
    sinusoid,
    unpatchify,
)


class TransformerGraph(nn.Module):
    """Computes what a `VideoTransformer` computes; takes and returns the same."""

    def __init__(self, network: VideoTransformer) -> None:
        super().__init__()
        self.network = network
        self.ones: Tensor
        self.register_buffer("ones", torch.ones(network.options.width), persistent=False)

    def forward(
        self,
        hidden_states: Tensor,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        condition: Tensor,
    ) -> Tensor:
        """See `VideoTransformer.forward`."""
        net, text = self.network, encoder_hidden_states
        o = net.options
        known, mask = condition[:, :-1], condition[:, -1:]
        latents = hidden_states + mask * (known - hidden_states)
        x, grid = patchify(torch.cat([latents, condition], 1))
        x = net.patches(x) + (places(grid, x) @ net.places.weight.T + self._beginning(grid))
        c = net.time(sinusoid(timestep)) + net.prompt(mean_of_prompt(text, encoder_attention_mask))
        modulation = self._modulation(F.silu(c))
        table = rope_table_3d(grid, o.width // o.heads, o.theta)
        pairs = self._text(text)
        for i, block in enumerate(net.blocks):
            assert isinstance(block, Block)
            x = self._block(
                block, x, pairs[2 * i : 2 * i + 2], modulation[6 * i : 6 * i + 6], table
            )
        shift, scale = net.final[0] + c, (1 + net.final[1]) + c
        x = net.out(self._norm(x) * scale[:, None] + shift[:, None])
        return unpatchify(x, grid)

    def _block(
        self,
        block: Block,
        x: Tensor,
        text: tuple[Tensor, ...],
        modulation: tuple[Tensor, ...],
        table: tuple[Tensor, Tensor],
    ) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = modulation
        heads = block.heads
        h = self._norm(x) * scale1 + shift1
        q, k, v = (
            F.linear(h, weight).unflatten(-1, (heads, -1)) for weight in block.qkv.weight.chunk(3)
        )
        q, k = norm_and_rotate(q, k, block.q_norm, block.k_norm, table)
        x = x + gate1 * block.out(attend(q, k, v))
        q = block.text_q(self._norm(x)).unflatten(-1, (heads, -1))
        k, v = (y.unflatten(-1, (heads, -1)) for y in text)
        q, k = norm_and_rotate(q, k, block.text_q_norm, block.text_k_norm)
        x = x + block.text_out(attend(q, k, v))
        h = F.relu(block.up(self._norm(x) * scale2 + shift2))
        return x + gate2 * block.down(h * h)

    def _norm(self, x: Tensor) -> Tensor:
        """RMS norm, in the form that runtimes know to be one; they want a weight too."""
        return x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON) * self.ones

    def _modulation(self, c: Tensor) -> tuple[Tensor, ...]:
        """Shift, 1 + scale and gate of the attention and the MLP, of every block: (N, 1, width)."""
        tables = torch.stack([block.table for block in self.network.blocks])
        one = torch.tensor([0.0, 1.0, 0.0, 0.0, 1.0, 0.0])[:, None]
        both = self.network.modulation(c).unflatten(-1, (1, 6, -1)) + (tables + one)
        return both.flatten(1, 2).split(1, 1)

    def _text(self, text: Tensor) -> tuple[Tensor, ...]:
        """Keys and values of every block, (N, L, width) each, by one product."""
        weight = torch.cat([block.text_kv.weight for block in self.network.blocks])
        return F.linear(text, weight).split(self.network.options.width, -1)

    def _beginning(self, grid: tuple[int, int, int]) -> Tensor:
        """What tokens of the first latent have beside their place: (tokens, width)."""
        t, h, w = grid
        first = (torch.arange(t) == 0).to(torch.float32)
        return first[:, None].expand(t, h * w).flatten()[:, None] * self.network.beginning
