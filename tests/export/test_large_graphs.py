"""Large models: graphs with weights where they lie, in few bits, and little in memory meanwhile."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from fastvid import backends  # noqa: E402
from fastvid.bundle import write_bundle  # noqa: E402
from fastvid.errors import DiskFullError  # noqa: E402
from fastvid_export import blockwise, large_graphs, weight_store, weight_writer  # noqa: E402
from fastvid_export.errors import ExportError, FidelityError  # noqa: E402
from fastvid_export.large_checks import streamed  # noqa: E402
from fastvid_export.onnx import GraphPlan, Port  # noqa: E402
from fastvid_export.weight_files import WeightFiles, match  # noqa: E402
from fastvid_export.weight_store import WeightStore  # noqa: E402

F = torch.nn.functional
WIDTH, INNER, WORDS = 256, 384, 700
TRACED = large_graphs.traced


class Net(torch.nn.Module):
    """What large models are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.words = torch.nn.Embedding(WORDS, WIDTH)
        self.norm = torch.nn.LayerNorm(WIDTH)
        self.shift = torch.nn.Parameter(torch.randn(1, 1, WIDTH))
        self.up = torch.nn.Linear(WIDTH, INNER)
        self.time_proj = torch.nn.Linear(WIDTH, INNER)
        self.down = torch.nn.Linear(INNER, WIDTH, bias=False)
        self.patch = torch.nn.Conv2d(8, 384, 8, 8)
        self.register_buffer("table", torch.arange(8.0), persistent=False)

    def forward(self, ids: Any, picture: Any) -> Any:
        # What is computed from weights alone must not be computed from what stands in for them.
        x = self.norm(self.words(ids) + self.shift[:, None].flatten(1, 2))
        x = x + self.down(F.gelu(self.up(x) + self.time_proj(x)))
        seen = self.patch(picture * self.table[None, :, None, None]).flatten(2).transpose(1, 2)
        # A weight that is used by somebody else than its owner.
        return F.linear(x, self.up.weight.flatten(1), self.up.bias) + seen.mean(1, keepdim=True)


def samples(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "ids": rng.integers(0, WORDS, (1, 9)),
        "picture": rng.normal(size=(1, 8, 16, 24)).astype(np.float32),
    }


def plan_of(module: Any) -> GraphPlan:
    return GraphPlan(
        "net",
        module,
        (Port("ids", "int64", (1, "L")), Port("picture", "float32", (1, 8, "H", "W"))),
        (Port("y", "float32", (1, "L", INNER)),),
        {"random": [samples(), samples(1)]},
    )


def save(folder: Path, module: Any, dtype: Any) -> Any:
    """The checkpoint of a module in a dtype; returns the module with these weights."""
    folder.mkdir(parents=True)
    values = {name: value.to(dtype) for name, value in module.state_dict().items()}
    shapes = {name: (value.dtype, tuple(value.shape)) for name, value in values.items()}
    weight_writer.write(folder / "model.safetensors", shapes, values.__getitem__)
    module.load_state_dict({name: value.float() for name, value in values.items()})
    return module


def hollow() -> Any:
    with torch.device("meta"):
        module = Net()
    module.table = torch.arange(8.0)
    return module


@functools.cache
def trace() -> bytes:
    """The graph of the network before its weights are placed: the same for all of them."""
    module = hollow()
    names = list(module.state_dict())
    large_graphs.hollow(module, names)
    plan = plan_of(module)
    model = TRACED(plan, large_graphs.linear_translations(), names)
    return bytes(model.SerializeToString())


def exported(
    tmp_path: Path, dtype: Any, precision: str = "float32", **store: Any
) -> tuple[Any, Any, Any]:
    """The network, its export and the store of it."""
    torch.manual_seed(0)
    real = save(tmp_path / "checkpoint", Net(), dtype)
    files = WeightFiles.open(tmp_path / "checkpoint")
    folder = tmp_path / "new"
    folder.mkdir()
    kept = WeightStore(folder, lambda line: None, **store)
    module = hollow()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(large_graphs, "traced", lambda *_: onnx.load_model_from_string(trace()))
        made = large_graphs.export(
            plan_of(module), files, match(module, files), kept, precision=precision
        )
    return real, made, kept


def opened(tmp_path: Path, made: Any, kept: Any) -> Any:
    import tiny_models as tiny

    manifest = tiny.manifest(graphs={"run": made.manifest()})
    return write_bundle(tmp_path / "bundle", manifest, {"net.onnx": made.data, **kept.files})


