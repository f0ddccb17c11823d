"""What the SDK adds to onnxruntime: checks, hand-over to the worker thread, padding and copies.

The same session runs bare, with its inputs at hand, and through the SDK, in turns. A call of an
empty graph costs onnxruntime 3 to 9 us, and nothing in it depends on the machine's memory. At
1280x720 the SDK has to touch no pixel at all: frames go in where they lie and come out where
onnxruntime wrote them (2.8 MB in, 2.8 or 11 MB out), so its floor is the cost of the calls.

    python benchmarks/bench_overhead.py
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import timing
from onnx import TensorProto, helper

from fastvid import Interpolator, Upscaler, backends
from fastvid.bundle import Bundle, write_bundle
from fastvid.scene import Scene

HEIGHT, WIDTH = 720, 1280
Runs = dict[str, Callable[[], Any]]


def tiny_bundle(folder: Path) -> Bundle:
    """A graph that adds eight numbers to themselves."""
    value = {"dtype": "float32", "shape": [2, 4]}
    x, y = ({"name": name, **value} for name in "xy")
    infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 4]) for n in "xy"]
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])], "tiny", infos[:1], infos[1:]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    manifest = {
        "name": "tiny",
        "task": "generator",
        "description": "a graph of one node",
        "licence": "Apache-2.0",
        "provenance": {"weights": "none"},
        "graphs": {"run": {"file": "run.onnx", "inputs": [x], "outputs": [y]}},
        "size_rule": {"minimum": 1, "multiple_of": 1, "padding": "none"},
    }
    return write_bundle(folder, manifest, {"run.onnx": model.SerializeToString()})


def tiny(threads: int) -> dict[str, Any]:
    x = np.arange(8, dtype=np.float32).reshape(2, 4)
    with (
        tempfile.TemporaryDirectory() as folder,
        backends.open(tiny_bundle(Path(folder) / "tiny"), device="cpu", threads=threads) as model,
    ):
        session = model.graph("run")
        bare = session._session

        def handed_over() -> Any:
            # As after a change of size, or where runs take longer than a millisecond.
            session._last = (0, 1.0)
            return session.run({"x": x})

        runs: Runs = {
            "onnxruntime": lambda: bare.run(["y"], {"x": x}),
            "fastvid": lambda: session.run({"x": x}),
            "fastvid_handed_over": handed_over,
        }
        for name, run in runs.items():
            answer = run()
            assert np.array_equal(answer[0] if name == "onnxruntime" else answer["y"], 2 * x)
        times = in_turns(runs, rounds=4000)
        elsewhere: dict[str, Any] = {}
        thread = threading.Thread(target=lambda: elsewhere.update(in_turns(runs, rounds=2000)))
        thread.start()
        thread.join()
    times["fastvid_in_another_thread"] = elsewhere["fastvid"]
    added = {
        name: round(1e3 * (times[name]["median_ms"] - times["onnxruntime"]["median_ms"]), 1)
        for name in times
        if name != "onnxruntime"
    }
    return {"time": times, "added_us": added}


def interpolation(threads: int) -> dict[str, Any]:
    scene = Scene(WIDTH, HEIGHT, seed=1)
    first, second = scene.draw(0.0), scene.draw(0.1)
    with Interpolator(device="cpu", threads=threads) as model:
        motion, between = model._graph("motion"), model._graph("between")

        def bare() -> Any:
            known = {"frame0": first[None], "frame1": second[None]}
            names = list(motion.outputs)
            known |= dict(zip(names, motion._session.run(names, known), strict=True))
            known["timestep"] = np.array([0.5], np.float32)
            inputs = {name: known[name] for name in between.inputs}
            return between._session.run(["frame"], inputs)[0][0]

        return compared({"onnxruntime": bare, "fastvid": lambda: model.between(first, second)})


def upscaling(threads: int) -> dict[str, Any]:
    frame = Scene(WIDTH, HEIGHT, seed=1).draw(0.0)
    with Upscaler(device="cpu", threads=threads) as model:
        session = model._graph("upscale")._session

        def bare() -> Any:
            return session.run(["upscaled"], {"frames": frame[None]})[0][0]

        return compared({"onnxruntime": bare, "fastvid": lambda: model.upscale_frame(frame)})


def compared(runs: Runs) -> dict[str, Any]:
    answers = [run() for run in runs.values()]
    assert np.array_equal(*answers)
    times = in_turns(runs, rounds=120)
    bare, ours = (times[name]["median_ms"] for name in ("onnxruntime", "fastvid"))
    return {"time": times, "added_percent": round(100 * (ours / bare - 1), 2)}


def in_turns(runs: Runs, *, rounds: int) -> timing.Times:
    """Medians of single calls; who comes first changes from round to round."""
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        order = list(runs.items())
        for name, run in order if number % 2 else reversed(order):
            # Its own data in the caches, and threads asleep that the run before it has woken.
            if rounds > 1000:
                run()
            start = time.perf_counter()
            run()
            samples[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: {
            "median_ms": round(float(np.median(values)), 5),
            "min_ms": round(min(values), 5),
            "p90_ms": round(float(np.percentile(values, 90)), 5),
        }
        for name, values in samples.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    threads = parser.parse_args().threads
    results = {
        "threads": threads,
        "size": [WIDTH, HEIGHT],
        "tiny": tiny(threads),
        "interpolation": interpolation(threads),
        "upscaling": upscaling(threads),
    }
    timing.write_results(timing.RESULTS / "overhead.json", results)


if __name__ == "__main__":
    main()
