"""How well a generator does what its prompts say, on prompts that training never saw.

    python benchmarks/quality/generator.py [--model MODEL] [--prompts 200] [--steps N] [--label few]

Prompts combine shapes, colours and motions that `fastvid_export.training.world` holds out of
training, over plain backdrops. What the clips show is found by classical detection
(`fastvid_export.training.detection`), which shares nothing with the code that draws; its own errors
on real, drawn clips of the same prompts stand beside the model's. Measured too: Fréchet distance of
fixed random features to drawn clips, beside that of two sets of drawn clips; distance between seeds
of one prompt, beside that of clips drawn for it; the difference of neighbouring frames along the
optical flow; and PSNR of the autoencoder on held-out scenes. Results of several runs are kept by
their label: `few` for the shipped bundle, `full` for its teacher's.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import features
import numpy as np
import timing

from fastvid import Generator, ops
from fastvid._generation.arrays import HostArrays
from fastvid._generation.latents import Encoder
from fastvid.metrics import psnr
from fastvid_export.training import world, world_drawing
from fastvid_export.training.detection import detect

SEED = 77_000
DIRECTIONS = ("left", "right", "up", "down")
VERBS = {
    "left": "moves left",
    "right": "moves right",
    "up": "moves up",
    "down": "moves down",
    "bounces": "bounces",
    "circles": "moves in a circle",
    "spins": "spins",
    "grows": "grows",
    "shrinks": "shrinks",
    "stays": "stays still",
}
_RESULTS = timing.RESULTS / "generator_quality.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance-scale", type=float)
    parser.add_argument("--label", default="few")
    options = parser.parse_args()
    scenes = list(held_out_scenes(options.prompts))
    drawn = [world_drawing.render(scene) for scene in scenes]
    with Generator(options.model) as generator:
        asked = {
            "num_inference_steps": options.steps,
            "guidance_scale": options.guidance_scale,
        }
        spec = generator.bundle.generation
        start = time.perf_counter()
        made = [
            generator.generate(prompt_of(scene), seed=SEED + i, **asked).frames()
            for i, scene in enumerate(scenes)
        ]
        seconds = (time.perf_counter() - start) / len(scenes)
        seeds = [
            [
                generator.generate(prompt_of(scene), seed=SEED + i, **asked).frames()
                for i in range(8)
            ]
            for scene in scenes[:4]
        ]
        reconstruction = autoencoder_psnr(generator, drawn[:40])
    results = {
        "model": generator.bundle.name,
        "prompts": len(scenes),
        "description": generator.bundle.description,
        "num_inference_steps": options.steps or spec.num_inference_steps,
        "guidance_scale": spec.guidance_scale
        if options.guidance_scale is None
        else options.guidance_scale,
        "milliseconds_per_clip": round(1e3 * seconds, 1),
        "adherence": adherence(scenes, made),
        "detection_on_drawn_clips": adherence(scenes, drawn),
        "frechet_distance": distances(made, drawn),
        "diversity": float(np.mean([features.diversity(features.features(s)) for s in seeds])),
        "diversity_of_drawn_clips": float(
            np.mean([features.diversity(features.features(drawn_again(s, 8))) for s in scenes[:4]])
        ),
        "flow_difference_levels": float(np.mean([flow_difference(clip) for clip in made[:40]])),
        "flow_difference_of_drawn_clips": float(
            np.mean([flow_difference(clip) for clip in drawn[:40]])
        ),
        "autoencoder_psnr_db": reconstruction,
    }
    print(json.dumps(results, indent=1))
    results["command"] = timing.environment()["command"]
    kept = json.loads(_RESULTS.read_text()).get("runs", {}) if _RESULTS.is_file() else {}
    timing.write_results(_RESULTS, {"runs": {**kept, options.label: results}})


def held_out_scenes(count: int) -> Iterator[world.Scene]:
    """Scenes of one actor that training leaves out, over plain backdrops."""
    rng = np.random.default_rng(SEED)
    for _ in range(count):
        yield world.draw_scene(rng, test=True, simple=True)


def drawn_again(scene: world.Scene, count: int) -> list[Any]:
    """Further clips that the prompt of a scene describes: another place, size, pace and turn."""
    rng = np.random.default_rng(SEED + 2)
    actor = scene.actors[0]
    clips: list[Any] = []
    while len(clips) < count:
        other = world.draw_scene(rng, test=True, simple=True).actors[0]
        if (other.shape, other.motion) == (actor.shape, actor.motion):
            same = dataclasses.replace(other, colour=actor.colour, rgb=actor.rgb)
            clips.append(world_drawing.render(dataclasses.replace(scene, actors=(same,))))
    return clips


def prompt_of(scene: world.Scene) -> str:
    """What a user would write for a scene."""
    actor, ground = scene.actors[0], scene.backdrop.colours[0]
    article = "an" if actor.colour == "orange" else "a"
    over = "an" if ground == "orange" else "a"
    verb = VERBS[actor.motion]
    return f"{article} {actor.colour} {actor.shape} {verb} over {over} {ground} background"


def adherence(scenes: list[world.Scene], clips: list[Any]) -> dict[str, Any]:
    """Shares of clips whose colour, shape and direction are those asked for."""
    right: dict[str, list[bool]] = {"colour": [], "shape": [], "direction": [], "size": []}
    for scene, clip in zip(scenes, clips, strict=True):
        actor, found = scene.actors[0], detect(clip)
        right["colour"].append(found.colour == actor.colour)
        right["shape"].append(found.shape == actor.shape)
        if actor.motion in DIRECTIONS:
            right["direction"].append(found.direction == actor.motion)
        elif actor.motion in ("grows", "shrinks"):
            grown = found.growth or 1.0
            right["size"].append(grown > 1.3 if actor.motion == "grows" else grown < 0.77)
    shares = {name: round(float(np.mean(hits)), 4) for name, hits in right.items() if hits}
    return {**shares, "clips": len(clips), "clips_with_direction": len(right["direction"])}


def distances(made: list[Any], drawn: list[Any]) -> dict[str, float]:
    """Fréchet distances of generated to drawn clips, and between two halves of drawn ones."""
    rng = np.random.default_rng(SEED + 1)
    scenes = [world.draw_scene(rng, test=True, simple=True) for _ in made]
    others = [world_drawing.render(scene) for scene in scenes]
    real = features.features(drawn)
    return {
        "generated": round(features.frechet_distance(features.features(made), real), 5),
        "drawn": round(features.frechet_distance(features.features(others), real), 5),
    }


def flow_difference(clip: Any) -> float:
    """Mean absolute difference, in levels, of each frame and the next one warped back to it."""
    luma, _ = ops.rgb_to_luma(clip)
    planes = ops.rgb_to_planar(clip)
    flow, _ = ops.inverse_search(luma[:-1].copy(), luma[1:].copy(), bidirectional=False)
    back = ops.warp(planes[1:].copy(), flow)
    return float(255 * np.abs(back - planes[:-1]).mean())


def autoencoder_psnr(generator: Generator, clips: list[Any]) -> float:
    """PSNR of clips that were encoded and decoded, in dB."""
    graph = generator._graph
    step = generator.bundle.generation.temporal_compression
    encoder = Encoder(graph("encoder_first"), graph("encoder_next"), step)
    values = []
    for clip in clips:
        again = np.concatenate(list(generator._decoder.decode(encoder.encode(clip), HostArrays())))
        values.append(psnr(again, clip))
    return round(float(np.mean(values)), 3)


if __name__ == "__main__":
    main()