def outputs(bundle: Any) -> Any:
    with backends.open(bundle, device="cpu", backend="onnxruntime", threads=2) as model:
        return model.graph("run").run(samples(2))["y"]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_the_graph_computes_what_the_module_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, mapped: bool
) -> None:
    from fastvid.backends import _onnx_external

    real, made, kept = exported(tmp_path, getattr(torch, dtype))
    monkeypatch.setattr(_onnx_external, "MAPPED_BYTES", 0 if mapped else 1 << 40)
    bundle = opened(tmp_path, made, kept)
    with torch.no_grad():
        right = real(*(torch.from_numpy(x) for x in samples(2).values())).numpy()
    np.testing.assert_allclose(outputs(bundle), right, atol=2e-5 * np.ptp(right))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_stay_in_the_checkpoint(tmp_path: Path, dtype: str) -> None:
    _, made, kept = exported(tmp_path, getattr(torch, dtype))
    source = tmp_path / "checkpoint" / "model.safetensors"
    linked = [name for name in kept.files if (kept.folder / name).samefile(source)]
    assert linked == ["weights-model.data"]
    # Of bfloat16 the kernel of the convolution alone is widened, because it is large.
    kernel = 384 * 8 * 8 * 8 * 4
    written = sum((kept.folder / n).stat().st_size for n in kept.files if n not in linked)
    assert written == (0 if dtype == "float32" else kernel)
    graph = onnx.load_model_from_string(made.data).graph
    inline = sum(len(t.raw_data) for t in graph.initializer)
    assert inline < 16 * 1024


def test_products_are_linear_nodes_and_tables_are_narrow(tmp_path: Path) -> None:
    _, made, _ = exported(tmp_path, torch.bfloat16, "bfloat16")
    graph = onnx.load_model_from_string(made.data).graph
    kinds = {t.name: t.data_type for t in graph.initializer}
    bfloat16 = onnx.TensorProto.BFLOAT16
    assert kinds["words.weight"] == kinds["up.weight"] == kinds["down.weight"] == bfloat16
    nodes = [node for node in graph.node if node.op_type == "Linear"]
    narrow = {node.input[1]: node.attribute[0].i for node in nodes}
    assert narrow == {"up.weight": 1, "down.weight": 1, "time_proj.weight": 0}
    assert "MatMul" not in {node.op_type for node in graph.node}


@pytest.mark.parametrize(
    ("precision", "psnr", "share"), [("bfloat16", 60, 1), ("int8", 50, 0.45), ("int4", 32, 0.36)]
)
def test_narrow_products_pass_their_gates(
    tmp_path: Path, precision: str, psnr: float, share: float
) -> None:
    real, made, kept = exported(tmp_path, torch.float32, precision)
    assert made.figures[0].graph == "net"
    assert made.figures[0].psnr > psnr
    with torch.no_grad():
        right = real(*(torch.from_numpy(x) for x in samples(2).values())).numpy()
    found = outputs(opened(tmp_path, made, kept))
    cosine = np.vdot(found, right) / np.linalg.norm(found) / np.linalg.norm(right)
    assert cosine > {"bfloat16": 0.9999, "int8": 0.9998, "int4": 0.99}[precision]
    assert not np.array_equal(found, right)
    if precision != "bfloat16":
        # Nothing is linked that would keep the whole checkpoint.
        assert list(kept.files) == ["net.data"]
        products = 4 * (WIDTH * INNER * 3)
        others = 4 * (WORDS * WIDTH + 384 * 8 * 64)
        size = (kept.folder / "net.data").stat().st_size
        assert size - others < products * share + products / 3


def test_without_links_tensors_are_copied(tmp_path: Path) -> None:
    real, made, kept = exported(tmp_path, torch.bfloat16, link=False)
    assert list(kept.files) == ["net.data"]
    with torch.no_grad():
        right = real(*(torch.from_numpy(x) for x in samples(2).values())).numpy()
    found = outputs(opened(tmp_path, made, kept))
    np.testing.assert_allclose(found, right, atol=2e-5 * np.ptp(right))


def test_a_disk_that_refuses_links_is_copied_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*paths: Any, **more: Any) -> None:
        raise OSError(1, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    _, _, kept = exported(tmp_path, torch.float32)
    assert list(kept.files) == ["net.data"]


def test_a_disk_that_is_too_small_is_found_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = weight_store.shutil.disk_usage(tmp_path)
    small = usage._replace(free=1000)
    monkeypatch.setattr(weight_store.shutil, "disk_usage", lambda path: small)
    with pytest.raises(DiskFullError, match=r"net needs .* GB of disk, 0\.00 GB are free"):
        exported(tmp_path, torch.float32, "int8")
    assert list((tmp_path / "new").iterdir()) == []


def test_a_graph_that_differs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quantise = blockwise.quantise
    monkeypatch.setattr(blockwise, "quantise", lambda w, bits: quantise(w.flip(0), bits))
    with pytest.raises(FidelityError, match="of y of net on random inputs"):
        exported(tmp_path, torch.float32, "int8")


def test_unknown_precisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"precision must be one of .*int4.*, got 'int2'"):
        exported(tmp_path, torch.float32, "int2")


