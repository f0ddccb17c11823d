"""What a scene of `world` shows, in varied plain English."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from fastvid_export.training.world import (
    BACKDROP_COLOURS,
    CAMERAS,
    COLOURS,
    MEETS,
    Actor,
    Backdrop,
    Scene,
)

NOUNS = {
    "circle": ("circle", "circle", "ball", "disc"),
    "square": ("square", "square", "box", "block"),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring", "hoop"),
    "cross": ("cross", "plus sign"),
}
_SIZE_WORDS = {"small": ("small", "tiny", "little"), "large": ("large", "big", "huge")}
_TEXTURE_WORDS = {"striped": ("striped",), "dotted": ("dotted", "spotted")}
_PACE_WORDS = {"slowly": ("slowly", "gently"), "quickly": ("quickly", "fast")}
_OPPOSITE = {"left": "right", "right": "left", "up": "bottom", "down": "top"}
_STARTS = {"left": "left", "right": "right", "up": "top", "down": "bottom"}

# Third person and -ing form of each way to say a motion; {way} is left, right, up or down.
_TRAVELS = (
    ("moves {way}", "moving {way}"),
    ("moves {way}", "moving {way}"),
    ("slides {way}", "sliding {way}"),
    ("drifts {way}", "drifting {way}"),
    ("travels {way}", "travelling {way}"),
    ("goes {way}", "going {way}"),
    ("moves from {begin} to {end}", "moving from {begin} to {end}"),
)
_SIDEWAYS = (
    ("moves to the {way}", "moving to the {way}"),
    ("glides to the {way}", "gliding to the {way}"),
)
_VERTICAL = {
    "up": (("rises", "rising"), ("floats up", "floating up"), ("moves upwards", "moving upwards")),
    "down": (("falls", "falling"), ("sinks", "sinking"), ("moves downwards", "moving downwards")),
}
_OTHERS = {
    "bounces": (
        ("bounces", "bouncing"), ("hops", "hopping"),
        ("bounces up and down", "bouncing up and down"),
    ),
    "circles": (
        ("moves in a circle", "moving in a circle"), ("circles around", "circling around"),
        ("goes round and round", "going round and round"),
    ),
    "spins": (
        ("spins", "spinning"), ("rotates", "rotating"), ("turns in place", "turning in place"),
    ),
    "grows": (("grows", "growing"), ("gets bigger", "getting bigger"), ("expands", "expanding")),
    "shrinks": (
        ("shrinks", "shrinking"), ("gets smaller", "getting smaller"),
    ),
    "stays": (
        ("stays still", "staying still"), ("does not move", "not moving"),
        ("rests in place", "resting in place"),
    ),
}  # fmt: skip
_MEETINGS = (
    "{a} and {b} meet",
    "{a} meets {b}",
    "{a} and {b} move towards each other",
    "{a} and {b} come together",
)
_LINKS = (" and ", " while ", ", ")
_CAMERAS = (", the camera {}", " while the camera {}", " as the camera {}")
_PLACES = ("over", "on", "in front of")
_GROUNDS = {
    "plain": (
        "{place} a {0} background", "{place} a {0} background", "{place} a {0} backdrop",
        "{place} a plain {0} background",
    ),
    "gradient": ("{place} a gradient from {0} to {1}", "{place} a {0} and {1} gradient"),
    "checker": ("{place} a {0} and {1} checkerboard",),
    "sea": ("over the sea", "over a blue sea", "above the sea", "in front of sea and sky"),
    "photo": ("over a photo", "in front of a photo", "over a photograph"),
}  # fmt: skip
_OPENINGS = ("", "", "", "", "", "a video of ", "a clip of ", "an animation of ")


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """One of many ways to say what happens, lower case, no full stop.

    Colour, shape and motion of every actor are always named; sizes, paces, textures, the backdrop
    and the camera are now and then left out.
    """
    where = _backdrop(scene.backdrop, rng) if rng.random() > 0.12 else ""
    form = int(rng.integers(4))
    if scene.actors[0].motion == MEETS:
        a, b = (_noun_phrase(actor, rng) for actor in scene.actors)
        text = _pick(_MEETINGS, rng).format(a=a, b=b)
        form = min(form, 1)
    elif form == 2:
        # A noun phrase stands after "a video of"; a sentence does not.
        clauses = [f"{_noun_phrase(a, rng)} {_verb(a, rng, participle=True)}" for a in scene.actors]
        text = _pick(_OPENINGS, rng) + _join(clauses)
    else:
        clauses = [f"{_noun_phrase(a, rng)} {_verb(a, rng)}" for a in scene.actors]
        text = _join(clauses, _pick(_LINKS, rng))
    if where:
        text = f"{where}, {text}" if form == 1 else f"{text} {where}"
    if scene.camera != "still" and rng.random() > 0.1:
        text += _pick(_CAMERAS, rng).format(scene.camera)
    return text


def _pick(options: Sequence[str], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]


def _join(clauses: Sequence[str], link: str = " and ") -> str:
    if len(clauses) < 3:
        return link.join(clauses)
    return ", ".join(clauses[:-1]) + " and " + clauses[-1]


def _article(words: str) -> str:
    return ("an " if words[0] in "aeio" else "a ") + words


def _noun_phrase(actor: Actor, rng: np.random.Generator) -> str:
    words = []
    if actor.size and rng.random() > 0.1:
        words.append(_pick(_SIZE_WORDS[actor.size], rng))
    if actor.texture != "plain" and rng.random() > 0.1:
        words.append(_pick(_TEXTURE_WORDS[actor.texture], rng))
    words += [actor.colour, _pick(NOUNS[actor.shape], rng)]
    return _article(" ".join(words))


def _verb(actor: Actor, rng: np.random.Generator, *, participle: bool = False) -> str:
    motion = actor.motion
    if motion in _STARTS:
        options = [*_TRAVELS, *(_SIDEWAYS if motion in ("left", "right") else _VERTICAL[motion])]
        text = options[int(rng.integers(len(options)))][participle]
        begin = ("the " if rng.random() < 0.3 else "") + _OPPOSITE[motion]
        end = begin.replace(_OPPOSITE[motion], _STARTS[motion])
        text = text.format(way=motion, begin=begin, end=end)
    else:
        options = list(_OTHERS[motion])
        text = options[int(rng.integers(len(options)))][participle]
    if actor.pace and rng.random() > 0.1:
        text += " " + _pick(_PACE_WORDS[actor.pace], rng)
    return text


def _backdrop(backdrop: Backdrop, rng: np.random.Generator) -> str:
    ground = _pick(_GROUNDS[backdrop.kind], rng)
    text = ground.format(*backdrop.colours, place=_pick(_PLACES, rng))
    return text.replace(" a orange", " an orange")


def words() -> list[str]:
    """Every word that a caption can hold, sorted."""
    tables = (
        NOUNS, COLOURS, BACKDROP_COLOURS, CAMERAS, _SIZE_WORDS, _TEXTURE_WORDS, _PACE_WORDS,
        _OPPOSITE, _STARTS, _TRAVELS, _SIDEWAYS, _VERTICAL, _OTHERS, _MEETINGS, _LINKS, _CAMERAS,
        _PLACES, _GROUNDS, _OPENINGS, "a an the",
    )  # fmt: skip
    text = " ".join(_texts(tables))
    return sorted(set(re.findall(r"[a-z]+", re.sub(r"{\w*}", "", text))))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from _texts((tuple(value), tuple(value.values())))
    elif isinstance(value, Iterable):
        for item in value:
            yield from _texts(item)
