"""LoRA files: merged as peft merges them, in both styles of keys, and nothing left over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from fastvid.errors import InputError  # noqa: E402
from fastvid_export import lora, lora_names, weight_writer  # noqa: E402
from fastvid_export.errors import CheckpointError  # noqa: E402
from fastvid_export.lora import Lora, merge  # noqa: E402
from fastvid_export.weight_files import WeightFiles  # noqa: E402

LAYER = "blocks.0.attn1.to_q"
DIFFUSERS = f"transformer.{LAYER}"
KOHYA = "lora_unet_blocks_0_attn1_to_q"


def save(path: Path, **tensors: Any) -> WeightFiles:
    shapes = {n: (v.dtype, tuple(v.shape)) for n, v in tensors.items()}
    weight_writer.write(path, shapes, tensors.__getitem__)
    return WeightFiles.open(path)


@pytest.fixture
def base(tmp_path: Path) -> WeightFiles:
    torch.manual_seed(0)
    tensors = {
        f"{LAYER}.weight": torch.randn(6, 5),
        f"{LAYER}.bias": torch.randn(6),
        "blocks.0.ffn.net.0.proj.weight": torch.randn(7, 6).bfloat16(),
        "patch_embedding.weight": torch.randn(8, 3, 1, 2, 2),
        "norm.weight": torch.randn(5),
    }
    return save(tmp_path / "base.safetensors", **tensors)


def factors(rank: int = 2, out: int = 6, into: int = 5) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rank, into, generator=generator), torch.randn(out, rank, generator=generator)


def merged(base: Any, tmp_path: Path, scale: float = 1.0, **tensors: Any) -> Any:
    save(tmp_path / "lora.safetensors", **tensors)
    return merge({"transformer": base}, [Lora(tmp_path / "lora.safetensors", scale)])["transformer"]


@pytest.mark.parametrize(
    ("down", "up"),
    [
        (f"{DIFFUSERS}.lora_A.weight", f"{DIFFUSERS}.lora_B.weight"),
        (f"{LAYER}.lora_A.weight", f"{LAYER}.lora_B.weight"),
        (f"diffusion_model.{LAYER}.lora_A.default.weight",
         f"diffusion_model.{LAYER}.lora_B.default.weight"),
        (f"base_model.model.{LAYER}.lora_A.weight", f"base_model.model.{LAYER}.lora_B.weight"),
        (f"{DIFFUSERS}.lora.down.weight", f"{DIFFUSERS}.lora.up.weight"),
        (f"{KOHYA}.lora_down.weight", f"{KOHYA}.lora_up.weight"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("alpha", [None, 8.0])
@pytest.mark.parametrize("scale", [1.0, -0.5])
def test_weights_are_those_that_peft_merges(
    base: WeightFiles, tmp_path: Path, down: str, up: str, alpha: float | None, scale: float
) -> None:
    a, b = factors()
    tensors = {down: a, up: b}
    if alpha is not None:
        tensors[f"{down.split('.lora')[0]}.alpha"] = torch.tensor(alpha)
    made = merged(base, tmp_path, scale, **tensors)
    # peft: get_delta_weight is (B @ A) * scaling, and scaling is alpha / r.
    scaling = scale * (2 if alpha is None else alpha) / 2
    right = base.read(f"{LAYER}.weight") + scaling * (b @ a)
    assert torch.equal(made.read(f"{LAYER}.weight"), right)
    assert made.changed == (f"{LAYER}.weight",)
    assert not made.in_place(f"{LAYER}.weight")
    for name in set(base.names) - set(made.changed):
        assert made.in_place(name)
        assert torch.equal(made.read(name), base.read(name))


def test_several_files_add_up_and_narrow_weights_are_rounded_once(
    base: WeightFiles, tmp_path: Path
) -> None:
    name = "blocks.0.ffn.net.0.proj"
    a, b = factors(out=7, into=6)
    for number in (1, 2):
        save(
            tmp_path / f"{number}.safetensors",
            **{f"{name}.lora_A.weight": a * number, f"{name}.lora_B.weight": b},
        )
    loras = [Lora(tmp_path / "1.safetensors"), Lora(tmp_path / "2.safetensors", 0.25)]
    made = merge({"transformer": base}, loras)["transformer"]
    found = made.read(f"{name}.weight")
    right = base.read(f"{name}.weight").float() + b @ a + 0.25 * (b @ (2 * a))
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, right.bfloat16())


def test_convolutions_differences_and_biases_are_merged(base: WeightFiles, tmp_path: Path) -> None:
    down, up = torch.randn(2, 3, 1, 2, 2), torch.randn(8, 2, 1, 1, 1)
    whole, bias = torch.randn(6, 5), torch.randn(6)
    made = merged(
        base,
        tmp_path,
        2.0,
        **{
            "lora_unet_patch_embedding.lora_down.weight": down,
            "lora_unet_patch_embedding.lora_up.weight": up,
            f"{DIFFUSERS}.diff": whole,
            f"{DIFFUSERS}.diff_b": bias,
        },
    )
    change = torch.einsum("or,rithw->oithw", up.flatten(1), down)
    kernel = base.read("patch_embedding.weight") + 2 * change
    torch.testing.assert_close(made.read("patch_embedding.weight"), kernel)
    assert torch.equal(made.read(f"{LAYER}.weight"), base.read(f"{LAYER}.weight") + 2 * whole)
    assert torch.equal(made.read(f"{LAYER}.bias"), base.read(f"{LAYER}.bias") + 2 * bias)


def test_the_text_encoder_has_keys_of_its_own(base: WeightFiles, tmp_path: Path) -> None:
    encoder = save(tmp_path / "te.safetensors", **{"layer.q.weight": torch.zeros(6, 5)})
    a, b = factors()
    keys = {"lora_te_layer_q.lora_down.weight": a, "lora_te_layer_q.lora_up.weight": b}
    save(tmp_path / "lora.safetensors", **keys)
    components = {"transformer": base, "text_encoder": encoder}
    made = merge(components, [Lora(tmp_path / "lora.safetensors")])
    assert made["transformer"] is base
    assert torch.equal(made["text_encoder"].read("layer.q.weight"), b @ a)


def test_every_key_that_fits_nothing_is_named(base: WeightFiles, tmp_path: Path) -> None:
    a, b = factors()
    with pytest.raises(CheckpointError) as error:
        merged(
            base,
            tmp_path,
            **{
                f"{DIFFUSERS}.lora_A.weight": a,
                f"{DIFFUSERS}.lora_B.weight": b,
                "transformer.blocks.9.attn1.to_q.lora_A.weight": a,
                f"{KOHYA}.hada_w1_a": a,
                "lora_te_layer_q.lora_up.weight": b,
            },
        )
    for name in ("blocks.9.attn1.to_q.lora_A", "hada_w1_a", "lora_te_layer_q.lora_up"):
        assert name in str(error.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{DIFFUSERS}.lora_A.weight": torch.zeros(2, 5)}, "only one of its two factors"),
        (
            {
                f"{DIFFUSERS}.lora_A.weight": torch.zeros(2, 4),
                f"{DIFFUSERS}.lora_B.weight": torch.zeros(6, 2),
            },
            r"factors of shapes \[6, 2\] and \[2, 4\] for \[6, 5\]",
        ),
        ({f"{DIFFUSERS}.alpha": torch.tensor(1.0)}, "alpha without factors"),
        ({f"{DIFFUSERS}.diff": torch.zeros(5)}, r"difference of shape \[5\]"),
        ({"transformer.norm.diff_b": torch.zeros(5)}, "bias for a layer without one"),
    ],
)
def test_layers_that_do_not_fit_are_named(
    base: WeightFiles, tmp_path: Path, tensors: dict[str, Any], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        merged(base, tmp_path, **tensors)


def test_two_layers_of_one_short_name_are_not_guessed(tmp_path: Path) -> None:
    base = save(
        tmp_path / "base.safetensors",
        **{"a.b_c.weight": torch.zeros(6, 5), "a_b.c.weight": torch.zeros(6, 5)},
    )
    a, b = factors()
    keys = {"lora_unet_a_b_c.lora_down.weight": a, "lora_unet_a_b_c.lora_up.weight": b}
    with pytest.raises(CheckpointError, match="unknown: lora_unet_a_b_c"):
        merged(base, tmp_path, **keys)


@pytest.mark.parametrize(
    ("text", "path", "scale"),
    [
        ("x.safetensors", "x.safetensors", 1.0),
        ("x.safetensors:0.8", "x.safetensors", 0.8),
        ("a:b/x.safetensors:-1.5e-1", "a:b/x.safetensors", -0.15),
        ("a:b/x.safetensors", "a:b/x.safetensors", 1.0),
        ("a=b/x.safetensors:2", "a=b/x.safetensors", 2.0),
    ],
)
def test_a_scale_stands_behind_a_colon(text: str, path: str, scale: float) -> None:
    assert lora.parse(text) == Lora(Path(path), scale)


@pytest.mark.parametrize("text", ["x:nan", "x:inf", ":1", "x:1.2.3"])
def test_scales_are_finite_numbers(text: str) -> None:
    with pytest.raises(InputError, match="FILE or FILE:SCALE"):
        lora.parse(text)


WAN = {
    "blocks.0.self_attn.q": "blocks.0.attn1.to_q",
    "blocks.0.self_attn.o": "blocks.0.attn1.to_out.0",
    "blocks.0.self_attn.norm_k": "blocks.0.attn1.norm_k",
    "blocks.0.cross_attn.v": "blocks.0.attn2.to_v",
    "blocks.0.cross_attn.o": "blocks.0.attn2.to_out.0",
    "blocks.0.cross_attn.norm_q": "blocks.0.attn2.norm_q",
    "blocks.0.cross_attn.k_img": "blocks.0.attn2.add_k_proj",
    "blocks.0.cross_attn.v_img": "blocks.0.attn2.add_v_proj",
    "blocks.0.cross_attn.norm_k_img": "blocks.0.attn2.norm_added_k",
    "blocks.0.norm3": "blocks.0.norm2",
    "blocks.0.ffn.0": "blocks.0.ffn.net.0.proj",
    "blocks.0.ffn.2": "blocks.0.ffn.net.2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "head.head": "proj_out",
}


def layers_of_wan() -> list[str]:
    """Layers with a weight of the network that takes pictures too."""
    from fastvid_export.models.wan_transformer import WanTransformer, WanTransformerOptions

    options = WanTransformerOptions(
        num_layers=2, num_attention_heads=1, ffn_dim=8, text_dim=8, image_dim=4, in_channels=36,
        added_kv_proj_dim=128,
    )  # fmt: skip
    with torch.device("meta"):
        keys = WanTransformer(options).state_dict()
    return [key.removesuffix(".weight") for key in keys if key.endswith(".weight")]


def test_layers_are_known_by_the_names_of_the_published_code() -> None:
    names = layers_of_wan()
    found = lora_names.published(names)
    assert {new: old for new, old in found.items() if "blocks.1" not in new}.items() >= WAN.items()
    # What is not called otherwise is called the same there.
    same = set(names) - set(found.values())
    assert same == {"patch_embedding"}
    ltx = ["proj_in", "time_embed.linear", "transformer_blocks.0.attn1.to_q"]
    ltx.append("transformer_blocks.0.attn1.norm_q")
    assert lora_names.published(ltx) == {
        "patchify_proj": "proj_in",
        "adaln_single.linear": "time_embed.linear",
        "transformer_blocks.0.attn1.q_norm": "transformer_blocks.0.attn1.norm_q",
    }
    assert lora_names.published(["conv_in", "conv_out"]) == {}


def test_diffusers_calls_them_the_same() -> None:
    utils = pytest.importorskip("diffusers.loaders.lora_conversion_utils")
    layers = [old for new, old in WAN.items() if "norm" not in old]
    found = {old: new for new, old in lora_names.published(layers).items()}
    state = {
        f"diffusion_model.{found[old]}.lora_{ab}.weight": torch.zeros(1, 1)
        for old in layers
        for ab in "AB"
    }
    theirs = utils._convert_non_diffusers_wan_lora_to_diffusers(state)
    assert set(theirs) == {f"transformer.{old}.lora_{ab}.weight" for old in layers for ab in "AB"}


@pytest.mark.parametrize(
    "key",
    [
        "diffusion_model.blocks.0.self_attn.q.lora_{A}.weight",
        "blocks.0.self_attn.q.lora_{A}.default.weight",
        "pipe.dit.blocks.0.self_attn.q.lora_{A}.weight",
        "diffusion_model.blocks.0.self_attn.q.lora_{down}.weight",
        "lora_unet_blocks_0_self_attn_q.lora_{down}.weight",
    ],
)
def test_files_for_the_published_code_are_merged(
    base: WeightFiles, tmp_path: Path, key: str
) -> None:
    a, b = factors()
    tensors = {key.format(A="A", down="down"): a, key.format(A="B", down="up"): b}
    made = merged(base, tmp_path, 0.5, **tensors)
    assert made.changed == (f"{LAYER}.weight",)
    assert torch.equal(made.read(f"{LAYER}.weight"), base.read(f"{LAYER}.weight") + 0.5 * (b @ a))


def test_a_second_transformer_has_files_of_its_own(base: WeightFiles, tmp_path: Path) -> None:
    a, b = factors()
    keys = {f"{DIFFUSERS}.lora_A.weight": a, f"{DIFFUSERS}.lora_B.weight": b}
    save(tmp_path / "low.safetensors", **keys)
    named = {f"transformer_2.{LAYER}.lora_A.weight": a, f"transformer_2.{LAYER}.lora_B.weight": b}
    save(tmp_path / "named.safetensors", **named)
    both = {"transformer": base, "transformer_2": base}
    right = base.read(f"{LAYER}.weight") + b @ a
    for made in (
        merge(both, [lora.parse(f"transformer_2={tmp_path / 'low.safetensors'}")]),
        merge(both, [Lora(tmp_path / "named.safetensors")]),
    ):
        assert made["transformer"] is base
        assert torch.equal(made["transformer_2"].read(f"{LAYER}.weight"), right)
    with pytest.raises(InputError, match="component must be one of transformer, got 'transf"):
        merge({"transformer": base}, [Lora(tmp_path / "low.safetensors", into="transformer_2")])
