"""A generator of a few numbers: every graph there must be, in ONNX's text form, and a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx

from fastvid.bundle import Bundle, write_bundle

WORDS = ["[PAD]", "[UNK]", "a", "red", "blue", "circle", "square", "moves", "left", "right"]
TOKENS = 8
HEADER = '<ir_version: 10, opset_import: ["" : 20]>\n'

TEXT_ENCODER = """
g (int64[N, L] input_ids, int64[N, L] attention_mask) => (float[N, L, 6] prompt_embeds)
<float[10, 6] table> { prompt_embeds = Gather (table, input_ids) }
"""
# A velocity that depends on all that is given, so that a test sees what was not passed on.
TRANSFORMER = """
g (float[N, 4, T, h, w] hidden_states, float[N] timestep, float[N, L, 6] encoder_hidden_states,
   int64[N, L] encoder_attention_mask CONDITION) => (float[N, 4, T, h, w] sample)
<float[4, 4] mix, float half = {0.5}, float thousandth = {0.001},
 int64[1] last = {2}, int64[5] five = {-1, 4, 1, 1, 1}, int64[5] column_shape = {-1, 1, 1, 1, 1},
 int64[1] one = {1}, int64[1] start = {0}, int64[1] four = {4}, int64[1] axis = {1}>
{
  weights = Cast <to = 1> (encoder_attention_mask)
  column = Unsqueeze (weights, last)
  weighted = Mul (encoder_hidden_states, column)
  summed = ReduceSum <keepdims = 0> (weighted, one)
  part = Slice (summed, start, four, axis)
  mixed = MatMul (part, mix)
  text = Reshape (mixed, five)
  scaled = Mul (timestep, thousandth)
  time = Reshape (scaled, column_shape)
  faded = Mul (hidden_states, half)
  guided = Add (faded, text)
  RESULT
}
"""
CONDITIONED = """timed = Mul (guided, time)
  shown = Slice (condition, start, four, axis)
  sample = Add (timed, shown)"""
BARE = "sample = Mul (guided, time)"

# One frame of a latent: its first three channels, enlarged; `cache_last` is the latent before.
PICTURE = """
  {out}_flat = Squeeze ({src}, two)
  {out}_rgb = Slice ({out}_flat, start, three, axis)
  {out}_bright = Mul ({out}_rgb, forty)
  {out}_grey = Add ({out}_bright, middle)
  {out}_large = Resize <mode = "nearest", nearest_mode = "floor",
                        coordinate_transformation_mode = "asymmetric"> ({out}_grey, , scales)
  {out}_last = Transpose <perm = [0, 2, 3, 1]> ({out}_large)
  {out}_clipped = Clip ({out}_last, low, high)
  {out} = Cast <to = 2> ({out}_clipped)
"""
NUMBERS = """<int64[1] two = {2}, int64[1] start = {0}, int64[1] three = {3}, int64[1] axis = {1},
 float forty = {40}, float middle = {128}, float low = {0}, float high = {255},
 float[4] scales = {1, 1, 8, 8}, float quarter = {0.25}, float half = {0.5}, float rest = {0.75}>
"""
DECODER_FIRST = (
    "g (float[1, 4, 1, h, w] latents) => (uint8[1, H, W, 3] frames, "
    "float[1, 4, 1, h, w] cache_last)\n"
    + NUMBERS
    + "{"
    + PICTURE.replace("{src}", "latents").replace("{out}", "frames")
    + "  cache_last = Identity (latents)\n}"
)
DECODER_NEXT = (
    "g (float[1, 4, 1, h, w] latents, float[1, 4, 1, h, w] cache_last) => "
    "(uint8[4, H, W, 3] frames, float[1, 4, 1, h, w] next_cache_last)\n"
    + NUMBERS
    + "{\n  step = Sub (latents, cache_last)\n"
    + "".join(
        f"  move{i} = Mul (step, {name})\n  at{i} = Add (cache_last, move{i})\n"
        + PICTURE.replace("{src}", f"at{i}").replace("{out}", f"frame{i}")
        for i, name in enumerate(("quarter", "half", "rest"))
    )
    + PICTURE.replace("{src}", "latents").replace("{out}", "frame3")
    + "  frames = Concat <axis = 0> (frame0, frame1, frame2, frame3)\n"
    + "  next_cache_last = Identity (latents)\n}"
)
# The last frame given, made smaller, plus a channel of zeros.
_SHRINK = """
  picture = Slice (frames, from, to, batch)
  planes = Transpose <perm = [0, 3, 1, 2]> (picture)
  numbers = Cast <to = 1> (planes)
  small = AveragePool <kernel_shape = [8, 8], strides = [8, 8]> (numbers)
  centred = Sub (small, middle)
  scaled = Div (centred, forty)
  padded = Pad (scaled, pads)
  latents = Unsqueeze (padded, two)
