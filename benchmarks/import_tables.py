"""The page sections of upscalers that others trained."""

from __future__ import annotations

import timing
from tables import load, ms, source, table

_NAMES = {
    "rlfn_s_x2": "RLFN-S",
    "rlfn_s_x4": "RLFN-S",
    "rlfn_ntire_x4": "RLFN of NTIRE 2022",
    "team51_span": "SPAN, 28 channels",
    "team00_EFDN": "EFDN",
    "FSRCNN_x2": "FSRCNN (luma)",
    "FSRCNN_x3": "FSRCNN (luma)",
    "FSRCNN_x4": "FSRCNN (luma)",
    "ESPCN_x3": "ESPCN (luma)",
    "ESPCN_x2": "ESPCN (luma)",
    "ESPCN_x4": "ESPCN (luma)",
}


def times() -> str:
    """A frame through fastvid, and the same network in PyTorch."""
    result = load("import_upscalers")
    rows = [
        (
            name,
            f"{row['size'][0]}x{row['size'][1]}",
            row["gmac"],
            ms(row["time"]["fastvid"]),
            ms(row["time"]["torch"]),
            f"{row['times_faster_than_torch']:.2f}x",
            f"{row['percent_of_multiply']:.0f} %",
        )
        for name, row in result["networks"].items()
    ]
    header = [
        "network", "frame", "GMAC", "fastvid ms", "torch ms", "faster than torch",
        "of the products' limit",
    ]  # fmt: skip
    text = (
        "Published weights, 2 threads. fastvid takes and gives frames of bytes, PyTorch (eager, "
        "the network as published) planes of floats; the frames differ by one level at most. The "
        "limit is the time of as many operations in matrix products.\n\n"
    )
    return text + table(header, rows) + "\n" + source(result)


def quality() -> str:
    """Luma PSNR by the papers' protocol, per factor."""
    text = (
        "By the protocol of super-resolution papers: reduced as MATLAB does it, PSNR on luma of "
        "BT.601 in studio range without a border of the scale. The pictures are held-back photos "
        "and frames of clips; `--truth FOLDER` measures on Set5 or others instead.\n"
    )
    parts = [text]
    for scale in (2, 3, 4):
        path = timing.RESULTS / f"upscaler_quality_x{scale}.json"
        if not path.is_file():
            continue
        result = load(path.stem)
        rows = [(_title(name, scale), f"{value:.2f} dB") for name, value in result["psnr"].items()]
        parts.append(
            table([f"x{scale}, {result['pictures']} pictures", "luma PSNR"], rows)
            + "\n"
            + source(result)
        )
    return "\n".join(parts)


def _title(name: str, scale: int) -> str:
    ours = f"upscaler-{name}-x{scale} of fastvid"
    return ours if name in ("fast", "quality", "real") else _NAMES.get(name, name)
