"""The generator's networks, their vocabulary, and their graphs."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from fastvid_export import onnx  # noqa: E402
from fastvid_export.models.generator import (  # noqa: E402
    GeneratorNet,
    GeneratorOptions,
    condition_on,
    no_condition,
)
from fastvid_export.models.text_encoder import PAD  # noqa: E402
from fastvid_export.models.transformer_graph import TransformerGraph  # noqa: E402
from fastvid_export.models.video_transformer import rope_table_3d, rotate  # noqa: E402
from fastvid_export.training import vocabulary  # noqa: E402
from fastvid_export.training.sampling import sample, shifted  # noqa: E402
from fastvid_export.training.world import draw_scene  # noqa: E402
from fastvid_export.training.world_captions import caption  # noqa: E402

OPTIONS = GeneratorOptions(
    length=8, text_width=16, text_depth=1, text_heads=2, latent_channels=4, width=32, depth=2,
    heads=2, mlp=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def net() -> GeneratorNet:
    """Networks whose every weight is away from its start."""
    torch.manual_seed(0)
    net = GeneratorNet(OPTIONS)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net.eval().requires_grad_(False)


def prompts(count: int) -> torch.Tensor:
    return torch.randint(3, 200, (count, OPTIONS.length))


def test_words_of_captions_are_single_tokens() -> None:
    tokenizer = vocabulary.build()
    for i in range(100):
        rng = np.random.default_rng(i)
        text = caption(draw_scene(rng, photos=1), rng)
        tokens = tokenizer.encode(text).tokens
        assert tokens == [*text.replace(",", " ,").split(), "[END]"]


def test_any_prompt_has_tokens() -> None:
    tokenizer = vocabulary.build()
    ids = vocabulary.encode(tokenizer, ["a Zebra!", "", "Ä RED circle"], 12)
    assert tokenizer.encode("zebra!").tokens == ["z", "##e", "##b", "##r", "##a", "!", "[END]"]
    assert tokenizer.get_vocab_size() <= GeneratorOptions().vocabulary
    assert (ids[1] == [vocabulary.END] + [PAD] * 11).all()
    assert tokenizer.decode(ids[2].tolist()).startswith("a red circle")


def test_a_long_prompt_is_cut_before_its_end() -> None:
    ids = vocabulary.encode(vocabulary.build(), ["red " * 50], 8)[0]
    assert len(ids) == 8
    assert ids[-1] == vocabulary.END
    assert len(set(ids[:-1])) == 1


def test_no_caption_is_cut() -> None:
    tokenizer, length = vocabulary.build(), GeneratorOptions().length
    longest = 0
    for i in range(400):
        rng = np.random.default_rng(i)
        longest = max(longest, len(tokenizer.encode(caption(draw_scene(rng, photos=1), rng)).ids))
    assert longest <= length


@pytest.mark.parametrize("size", [(5, 8, 8), (1, 2, 6), (3, 16, 4)])
def test_the_velocity_has_the_shape_of_the_latents(
    net: GeneratorNet, size: tuple[int, int, int]
) -> None:
    latents = torch.randn(2, 4, *size)
    velocity = net(latents, torch.tensor([10.0, 900.0]), prompts(2), no_condition(latents))
    assert velocity.shape == latents.shape


def test_everything_that_is_given_matters(net: GeneratorNet) -> None:
    latents, ids, time = torch.randn(1, 4, 3, 4, 4), prompts(1), torch.tensor([500.0])
    plain = no_condition(latents)
    base = net(latents, time, ids, plain)
    image = condition_on(torch.randn_like(latents), torch.tensor([[1.0, 0.0, 0.0]]))
    shorter = ids.clone()
    shorter[:, -2:] = PAD
    for other in (
        net(latents + 0.1, time, ids, plain),
        net(latents, time - 100, ids, plain),
        net(latents, time, ids + 1, plain),
        net(latents, time, shorter, plain),
        net(latents, time, ids, image),
    ):
        assert not torch.allclose(base, other, atol=1e-3)


def test_noise_at_known_positions_changes_nothing(net: GeneratorNet) -> None:
    given, ids, time = torch.randn(1, 4, 3, 4, 4), prompts(1), torch.tensor([700.0])
    condition = condition_on(given, torch.tensor([[1.0, 1.0, 0.0]]))
    noise = torch.randn_like(given)
    other = noise.clone()
    other[:, :, :2] = torch.randn(1, 4, 2, 4, 4)
    torch.testing.assert_close(net(noise, time, ids, condition), net(other, time, ids, condition))


def test_a_condition_holds_what_is_known_and_nothing_else() -> None:
    latents = torch.randn(2, 4, 3, 2, 2)
    known = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    condition = condition_on(latents, known)
    assert condition.shape == (2, 5, 3, 2, 2)
    assert torch.equal(condition[0, :4, ::2], latents[0, :, ::2])
    assert condition[0, :4, 1].abs().max() == 0
    assert torch.equal(condition[1], no_condition(latents)[1])
    assert torch.equal(condition[:, 4, :, 1, 1], known)


def test_rotation_keeps_length_and_depends_on_the_distance_alone() -> None:
    cos, sin = rope_table_3d((4, 3, 5), 32, 100.0)
    assert cos.shape == (60, 16)
    q, k = torch.randn(32), torch.randn(32)
    turned = [rotate(x.expand(1, 60, 1, 32), cos, sin)[0, :, 0] for x in (q, k)]
    torch.testing.assert_close(turned[0].norm(dim=-1), q.norm().expand(60))
    scores = (turned[0] @ turned[1].T).view(4, 3, 5, 4, 3, 5)
    torch.testing.assert_close(scores[1, 0, 2, 2, 1, 1], scores[2, 1, 3, 3, 2, 2])
    assert not torch.allclose(scores[1, 0, 2, 2, 1, 1], scores[1, 0, 2, 1, 1, 1])


def test_a_shift_moves_noise_levels_up_and_keeps_the_ends() -> None:
    levels = shifted(torch.linspace(1, 0, 5), 3.0)
    assert levels.tolist() == pytest.approx([1.0, 0.9, 0.75, 0.5, 0.0])


def test_sampling_without_guidance_ignores_the_empty_prompt(net: GeneratorNet) -> None:
    noise, ids = torch.randn(2, 4, 3, 4, 4), prompts(2)
    plain, same = (sample(net, ids, prompts(1), noise, steps=2, guidance=1.0) for _ in range(2))
    assert torch.equal(plain, same)
    guided = sample(net, ids, prompts(1), noise, steps=2, guidance=3.0)
    assert guided.shape == plain.shape
    assert not torch.allclose(plain, guided)


def test_both_graphs_compute_what_torch_computes(net: GeneratorNet) -> None:
    rng = np.random.default_rng(0)

    def inputs(size: tuple[int, int, int]) -> onnx.Arrays:
        return {
            "hidden_states": rng.standard_normal((2, 4, *size), np.float32),
            "timestep": np.array([3.0, 800.0], np.float32),
            "encoder_hidden_states": rng.standard_normal((2, 8, 16), np.float32),
            "encoder_attention_mask": np.tile(np.arange(8) < 5, (2, 1)).astype(np.int64),
            "condition": rng.integers(0, 2, (2, 5, *size)).astype(np.float32),
        }

    transformer = onnx.GraphPlan(
        "transformer",
        TransformerGraph(net.transformer),
        (
            onnx.Port("hidden_states", "float32", ("N", 4, "T", "h", "w")),
            onnx.Port("timestep", "float32", ("N",)),
            onnx.Port("encoder_hidden_states", "float32", ("N", 8, 16)),
            onnx.Port("encoder_attention_mask", "int64", ("N", 8)),
            onnx.Port("condition", "float32", ("N", 5, "T", "h", "w")),
        ),
        (onnx.Port("sample", "float32", ("N", 4, "T", "h", "w")),),
        {"random": [inputs((3, 4, 6)), inputs((5, 8, 8))]},
    )
    ids = prompts(3)
    text = onnx.GraphPlan(
        "text_encoder",
        net.text_encoder,
        (
            onnx.Port("input_ids", "int64", ("N", 8)),
            onnx.Port("attention_mask", "int64", ("N", 8)),
        ),
        (onnx.Port("prompt_embeds", "float32", ("N", 8, 16)),),
        {"random": [{"input_ids": ids.numpy(), "attention_mask": (ids != PAD).long().numpy()}]},
    )
    for plan in (transformer, text):
        for difference in onnx.export(plan).differences:
            assert difference.value < 1e-4
    given = [torch.from_numpy(array) for array in inputs((3, 4, 6)).values()]
    torch.testing.assert_close(
        TransformerGraph(net.transformer)(*given), net.transformer(*given), rtol=0, atol=1e-5
    )