"""
_SHRINK_NUMBERS = """<int64[1] two = {2}, int64[1] from = {-1}, int64[1] to = {1000000},
 int64[1] batch = {0}, float forty = {40}, float middle = {128},
 int64[8] pads = {0, 0, 0, 0, 0, 1, 0, 0}>
"""
ENCODER_FIRST = (
    "g (uint8[1, H, W, 3] frames) => (float[1, 4, 1, h, w] latents, float[1, 4, 1, h, w] cache_a)\n"
    + _SHRINK_NUMBERS
    + "{"
    + _SHRINK
    + "  cache_a = Identity (latents)\n}"
)
ENCODER_NEXT = (
    "g (uint8[4, H, W, 3] frames, float[1, 4, 1, h, w] cache_a) => "
    "(float[1, 4, 1, h, w] latents, float[1, 4, 1, h, w] next_cache_a)\n"
    + _SHRINK_NUMBERS
    + "{"
    + _SHRINK
    + "  next_cache_a = Identity (latents)\n}"
)
GENERATION = {
    "height": 16,
    "width": 24,
    "num_frames": 9,
    "max_num_frames": 33,
    "frame_rate": 8,
    "num_inference_steps": 4,
    "guidance_scale": 2.0,
    "max_prompt_tokens": TOKENS,
    "latent_channels": 4,
    "spatial_compression": 8,
    "temporal_compression": 4,
}


def tokenizer() -> bytes:
    """A tokenizer of whole words."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    words = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]")
    )
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return words.to_str().encode()


def graphs(*, conditioned: bool = True, spoil: float = 0.0) -> dict[str, bytes]:
    """The six graphs; `spoil` is added to the velocity."""
    rng = np.random.default_rng(0)
    text = TRANSFORMER.replace(
        "CONDITION", ", float[N, 5, T, h, w] condition" if conditioned else ""
    )
    text = text.replace("RESULT", CONDITIONED if conditioned else BARE)
    mix = rng.normal(0, 0.3, (4, 4)).astype(np.float32)
    mix[0, 0] += np.float32(spoil)
    table = rng.normal(0, 1, (len(WORDS), 6)).astype(np.float32)
    return {
        "text_encoder": _model(TEXT_ENCODER, table=table),
        "transformer": _model(text, mix=mix),
        "decoder_first": _model(DECODER_FIRST),
        "decoder_next": _model(DECODER_NEXT),
        "encoder_first": _model(ENCODER_FIRST),
        "encoder_next": _model(ENCODER_NEXT),
    }


def bundle(
    folder: Path, parts: dict[str, bytes] | None = None, *, files: Any = None, **changes: Any
) -> Bundle:
    """A bundle of the graphs `parts`."""
    parts = graphs() if parts is None else parts
    manifest = {
        "name": "generator-test",
        "task": "generator",
        "description": "for tests",
        "licence": "Apache-2.0",
        "provenance": {"weights": "drawn at random"},
        "graphs": {name: _entry(name, data) for name, data in parts.items()},
        "size_rule": {"minimum": 16, "multiple_of": 8, "padding": "none", "maximum": 256},
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.0},
        "generation": GENERATION,
        **changes,
    }
    contents = {f"{name}.onnx": data for name, data in parts.items()}
    contents["tokenizer.json"] = tokenizer()
    contents |= {} if files is None else files
    return write_bundle(folder, manifest, {k: v for k, v in contents.items() if v})


def _model(text: str, **initializers: Any) -> bytes:
    for name, array in initializers.items():
        values = ", ".join(f"{v:.6f}" for v in array.ravel().tolist())
        shape = ", ".join(map(str, array.shape))
        text = text.replace(f"float[{shape}] {name}", f"float[{shape}] {name} = {{{values}}}")
    model = onnx.parser.parse_model(HEADER + text.strip())
    onnx.checker.check_model(model)
    return model.SerializeToString()


def _entry(name: str, data: bytes) -> dict[str, Any]:
    graph = onnx.load_from_string(data).graph
    names = {1: "float32", 2: "uint8", 7: "int64"}

    def tensor(value: Any) -> dict[str, Any]:
        kind = value.type.tensor_type
        shape = [size.dim_param or size.dim_value for size in kind.shape.dim]
        return {"name": value.name, "dtype": names[kind.elem_type], "shape": shape}

    return {
        "file": f"{name}.onnx",
        "inputs": [tensor(value) for value in graph.input],
        "outputs": [tensor(value) for value in graph.output],
    }
