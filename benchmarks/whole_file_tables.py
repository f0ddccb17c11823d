"""The page sections on whole files: beside OpenCV and PyTorch, and at 4K and 8K."""

from __future__ import annotations

from typing import Any

from tables import exists, load, source, table

_PEER = "OpenCV and torch, same networks"


def beside_peers() -> str:
    """720p30 to 1440p60 from start to end of the process."""
    if not exists("pipeline_whole_file"):
        return ""
    result = load("pipeline_whole_file")
    timed = {name: parts["time"] for name, parts in result["rows"].items()}
    base = timed.get(_PEER)
    rows = [
        (
            name,
            f"{part['fps_in']:.2f}",
            f"{part['fps_out']:.2f}",
            f"{part['fps_in'] / base['fps_in']:.2f}x" if base else "",
            f"{part['peak_mib']:.0f}",
            "" if part["psnr_to_first_row"] is None else f"{part['psnr_to_first_row']:.1f} dB",
        )
        for name, part in sorted(timed.items(), key=lambda item: -float(item[1]["fps_out"]))
    ]
    header = ["", "frames/s in", "frames/s out", "of the peer", "peak MiB", "like the first row"]
    count = next(iter(timed.values()))["frames_in"]
    return (
        f"{count} frames of 1280x720 at 30 a second to 2560x1440 at 60: interpolate by 2, upscale "
        "by 2, H.264 by x264 at the same preset and rate factor, 2 threads; whole processes, with "
        "their imports and the loading of models. The peer decodes with OpenCV, runs the same "
        "networks with the same weights in PyTorch, in float32, and encodes with PyAV, step after "
        "step; rows in int8 and bfloat16 are the same networks computed less precisely. "
        "`encoding alone` repeats frames instead of making them: nobody can be faster.\n\n"
        + table(header, rows)
        + "\n"
        + source(result)
    )


def large() -> str:
    """4K and 8K files, with their memory."""
    if not exists("pipeline_large"):
        return ""
    result = load("pipeline_large")
    rows = []
    for name, parts in result["rows"].items():
        part: dict[str, Any] = parts["time"]
        rows.append((
            name, part["format_out"], part["frames_out"], f"{part['seconds_per_frame']:.2f}",
            *(f"{value:.0f}" for value in part["peak_mib"].values()),
            part["checked"],
        ))  # fmt: skip
    header = ["", "written as", "frames", "s a frame out", "peak MiB, short clip",
              "peak MiB, twice as long", "checked"]  # fmt: skip
    return (
        "Files of real size through `Video`, 2 threads, each run a process of its own, with its "
        "imports and the loading of models in the time. The memory of a clip and of one twice as "
        "long: it grows until the encoder has seen as far ahead as it looks, x264 some ten frames "
        "at this effort and x265 some twenty, and then no more. A frame of 8K has 100 MB as RGB. "
        "`checked` is the luma of frames that pass through, or of enlarged ones reduced again, "
        "against the input.\n\n" + table(header, rows) + "\n" + source(result)
    )
