"""The upscalers that ship: which class has which factor, sizes, pieces, and pictures kept as drawn.

`tests/data/upscaler_pictures.json` holds a few pixels of what each model made of a drawn scene.
`python tests/test_shipped_upscalers.py` writes it anew after a training.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from fastvid._resample import resize_bicubic
from fastvid.bundle import Bundle, shipped
from fastvid.cli import main
from fastvid.errors import InputError
from fastvid.metrics import psnr
from fastvid.scene import Scene
from fastvid.upscaler import Upscaler
from fastvid.video import Video

OFFERED = {"fast": (2, 3, 4), "quality": (2, 3, 4), "real": (1, 2, 3, 4)}
MODELS = [(kind, scale) for kind, scales in OFFERED.items() for scale in scales]
GAINS = {"fast": 0.5, "quality": 0.8, "real": 0.3}
"""dB above bicubic resizing that a drawn scene must bring; of `real`, when it was made noisy."""
MEGABYTES = 8
PICTURES = Path(__file__).parent / "data" / "upscaler_pictures.json"
PINNED = {"device": "cpu", "backend": "onnxruntime", "precision": "float32", "threads": 1}

pytestmark = pytest.mark.skipif(
    not {f"upscaler-{kind}-x{scale}" for kind, scale in MODELS} <= set(shipped()),
    reason="the trained upscalers are not installed",
)
every_model = pytest.mark.parametrize(("kind", "scale"), MODELS)


def opened(kind: str, scale: int, **options: object) -> Upscaler:
    return Upscaler(kind, scale=scale, **{**PINNED, **options})  # type: ignore[arg-type]


def drawn(scale: int, height: int = 64, width: int = 96) -> tuple[np.ndarray, np.ndarray]:
    """A scene, reduced, and as it was."""
    truth = Scene(scale * width, scale * height, seed=5).draw(0.4)
    return resize_bicubic(truth, height, width), truth


def corner(kind: str, scale: int) -> np.ndarray:
    """Pixels from the middle of what a model makes of a scene."""
    with opened(kind, scale) as model:
        large = model.upscale_frame(drawn(scale)[0])
    top, left = (side // 2 - 4 for side in large.shape[:2])
    return large[top : top + 8, left : left + 8]


@every_model
def test_a_class_and_a_factor_name_one_bundle(kind: str, scale: int) -> None:
    with opened(kind, scale) as model:
        assert (model.bundle.name, model.scale) == (f"upscaler-{kind}-x{scale}", scale)
        assert model.name == ("restore" if scale == 1 else "upscale")


@pytest.mark.parametrize("kind", OFFERED)
def test_a_factor_that_a_class_lacks_is_refused_with_those_it_has(kind: str) -> None:
    for scale in (0, 5, 6, 7, 32, -2) + ((1,) if kind != "real" else ()):
        with pytest.raises(InputError, match=f"for model '{kind}', got {scale}") as caught:
            Upscaler(kind, scale=scale)
        listed = re.findall(r"\d+", caught.value.message.partition(" for model")[0])
        assert set(OFFERED[kind]) <= set(map(int, listed))


def test_the_command_refuses_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in.y4m"
    Video.from_frames(drawn(1)[0][None], 25).save(source)
    made = str(tmp_path / "out.y4m")
    code = main(["upscale", str(source), "-o", made, "--scale", "7", "--model", "quality"])
    assert code == InputError.exit_code
    assert "must be one of 2, 3, 4" in capsys.readouterr().err


@every_model
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (33, 47)])
def test_any_size_is_taken(
    kind: str, scale: int, size: tuple[int, int], rng: np.random.Generator
) -> None:
    frame = rng.integers(0, 256, (*size, 3), np.uint8)
    with opened(kind, scale) as model:
        large = model.upscale_frame(frame)
    assert large.shape == (scale * size[0], scale * size[1], 3)
    assert large.dtype == np.uint8


@every_model
def test_pieces_show_no_seam(kind: str, scale: int) -> None:
    frame = drawn(scale, 70, 150)[0]
    with opened(kind, scale) as model:
        whole = model.upscale_frame(frame)
    with opened(kind, scale, tile=96) as model:
        pieces = model.upscale_frame(frame)
    # Sums of float32 may be ordered differently for another size, so one level may turn.
    assert np.abs(whole.astype(int) - pieces).max() <= 1


@every_model
def test_a_scene_comes_nearer_than_by_resizing(
    kind: str, scale: int, rng: np.random.Generator
) -> None:
    small, truth = drawn(scale, 192, 320)
    if kind == "real":
        noise = rng.normal(0, 8, (*small.shape[:2], 1))
        small = np.clip(np.rint(small + noise), 0, 255).astype(np.uint8)
    with opened(kind, scale) as model:
        result = model.upscale_frame(small)
    plain = small if scale == 1 else resize_bicubic(small, *truth.shape[:2])
    assert psnr(result, truth) > psnr(plain, truth) + GAINS[kind]


@every_model
@pytest.mark.parametrize("level", [16, 128, 235])
def test_an_even_surface_stays_as_it_is(kind: str, scale: int, level: int) -> None:
    surface = np.full((24, 40, 3), (level, 128, 255 - level), np.uint8)
    with opened(kind, scale) as model:
        large = model.upscale_frame(surface).astype(int)
    assert np.abs(large - surface[0, 0].astype(int)).max() <= 2


@every_model
def test_pictures_are_those_that_were_kept(kind: str, scale: int) -> None:
    kept = np.array(json.loads(PICTURES.read_text())[f"upscaler-{kind}-x{scale}"])
    # Machines order sums differently, and what is drawn may turn by a level before it.
    assert np.abs(corner(kind, scale).astype(int) - kept).max() <= 2


@every_model
def test_the_bundle_was_held_against_torch(kind: str, scale: int) -> None:
    bundle = Bundle.load(shipped()[f"upscaler-{kind}-x{scale}"])
    found = [
        q.value
        for q in bundle.quality
        if q.metric == "largest difference from PyTorch" and q.unit == "of the range"
    ]
    assert len(found) >= 2
    assert max(found) <= 1e-5


def test_a_narrow_bundle_is_of_the_weights_beside_it() -> None:
    for name, path in shipped().items():
        bundle = Bundle.load(path)
        if bundle.task != "upscaler" or bundle.precision == "float32":
            continue
        original = Bundle.load(path.parent / name.removesuffix(f"-{bundle.precision}"))
        made_from = bundle.provenance.settings["sha256.upscale"]
        assert made_from == original.files["upscale.onnx"].sha256, name


def test_all_of_them_are_small() -> None:
    folders = [path for name, path in shipped().items() if name.startswith("upscaler-")]
    total = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    assert total < MEGABYTES * 1_000_000


if __name__ == "__main__":
    pictures = {f"upscaler-{kind}-x{scale}": corner(kind, scale).tolist() for kind, scale in MODELS}
    PICTURES.write_text(json.dumps(pictures, separators=(",", ":")) + "\n")
