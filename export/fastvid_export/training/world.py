"""A small world to learn text to video from: scenes of moving shapes, drawn endlessly from seeds.

A scene is plain data: one to three actors over a backdrop, perhaps a moving camera.
`world_drawing.render` draws it at any size and length, `world_captions.caption` says what happens.
Space is measured in sides of the frame, x to the right and y down, time in spans of 16 frames.

Some combinations of shape, colour and motion never occur in training scenes (`held_out`), though
each pair of the three does: prompts with them test whether a model composes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    {
        "red": (214, 40, 40),
        "green": (46, 150, 62),
        "blue": (38, 84, 214),
        "yellow": (246, 210, 48),
        "purple": (132, 52, 168),
        "orange": (246, 136, 32),
        "white": (246, 246, 246),
        "black": (22, 22, 22),
    }
)
"""Colours of actors, sRGB."""

BACKDROP_COLOURS: Mapping[str, tuple[int, int, int]] = MappingProxyType(
    dict(COLOURS)
    | {
        "grey": (138, 138, 138),
        "pink": (244, 168, 190),
        "brown": (122, 82, 50),
        "light blue": (156, 206, 242),
        "beige": (228, 212, 180),
    }
)
"""Colours of backdrops, sRGB."""

SHAPES = ("circle", "square", "triangle", "star", "ring", "cross")
MOTIONS = (
    "left", "right", "up", "down", "bounces", "circles", "spins", "grows", "shrinks", "stays",
)  # fmt: skip
MEETS = "meets"
"""The motion of two actors that move towards each other; only ever in scenes of two."""
TEXTURES = ("plain", "striped", "dotted")
BACKDROPS = ("plain", "gradient", "sea", "checker", "photo")
CAMERAS = ("still", "pans left", "pans right", "zooms in", "zooms out")

_MOTION_WEIGHTS = (0.13, 0.13, 0.13, 0.13, 0.1, 0.08, 0.08, 0.07, 0.07, 0.08)
_BACKDROP_WEIGHTS = (0.57, 0.17, 0.13, 0.08, 0.05)
_COUNT_WEIGHTS = (0.68, 0.25, 0.07)
_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
_TURNLESS = frozenset({"circle", "ring"})
_PACES = {"slowly": (0.22, 0.34), "": (0.4, 0.6), "quickly": (0.68, 0.9)}
_SIZES = {"small": (0.085, 0.115), "": (0.13, 0.18), "large": (0.2, 0.25)}


@dataclass(frozen=True)
class Path:
    """Where an actor is, how large and how turned, as functions of time; the parts add up."""

    start: tuple[float, float]
    travel: tuple[float, float] = (0.0, 0.0)
    """Way from `start` in one span of time."""
    arrive: float = math.inf
    """Time after which it travels no further."""
    hops: tuple[float, float] = (0.0, 0.0)
    """Height and number per span of half-sine hops."""
    orbit: tuple[float, float] = (0.0, 0.0)
    """Radius and turns per span, clockwise if positive."""
    phase: float = 0.0
    """Of hops and orbit, in turns."""
    growth: float = 0.0
    """Logarithm of the size's ratio over one span; the size is the actor's at time 0.5."""
    angle: float = 0.0
    turns: float = 0.0
    """About the actor's own centre, per span."""

    def at(self, time: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """x, y, scale and angle (radians) at each time."""
        way = np.minimum(time, self.arrive)
        swing = 2 * math.pi * (self.phase + self.orbit[1] * time)
        hop = np.abs(np.sin(math.pi * (self.phase + self.hops[1] * time)))
        x = self.start[0] + self.travel[0] * way + self.orbit[0] * np.cos(swing)
        y = self.start[1] + self.travel[1] * way + self.orbit[0] * np.sin(swing)
        scale = np.exp(self.growth * (np.clip(time, 0.0, 1.0) - 0.5))
        return x, y - self.hops[0] * hop, scale, self.angle + 2 * math.pi * self.turns * time


@dataclass(frozen=True)
class Actor:
    """One moving shape."""

    shape: str
    colour: str
    motion: str
    radius: float
    path: Path
    rgb: tuple[int, int, int]
    """The colour as drawn, near the one named."""
    size: str = ""
    """`small`, `large` or nothing."""
    pace: str = ""
    """`slowly`, `quickly` or nothing."""
    texture: str = "plain"


@dataclass(frozen=True)
class Backdrop:
    """What is behind the actors."""

    kind: str
    colours: tuple[str, ...] = ()
    rgb: tuple[tuple[int, int, int], ...] = ()
    angle: float = 0.0
    """Direction of a gradient, radians."""
    scale: float = 0.25
    """Side of a checker's field, height of a horizon, or side of a photo's crop, all in (0, 1]."""
    photo: int = 0
    corner: tuple[float, float] = (0.0, 0.0)
    """Of a photo's crop, as shares of the room there is."""


@dataclass(frozen=True)
class Scene:
    """Everything that is drawn."""

    actors: tuple[Actor, ...]
    backdrop: Backdrop
    camera: str = "still"
    shadow: bool = False


def held_out(shape: str, colour: str, motion: str) -> bool:
    """Whether no training scene may hold this combination: one in seven, spread evenly."""
    if motion == MEETS:
        return False
    code = SHAPES.index(shape) + 2 * list(COLOURS).index(colour) + 3 * MOTIONS.index(motion)
    return code % 7 == 0


def possible(shape: str, motion: str) -> bool:
    """Whether the motion can be seen: round shapes do not visibly spin."""
    return not (motion == "spins" and shape in _TURNLESS)


def draw_scene(
    rng: np.random.Generator, *, photos: int = 0, test: bool = False, simple: bool = False
) -> Scene:
    """Draws a random scene.

    Args:
        rng: Source of every choice.
        photos: Number of photos that backdrops may show; 0 leaves them out.
        test: The first actor is a held-out combination; otherwise no actor is.
        simple: One actor without texture over a plain backdrop, nothing else.
    """
    backdrop = _draw_backdrop(rng, photos, plain=simple)
    count = 1 if simple else int(rng.choice(3, p=_COUNT_WEIGHTS)) + 1
    meeting = count == 2 and not test and rng.random() < 0.18
    while True:
        actors = (
            _draw_meeting(rng, backdrop)
            if meeting
            else tuple(
                _draw_actor(rng, backdrop, held=test and i == 0, simple=simple)
                for i in range(count)
            )
        )
        if _apart(actors) and _distinct(actors):
            break
    camera = "still"
    if not simple and _camera_may_move(actors, backdrop) and rng.random() < 0.75:
        camera = str(rng.choice(CAMERAS[1:] if backdrop.kind != "photo" else CAMERAS[1:3]))
    return Scene(actors, backdrop, camera, shadow=not simple and rng.random() < 0.2)


def _camera_may_move(actors: tuple[Actor, ...], backdrop: Backdrop) -> bool:
    # Over a plain backdrop, or beside moving actors, the camera's motion could not be told apart.
    seen = backdrop.kind in ("sea", "checker", "photo")
    return seen and all(actor.motion in ("stays", "spins") for actor in actors)


def _draw_backdrop(rng: np.random.Generator, photos: int, *, plain: bool) -> Backdrop:
    kind = "plain" if plain else str(rng.choice(BACKDROPS, p=_BACKDROP_WEIGHTS))
    if kind == "photo" and not photos:
        kind = "plain"
    names = list(BACKDROP_COLOURS)
    first, second = (names[i] for i in rng.choice(len(names), 2, replace=False))
    colours: tuple[str, ...] = (first, second)
    if kind == "plain":
        colours = (first if rng.random() > 0.3 else "white",)
    elif kind in ("sea", "photo"):
        colours = ()
    backdrop = Backdrop(
        kind,
        colours,
        tuple(_near(rng, BACKDROP_COLOURS[name], 8) for name in colours),
        angle=float(rng.choice(4)) * math.pi / 2,
    )
    if kind == "sea":
        sky = _near(rng, (158, 206, 240), 14)
        sea = _near(rng, (34, 92, 160), 16)
        return replace(backdrop, rgb=(sky, sea), scale=float(rng.uniform(0.45, 0.75)))
    if kind == "checker":
        return replace(backdrop, scale=float(rng.choice([0.125, 0.1875, 0.25])))
    if kind == "photo":
        corner = (float(rng.random()), float(rng.random()))
        side = float(rng.uniform(0.5, 1.0))
        return replace(backdrop, photo=int(rng.integers(photos)), scale=side, corner=corner)
    return backdrop


def _draw_actor(rng: np.random.Generator, backdrop: Backdrop, *, held: bool, simple: bool) -> Actor:
    while True:
        shape = str(rng.choice(SHAPES))
        colour = str(rng.choice(list(COLOURS)))
        motion = str(rng.choice(MOTIONS, p=_MOTION_WEIGHTS))
        stands_out = colour not in backdrop.colours and _contrast(COLOURS[colour], backdrop)
        if possible(shape, motion) and held_out(shape, colour, motion) == held and stands_out:
            break
    size = str(rng.choice(list(_SIZES), p=(0.18, 0.62, 0.2)))
    pace = str(rng.choice(list(_PACES), p=(0.18, 0.64, 0.18)))
    if motion in ("grows", "shrinks", "stays"):
        size, pace = "", ""
    radius = float(rng.uniform(*_SIZES[size]))
    texture = "plain" if simple else str(rng.choice(TEXTURES, p=(0.8, 0.1, 0.1)))
    path = _draw_path(rng, motion, radius, pace)
    return Actor(
        shape, colour, motion, radius, path, _near(rng, COLOURS[colour], 10), size, pace, texture
    )


def _draw_path(rng: np.random.Generator, motion: str, radius: float, pace: str) -> Path:
    low, high = _PACES[pace]
    share = float(rng.uniform(low, high))
    inside = (radius, 1.0 - radius)
    anywhere = (float(rng.uniform(*inside)), float(rng.uniform(*inside)))
    central = (float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.3, 0.7)))
    sign = 1.0 if rng.random() < 0.5 else -1.0
    match motion:
        case "left" | "right" | "up" | "down":
            dx, dy = _DIRECTIONS[motion]
            room = 1.0 - 2.0 * radius
            way = min(share, room)
            # Somewhere along the line such that the whole way stays in the frame.
            begin = radius + float(rng.uniform(0.0, room - way))
            along = begin if dx + dy > 0 else 1.0 - begin
            drift = float(rng.uniform(-0.03, 0.03))
            start = (along, anywhere[1]) if dx else (anywhere[0], along)
            return Path(start, (way * dx + drift * (not dx), way * dy + drift * (not dy)))
        case "bounces":
            hops = 1.0 + 1.6 * share
            floor = float(rng.uniform(0.72, 0.92)) - radius / 2
            height = float(rng.uniform(0.3, 0.5))
            drift = float(rng.uniform(-0.12, 0.12))
            return Path(
                (float(rng.uniform(0.3, 0.7)), floor), (drift, 0.0),
                hops=(height, hops), phase=float(rng.random()),
            )  # fmt: skip
        case "circles":
            orbit = float(rng.uniform(0.2, 0.3))
            centre = (float(rng.uniform(0.42, 0.58)), float(rng.uniform(0.42, 0.58)))
            turns = sign * (0.45 + 0.75 * share)
            return Path(centre, orbit=(orbit, turns), phase=float(rng.random()))
        case "spins":
            turns = sign * (0.15 + 0.55 * share)
            return Path(central, angle=float(rng.uniform(0, 2 * math.pi)), turns=turns)
        case "grows" | "shrinks":
            growth = float(rng.uniform(0.9, 1.5)) * (1.0 if motion == "grows" else -1.0)
            return Path(central, growth=growth)
        case _:
            return Path(anywhere)


