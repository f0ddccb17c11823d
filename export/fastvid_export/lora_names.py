"""Names of layers in the code that models were published with, beside those of diffusers.

LoRA files are made with either. The tables follow the conversion scripts of diffusers
(`convert_wan_to_diffusers.py`, `convert_ltx_to_diffusers.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_WAN = (
    (r"\.attn1\.to_([qkv])$", r".self_attn.\1"),
    (r"\.attn2\.to_([qkv])$", r".cross_attn.\1"),
    (r"\.attn1\.to_out\.0$", ".self_attn.o"),
    (r"\.attn2\.to_out\.0$", ".cross_attn.o"),
    (r"\.attn2\.add_([kv])_proj$", r".cross_attn.\1_img"),
    (r"\.attn2\.norm_added_([kq])$", r".cross_attn.norm_\1_img"),
    (r"\.attn1\.norm_([kq])$", r".self_attn.norm_\1"),
    (r"\.attn2\.norm_([kq])$", r".cross_attn.norm_\1"),
    (r"\.ffn\.net\.0\.proj$", ".ffn.0"),
    (r"\.ffn\.net\.2$", ".ffn.2"),
    (r"^(blocks\.\d+)\.norm2$", r"\1.norm3"),
    (r"^condition_embedder\.text_embedder\.linear_1$", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2$", "text_embedding.2"),
    (r"^condition_embedder\.time_embedder\.linear_1$", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2$", "time_embedding.2"),
    (r"^condition_embedder\.time_proj$", "time_projection.1"),
    (r"^condition_embedder\.image_embedder\.norm1$", "img_emb.proj.0"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj$", "img_emb.proj.1"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2$", "img_emb.proj.3"),
    (r"^condition_embedder\.image_embedder\.norm2$", "img_emb.proj.4"),
    (r"^proj_out$", "head.head"),
)
_LTX = (
    (r"^proj_in$", "patchify_proj"),
    (r"^time_embed\.", "adaln_single."),
    (r"\.norm_([kq])$", r".\1_norm"),
)
_MARKS: Sequence[tuple[re.Pattern[str], Sequence[tuple[str, str]]]] = (
    (re.compile(r"blocks\.0\.attn1\.to_q"), _WAN),
    (re.compile(r"transformer_blocks\.0\.attn1\.to_q"), _LTX),
)
"""A layer that tells the models apart, and what their layers were called."""


def published(names: Iterable[str]) -> dict[str, str]:
    """Layers of a transformer by the names that its authors gave them.

    Args:
        names: Of its layers, in diffusers.

    Returns:
        Those of `names` that are called otherwise there; none for a model that is not known.
    """
    known = list(names)
    for mark, table in _MARKS:
        if any(mark.fullmatch(name) for name in known):
            return {new: name for name in known if (new := _renamed(name, table)) != name}
    return {}


def _renamed(name: str, table: Sequence[tuple[str, str]]) -> str:
    for pattern, replacement in table:
        changed, count = re.subn(pattern, replacement, name)
        if count:
            return changed
    return name
