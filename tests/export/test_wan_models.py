"""Own definitions of Wan's networks against diffusers' and transformers' on the same weights."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

import diffusers_folders
import torch

from fastvid_export.importers import diffusers, wan
from fastvid_export.models.wan_vae import Caches, WanVae

TOLERANCE = 2e-5


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with torch.inference_mode():
        yield
    torch.set_num_threads(before)


def near(ours, theirs) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) <= TOLERANCE * max(1, float(theirs.abs().max()))


def model_of(folder, make, **options):
    pipeline = make(folder, **options)
    model = wan.Model(diffusers.read(folder))
    return pipeline, model


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return model_of(tmp_path_factory.mktemp("wan") / "plain", diffusers_folders.wan)


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wan") / "picture"
    return model_of(folder, diffusers_folders.wan_image, last=True)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return model_of(tmp_path_factory.mktemp("wan") / "small", diffusers_folders.wan_22_small)


def test_text_encoder(plain):
    pipeline, model = plain
    ids = torch.randint(0, 256, (2, 40))
    mask = torch.ones_like(ids)
    mask[1, 25:] = 0
    theirs = pipeline.text_encoder(ids, mask).last_hidden_state
    ours = model.network("text_encoder").load()(ids, mask)
    near(ours[0], theirs[0])
    near(ours[1, :25], theirs[1, :25])


@pytest.mark.parametrize("which", ["plain", "picture", "small"])
def test_transformer(which, request):
    pipeline, model = request.getfixturevalue(which)
    network = model.network("transformer").load()
    o = network.options
    torch.manual_seed(1)
    latents = torch.randn(1, o.out_channels, 3, 4, 6)
    text = torch.randn(1, 512, o.text_dim)
    times = torch.tensor([[0.0, 700.0, 700.0]]) if o.per_frame else torch.tensor([700.0])
    given = {"hidden_states": latents, "timestep": times, "encoder_hidden_states": text}
    theirs = dict(given)
    if o.per_frame:
        # One for each token there.
        theirs["timestep"] = times.repeat_interleave(2 * 3, 1)
    if which == "picture":
        given["condition"] = torch.randn(1, 20, 3, 4, 6)
        given["image_embeds"] = torch.randn(2, 17, 4)
        theirs["hidden_states"] = torch.cat([latents, given["condition"]], 1)
        theirs["encoder_hidden_states_image"] = given["image_embeds"]
    near(network(**given), pipeline.transformer(**theirs).sample)


def test_image_encoder(picture):
    pipeline, model = picture
    frames = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    pixels = pipeline.image_processor(images=list(frames), return_tensors="pt")
    theirs = pipeline.image_encoder(**pixels, output_hidden_states=True).hidden_states[-2]
    near(model.network("image_encoder").load()(torch.from_numpy(frames)), theirs)


@pytest.mark.parametrize("which", ["plain", "small"])
def test_autoencoder(which, request):
    pipeline, model = request.getfixturevalue(which)
    vae = model.network("vae").load()
    assert isinstance(vae, WanVae)
    side = vae.options.spatial
    torch.manual_seed(2)
    frames = torch.rand(1, 3, 9, 2 * side, 3 * side) * 2 - 1
    theirs = pipeline.vae.encode(frames).latent_dist.mode()
    ours, caches = [], Caches(None)
    for piece in (frames[0, :, :1], frames[0, :, 1:5], frames[0, :, 5:]):
        ours.append(vae.encode(piece.transpose(0, 1), caches))
        caches = Caches(caches.outgoing)
    latents = torch.cat(ours, 2)
    near(latents * vae.std[:, :, :, None] + vae.mean[:, :, :, None], theirs)

    decoded, caches = [], Caches(None)
    for i in range(3):
        decoded.append(vae.decode(latents[:, :, i : i + 1], caches))
        caches = Caches(caches.outgoing)
    near(torch.cat(decoded).transpose(0, 1)[None].clamp(-1, 1), pipeline.vae.decode(theirs).sample)


def test_graphs_say_what_they_take(picture):
    _, model = picture
    plans = {plan.name: plan for plan in (part.plan for part in model.parts())}
    assert list(plans) == [
        "text_encoder", "image_encoder", "transformer",
        "decoder_first", "decoder_next", "encoder_first", "encoder_next",
    ]  # fmt: skip
    shapes = {port.name: port.shape for port in plans["transformer"].inputs}
    assert shapes["condition"] == ("N", 20, "T", "h", "w")
    assert shapes["image_embeds"] == ("2*N", 17, 4)
    assert plans["encoder_first"].inputs[0].dtype == "float32"
    assert plans["decoder_next"].outputs[0].shape == (4, "8*h", "8*w", 3)
