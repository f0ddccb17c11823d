"""The TensorRT plugins, against TensorRT's own Python bindings and the PTX of their kernels."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from null_tensorrt import Registry, evaluator, load

from fastvid import ops
from fastvid.backends import tensorrt_plugins
from fastvid.backends.tensorrt_plugins import PLUGINS, _ptx
from fastvid.errors import BackendUnavailableError, UnsupportedModelError

ROOT = Path(__file__).parents[2]
SOURCES = ROOT / "csrc" / "fastvid" / "cuda" / "plugins"
# As csrc/CMakeLists.txt has it: these need compute capability 8.0, the others 7.5.
NEWER = {"attention", "temporal_attention"}
Case = tuple[list[Any], dict[str, Any], Callable[[], Any]]


def image(*shape: int) -> Any:
    return np.random.default_rng(1).random(shape, np.float32)


def frames(*shape: int) -> Any:
    return np.random.default_rng(1).integers(0, 256, shape, np.uint8)


def _rope(heads: int, dim: int) -> Case:
    q, k = image(2, 6, heads, dim), image(2, 6, heads, dim)
    w = np.ones(heads * dim, np.float32)
    cos, sin = image(6, dim // 2), image(6, dim // 2)
    attributes = {"norm": "full", "rope": "interleaved", "eps": 1e-5}
    return [q, k, w, w, cos, sin], attributes, lambda: ops.qk_norm_rope(q, k, w, w, cos, sin)


def cases() -> dict[str, Case]:
    """By plugin: inputs, attributes, and the call of the op that has the same results."""
    x, byte = image(2, 3, 8, 24), frames(2, 8, 24, 3)
    luma, chroma = image(2, 1, 16, 24), image(2, 2, 8, 12)
    inputs, rope, call = _rope(3, 16)
    norm = {"norm": "head", "rope": "none", "eps": 1e-6}
    w = np.ones(16, np.float32)
    q, k, _, _, cos, sin = inputs
    bias = image(1, 3, 6, 6)
    seen = {"causal": 1, "scale": 0.0}
    video, per_head = image(2, 5, 6, 3, 16), image(3, 5, 5)
    moved, zeros = image(2, 2, 4, 12), {"zeros": 1, "channels_last": 0}
    pair = [x, x, image(2, 4, 4, 12), image(2, 1, 4, 12)]

    def blend(**options: Any) -> Callable[[], Any]:
        return lambda: ops.warp_blend(*pair, **options)

    return {
        "Warp": ([x, moved], zeros, lambda: ops.warp(x, moved, padding="zeros")),
        "WarpBlend": (pair, {}, blend()),
        "WarpBlendResidual": ([*pair, x], {}, blend(residual=x)),
        "WarpBlendFrames": (pair, {}, blend(out_dtype="uint8")),
        "WarpBlendResidualFrames": ([*pair, x], {}, blend(residual=x, out_dtype="uint8")),
        "TemporalAttention": ([video] * 3, seen, lambda: ops.temporal_attention(*[video] * 3)),
        "TemporalAttentionBias": (
            [video, video, video, per_head],
            seen,
            lambda: ops.temporal_attention(video, video, video, bias=per_head),
        ),
        "FastvidAttention": ([q, k, k], seen, lambda: ops.attention(q, k, k, causal=True)),
        "FastvidAttentionBias": ([q, k, k, bias], seen, lambda: ops.attention(q, k, k, bias=bias)),
        "RgbToPlanar": ([byte], {}, lambda: ops.rgb_to_planar(byte)),
        "PlanarToRgb": ([x], {}, lambda: ops.planar_to_rgb(x)),
        "RgbToLuma": ([byte], {}, lambda: ops.rgb_to_luma(byte)),
        "LumaToRgb": ([luma, chroma], {}, lambda: ops.luma_to_rgb(luma, chroma)),
        "Downscale": ([x], {"factor": 4}, lambda: ops.downscale(x, 4)),
        "QkNormRopeQWeightKWeight": (
            [q, k, w, w],
            norm,
            lambda: ops.qk_norm_rope(q.copy(), k.copy(), w, w, norm="head", rope=None),
        ),
        "QkNormRopeCosSin": (
            [q, k, cos, sin],
            {**norm, "norm": "none", "rope": "half"},
            lambda: ops.qk_norm_rope(q.copy(), k.copy(), cos=cos, sin=sin, norm=None, rope="half"),
        ),
        "QkNormRopeQWeightKWeightCosSin": (inputs, rope, call),
    }


@pytest.fixture(scope="module")
def bindings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any, Registry]]:
    """TensorRT's bindings with a registry of ours, all plugins registered."""
    before = set(sys.modules)
    try:
        trt, api = load(tmp_path_factory.mktemp("libraries"))
    except ImportError as error:
        pytest.skip(str(error))
    registry = Registry()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trt, "get_plugin_registry", lambda: registry)
        patch.setattr(tensorrt_plugins, "kernels_folder", lambda: SOURCES)
        assert tensorrt_plugins.register.__wrapped__() == tuple(PLUGINS)
        yield trt, api, registry
    for name in set(sys.modules) - before:
        if name.startswith("tensorrt"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def ptx(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The PTX of every plugin, by file."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("there is no nvcc")
    folder = tmp_path_factory.mktemp("ptx")
    found = {}
    for source in sorted(SOURCES.glob("*.cu")):
        target = folder / f"{source.stem}.ptx"
        arch = f"-arch=compute_{80 if source.stem in NEWER else 75}"
        options = ["-std=c++17", "-ptx", arch, "-fmad=false", f"-I{ROOT / 'csrc'}"]
        subprocess.run([nvcc, *options, str(source), "-o", str(target)], check=True)
        found[source.stem] = target.read_text()
    return found


def descriptor(trt: Any, api: Any, array: Any) -> Any:
    """How TensorRT describes an array; levels of uint8 come as floats."""
    types = {
        "float32": trt.DataType.FLOAT,
        "float16": trt.DataType.HALF,
        "uint8": trt.DataType.FLOAT,
    }
    shape = api.ShapeExprs.from_tuple(tuple(array.shape))
    return api.TensorDesc(shape, types[array.dtype.name])


def described(bindings: Any, name: str) -> tuple[Any, Any, Any]:
    """The definition that was registered, and its inputs and results in numbers."""
    trt, api, _ = bindings
    library = sys.modules[f"{api.__name__}._lib"]
    sys.modules[api.TensorDesc.__module__].SymIntExpr._exprBuilder = evaluator(trt)
    definition = library.QDP_REGISTRY[f"fastvid::{name}"]
    inputs, attributes, _ = cases()[name]
    inputs = [descriptor(trt, api, array) for array in inputs]
    # In the order of the fields that the parser fills, which is that of the definition.
    attributes = {key: str(attributes[key]) for key in definition.input_attrs}
    results = definition.register_func(*inputs, **attributes)
    results = results if isinstance(results, tuple) else (results,)
    return definition, (inputs, attributes), results


def number(size: Any) -> int:
    """The number that a symbolic integer of the evaluator holds."""
    value: int = size._expr.get_constant_value()
    return value


def sizes(shape: Any) -> tuple[int, ...]:
    return tuple(number(size) for size in shape)


def test_every_plugin_is_tested() -> None:
    assert set(cases()) == set(PLUGINS)
    for plugin in PLUGINS.values():
        assert plugin.op in ops.__all__
        assert (SOURCES / f"{plugin.kernels}.cu").is_file()


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_tensorrt_makes_an_ahead_of_time_plugin(bindings: Any, name: str) -> None:
    """By the creator in the registry, as the ONNX parser does; dtypes come from TensorRT's code."""
    trt, _, registry = bindings
    creator = registry.creators[("fastvid", PLUGINS[name].name)]
    inputs, attributes, _ = cases()[name]
    fields = [
        trt.PluginField(key, str(value).encode(), trt.PluginFieldType.CHAR)
        for key, value in attributes.items()
    ]
    plugin = creator.create_plugin(
        name,
        "fastvid",
        trt.PluginFieldCollection(fields),
        trt.TensorRTPhase.BUILD,
        trt.QuickPluginCreationRequest.STRICT_AOT,
    )
    assert plugin.attrs == {key: str(value) for key, value in attributes.items()}
    assert plugin.get_num_outputs() == PLUGINS[name].outputs
    types = plugin.get_output_data_types(
        [trt.DataType.FLOAT] * len(inputs), [array.ndim for array in inputs]
    )
    assert types == [trt.DataType.FLOAT] * PLUGINS[name].outputs


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_shapes_are_those_of_the_op(bindings: Any, name: str) -> None:
    _, _, results = described(bindings, name)
    expected = cases()[name][2]()
    expected = expected if isinstance(expected, tuple) else (expected,)
    assert [sizes(r.shape_expr) for r in results] == [array.shape for array in expected]


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_the_kernel_takes_what_tensorrt_passes(
    bindings: Any, ptx: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Addresses of inputs, 32-bit integers, addresses of outputs, in this order, by the PTX."""
    for stem, text in ptx.items():
        (tmp_path / f"{stem}.ptx").write_text(text)
    entry, text, launch, extras = launched(bindings, name, tmp_path, monkeypatch)
    match = re.search(rf"\.entry {entry}\(([^)]*)\)", text)
    assert match, f"{entry} is not in the module"
    plugin = PLUGINS[name]
    expected = ["u64"] * len(plugin.inputs) + ["u32"] * len(extras) + ["u64"] * plugin.outputs
    assert re.findall(r"\.param \.(\w+)", match[1]) == expected
    bounds = re.search(rf"entry {entry}\([^)]*\)\s*\.maxntid (\d+)", text)
    assert bounds
    assert int(bounds[1]) == number(launch.block_x)
    assert number(launch.grid_x) >= 1
    assert len(re.findall(r"\.entry ", text)) == 1
    assembled(text, tmp_path)


@pytest.mark.parametrize("name", sorted(PLUGINS))
def test_there_is_a_kernel_for_every_dtype(
    bindings: Any, ptx: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    trt, _, _ = bindings
    for stem, text in ptx.items():
        (tmp_path / f"{stem}.ptx").write_text(text)
    types = {"f32": trt.DataType.FLOAT, "f16": trt.DataType.HALF, "bf16": trt.DataType.BF16}
    for suffix in PLUGINS[name].dtypes:
        entry, _, _, _ = launched(bindings, name, tmp_path, monkeypatch, types[suffix])
        assert entry.endswith(f"_{suffix}")


def assembled(text: str, folder: Path) -> None:
    """The module, as it is handed to TensorRT, is valid and spills nothing."""
    module = folder / "module.ptx"
    module.write_text(text)
    assembler = shutil.which("ptxas")
    if assembler is None:
        return
    done = subprocess.run(
        [assembler, "-arch=sm_80", "-v", str(module), "-o", str(folder / "module.cubin")],
        check=True,
        capture_output=True,
        text=True,
    )
    assert "0 bytes spill stores, 0 bytes spill loads" in done.stderr


def launched(
    bindings: Any, name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, dtype: Any = None
) -> Any:
    """What the plugin tells TensorRT to run; `dtype` is that of the first input."""
    trt, api, registry = bindings
    library = sys.modules[f"{api.__name__}._lib"]
    for table in (library.QDP_REGISTRY, library.QDP_CREATORS):
        table.clear()
    monkeypatch.setattr(library, "op", library._Op())
    monkeypatch.setattr(tensorrt_plugins, "kernels_folder", lambda: folder)
    tensorrt_plugins.register.__wrapped__()
    definition, (inputs, attributes), results = described(bindings, name)
    assert registry is trt.get_plugin_registry()
    if dtype is not None:
        inputs[0].dtype = dtype
    return definition.aot_impl_func(*inputs, *attributes.values(), results, 0)


def test_attributes_become_constants_of_the_module(
    bindings: Any, ptx: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stem, text in ptx.items():
        (tmp_path / f"{stem}.ptx").write_text(text)
    _, text, _, _ = launched(bindings, "Downscale", tmp_path, monkeypatch)
    assert ".u32 fastvid_factor = 4;" in text
    _, text, _, _ = launched(bindings, "QkNormRopeQWeightKWeightCosSin", tmp_path, monkeypatch)
    eps = struct.pack(">f", 1e-5).hex().upper()
    assert f".f32 fastvid_eps = 0f{eps};" in text
    assert ".u32 fastvid_norm = 2;" in text


def test_constants_are_checked() -> None:
    text = ".const .align 4 .u32 a;\n.const .align 4 .f32 b = 0f00000000;\n"
    assert _ptx.with_constants(text, {"a": -3, "b": 1.5}) == (
        ".const .align 4 .u32 a = -3;\n.const .align 4 .f32 b = 0f3FC00000;\n"
    )
    for wrong in ({"a": 1.0}, {"b": 1}, {"c": 1}):
        with pytest.raises(UnsupportedModelError, match="must have a constant"):
            _ptx.with_constants(text, wrong)


def test_a_kernel_that_is_not_there_is_named() -> None:
    first, second = (f".visible .entry {name}(\n)\n{{\n}}\n" for name in "ab")
    text = f".version 9.0\n{first}.shared .b8 x[4];\n{second}"
    assert _ptx.with_entry(text, "b") == f".version 9.0\n.shared .b8 x[4];\n{second}"
    with pytest.raises(UnsupportedModelError, match="the kernel c must be in the module"):
        _ptx.with_entry(text, "c")


def test_dtypes_without_a_kernel_are_refused(bindings: Any) -> None:
    trt, _, _ = bindings
    definition, (inputs, attributes), results = described(bindings, "Downscale")
    inputs[0].dtype = trt.DataType.INT32
    with pytest.raises(UnsupportedModelError, match="x of Downscale must be one of f32, got"):
        definition.aot_impl_func(*inputs, *attributes.values(), results, 0)


def test_a_missing_tensorrt_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendUnavailableError, match="tensorrt: the package must be importable"):
        tensorrt_plugins.register.__wrapped__()


def test_an_old_tensorrt_is_named(bindings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings[0], "__version__", "10.13.2.6")
    with pytest.raises(BackendUnavailableError, match=r"must be 10\.16 or newer, got 10\.13\.2\.6"):
        tensorrt_plugins.register.__wrapped__()


def test_a_build_without_kernels_says_so(
    bindings: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tensorrt_plugins, "kernels_folder", lambda: tmp_path / "none")
    with pytest.raises(BackendUnavailableError, match=r"none are in .* build with FASTVID_CUDA=ON"):
        tensorrt_plugins.register.__wrapped__()
