"""A model of real size: memory of its export, of loading it, and a step beside torch eager.

    python benchmarks/bench_large.py --folder FOLDER [--dtype float32]

The transformer is Wan 2.1's of 1.3 billion parameters (12 heads of 128, 8960 inner channels, 30
blocks, prompts of 512 tokens of width 4096) with random weights; the clip is 480x832 with 5 frames,
2 x 30 x 52 = 3120 tokens. Per block and step:

- products: 4 of 1536 x 1536 and 2 of 1536 x 8960 for each token, 4 more of 1536 x 1536 for the
  prompt's part: 3120 * (6 * 2.36e6 + 2 * 13.8e6) * 2 + 512 * 2 * 2.36e6 * 2 = 0.265 * 10^12
  operations, 8.0 * 10^12 in 30 blocks;
- attention: 4 * 3120 * (3120 + 512) * 1536 = 0.070 * 10^12, 2.1 * 10^12 in 30 blocks.

The weights are 1.42 * 10^9 numbers, 2.8 GB in bfloat16, which a step reads once: at 20 GB/s that
is a seventh of a second, so the step is bound by arithmetic. The peer is diffusers'
`WanTransformer3DModel` on the same file, in its dtype. `--folder` must be on a disk with room for
twice the weights; it is removed when all is done, and a run that was cut short goes on where it
stopped. Each part runs in a process of its own, whose peak
counts pages of mapped files as well.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import shlex
import shutil
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import numpy as np

LAYERS, WIDTH, INNER, HEADS, TEXT, TOKENS = 30, 1536, 8960, 12, 4096, 512
FRAMES, HEIGHT, WIDTH_PIXELS = 5, 480, 832
_LONG = 30.0
TOLERANCE = {"float32": 1e-5, "bfloat16": 3e-2, "int8": 5e-2, "int4": 0.3}
"""Root of the mean square difference from the float32 graph, as a share of its deviation."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--frames", type=int, default=FRAMES)
    parser.add_argument("--precisions", default="bfloat16,int8,int4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--wrap", default="", help="command in front of each part, such as chrt -f 10"
    )
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        with Anonymous() as anonymous:
            answer = PARTS[options.part](options)
        print(json.dumps(answer | memory() | {"peak_anonymous": anonymous.peak}))
        return
    everything(options)


def everything(options: argparse.Namespace) -> None:
    import timing

    options.folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {
        "dtype": options.dtype,
        "threads": options.threads,
        "layers": options.layers,
    }
    results["weights"] = run(options, "make")
    # The float32 graph comes first: the others are compared with it.
    results["precisions"] = {}
    for precision in ("float32", *options.precisions.split(",")):
        if precision == "bfloat16" and "peer" not in results:
            results["peer"] = run(options, "peer")
        entry = {"export": run(options, "export", precision)}
        entry["step"] = run(options, "step", precision)
        if entry["step"].get("error", 0) > TOLERANCE[precision]:
            raise SystemExit(f"the answer is wrong, so its time means nothing: {entry}")
        results["precisions"][precision] = entry
        shutil.rmtree(options.folder / f"bundle-{precision}", ignore_errors=True)
    results.setdefault("peer", run(options, "peer"))
    if results["peer"]["error"] > TOLERANCE[options.dtype]:
        raise SystemExit(f"the peer's answer is another one: {results['peer']}")
    for entry in results["precisions"].values():
        entry["ratio"] = round(entry["step"]["seconds"] / results["peer"]["seconds"], 3)
    shutil.rmtree(options.folder)
    timing.write_results(timing.RESULTS / f"large_{options.dtype}.json", results)


def run(options: argparse.Namespace, part: str, precision: str = "float32") -> dict[str, Any]:
    """One part in a process of its own."""
    command = [
        *shlex.split(options.wrap),
        sys.executable,
        __file__,
        "--folder",
        str(options.folder),
        "--part",
        part,
    ]
    command += ["--precision", precision, "--dtype", options.dtype]
    command += ["--layers", str(options.layers), "--threads", str(options.threads)]
    command += ["--frames", str(options.frames)]
    kept = options.folder / f"{part}-{precision}-{options.frames}.json"
    if kept.is_file():
        # A run that was cut short goes on where it stopped.
        return json.loads(kept.read_text())  # type: ignore[no-any-return]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(part, precision, json.dumps(answer), flush=True)
    kept.write_text(json.dumps(answer))
    return answer


