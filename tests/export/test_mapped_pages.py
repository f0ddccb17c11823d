"""Pages of mapped weights that are given back, and those that must not be."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from fastvid_export import mapped_pages, weight_writer  # noqa: E402
from fastvid_export.weight_files import WeightFiles  # noqa: E402

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps").is_file(), reason="pages are given back on Linux"
)
COUNT = 16 << 20


@pytest.fixture
def files(tmp_path: Path) -> WeightFiles:
    shapes = dict.fromkeys(("a", "b"), (torch.float32, (COUNT,)))
    weight_writer.write(tmp_path / "m.safetensors", shapes, lambda _: torch.ones(COUNT))
    return WeightFiles.open(tmp_path / "m.safetensors")


def test_pages_go_and_values_stay(tmp_path: Path, files: WeightFiles) -> None:
    value = files.read("a")
    before = mapped_pages.mapped()
    assert float(value.sum()) == COUNT
    assert mapped_pages.mapped() - before > 3 * COUNT
    mapped_pages.give_back(tmp_path.resolve())
    assert mapped_pages.mapped() - before < COUNT
    assert float(value.sum()) == COUNT


def test_what_was_written_to_stays(tmp_path: Path, files: WeightFiles) -> None:
    value = files.read("a")
    value[COUNT // 2] = 7
    mapped_pages.give_back(tmp_path.resolve())
    assert float(value[COUNT // 2]) == 7


def test_files_elsewhere_stay(tmp_path: Path, files: WeightFiles) -> None:
    value = files.read("a")
    before = mapped_pages.mapped()
    assert float(value.sum()) == COUNT
    (tmp_path / "other").mkdir()
    mapped_pages.give_back((tmp_path / "other").resolve())
    assert mapped_pages.mapped() - before > 3 * COUNT


def test_they_are_given_back_while_something_runs(tmp_path: Path, files: WeightFiles) -> None:
    values = [files.read(name) for name in files.names]
    before = mapped_pages.mapped()
    with mapped_pages.bounded(tmp_path, before + COUNT):
        assert [float(value.sum()) for value in values] == [COUNT, COUNT]
        late = time.monotonic() + 30
        while mapped_pages.mapped() - before > COUNT and time.monotonic() < late:
            time.sleep(0.02)
        assert mapped_pages.mapped() - before <= COUNT
    assert mapped_pages.mapped() - before < COUNT
    assert float(values[0].sum()) == COUNT
