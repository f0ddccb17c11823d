"""The vision transformer of CLIP (Radford et al. 2021), as image-to-video models read it.

Names in the state dict are those of `CLIPVisionModel` in transformers. The models take the tokens
before the last layer, so that layer and the norm after it are in the weights and not computed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastvid_export import ops


@dataclass(frozen=True)
class ClipVisionOptions:
    """Shape of the network; names are those of transformers' configuration."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    image_size: int
    patch_size: int
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-5
    image_mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    image_std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)


class ClipVision(nn.Module):
    """Pictures to tokens."""

    def __init__(self, options: ClipVisionOptions) -> None:
        super().__init__()
        o = self.options = options
        self.embeddings = _Embeddings(o)
        # Spelled as in the weights.
        self.pre_layrnorm = nn.LayerNorm(o.hidden_size, o.layer_norm_eps)
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(_Layer(o) for _ in range(o.num_hidden_layers))
        self.post_layernorm = nn.LayerNorm(o.hidden_size, o.layer_norm_eps)

    def forward(self, frames: Tensor) -> Tensor:
        """The tokens before the last layer.

        Args:
            frames: uint8 (N, image_size, image_size, 3).

        Returns:
            float32 (N, 1 + patches, hidden_size).
        """
        x = frames.to(torch.float32).permute(0, 3, 1, 2) * (1 / 255)
        mean, std = (
            torch.tensor(values)[:, None, None]
            for values in (self.options.image_mean, self.options.image_std)
        )
        x = self.pre_layrnorm(self.embeddings((x - mean) / std))
        for layer in list(self.encoder.layers)[:-1]:  # type: ignore[arg-type]
            x = layer(x)
        return x


class _Embeddings(nn.Module):
    def __init__(self, o: ClipVisionOptions) -> None:
        super().__init__()
        count = (o.image_size // o.patch_size) ** 2
        self.class_embedding = nn.Parameter(torch.zeros(o.hidden_size))
        self.patch_embedding = nn.Conv2d(3, o.hidden_size, o.patch_size, o.patch_size, bias=False)
        self.position_embedding = nn.Embedding(count + 1, o.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patch_embedding(x).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        return torch.cat([first, patches], 1) + self.position_embedding.weight


class _Layer(nn.Module):
    def __init__(self, o: ClipVisionOptions) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(o.hidden_size, o.layer_norm_eps)
        self.self_attn = _Attention(o)
        self.layer_norm2 = nn.LayerNorm(o.hidden_size, o.layer_norm_eps)
        self.mlp = _Mlp(o)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.self_attn(self.layer_norm1(x))
        return x + self.mlp(self.layer_norm2(x))


class _Attention(nn.Module):
    def __init__(self, o: ClipVisionOptions) -> None:
        super().__init__()
        self.heads = o.num_attention_heads
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self, name, nn.Linear(o.hidden_size, o.hidden_size))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            project(x).unflatten(-1, (self.heads, -1))
            for project in (self.q_proj, self.k_proj, self.v_proj)
        )
        result: Tensor = self.out_proj(ops.attention(q, k, v).flatten(2))
        return result


class _Mlp(nn.Module):
    def __init__(self, o: ClipVisionOptions) -> None:
        super().__init__()
        self.quick = o.hidden_act == "quick_gelu"
        self.fc1 = nn.Linear(o.hidden_size, o.intermediate_size)
        self.fc2 = nn.Linear(o.intermediate_size, o.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        h = h * torch.sigmoid(1.702 * h) if self.quick else F.gelu(h)
        result: Tensor = self.fc2(h)
        return result
