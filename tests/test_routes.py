"""The table of ops and the ways to reach them is what the sources hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fastvid import ops
from fastvid.backends.tensorrt_plugins import PLUGINS

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
HELPERS = {"rope_table_3d", "softmax_splat_workspace"}
"""Public names that compute nothing on arrays of a model."""
OPS = sorted(set(ops.__all__) - HELPERS)


def text_of(folder: str, pattern: str) -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / folder).glob(pattern)))


def camel(op: str) -> str:
    return "".join(word.capitalize() for word in op.split("_"))


def table() -> dict[str, list[str]]:
    """The cells after the name, by op."""
    rows = re.findall(r"^\| `(\w+)` \|(.+)\|$", PAGE, flags=re.MULTILINE)
    return {op: [cell.strip() for cell in cells.split("|")] for op, cells in rows}


def test_every_op_has_a_row() -> None:
    assert sorted(table()) == OPS


@pytest.mark.parametrize("op", OPS)
def test_the_row_says_what_there_is(op: str) -> None:
    nodes = re.findall(r'\.name = "(\w+)"', text_of("csrc/bindings/onnxruntime", "*.cc"))
    operators = re.findall(r'define\(\s*"(\w+)"', text_of("export/fastvid_export/ops", "*.py"))
    launchers = text_of("csrc/fastvid/cuda", "*.h")
    there = [
        callable(getattr(ops, op)),
        camel(op) in nodes,
        op in operators,
        any(plugin.op == op for plugin in PLUGINS.values()),
        f"void {op}(" in launchers,
    ]
    assert [cell == "✓" for cell in table()[op]] == there


@pytest.mark.parametrize("op", OPS)
def test_what_is_missing_has_a_reason(op: str) -> None:
    notes = set(re.findall(r"^(\d)\. ", PAGE.split("## Four routes")[1], flags=re.MULTILINE))
    assert {cell for cell in table()[op] if cell != "✓"} <= notes
