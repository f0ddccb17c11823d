"""LoRA files merged into weights (Hu et al. 2021, arXiv:2106.09685): `W + scale * alpha / r * B A`.

Two styles of keys are read:

- diffusers' and peft's: `transformer.blocks.0.attn1.to_q.lora_A.weight` and `lora_B`, the component
  in front, `alpha` beside them or equal to the rank r;
- Kohya's: `lora_unet_blocks_0_attn1_to_q.lora_down.weight`, `lora_up` and `alpha`, the layer's name
  with underscores for dots.

Layers may be called as in diffusers, or as in the code that the model was published with (see
`lora_names`): `diffusion_model.blocks.0.self_attn.q.lora_A.weight`.

Differences of whole weights and biases (`diff`, `diff_b`) are added as well. A key that belongs to
no layer is an error: a file that changes half of a model would change it into something else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from torch import Tensor

from fastvid.errors import InputError
from fastvid_export import lora_names
from fastvid_export.errors import CheckpointError
from fastvid_export.weight_files import WeightFiles, Weights, WeightSpec

_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "transformer": (
        "transformer.", "diffusion_model.", "unet.", "base_model.model.", "pipe.dit.",
    ),
    "transformer_2": ("transformer_2.",),
    "text_encoder": ("text_encoder.",),
}  # fmt: skip
_KOHYA: Mapping[str, tuple[str, ...]] = {
    "transformer": ("lora_unet_", "lora_transformer_"),
    "text_encoder": ("lora_te_", "lora_te1_"),
}
_PARTS = {
    "lora_A.weight": "down",
    "lora_A.default.weight": "down",
    "lora_down.weight": "down",
    "lora.down.weight": "down",
    "lora_B.weight": "up",
    "lora_B.default.weight": "up",
    "lora_up.weight": "up",
    "lora.up.weight": "up",
    "lora_B.bias": "bias",
    "alpha": "alpha",
    "diff": "diff",
    "diff_b": "bias",
}
"""What the end of a key stands for."""
_ENDS = re.compile(r"\.(" + "|".join(map(re.escape, _PARTS)) + ")$")


@dataclass(frozen=True)
class Lora:
    """A LoRA file and how strongly it counts."""

    path: Path
    scale: float = 1.0
    into: str = "transformer"
    """Where keys go that name no component, or only `transformer`; one of `_INTO`."""


_INTO = ("transformer", "transformer_2")


def parse(text: str) -> Lora:
    """A LoRA from `FILE` or `FILE:SCALE`, with `transformer_2=` in front for that one.

    Raises:
        InputError: The scale is not a finite number.
    """
    into, equals, rest = text.partition("=")
    if equals and into in _INTO:
        return replace(parse(rest), into=into)
    name, mark, number = text.rpartition(":")
    if (
        not mark
        or re.fullmatch(r"[-+]?[0-9.]+(e[-+]?[0-9]+)?|nan|[-+]?inf", number.lower()) is None
    ):
        return Lora(Path(text).expanduser())
    scale = float(number) if number.count(".") < 2 else math.nan
    if not name or not math.isfinite(scale):
        raise InputError(f"lora: argument must be FILE or FILE:SCALE, got {text[:80]!r}")
    return Lora(Path(name).expanduser(), scale)


@dataclass
class _Change:
    """What one file does to one layer."""

    scale: float
    files: WeightFiles
    parts: dict[str, str] = field(default_factory=dict)
    """Names in the file."""

    def read(self, part: str) -> Tensor:
        return self.files.read(self.parts[part]).float()

    def weight(self, shape: tuple[int, ...]) -> Tensor | None:
        """What is added to the layer's weight; float32."""
        total = None
        if "down" in self.parts:
            down, up = self.read("down").flatten(1), self.read("up").flatten(1)
            rank = down.shape[0]
            alpha = float(self.read("alpha")) if "alpha" in self.parts else rank
            total = (self.scale * alpha / rank) * (up @ down).reshape(shape)
        if "diff" in self.parts:
            whole = self.scale * self.read("diff").reshape(shape)
            total = whole if total is None else total + whole
        return total

    def problem(self, weights: Weights, layer: str) -> str:
        """Why it cannot be merged into a layer; empty where it can."""
        if ("down" in self.parts) != ("up" in self.parts):
            return "only one of its two factors"
        if "alpha" in self.parts and "down" not in self.parts:
            return "an alpha without factors"
        wanted = weights.spec(f"{layer}.weight").shape
        if "down" in self.parts:
            down, up = (self.files.spec(self.parts[part]).shape for part in ("down", "up"))
            fits = (
                len(down) >= 2
                and len(up) >= 2
                and down[0] == math.prod(up[1:])
                and up[0] == wanted[0]
            )
            if not fits or math.prod(down[1:]) != math.prod(wanted[1:]):
                return f"factors of shapes {list(up)} and {list(down)} for {list(wanted)}"
        if "diff" in self.parts and math.prod(self._shape("diff")) != math.prod(wanted):
            return f"a difference of shape {list(self._shape('diff'))} for {list(wanted)}"
        if "bias" in self.parts and f"{layer}.bias" not in weights.names:
            return "a bias for a layer without one"
        return ""

    def _shape(self, part: str) -> tuple[int, ...]:
        return self.files.spec(self.parts[part]).shape


