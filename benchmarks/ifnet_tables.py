"""The page section of RIFE's networks."""

from __future__ import annotations

from tables import load, ms, source, table

_ANOTHER = "fastvid, another time"
_PEERS = ("torch", "onnxruntime, GridSample")


def times() -> str:
    """A middle frame, frames in to frame out."""
    result = load("ifnet")
    rows = [
        (
            name,
            case["gflop"],
            ms(case["times"]["fastvid"]),
            ms(case["times"][_ANOTHER]) if _ANOTHER in case["times"] else "",
            *(ms(case["times"][peer]) for peer in _PEERS),
            f"{case['torch']:.2f}x, {case['onnxruntime']:.2f}x",
            f"{case['percent_of_products']:.0f} %",
        )
        for name, case in result["cases"].items()
    ]
    header = [
        "network, size", "GFLOP", "fastvid ms", "another time ms", "torch ms", "onnxruntime ms",
        "faster than torch, onnxruntime", "of the products' limit",
    ]  # fmt: skip
    return (
        f"A middle frame of two, frames in to frame out, {result['threads']} threads, the same "
        "random weights in all; `another time` is a further frame between the same two, "
        "where an encoder has not to run again. "
        "onnxruntime runs what PyTorch exports, with GridSample. The limit is the time of as many "
        "operations in matrix products.\n\n" + table(header, rows) + "\n" + source(result)
    )
