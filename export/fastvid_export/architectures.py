"""The page of networks that can be imported, from what the importers say of themselves."""

from __future__ import annotations

from fastvid_export import importers

PAGE = "docs/supported.md"
_TASKS = {
    "generator": "Generation",
    "interpolator": "Interpolation",
    "upscaler": "Super-resolution and restoration",
}
_TOP = """# Weights of others

What `fastvid export` reads, beside [ONNX files](export.md#onnx-files). This page is printed by
`python -m fastvid_export architectures`, from what the importers say, and a test holds it against
them.

```bash
fastvid export rlfn_s_x2.pth --out rlfn-s-x2
fastvid upscale IN --scale 2 --model rlfn-s-x2
```

Networks from spandrel are built by [spandrel](https://github.com/chaiNNer-org/spandrel) and
exported from its definition. Every import is held against its source network before it is written.
"""
_RUNS = """`any size`: the graph takes frames of any height and width. `fixed tile`: the network's
code works with the size of the picture as a constant, so its graph takes 256x256 (`--tile N` for
another), and frames pass in
[pieces of that size](super-resolution-checkpoints.md#pieces-of-one-size).
"""


def to_markdown() -> str:
    """The page, with one table per task."""
    lines = [_TOP]
    for task, title in _TASKS.items():
        rows = [one for one in importers.architectures() if one.task == task]
        if not rows:
            continue
        lines += [f"## {title}", ""]
        names = ["Network", "From", "Read from", "Notes"]
        cells = [[one.name, one.source, one.reads, one.notes] for one in rows]
        if task == "upscaler":
            lines.append(_RUNS)
            names.insert(3, "Runs")
            for line, one in zip(cells, rows, strict=True):
                line.insert(3, one.runs)
        lines += [_row(names), _row(["---"] * len(names)), *map(_row, cells), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
