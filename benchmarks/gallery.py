"""Writes docs/gallery.md and its pictures: what the shipped generator draws.

    python benchmarks/gallery.py [--model tiny]

Every clip follows from its prompt and seed, so the same model gives the same page.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import Generator, Interpolator, Upscaler
from fastvid._sheet import contact_sheet, write_png

Clip = NDArray[np.uint8]

DOCS = Path(__file__).resolve().parents[1] / "docs"
FIGURES = DOCS / "figures" / "gallery"
SHOWN = 5
"""Frames of a clip that are shown, the first and the last among them."""
SEED = 7


@dataclass(frozen=True)
class Entry:
    """One row of pictures."""

    name: str
    prompt: str
    note: str = ""
    options: dict[str, Any] = field(default_factory=dict)


SECTIONS: dict[str, tuple[Entry, ...]] = {
    "From a text": (
        Entry("circle", "a red circle moves left over a white background"),
        Entry("star", "a yellow star moves right over a blue background"),
        Entry("ring", "a purple ring moves up over a grey background"),
        Entry("triangle", "a green triangle moves down over a black background"),
        Entry("spin", "an orange cross spins over a white background"),
        Entry("grow", "a blue square grows over a yellow background"),
        Entry("circling", "a white circle moves in a circle over a black background"),
        Entry("bounce", "a red ball bounces over a blue sea"),
        Entry("meet", "a red star and a blue star meet"),
    ),
    "The same prompt, other seeds": tuple(
        Entry(f"seed_{seed}", "a blue star moves right over a white background", f"seed {seed}",
              {"seed": seed})
        for seed in (1, 2, 3)
    ),
    "Other sizes and lengths": (
        Entry("wide", "a red star moves right over a white background", "96x64",
              {"height": 64, "width": 96}),
        Entry("long", "a green circle moves right over a white background", "33 frames",
              {"num_frames": 33}),
    ),
}  # fmt: skip


def made_from_pictures(generator: Generator) -> list[tuple[Entry, Clip]]:
    """Clips that start from a picture or from another clip."""
    prompt = "a red circle moves right over a white background"
    start = draw(generator, Entry("start", prompt))
    blue = "a blue circle moves right over a white background"
    cases = (
        ("image", prompt, "its first frame is that of a clip made before", {"image": start[0]}),
        (
            "between", prompt, "first and last frame given",
            {"image": start[0], "last_image": start[-1]},
        ),
        ("continued", prompt, "goes on where that clip ends", {"video": start}),
        (
            "redrawn", blue, "that clip redrawn in blue, strength 0.8",
            {"video": start, "strength": 0.8, "num_inference_steps": 10},
        ),
    )  # fmt: skip
    entries = [Entry(name, text, note, options) for name, text, note, options in cases]
    return [(entry, draw(generator, entry)) for entry in entries]


def draw(generator: Generator, entry: Entry) -> Clip:
    return generator.generate(entry.prompt, **{"seed": SEED, **entry.options}).frames()


def chained(generator: Generator) -> tuple[Entry, Clip]:
    """One clip through all three models."""
    entry = Entry("chain", "a red star moves right over a blue background")
    with Interpolator() as between, Upscaler(scale=4) as larger:
        video = larger.upscale(between.interpolate(generator.generate(entry.prompt, seed=SEED),
                                                   factor=4))  # fmt: skip
        return entry, video.frames()


def row(entry: Entry, clip: Clip, count: int = SHOWN) -> str:
    """Writes the pictures of one clip and returns the lines of the page."""
    chosen = np.linspace(0, len(clip) - 1, count).round().astype(int)
    write_png(FIGURES / f"{entry.name}.png", contact_sheet(list(clip[chosen]), count),
              overwrite=True)  # fmt: skip
    note = f" ({entry.note})" if entry.note else ""
    return f"{entry.prompt}{note}\n\n![{entry.prompt}](figures/gallery/{entry.name}.png)\n"


def section(title: str, entries: list[tuple[Entry, Clip]], **options: Any) -> str:
    return f"## {title}\n\n" + "\n".join(row(entry, clip, **options) for entry, clip in entries)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    FIGURES.mkdir(parents=True, exist_ok=True)
    for old in FIGURES.glob("*.png"):
        old.unlink()
    with Generator(options.model) as generator:
        page = page_of(generator)
    (DOCS / "gallery.md").write_text(page, encoding="utf-8")
    size = sum(path.stat().st_size for path in FIGURES.glob("*.png"))
    print(f"wrote gallery.md and {size / 1e3:.0f} kB of pictures")


def page_of(generator: Generator) -> str:
    spec = generator.bundle.generation
    assert spec is not None
    guided = "without guidance" if spec.guidance_scale <= 1 else f"guidance {spec.guidance_scale:g}"
    head = (
        "# Gallery\n\nMade by `python benchmarks/gallery.py`; do not edit. "
        f"`{generator.bundle.name}`, {spec.num_inference_steps} steps, {guided}, seed {SEED} unless"
        f" named: {SHOWN} of {spec.num_frames} frames of {spec.width}x{spec.height}, evenly "
        "chosen. Nothing was left out or drawn again.\n"
    )
    parts = [head]
    for title, entries in SECTIONS.items():
        parts.append(section(title, [(entry, draw(generator, entry)) for entry in entries]))
    parts.append(section("From pictures and clips", made_from_pictures(generator)))
    title = "Through all three models: four times the frames, four times the size"
    parts.append(section(title, [chained(generator)], count=3))
    return "\n".join(parts)


if __name__ == "__main__":
    main()
