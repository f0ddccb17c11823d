"""The TensorRT backend around a test double that is as strict as TensorRT's bindings."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import bundles
import fake_machine
import numpy as np
import pytest
import tiny_models as tiny
from onnx import helper
from threads import at_once

from fastvid import Interpolator, Upscaler, backends
from fastvid.backends import DeviceArray, tensorrt
from fastvid.backends.tensorrt import EngineOptions, _model, _provide
from fastvid.bundle import Bundle, write_bundle
from fastvid.errors import (
    EngineBuildError,
    FastvidError,
    InputError,
    InputTypeError,
)

X = np.arange(12, dtype=np.float32).reshape(3, 4)


def opened(bundle: Bundle, **options: Any) -> Any:
    return backends.open(bundle, backend=EngineOptions(**options))


def frame(height: int, width: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (1, height, width, 3), np.uint8)


def large(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return image.repeat(2, axis=1).repeat(2, axis=2)


# Building and running, with every version


def test_graph_runs_in_an_engine(each_tensorrt: Any, upscaler: Bundle) -> None:
    with opened(upscaler, sizes=("720p",)) as model:
        session = model.graph("upscale")
        for size in ((48, 64), (720, 1280), (1, 1)):
            image = frame(*size)
            result = session.run({"frames": image})["upscaled"]
            np.testing.assert_array_equal(result, large(image))
        report = model.report()
    assert (report.backend, report.device, report.precision) == ("tensorrt", "cuda:0", "float32")
    assert report.graphs[0].provider == "TensorRT"
    assert report.graphs[0].version == each_tensorrt.__version__
    assert "engine for 720p built in" in report.graphs[0].note
    assert "TensorRT on cuda:0" in report.to_text()


def test_sdk_works_through_engines(each_tensorrt: Any, tmp_path: Path, upscaler: Bundle) -> None:
    options = EngineOptions(sizes=("360p",))
    image = frame(30, 40)[0]
    with Upscaler(upscaler.path, backend=options) as model:
        np.testing.assert_array_equal(model.upscale_frame(image), large(image[None])[0])
    other = bundles.interpolator(tmp_path / "interpolator-tiny")
    with Interpolator(other.path, backend=options) as model:
        made = model.between(image, frame(30, 40, 1)[0])
        assert model.report().backend == "tensorrt"
    with Interpolator(other.path, device="cpu") as model:
        np.testing.assert_array_equal(made, model.between(image, frame(30, 40, 1)[0]))


def test_engine_of_the_cache_is_used_again(each_tensorrt: Any, upscaler: Bundle) -> None:
    opened(upscaler, sizes=("64x48",)).close()
    with opened(upscaler, sizes=("64x48",)) as model:
        assert "from the cache" in model.report().graphs[0].note
        model.graph("upscale").run({"frames": frame(48, 64)})
    assert each_tensorrt.fake_log.count("build") == 1


def test_shipped_graphs_run_as_plugins(newest: Any) -> None:
    """Graphs are rewritten to plugins; the double reads them back and runs what they stand for."""
    bundle = Bundle.find("fast", "upscaler", 2)
    image = frame(36, 48)
    with backends.open(bundle, device="cpu") as model:
        wanted = model.graph("upscale").run({"frames": image})["upscaled"]
    with opened(bundle, sizes=("48x36",)) as model:
        result = model.graph("upscale").run({"frames": image})["upscaled"]
        assert model.report().graphs[0].custom_ops
    np.testing.assert_array_equal(result, wanted)


def test_sizes_that_follow_from_others_are_found(newest: Any) -> None:
    """`between` takes features at a quarter of the size, which its description does not say."""
    bundle = Bundle.find("fast", "interpolator")
    graph = bundle.graph("between")
    only = dataclasses.replace(bundle, graphs={"between": graph, "motion": bundle.graph("motion")})
    lane = _lane()
    provider = _provide.Provider(
        newest, only, fake_machine.H200, EngineOptions(sizes=("64x48",)), lane
    )
    (ready,) = provider.get(graph)
    assert [tuple(size) for size in ready.profile["flow"]] == [
        (1, 1, 1), (4, 4, 4), (12, 12, 12), (16, 16, 16),
    ]  # fmt: skip
    assert ready.difference == 0
    ready.engine.close()


def _lane() -> Any:
    from fastvid.backends.onnxruntime_cuda import Lane

    return Lane(0)


def test_generator_has_profiles_for_prompts_and_clips(newest: Any, tmp_path: Path) -> None:
    import generators

    bundle = generators.bundle(tmp_path / "generator-tiny")
    with opened(bundle) as model, backends.open(bundle, device="cpu") as other:
        for name, graph in bundle.graphs.items():
            shapes = {"N": 1, "L": 5, "T": 2, "h": 2, "w": 3, "H": 16, "W": 24}
            from fastvid.backends.tensorrt import _reference, _shapes

            sizes = _shapes.shapes_at(graph.inputs, shapes)
            inputs = {s.name: _reference.pattern(s, sizes[s.name]) for s in graph.inputs}
            wanted = other.graph(name).run(inputs)
            made = model.graph(name).run(inputs)
            for key, value in wanted.items():
                np.testing.assert_allclose(made[key], value, rtol=1e-5, atol=1e-5)
        assert all(g.backend == "tensorrt" for g in model.report().graphs)


def test_weights_beside_the_graph_are_found(each_tensorrt: Any, tmp_path: Path) -> None:
    data, weights = tiny.external("weights.data")
    manifest = tiny.manifest()
    manifest["graphs"]["run"]["external_data"] = ["weights.data"]
    manifest["graphs"]["run"]["inputs"] = [tiny.tensor("x", "float32", "N", 4)]
    bundle = write_bundle(
        tmp_path / "external", manifest, {"run.onnx": data, "weights.data": weights}
    )
    given = np.zeros((100, 4), np.float32)
    with opened(bundle, shapes={"N": (100, 100, 100)}) as model:
        result = model.graph("run").run({"x": given})["y"]
    np.testing.assert_array_equal(result.reshape(-1), np.arange(1, 401))


# What stays on the device


def test_outputs_stay_on_the_device_and_chain(newest: Any, doubler: Bundle) -> None:
    with opened(doubler, batch=8) as model:
        session = model.graph("run")
        kept = session.run({"x": X}, keep=["y"])["y"]
        assert isinstance(kept, DeviceArray)
        assert newest.fake_log.count("run") == 1, "only the golden run has been waited for"
        result = session.run({"x": kept})["y"]
        np.testing.assert_array_equal(result, 4 * X)
        np.testing.assert_array_equal(kept.numpy(), 2 * X)
        assert session.stream == kept.stream


def test_host_input_may_change_when_run_returns(newest: Any, doubler: Bundle) -> None:
    with opened(doubler, batch=8) as model:
        host = X.copy()
        kept = model.graph("run").run({"x": host}, keep=["y"])["y"]
        host[:] = 0
        np.testing.assert_array_equal(kept.numpy(), 2 * X)


def test_runs_that_repeat_are_recorded(newest: Any, doubler: Bundle) -> None:
    device = newest.fake_cuda
    with opened(doubler, batch=8) as model:
        session = model.graph("run")
        for i in range(6):
            np.testing.assert_array_equal(session.run({"x": X + i})["y"], 2 * (X + i))
        first = device.calls.count("cudaGraphLaunch")
        assert first > 0
        assert device.calls.count("cudaGraphInstantiate") < 6
        # Another shape, and the first one again: both right, the old recording still good.
        np.testing.assert_array_equal(session.run({"x": X[:1]})["y"], 2 * X[:1])
        np.testing.assert_array_equal(session.run({"x": X})["y"], 2 * X)
        big = np.ones((8, 4), np.float32)
        for i in range(4):
            np.testing.assert_array_equal(session.run({"x": big * i})["y"], 2 * big * i)
            np.testing.assert_array_equal(session.run({"x": X + i})["y"], 2 * (X + i))
        assert device.calls.count("cudaGraphLaunch") > first


def test_many_shapes_take_turns(newest: Any, doubler: Bundle) -> None:
    with opened(doubler, batch=16) as model:
        session = model.graph("run")
        for i in range(40):
            x = np.full((1 + i % 11, 4), i, np.float32)
            np.testing.assert_array_equal(session.run({"x": x})["y"], 2 * x)


def test_recording_can_be_refused(newest: Any, doubler: Bundle) -> None:
    newest.fake_cuda.fail["cudaStreamBeginCapture"] = 900
    with opened(doubler, batch=8) as model:
        for _ in range(4):
            np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)
    assert "cudaGraphLaunch" not in newest.fake_cuda.calls


def test_recording_is_off_where_asked(newest: Any, doubler: Bundle) -> None:
    with opened(doubler, batch=8, cuda_graphs=False) as model:
        for _ in range(4):
            model.graph("run").run({"x": X})
        assert not model.report().graphs[0].cuda_graphs
    assert "cudaStreamBeginCapture" not in newest.fake_cuda.calls


def test_threads_share_a_session(newest: Any, doubler: Bundle) -> None:
    with opened(doubler, batch=8) as model:
        session, wrong = model.graph("run"), []

        def work(seed: int) -> None:
            for i in range(20):
                x = np.full((1 + seed % 3, 4), 100 * seed + i, np.float32)
                if not np.array_equal(session.run({"x": x})["y"], 2 * x):
                    wrong.append(seed)

        at_once(work)
    assert not wrong


def test_memory_is_given_back(newest: Any, upscaler: Bundle) -> None:
    model = opened(upscaler, sizes=("720p",))
    for size in ((48, 64), (96, 128), (48, 64)):
        model.graph("upscale").run({"frames": frame(*size)})
    assert newest.fake_cuda.allocated
    model.close()
    assert newest.fake_cuda.allocated == 0


# Sizes


def test_smallest_engine_that_fits_is_taken(newest: Any, upscaler: Bundle) -> None:
    with opened(upscaler, sizes=("1080p", "360p", "100x90")) as model:
        session = model.graph("upscale")
        assert [one.size for one in session.engines] == ["100x90", "360p", "1080p"]
        with pytest.raises(InputError, match="must fit one of the engines, for 100x90, 360p"):
            session.run({"frames": frame(1081, 1920)})


def test_cached_engines_are_found_whatever_their_sizes(newest: Any, upscaler: Bundle) -> None:
    tensorrt.build(upscaler, options=EngineOptions(sizes=("64x48",)))
    tensorrt.build(upscaler, options=EngineOptions(sizes=("360p",)))
    with backends.open(upscaler, backend="tensorrt") as model:
        assert {one.size for one in model.graph("upscale").engines} == {"64x48", "360p"}
    assert newest.fake_log.count("build") == 2


def test_default_sizes_are_built_where_none_is_cached(newest: Any, upscaler: Bundle) -> None:
    with backends.open(upscaler, backend="tensorrt") as model:
        assert [one.size for one in model.graph("upscale").engines] == ["720p", "1080p"]


def test_engines_must_be_there_with_never(newest: Any, upscaler: Bundle) -> None:
    with pytest.raises(EngineBuildError, match="there must be an engine for 64x48") as caught:
        opened(upscaler, sizes=("64x48",), build="never")
    assert "fastvid export" in caught.value.hint
    assert "build" not in newest.fake_log


@pytest.mark.parametrize(
    ("wrong", "kind", "said"),
    [
        ({"sizes": "720p"}, InputTypeError, "sizes: argument must be a tuple"),
        ({"sizes": ("800p",)}, InputError, "WIDTHxHEIGHT, got '800p'"),
        ({"sizes": ()}, InputError, "at least one size"),
        ({"sizes": (720,)}, InputTypeError, "each must be a string"),
        ({"build": "later"}, InputError, "build: argument must be one of"),
        ({"batch": 0}, InputError, "batch: argument must be from 1"),
        ({"batch": True}, InputTypeError, "batch: argument must be an integer"),
        ({"optimization_level": 6}, InputError, "from 0 to 5"),
        ({"workspace": 5}, InputError, "workspace: argument must be from"),
        ({"tf32": 1}, InputTypeError, "tf32: argument must be bool"),
        ({"compatibility": "any"}, InputError, "compatibility: argument must be one of"),
        ({"shapes": {"T": (3, 2, 1)}}, InputError, "least, best and greatest"),
        ({"cache": 3}, InputTypeError, "cache: argument must be a folder"),
        ({"cache_limit": -1}, InputError, "cache_limit: argument must be from 0"),
    ],
)
def test_wrong_options_are_refused(
    wrong: dict[str, Any], kind: type[FastvidError], said: str
) -> None:
    with pytest.raises(kind, match=said):
        EngineOptions(**wrong)


def test_sizes_the_bundle_forbids_are_refused(newest: Any, tmp_path: Path) -> None:
    small = bundles.upscaler(tmp_path / "small", maximum=100)
    with pytest.raises(InputError, match="from 1 to 100, got 1080x1920"):
        opened(small, sizes=("1080p",))
    with opened(small) as model:
        assert model.graph("upscale").engines[0].size == "100x100"


def test_size_that_follows_from_nothing_is_asked_for(newest: Any, tmp_path: Path) -> None:
    shape = tiny.tensor("x", "float32", "K", 4), tiny.tensor("y", "float32", "K", 4)
    data = tiny.model([helper.make_node("Add", ["x", "x"], ["y"])], [shape[0]], [shape[1]])
    graphs = {"run": {"file": "run.onnx", "inputs": [shape[0]], "outputs": [shape[1]]}}
    bundle = tiny.bundle(tmp_path / "odd", data, graphs=graphs)
    with pytest.raises(EngineBuildError, match="size 'K' must follow") as caught:
        opened(bundle)
    assert "shapes={'K': (least, best, greatest)}" in caught.value.hint
    with opened(bundle, shapes={"K": (1, 2, 5)}) as model:
        np.testing.assert_array_equal(model.graph("run").run({"x": X})["y"], 2 * X)


def test_notes_of_engines_are_one_line_each(newest: Any, upscaler: Bundle) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with opened(upscaler, sizes=("64x48",)) as model:
            assert "\n" not in model.report().graphs[0].to_text()
    assert _model.PROVIDER == "TensorRT"