class MergedWeights:
    """A checkpoint with LoRA files merged into some of its tensors, each when it is read.

    Args:
        weights: The checkpoint.
        changes: By the name of the layer.
    """

    def __init__(self, weights: Weights, changes: Mapping[str, Sequence[_Change]]) -> None:
        self._weights, self._changes = weights, changes
        self._names = set(weights.names)
        self.changed = tuple(sorted(name for name in weights.names if self._of(name)))
        """Names of the tensors that are not what the checkpoint holds."""

    def _of(self, name: str) -> list[_Change]:
        layer, _, kind = name.rpartition(".")
        found = self._changes.get(layer, ())
        if kind == "weight":
            return [change for change in found if {"down", "diff"} & set(change.parts)]
        return [change for change in found if kind == "bias" and "bias" in change.parts]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all tensors, sorted."""
        return self._weights.names

    def spec(self, name: str) -> WeightSpec:
        """Dtype and shape of a tensor, and where the values it was made from lie."""
        return self._weights.spec(name)

    def in_place(self, name: str) -> bool:
        """Whether no file changes the tensor."""
        return self._weights.in_place(name) and not self._of(name)

    def read(self, name: str) -> Tensor:
        """One tensor, changed in float32 and rounded to its dtype."""
        value = self._weights.read(name)
        changes = self._of(name)
        if not changes:
            return value
        total = value.float()
        for change in changes:
            if name.endswith(".bias"):
                total = total + change.scale * change.read("bias").reshape(total.shape)
            elif (added := change.weight(tuple(value.shape))) is not None:
                total = total + added
        return total.to(value.dtype)


def merge(components: Mapping[str, Weights], loras: Sequence[Lora]) -> dict[str, Weights]:
    """Checkpoints with LoRA files merged into them.

    Args:
        components: By name: `transformer`, and `transformer_2` and `text_encoder` where there are.
        loras: In any order.

    Returns:
        The same names; a checkpoint that no file changes is returned as it is.

    Raises:
        CheckpointError: A file is damaged, or has keys that fit no layer; all are named.
        InputError: A file is for a component that is not there.
    """
    changes: dict[str, dict[str, list[_Change]]] = {name: {} for name in components}
    layers = {name: _layers(weights) for name, weights in components.items()}
    for lora in loras:
        if lora.into not in components:
            raise InputError(
                f"lora: component must be one of {', '.join(components)}, got {lora.into!r}"
            )
        files = WeightFiles.open(lora.path)
        found, unknown = _assign(files, lora, layers)
        problems = [
            f"{layer}: {problem}"
            for component, by_layer in found.items()
            for layer, change in by_layer.items()
            if (problem := change.problem(components[component], layer))
        ]
        if unknown or problems or not any(found.values()):
            listed = "; ".join(problems + [f"unknown: {', '.join(unknown)}"] * bool(unknown))
            raise CheckpointError(
                f"lora: keys of {lora.path} must fit the layers of the model; "
                f"{listed or 'none does'}",
                hint="the file is for another model, or of another kind than LoRA",
            )
        for component, by_layer in found.items():
            for layer, change in by_layer.items():
                changes[component].setdefault(layer, []).append(change)
    return {
        name: MergedWeights(weights, changes[name]) if changes[name] else weights
        for name, weights in components.items()
    }


def _layers(weights: Weights) -> dict[str, str]:
    """Names of layers by how keys may call them: in two codes, and both with underscores."""
    names = [name.removesuffix(".weight") for name in weights.names if name.endswith(".weight")]
    plain = lora_names.published(names) | {name: name for name in names}
    kohya: dict[str, str] = {}
    for called, name in plain.items():
        short = called.replace(".", "_")
        # Two layers of one short name cannot be told apart.
        kohya[short] = name if kohya.get(short, name) == name else ""
    return {k: v for k, v in kohya.items() if v} | plain


def _assign(
    files: WeightFiles, lora: Lora, layers: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, dict[str, _Change]], list[str]]:
    """What a file does to which layer, by component; and the keys that fit none."""
    found: dict[str, dict[str, _Change]] = {name: {} for name in layers}
    unknown = []
    for name in files.names:
        end = _ENDS.search(name)
        place = _place(name[: end.start()], lora.into, layers) if end else None
        if end is None or place is None:
            unknown.append(name)
            continue
        component, layer = place
        change = found[component].setdefault(layer, _Change(lora.scale, files))
        part = _PARTS[end.group(1)]
        if part in change.parts:
            unknown.append(name)
        change.parts[part] = name
    return found, unknown


def _place(path: str, into: str, layers: Mapping[str, Mapping[str, str]]) -> tuple[str, str] | None:
    """Component and layer of a key without its end."""
    # What is said of a transformer is meant for the one that the file is for.
    places = [(name, into if name == "transformer" else name) for name in layers]
    for written, component in places:
        known = layers[component]
        for prefix in (*_PREFIXES.get(written, ()), *_KOHYA.get(written, ())):
            if path.startswith(prefix) and path.removeprefix(prefix) in known:
                return component, known[path.removeprefix(prefix)]
    known = layers.get(into, {})
    return (into, known[path]) if path in known else None
