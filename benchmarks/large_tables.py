"""Tables of models of real size, and of the op that their layers are."""

from __future__ import annotations

from typing import Any

import timing
from tables import load, ms, source, table


def linear() -> str:
    """`linear` beside torch and onnxruntime."""
    if not (timing.RESULTS / "linear.json").is_file():
        return ""
    result = load("linear")
    keys = (
        "fastvid", "fastvid_narrow_weights", "onnxruntime", "torch", "fastvid_bfloat16",
        "torch_bfloat16",
    )  # fmt: skip
    rows = [
        (
            name,
            *(ms(case["time"][key]) for key in keys),
            f"{case['ratio']['fastvid']:.2f}x",
            f"{case['ratio']['fastvid_bfloat16']:.2f}x",
            f"{case['gigaflops']['fastvid'] / case['gigaflops']['peak']:.0%}",
            f"{case['gigaflops']['fastvid_bfloat16'] / case['gigaflops']['peak_bfloat16']:.0%}",
        )
        for name, case in result["cases"].items()
    ]
    header = [
        "tokens x inputs x outputs", "float32 ms", "of bfloat16 weights ms", "onnxruntime ms",
        "torch ms", "bfloat16 ms", "torch bfloat16 ms", "ratio", "bfloat16 ratio", "of peak",
        "bfloat16 of peak",
    ]  # fmt: skip
    return (
        f"Linear layers of a video transformer, {result['threads']} threads. onnxruntime packs its "
        "weights beforehand, which takes their memory once more; fastvid reads them in place. "
        "Ratios are against torch in the same precision.\n\n"
        + table(header, rows)
        + "\n"
        + source(result)
    )


def models() -> str:
    """A step of Wan 2.1's shape beside torch eager, and the memory of its parts."""
    parts = [_model(load(path.stem)) for path in sorted(timing.RESULTS.glob("large_*.json"))]
    return "\n".join([*parts, memory(), batches()])


def memory() -> str:
    """What networks of real size take while they are exported and run."""
    results = [load(path.stem) for path in sorted(timing.RESULTS.glob("memory_large_*.json"))]
    rows = []
    for result in results:
        network = f"{result['network']}, {result['layers']} blocks, {result['dtype']}"
        for precision, entry in result["precisions"].items():
            made = entry["export"]
            export = (
                _gb(result["weights"]), f"{made['seconds']:.0f}", _gb(made["new_bytes"]),
                _gb(made["peak"]), _gb(made["peak_anonymous"]),
            )  # fmt: skip
            runs = entry["runs"] or [{}]
            for number, one in enumerate(runs):
                shown = export if number == 0 else ("",) * len(export)
                rows.append((network if number == 0 else "", precision, *shown, *_run(one)))
    header = [
        "network", "products", "checkpoint GB", "export s", "written GB", "export peak GB",
        "anonymous GB", "tokens", "load s", "load peak GB", "run s", "run peak GB", "anonymous GB",
        "of the plan",
    ]  # fmt: skip
    return (
        "Memory of networks of Wan's shapes with random weights, one thread, each part a process "
        "of its own. A peak is what the system counts as the process's, pages of mapped files "
        "included; `anonymous` is what of it no file backs, at its own peak. Pages are given back "
        "while an export is checked, so that its peak is below the weights' size; a run maps all "
        "it reads, and the system takes pages back as it needs them.\n\n"
        + table(header, rows)
        + "\n"
        + "\n".join(source(result) for result in results)
    )


def _run(one: dict[str, Any]) -> tuple[str, ...]:
    if not one:
        return ("",) * 7
    return (
        str(one["tokens"]), f"{one['load_seconds']:.1f}", _gb(one["load"]["peak"]),
        f"{min(one['seconds']):.1f}", _gb(one["peak"]), _gb(one["peak_anonymous"]),
        f"{one['of_plan']:.2f}",
    )  # fmt: skip


def batches() -> str:
    """Two prompts of one batch beside one after the other."""
    rows = []
    for path in sorted(timing.RESULTS.glob("memory_large_*.json")):
        result = load(path.stem)
        for entry in result["precisions"].values():
            for latents, (one, two) in entry.get("batches", {}).items():
                rows.append((latents, f"{one:.2f}", f"{two:.2f}", f"{2 * one / two:.2f}x"))
    header = ["latents", "one prompt s", "two in a batch s", "faster than twice one"]
    return (
        "Guidance evaluates two prompts: in one batch or one after the other. The same transformer "
        "of 3 blocks in float32, one thread.\n\n" + table(header, rows)
    )


def _model(result: dict[str, Any]) -> str:
    peer, dtype = result["peer"], result["dtype"]
    rows = [
        (
            precision,
            f"{entry['step']['seconds']:.1f}",
            f"{entry['ratio']:.2f}",
            _gb(entry["export"]["bytes"]),
            _gb(entry["export"]["new_bytes"]),
            # Equal random weights are packed once; the table of memory has others.
            "" if precision in ("int8", "int4") else _gb(entry["step"]["peak"]),
            f"{entry['export']['psnr'][0]:.1f}",
            f"{entry['export']['cosine'][0]:.5f}",
            f"{entry['step']['error']:.1e}",
        )
        for precision, entry in result["precisions"].items()
    ]
    rows.append(
        (
            f"torch eager, {dtype}",
            f"{peer['seconds']:.1f}",
            "1.00",
            "",
            "",
            _gb(peer["peak"]),
            "",
            "",
            f"{peer['error']:.1e}",
        )
    )
    header = [
        "products", "step s", "of torch's time", "bundle GB", "written GB",
        "step peak GB", "PSNR dB", "cosine", "error",
    ]  # fmt: skip
    return (
        f"A transformer of Wan 2.1's shape, {result['layers']} blocks and "
        f"{_gb(result['weights']['bytes'])} GB of random weights in {dtype}; a step at 480x832 "
        f"with 5 frames (3120 tokens), {result['threads']} threads, beside diffusers' class on "
        "the same file. Peaks count pages of mapped files; `written` is what an export adds to "
        "the disk; `error` is the root mean square difference from the float32 graph over the "
        "deviation of its output. PSNR and cosine are those of the export, against the network "
        "in float32.\n\n" + table(header, rows) + "\n" + source(result)
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f}"
