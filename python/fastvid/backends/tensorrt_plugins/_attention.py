"""Plugins of attention and of what prepares queries and keys for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastvid.backends.tensorrt_plugins._describe import THREADS, Kernel, Plugin, constant
from fastvid.errors import UnsupportedModelError

_NORMS = {"none": 0, "head": 1, "full": 2}  # as core/norm_rope.h numbers them
_WEIGHTS, _TABLES = ("q_weight", "k_weight"), ("cos", "sin")


def qk_norm_rope() -> list[Plugin]:
    """One plugin per set of optional inputs."""
    return [
        _qk_norm_rope("QkNormRopeQWeightKWeight", _WEIGHTS),
        _qk_norm_rope("QkNormRopeCosSin", _TABLES),
        _qk_norm_rope("QkNormRopeQWeightKWeightCosSin", (*_WEIGHTS, *_TABLES)),
    ]


def _qk_norm_rope(name: str, optional: tuple[str, ...]) -> Plugin:
    inputs = ("q", "k", *optional)

    def results(api: Any, trt: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        return [given[0].like(), given[1].like()]

    def kernel(api: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Kernel:
        named = dict(zip(inputs, given, strict=True))
        batch, q_tokens, q_heads, size = named["q"].shape_expr
        _, k_tokens, k_heads, _ = named["k"].shape_expr
        dim = constant("qk_norm_rope", "the size of a head", size)
        rope = attributes["rope"]
        if (rope == "none") == ("cos" in named) or attributes["norm"] not in _NORMS:
            raise UnsupportedModelError(
                f"tensorrt: {name} must rotate exactly with cos and sin, "
                f"got norm {attributes['norm']!r}, rope {rope!r}"
            )
        # A block makes one token of the full norm, else as many heads as it has groups.
        q_rows, k_rows, per_block = batch * q_tokens, batch * k_tokens, 1
        if attributes["norm"] != "full":
            q_rows, k_rows = q_rows * q_heads, k_rows * k_heads
            per_block = THREADS // _group(dim, str(named["q"].dtype), rope)
        blocks = api.cdiv(q_rows, per_block) + api.cdiv(k_rows, per_block)
        words = ["fastvid", *(["norm"] if "q_weight" in named else [])]
        words += [] if rope == "none" else ["rope", rope]
        table = (named["cos"].shape_expr[1],) if "cos" in named else ()
        arguments = (batch, q_tokens, k_tokens, q_heads, k_heads, dim, *table)
        constants = {
            "fastvid_norm": _NORMS[attributes["norm"]],
            "fastvid_eps": float(attributes["eps"]),
        }
        return Kernel("_".join(words), blocks, arguments, constants)

    return Plugin(
        name=name,
        node="QkNormRope",
        op="qk_norm_rope",
        kernels="qk_norm_rope",
        inputs=inputs,
        all_inputs=("q", "k", *_WEIGHTS, *_TABLES),
        results=results,
        kernel=kernel,
        attributes={"norm": "full", "rope": "interleaved", "eps": 1e-6},
        outputs=2,
    )


def attention() -> list[Plugin]:
    """Without and with a bias. TensorRT's own Attention would take a plugin's place by its name."""
    return [_attention("FastvidAttention", ()), _attention("FastvidAttentionBias", ("bias",))]


def _attention(name: str, optional: tuple[str, ...]) -> Plugin:
    def results(api: Any, trt: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        return [given[0].like()]

    def kernel(api: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Kernel:
        batch, queries, heads, size = given[0].shape_expr
        keys = given[1].shape_expr[1]
        dim = constant("attention", "the size of a head", size)
        wide = "FLOAT" in str(given[0].dtype)
        limit = next((n for n in (64, 128, *([256] if wide else [])) if dim <= n), None)
        if limit is None or (not wide and dim % 8):
            allowed = "at most 256" if wide else "a multiple of 8, at most 128"
            raise UnsupportedModelError(
                f"tensorrt: the size of a head of attention must be {allowed}, got {dim}"
            )
        # Queries of a block: kBlockQueries of cuda/attention_plain.cuh, kQueries of _mma.cuh.
        queries_of_block = (16 if limit <= 128 else 8) if wide else 64
        bias = tuple(given[3].shape_expr)[:2] if optional else ()
        return Kernel(
            f"fastvid_attention_{'bias_' if optional else ''}{limit}",
            batch * heads * api.cdiv(queries, queries_of_block),
            (batch, queries, keys, heads, dim, *bias),
            {
                "fastvid_causal": attributes["causal"],
                "fastvid_scale": attributes["scale"],
            },
            threads=128,
        )

    return Plugin(
        name=name,
        node="Attention",
        op="attention",
        kernels="attention",
        inputs=("q", "k", "v", *optional),
        all_inputs=("q", "k", "v", "bias"),
        results=results,
        kernel=kernel,
        attributes={"causal": 0, "scale": 0.0},
    )


def temporal_attention() -> list[Plugin]:
    """Without and with a bias."""
    return [
        _temporal_attention("TemporalAttention", ()),
        _temporal_attention("TemporalAttentionBias", ("bias",)),
    ]


def _temporal_attention(name: str, optional: tuple[str, ...]) -> Plugin:
    def results(api: Any, trt: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Any:
        return [given[0].like()]

    def kernel(api: Any, given: Sequence[Any], attributes: Mapping[str, Any]) -> Kernel:
        batch, frames, places, heads, dim = given[0].shape_expr
        # The kernel for 64 frames does any number of them; smaller ones hold more at once.
        known = frames.constant_value() if frames.is_constant else 64
        limit = next((n for n in (16, 32, 64) if known <= n), None)
        if limit is None:
            raise UnsupportedModelError(
                f"tensorrt: temporal_attention must have at most 64 frames, got {known}"
            )
        # A warp does two sequences of 16 frames, one of 32 or half of one of 64, or with 16-bit
        # floats 16 queries of one: launch_plain and launch_tiled of cuda/temporal_attention.cu.
        sequences = batch * places * heads
        if "FLOAT" in str(given[0].dtype):
            blocks = api.cdiv(sequences * limit, 4 * 32)
        else:
            blocks = api.cdiv(sequences * api.cdiv(frames, 16), 4)
        bias = (given[3].shape_expr[0],) if optional else ()
        return Kernel(
            f"fastvid_temporal_attention_{'bias_' if optional else ''}{limit}",
            blocks,
            (batch, frames, places, heads, dim, *bias),
            {
                "fastvid_causal": attributes["causal"],
                "fastvid_scale": attributes["scale"],
            },
            threads=128,
        )

    return Plugin(
        name=name,
        node="TemporalAttention",
        op="temporal_attention",
        kernels="temporal_attention",
        inputs=("q", "k", "v", *optional),
        all_inputs=("q", "k", "v", "bias"),
        results=results,
        kernel=kernel,
        attributes={"scale": 0.0, "causal": 0},
    )


def _group(dim: int, dtype: str, rope: str) -> int:
    """How many threads share a row, as `norm_rope_launch` in cuda/qk_norm_rope.cuh has it."""
    pack = 4 if "FLOAT" in dtype else 8
    if dim % (2 * pack):
        pack = 2 if rope == "interleaved" else 1
    group = 1
    while group < 32 and group < dim // pack:
        group *= 2
    return group
