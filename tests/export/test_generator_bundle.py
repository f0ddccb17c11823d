"""A generator's bundle: what it draws is what PyTorch draws from the same noise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("tokenizers")

from fastvid import Generator, ops  # noqa: E402
from fastvid_export import bundles  # noqa: E402
from fastvid_export.compact import round_weights  # noqa: E402
from fastvid_export.errors import ExportError  # noqa: E402
from fastvid_export.families.generator import SHIFT  # noqa: E402
from fastvid_export.models.generator import (  # noqa: E402
    GeneratorNet,
    GeneratorOptions,
    condition_on,
    no_condition,
)
from fastvid_export.models.video_vae import VideoVae, VideoVaeOptions  # noqa: E402
from fastvid_export.training import checkpoint as ckpt  # noqa: E402
from fastvid_export.training import vocabulary  # noqa: E402
from fastvid_export.training.generation import encoder_digest  # noqa: E402
from fastvid_export.training.sampling import sample  # noqa: E402

OPTIONS = GeneratorOptions(
    length=12, text_width=16, text_depth=1, text_heads=2, latent_channels=4, width=32, depth=1,
    heads=2, mlp=32,
)  # fmt: skip
VAE = VideoVaeOptions(
    latent_channels=4, encoder_quarter=8, encoder_eighth=8, encoder_quarter_blocks=1,
    encoder_eighth_blocks=1, decoder_half=8, decoder_quarter=8, decoder_eighth=8,
    decoder_half_blocks=1, decoder_quarter_blocks=1, decoder_eighth_blocks=1,
)  # fmt: skip
PROMPT = "a red circle moves left"


class Made:
    """Networks with random weights, and the bundle made of their checkpoints."""

    def __init__(self, folder: Path) -> None:
        torch.manual_seed(0)
        self.net, self.vae = GeneratorNet(OPTIONS).eval(), VideoVae(VAE).eval()
        with torch.no_grad():
            for parameter in (*self.net.parameters(), *self.vae.parameters()):
                parameter.add_(0.1 * torch.randn_like(parameter))
        for network in (self.net, self.vae):
            round_weights(network)
        self.part = save(folder / "vae.pt", "video-vae", VAE, self.vae)
        self.net.autoencoder.copy_(encoder_digest(ckpt.load(self.part)))
        self.checkpoint = save(folder / "net.pt", "generator", OPTIONS, self.net)
        self.told: list[str] = []
        self.bundle = bundles.build(
            "generator",
            self.checkpoint,
            folder / "bundle",
            parts={"video-vae": self.part},
            say=self.told.append,
        )

    def embedding(self, prompt: str) -> Any:
        ids = vocabulary.encode(vocabulary.build(), [prompt], OPTIONS.length)
        return torch.from_numpy(ids)

    def drawn(self, noise: Any, condition: Any, guidance: float, steps: int) -> Any:
        """uint8 (T, H, W, 3), by PyTorch alone."""
        with torch.no_grad():
            latents = sample(
                self.net, self.embedding(PROMPT), self.embedding(""), torch.from_numpy(noise),
                steps=steps, guidance=guidance, shift=SHIFT, condition=condition,
            )  # fmt: skip
            mask = condition[:, -1:]
            latents = latents + mask * (condition[:, :-1] - latents)
            frames = self.vae.decode(latents.transpose(1, 2))[0]
        return (frames * 255).round().byte().permute(0, 2, 3, 1).numpy()


def save(path: Path, task: str, options: Any, network: Any) -> Path:
    weights = network.state_dict()
    ckpt.save(ckpt.Checkpoint(task, ckpt.option_dict(options), 0, 1, weights, weights), path)
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("generator"))


def test_what_is_drawn_is_what_torch_draws(made: Made) -> None:
    noise = ops.randn((1, 4, 3, 4, 6), seed=5)
    options: dict[str, Any] = {"height": 32, "width": 48, "num_frames": 9, "seed": 5}
    with Generator(made.bundle.path) as generator:
        found = generator.generate(
            PROMPT, **options, num_inference_steps=3, guidance_scale=2.0
        ).frames()
        image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
        after = generator.generate(
            PROMPT, **options, image=image, num_inference_steps=3, guidance_scale=2.0
        ).frames()
    condition = no_condition(torch.from_numpy(noise))
    expected = made.drawn(noise, condition, 2.0, 3)
    assert abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert found.std() > 5
    with torch.no_grad():
        planes = torch.from_numpy(image).permute(2, 0, 1)[None, None].float() / 255
        first = made.vae.encode(planes).transpose(1, 2)
    known = torch.tensor([[1.0, 0.0, 0.0]])
    condition = condition_on(first.expand(-1, -1, 3, -1, -1), known)
    expected = made.drawn(noise, condition, 2.0, 3)
    assert abs(after.astype(int) - expected.astype(int)).max() <= 1


def test_every_graph_is_compared_and_the_vocabulary_is_there(made: Made) -> None:
    graphs = {"text_encoder", "transformer"} | {
        f"{coder}_{part}" for coder in ("decoder", "encoder") for part in ("first", "next")
    }
    assert set(made.bundle.graphs) == graphs
    for graph in graphs:
        assert any(f"of {graph}, real inputs" in line for line in made.told)
    assert json.loads(made.bundle.read("tokenizer.json"))["model"]["type"] == "WordPiece"


def test_the_transformer_holds_the_projects_ops(made: Made) -> None:
    nodes = onnx.load_from_string(made.bundle.read("transformer.onnx")).graph.node
    ours = [node.op_type for node in nodes if node.domain == "fastvid"]
    # Attention to the clip and to the text, in each block.
    assert ours.count("Attention") == ours.count("QkNormRope") == 2 * OPTIONS.depth
    assert not any(node.op_type == "Softmax" for node in nodes)


def test_the_autoencoder_must_be_given(made: Made, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="a generator needs its autoencoder"):
        bundles.build("generator", made.checkpoint, tmp_path / "none")
    torch.manual_seed(1)
    other = save(tmp_path / "other.pt", "video-vae", VAE, VideoVae(VAE))
    with pytest.raises(ExportError, match="must have the encoder that the generator was trained"):
        bundles.build("generator", made.checkpoint, tmp_path / "none", parts={"video-vae": other})
    assert not (tmp_path / "none").exists()
