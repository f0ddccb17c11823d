"""The drawn world: what scenes hold and hold out, how they are drawn, and what captions say."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("cv2")

from fastvid_export.training import world
from fastvid_export.training.detection import detect
from fastvid_export.training.world import Actor, Backdrop, Path, Scene, draw_scene
from fastvid_export.training.world_captions import NOUNS, caption, words
from fastvid_export.training.world_drawing import render

PHOTO = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)


def scenes(count: int, *, seed: int = 0, **options: object) -> list[Scene]:
    return [
        draw_scene(np.random.default_rng([seed, i]), photos=1, **options)  # type: ignore[arg-type]
        for i in range(count)
    ]


def one(motion: str = "stays", *, shape: str = "circle", backdrop: str = "plain", **path: object):
    white = (255, 255, 255)
    rgb = {"plain": (white,), "photo": ()}.get(backdrop, (white, (0, 0, 200)))
    actor = Actor(shape, "red", motion, 0.15, Path(**{"start": (0.5, 0.5), **path}), (200, 0, 0))
    return Scene((actor,), Backdrop(backdrop, ("white", "blue")[: len(rgb)], rgb))


def test_no_training_scene_holds_a_held_out_combination() -> None:
    for scene in scenes(400):
        for actor in scene.actors:
            assert not world.held_out(actor.shape, actor.colour, actor.motion)


def test_the_first_actor_of_a_test_scene_is_held_out() -> None:
    for scene in scenes(60, test=True):
        first = scene.actors[0]
        assert world.held_out(first.shape, first.colour, first.motion)


def test_every_pair_of_shape_colour_and_motion_trains_though_a_seventh_is_held_out() -> None:
    every = [
        combination
        for combination in itertools.product(world.SHAPES, world.COLOURS, world.MOTIONS)
        if world.possible(combination[0], combination[2])
    ]
    kept = [combination for combination in every if not world.held_out(*combination)]
    assert 0.1 < 1 - len(kept) / len(every) < 0.2
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert {(c[i], c[j]) for c in kept} == {(c[i], c[j]) for c in every}


def test_scenes_vary_and_repeat_with_their_seed() -> None:
    drawn = scenes(300)
    assert drawn[:20] == scenes(20)
    assert len(set(drawn)) == len(drawn)
    assert {len(scene.actors) for scene in drawn} == {1, 2, 3}
    assert {scene.backdrop.kind for scene in drawn} == set(world.BACKDROPS)
    assert {a.motion for scene in drawn for a in scene.actors} == {*world.MOTIONS, world.MEETS}
    assert {a.texture for scene in drawn for a in scene.actors} == set(world.TEXTURES)
    assert {scene.camera for scene in scenes(1000, seed=1)} == set(world.CAMERAS)


def test_without_photos_none_is_shown() -> None:
    drawn = [draw_scene(np.random.default_rng(i), photos=0) for i in range(200)]
    assert "photo" not in {scene.backdrop.kind for scene in drawn}


@pytest.mark.parametrize(("size", "frames"), [(64, 17), (32, 5), (128, 3), (48, 1)])
def test_frames_have_the_size_asked_for(size: int, frames: int) -> None:
    for scene in scenes(12):
        clip = render(scene, size=size, frames=frames, photos=[PHOTO])
        assert clip.shape == (frames, size, size, 3)
        assert clip.dtype == np.uint8


def test_a_longer_clip_begins_like_a_shorter_one() -> None:
    for scene in scenes(10):
        long, short = (render(scene, frames=n, photos=[PHOTO]) for n in (25, 9))
        np.testing.assert_array_equal(long[:9], short)


def test_a_larger_drawing_halved_is_the_smaller_one() -> None:
    for shape in world.SHAPES:
        scene = one(shape=shape)
        large = render(scene, size=128, frames=1).astype(np.float64)
        halved = large.reshape(1, 64, 2, 64, 2, 3).mean((2, 4))
        small = render(scene, size=64, frames=1)
        assert np.abs(halved - small).mean() < 1.0
        assert np.abs(halved - small).max() < 70  # corners, where one distance does not tell all


def test_a_circle_covers_its_area() -> None:
    clip = render(one(), size=64, frames=1).astype(np.float64)
    cover = (255 - clip[0, :, :, 1]).sum() / 255
    assert cover == pytest.approx(np.pi * (0.15 * 64) ** 2, rel=0.01)


@pytest.mark.parametrize(
    ("travel", "direction"),
    [((-0.4, 0), "left"), ((0.4, 0), "right"), ((0, -0.4), "up"), ((0, 0.4), "down")],
)
def test_an_actor_goes_where_its_path_leads(travel: tuple[float, float], direction: str) -> None:
    start = (0.5 - travel[0] / 2, 0.5 - travel[1] / 2)
    seen = detect(render(one(direction, start=start, travel=travel)))
    assert (seen.colour, seen.shape, seen.direction) == ("red", "circle", direction)


def test_what_is_drawn_can_be_seen() -> None:
    """The detector, which shares nothing with the drawing, names what simple scenes hold."""
    right, spun, sizes = [], [], []
    for scene in scenes(80, seed=3, simple=True):
        actor = scene.actors[0]
        seen = detect(render(scene))
        if actor.motion in ("left", "right", "up", "down"):
            asked = (actor.colour, actor.shape, actor.motion)
            right.append(asked == (seen.colour, seen.shape, seen.direction))
        elif actor.motion == "spins":
            spun.append(actor.shape == seen.shape)
        elif actor.motion in ("grows", "shrinks"):
            sizes.append(((seen.growth or 1.0) > 1.3, (seen.growth or 1.0) < 0.77))
            assert sizes[-1] == (actor.motion == "grows", actor.motion == "shrinks")
    assert min(len(right) / 4, len(spun), len(sizes)) >= 3
    assert np.mean(right) > 0.97
    assert all(spun)


def test_nothing_is_seen_in_an_empty_clip() -> None:
    assert detect(np.full((5, 32, 32, 3), 200, np.uint8)).shape is None


def test_an_actor_far_outside_leaves_the_frame_alone() -> None:
    clip = render(one(start=(9.0, -7.0)), frames=2)
    assert (clip == 255).all()


@pytest.mark.parametrize("backdrop", ["sea", "checker", "photo"])
def test_a_panning_camera_moves_the_backdrop(backdrop: str) -> None:
    scene = one(backdrop=backdrop)
    still, moving = (
        render(replace(scene, camera=camera), frames=9, photos=[PHOTO]).astype(int)
        for camera in ("still", "pans left")
    )
    change = [np.abs(clip[8] - clip[0]).mean() for clip in (still, moving)]
    assert change[1] > change[0] + 2
    # A camera that pans left shows the actor further right.
    columns = [np.argwhere(_red(frame)).mean(0)[1] for frame in (moving[0], moving[8])]
    assert columns[1] > columns[0] + 5


def _red(frame: np.ndarray) -> np.ndarray:
    return np.abs(frame - np.array([200, 0, 0])).max(-1) < 12


def test_a_shadow_darkens_only() -> None:
    scene = one()
    plain, shadowed = (
        render(replace(scene, shadow=on), frames=1).astype(int) for on in (False, True)
    )
    assert (shadowed <= plain).all()
    assert (plain - shadowed).max() > 60


def test_captions_name_colour_and_shape_of_every_actor() -> None:
    for i, scene in enumerate(scenes(200)):
        text = caption(scene, np.random.default_rng(i))
        for actor in scene.actors:
            assert actor.colour in text
            assert any(noun in text for noun in NOUNS[actor.shape])
        assert text == text.lower()
        assert not re.search(r"\ba [aeio]", text)
        assert "{" not in text


def test_the_plain_caption_of_the_plainest_scene_occurs() -> None:
    scene = replace(one("left"), backdrop=Backdrop("plain", ("white",), ((255, 255, 255),)))
    said = {caption(scene, np.random.default_rng(i)) for i in range(600)}
    assert "a red circle moves left over a white background" in said
    assert len(said) > 100


def test_every_word_of_a_caption_is_listed() -> None:
    known = set(words())
    for i, scene in enumerate(scenes(300)):
        assert set(re.findall(r"[a-z]+", caption(scene, np.random.default_rng(i)))) <= known