def memory() -> dict[str, int]:
    """Bytes at the peak, and of them now what only this process holds and what files back."""
    status = Path("/proc/self/status").read_text()
    kinds = {"anonymous": "RssAnon:", "file": "RssFile:"}
    found = {name: 1024 * int(status.split(key)[1].split()[0]) for name, key in kinds.items()}
    return found | {"peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


class Anonymous:
    """Looks now and then at what this process holds that no file backs."""

    def __init__(self) -> None:
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.peak = max(self.peak, memory()["anonymous"])

    def __enter__(self) -> Anonymous:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def configuration(layers: int) -> Any:
    from fastvid_export.models.wan_transformer import WanTransformerOptions

    return WanTransformerOptions(num_layers=layers, ffn_dim=INNER, text_dim=TEXT)


def hollow(make: Callable[[], Any]) -> Any:
    import torch

    with torch.device("meta"):
        return make().eval()


def make_weights(module: Any, folder: Path, dtype: str) -> dict[str, Any]:
    """Random weights of a module's shapes that keep values near their size."""
    import torch

    from fastvid_export import weight_writer

    folder.mkdir()
    pool = torch.randn(1 << 24, generator=torch.Generator().manual_seed(7))
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}

    def make(name: str) -> Any:
        shape = shapes[name]
        count = math.prod(shape)
        if "norm" in name and name.endswith("weight"):
            return torch.ones(shape)
        inputs = math.prod(shape[1:]) if len(shape) > 1 else 400
        values = (pool / math.sqrt(inputs)).to(getattr(torch, dtype))
        values = values.repeat(-(-count // len(pool)))[:count]
        # No two alike: onnxruntime packs equal weights once.
        return values.roll(zlib.crc32(name.encode()) % count).reshape(shape)

    kinds = {name: (getattr(torch, dtype), shape) for name, shape in shapes.items()}
    start = time.perf_counter()
    weight_writer.write(folder / "model.safetensors", kinds, make)
    size = (folder / "model.safetensors").stat().st_size
    return {"seconds": round(time.perf_counter() - start, 2), "bytes": size}


def make(options: argparse.Namespace) -> dict[str, Any]:
    from fastvid_export.models.wan_transformer import WanTransformer

    module = hollow(lambda: WanTransformer(configuration(options.layers)))
    return make_weights(module, options.folder / "transformer", options.dtype)


def export(options: argparse.Namespace) -> dict[str, Any]:
    from fastvid_export.importers.wan_graphs import transformer
    from fastvid_export.models.wan_transformer import WanTransformer

    module = hollow(lambda: WanTransformer(configuration(options.layers)))
    network = network_of(module, options.folder / "transformer")
    return write(options, transformer(network, name="transformer", tokens=TOKENS))


def network_of(module: Any, folder: Path) -> Any:
    from fastvid_export.importers.wan_graphs import Network
    from fastvid_export.weight_files import WeightFiles, match

    files = WeightFiles.open(folder)
    return Network(module, files, match(module, files))


def write(options: argparse.Namespace, part: Any) -> dict[str, Any]:
    """Exports one graph into a bundle."""
    import torch

    from fastvid.bundle import write_bundle
    from fastvid_export import large_graphs
    from fastvid_export.weight_store import WeightStore

    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    plan = part.plan
    folder = options.folder / f"new-{options.precision}"
    folder.mkdir()
    store = WeightStore(folder, lambda line: print(line, file=sys.stderr))
    graph = large_graphs.export(plan, part.weights, part.names, store, precision=options.precision)
    seconds = time.perf_counter() - start
    bundle = write_bundle(
        options.folder / f"bundle-{options.precision}",
        manifest(plan.name, graph, options.precision),
        {f"{plan.name}.onnx": graph.data, **store.files},
    )
    shutil.rmtree(folder)
    copied = sum(f.stat().st_size for f in bundle.path.iterdir() if f.stat().st_nlink == 1)
    return {
        "seconds": round(seconds, 1),
        "with_digests_seconds": round(time.perf_counter() - start, 1),
        "bytes": sum(file.size for file in bundle.files.values()),
        "new_bytes": copied,
        "graph_bytes": len(graph.data),
        "psnr": [figure.psnr for figure in graph.figures],
        "cosine": [figure.cosine for figure in graph.figures],
    }


def manifest(name: str, graph: Any, precision: str) -> dict[str, Any]:
    return {
        "name": f"large-{name.replace('_', '-')}",
        "task": "generator",
        "description": "A network of real size with random weights.",
        "licence": "Apache-2.0",
        "provenance": {"weights": "Random."},
        "precision": precision,
        "size_rule": {"minimum": 16, "multiple_of": 16, "padding": "none"},
        "graphs": {name: graph.manifest()},
    }


def inputs(options: argparse.Namespace) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    latents = (1, 16, 1 + (options.frames - 1) // 4, HEIGHT // 8, WIDTH_PIXELS // 8)
    return {
        "hidden_states": rng.normal(size=latents).astype(np.float32),
        "timestep": np.float32([700]),
        "encoder_hidden_states": rng.normal(size=(1, TOKENS, TEXT)).astype(np.float32),
    }


def step(options: argparse.Namespace) -> dict[str, Any]:
    """Loads the bundle and runs a step, twice."""
    from fastvid import backends
    from fastvid.bundle import Bundle

    start = time.perf_counter()
    bundle = Bundle.load(options.folder / f"bundle-{options.precision}")
    from fastvid._generation.staged_memory import StagedMeter

    sizes = dict(
        zip(("N", "C", "T", "h", "w"), inputs(options)["hidden_states"].shape, strict=True)
    )
    meter = StagedMeter(bundle, {"device": "cpu"}, (sizes, sizes), lambda *_: 1)
    planned = meter.worked_out("transformer", sizes | {"L": TOKENS})
    before = memory()["peak"]
    with backends.open(
        bundle, device="cpu", backend="onnxruntime", threads=options.threads
    ) as model:
        loaded = {f"loaded_{name}": value for name, value in memory().items()}
        loaded["load_seconds"] = round(time.perf_counter() - start, 2)
        session = model.graph("transformer")
        seconds, result = timed(lambda: session.run(inputs(options))["sample"])
    weights = sum(file.size for file in bundle.files.values())
    peak = memory()["peak"]
    loaded |= {
        "planned_activations": planned,
        "activations": peak - before - weights,
        "peak_of_planned": round(peak / (weights + planned), 3),
    }
    return loaded | seconds | compared(options, result, options.precision)


def compared(options: argparse.Namespace, result: Any, who: str) -> dict[str, Any]:
    """The first result is kept, and the others are compared with it."""
    path = options.folder / "right.npy"
    if who == "float32":
        np.save(path, result)
    right = np.load(path)
    error = float(np.sqrt(np.mean((result - right) ** 2)) / right.std())
    return {"error": error}


def timed(function: Callable[[], Any]) -> tuple[dict[str, Any], Any]:
    """Seconds of the first call, and of the one after where that was no long one."""
    seconds: list[float] = []
    while len(seconds) < 2 and sum(seconds) < _LONG:
        start = time.perf_counter()
        result = function()
        seconds.append(round(time.perf_counter() - start, 3))
    return {"first_seconds": seconds[0], "seconds": min(seconds)}, result


def peer(options: argparse.Namespace) -> dict[str, Any]:
    """The class of diffusers, in the dtype of the file, its weights mapped."""
    import torch
    from diffusers import WanTransformer3DModel

    from fastvid_export.weight_files import WeightFiles

    torch.set_num_threads(options.threads)
    torch.set_grad_enabled(False)
    dtype = getattr(torch, options.dtype)
    module = hollow(
        lambda: WanTransformer3DModel(
            num_attention_heads=HEADS,
            attention_head_dim=WIDTH // HEADS,
            text_dim=TEXT,
            ffn_dim=INNER,
            num_layers=options.layers,
            cross_attn_norm=True,
            rope_max_seq_len=1024,
        )
    )
    files = WeightFiles.open(options.folder / "transformer")
    state = {name: files.read(name) for name in files.names}
    module.load_state_dict(state, assign=True, strict=True)
    rope = type(module.rope)(WIDTH // HEADS, (1, 2, 2), 1024)
    module.rope = rope
    given = {name: torch.from_numpy(value) for name, value in inputs(options).items()}
    given = {n: v if n == "timestep" else v.to(dtype) for n, v in given.items()}
    seconds, result = timed(lambda: module(**given, return_dict=False)[0])
    return seconds | compared(options, result.float().numpy(), "peer")


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "make": make,
    "peer": peer,
    "export": export,
    "step": step,
}


if __name__ == "__main__":
    main()