@pytest.mark.parametrize("bits", [4, 8])
def test_blocks_are_read_as_they_are_written(bits: int) -> None:
    """By the formula of the operator, on the values of the largest block and of a padded one."""
    torch.manual_seed(1)
    weight = torch.randn(5, 300)
    weight[2] = 0
    numbers, scales = blockwise.quantise(weight, bits)
    wide = numbers.to(torch.int64)
    if bits == 4:
        wide = torch.stack([wide & 15, wide >> 4], 3).flatten(2)
    back = ((wide - (1 << bits - 1)) * scales[..., None]).flatten(1)
    assert not back[:, 300:].any()
    error = (back[:, :300] - weight).abs()
    # Half a step, and a whole one at the far end from the value that sets the scale.
    step = scales.abs().repeat_interleave(blockwise.BLOCK[bits], 1)[:, :300]
    assert (error <= step * 1.001).all()
    assert (error <= step * 0.501).float().mean() > 0.9
    assert not back[2].any()


def test_a_streamed_module_is_left_as_it_was(tmp_path: Path) -> None:
    real = save(tmp_path / "checkpoint", Net(), torch.float32)
    files = WeightFiles.open(tmp_path / "checkpoint")
    module = hollow()
    names = match(module, files)
    large_graphs.hollow(module, names)
    given = [torch.from_numpy(x) for x in samples().values()]
    with torch.no_grad():
        before = module(*given)
        with streamed(module, files, names):
            torch.testing.assert_close(module(*given), real(*given), rtol=0, atol=0)
        torch.testing.assert_close(module(*given), before, rtol=0, atol=0)


def test_modules_that_cannot_be_traced_are_named(tmp_path: Path) -> None:
    class Odd(Net):
        def forward(self, ids: Any, picture: Any) -> Any:
            raise ValueError("not this")

    save(tmp_path / "checkpoint", Net(), torch.float32)
    files = WeightFiles.open(tmp_path / "checkpoint")
    with torch.device("meta"):
        module = Odd()
    module.table = torch.arange(8.0)
    plan = dataclasses.replace(plan_of(module), module=module)
    store = WeightStore(tmp_path, lambda line: None)
    with pytest.raises(ExportError, match=r"(?s)net cannot be traced.*not this"):
        large_graphs.export(plan, files, match(module, files), store)


PEAK = """
import json, resource, sys
from pathlib import Path
import numpy as np
import torch
torch.set_num_threads(1)
from torch import nn
from fastvid_export import large_graphs
from fastvid_export.onnx import GraphPlan, Port
from fastvid_export.weight_files import WeightFiles, match
from fastvid_export.weight_store import WeightStore
folder, precision = Path(sys.argv[1]), sys.argv[2]
layers, width = map(int, sys.argv[3:])
files = WeightFiles.open(folder / "m.safetensors")
def export(count, out):
    with torch.device("meta"):
        module = nn.Sequential(*(nn.Linear(width, width) for _ in range(count)))
    names = match(module, files, rename=lambda n: n if int(n.split(".")[0]) < count else None)
    port = Port("x", "float32", (1, "L", width))
    x = np.random.default_rng(0).normal(size=(1, 3, width)).astype(np.float32)
    plan = GraphPlan("net", module, (port,), (Port("y", "float32", (1, "L", width)),),
                     {"random": [{"x": x}]})
    (folder / out).mkdir()
    large_graphs.export(plan, files, names, WeightStore(folder / out, print), precision=precision)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def anonymous():
    # Pages of mapped files are the system's to drop; what a process holds is the rest.
    text = Path("/proc/self/status").read_text()
    return 1024 * int(text.split("RssAnon:")[1].split()[0])
first = export(1, "first")
held = anonymous()
print(json.dumps([first, export(layers, "all"), held, anonymous()]))
"""


def test_buffers_that_are_no_weights_must_be_there(tmp_path: Path) -> None:
    save(tmp_path / "checkpoint", Net(), torch.float32)
    files = WeightFiles.open(tmp_path / "checkpoint")
    with torch.device("meta"):
        module = Net()
    with pytest.raises(ExportError, match="table must not lie on the meta device"):
        large_graphs.hollow(module, match(module, files))


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_export_holds_little_more_than_the_largest_tensor(
    tmp_path: Path, precision: str
) -> None:
    """A checkpoint of 400 MB: beyond what one layer of it takes, mapped pages and nothing else."""
    layers, width = 24, 2048
    shapes: dict[str, Any] = {}
    for i in range(layers):
        shapes[f"{i}.weight"] = (torch.float32, (width, width))
        shapes[f"{i}.bias"] = (torch.float32, (width,))
    value = torch.randn(width, width) / width**0.5

    def make(name: str) -> Any:
        return value if "weight" in name else value[0]

    weight_writer.write(tmp_path / "m.safetensors", shapes, make)
    command = [sys.executable, "-c", PEAK, str(tmp_path), precision, str(layers), str(width)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    one, every, held, left = json.loads(done.stdout.splitlines()[-1])
    tensor = 4 * width * width
    mapped = layers * tensor if precision == "float32" else layers * tensor // 3
    assert every - one < mapped + 3 * tensor
    assert left - held < 3 * tensor