def _draw_meeting(rng: np.random.Generator, backdrop: Backdrop) -> tuple[Actor, ...]:
    first, second = (_draw_actor(rng, backdrop, held=False, simple=False) for _ in range(2))
    radius = (min(first.radius, 0.18), min(second.radius, 0.18))
    y = float(rng.uniform(0.3, 0.7))
    meet = float(rng.uniform(0.42, 0.58))
    reach = sum(radius)
    split = meet - reach / 2 + radius[0]
    starts = (radius[0] + 0.02, 0.98 - radius[1])
    ends = (split - radius[0], split + radius[1])
    arrive = float(rng.uniform(0.6, 0.9))
    actors = []
    for actor, r, x0, x1 in zip((first, second), radius, starts, ends, strict=True):
        path = Path((x0, y), ((x1 - x0) / arrive, 0.0), arrive=arrive)
        actors.append(replace(actor, motion=MEETS, radius=r, size="", pace="", path=path))
    return tuple(actors)


def _apart(actors: tuple[Actor, ...]) -> bool:
    """Whether no two actors cover each other, except that those that meet may touch."""
    times = np.linspace(0.0, 1.0, 5)
    places = [actor.path.at(times) for actor in actors]
    for i, (xi, yi, si, _) in enumerate(places):
        for j in range(i):
            xj, yj, sj, _ = places[j]
            reach = 0.95 * (actors[i].radius * si + actors[j].radius * sj)
            if (np.hypot(xi - xj, yi - yj) < reach).any():
                return False
    return True


def _distinct(actors: tuple[Actor, ...]) -> bool:
    return len({(a.shape, a.colour) for a in actors}) == len(actors)


def _contrast(colour: tuple[int, int, int], backdrop: Backdrop) -> bool:
    others = np.array(backdrop.rgb or ((128, 128, 128),), np.float64)
    return bool((np.abs(others - colour).sum(1) > 110).all()) or backdrop.kind == "photo"


def _near(
    rng: np.random.Generator, colour: tuple[int, int, int], spread: float
) -> tuple[int, int, int]:
    red, green, blue = np.clip(np.rint(rng.normal(colour, spread)), 0, 255).astype(int).tolist()
    return red, green, blue
