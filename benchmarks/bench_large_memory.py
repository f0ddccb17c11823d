"""Memory of networks of real size: to export them, to load them and to run them, beside the plan.

    python benchmarks/bench_large_memory.py --folder FOLDER --network transformer --dtype float32
    python benchmarks/bench_large_memory.py --folder FOLDER --network encoder --layers 24

The transformer is that of `bench_large.py`, 30 blocks of 45 million weights. The encoder is that of
UMT5-XXL (4096 wide, 64 heads of 64, 10,240 inner channels, 256,384 tokens): 24 blocks of 193
million weights and a table of 1.05 * 10^9, 11.4 GB in bfloat16. Fewer `--layers` have the same
arrays.

Each part is a process of its own. A thread asks every 10 ms what the system counts as its memory:
`anonymous` is what no file backs and only this process holds, `mapped` are pages of files, which
the system can drop at any time. The peak is that of both. With `--wrap` in front of the parts it
must be `chrt -r`, not `-f`: on one core the latter lets no second thread run, neither the one that
counts nor the one that gives pages back.

A run at two sizes, of which one has twice the tokens, says what grows with them. A block reads its
weights once and multiplies 2 * weights * tokens numbers: at 1560 tokens and 10^11 operations a
second a transformer of 30 blocks takes 50 s, and one of 9 a third.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import bench_large as shapes
import numpy as np

LATENTS = {"small": (1, 16, 1, 60, 104), "large": (1, 16, 2, 60, 104)}
BATCHES = ((1, 8, 8), (1, 16, 16), (1, 32, 32), (2, 32, 32), (4, 32, 32))
_RUNS, _ROUNDS = 2, 2
PROMPTS = {"small": 64, "large": 512}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--network", choices=["transformer", "encoder"], default="transformer")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--layers", type=int, default=0, help="by default all of them")
    parser.add_argument("--precisions", default="float32,bfloat16,int8,int4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", default="small,large", help="to run at; none only exports")
    parser.add_argument("--batches", action="store_true", help="time two prompts of one batch")
    parser.add_argument("--wrap", default="", help="command in front of each part")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    parser.add_argument("--precision", default="float32", help=argparse.SUPPRESS)
    parser.add_argument("--size", default="small", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.layers = options.layers or (30 if options.network == "transformer" else 24)
    if options.part:
        with Watch() as watch:
            answer = PARTS[options.part](options, watch)
        print(json.dumps(answer | watch.found()))
        return
    everything(options)


def everything(options: argparse.Namespace) -> None:
    import timing

    options.folder.mkdir(parents=True, exist_ok=True)
    precisions = {}
    result: dict[str, Any] = {
        "network": options.network, "dtype": options.dtype, "layers": options.layers,
        "threads": options.threads,
    }  # fmt: skip
    result["weights"] = run(options, "make")["bytes"]
    for precision in options.precisions.split(","):
        entry = {"export": run(options, "export", precision)}
        sizes = [size for size in LATENTS if size in options.sizes.split(",")]
        entry["runs"] = [run(options, "step", precision, size) for size in sizes]
        if options.batches:
            entry["batches"] = run(options, "batches", precision)["seconds"]
        shutil.rmtree(options.folder / f"bundle-{precision}")
        precisions[precision] = entry
    result["precisions"] = precisions
    shutil.rmtree(options.folder)
    name = f"memory_large_{options.network}_{options.dtype}_{options.layers}.json"
    timing.write_results(timing.RESULTS / name, result)


def run(
    options: argparse.Namespace, part: str, precision: str = "float32", size: str = "small"
) -> dict[str, Any]:
    """One part in a process of its own; one that was done before is not done again."""
    kept = options.folder / f"{part}-{precision}-{size}.json"
    if not kept.is_file():
        command = [*shlex.split(options.wrap), sys.executable, __file__, "--part", part]
        command += ["--folder", str(options.folder), "--network", options.network]
        command += ["--dtype", options.dtype, "--layers", str(options.layers)]
        command += ["--threads", str(options.threads), "--precision", precision, "--size", size]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        kept.write_text(done.stdout.splitlines()[-1])
    answer: dict[str, Any] = json.loads(kept.read_text())
    print(part, precision, size, json.dumps(answer), flush=True)
    return answer


class Watch:
    """Looks now and then at what this process holds, and at what it maps."""

    def __init__(self) -> None:
        self.reset()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def reset(self) -> dict[str, int]:
        """Counts from here on; what the process takes now."""
        held, mapped = self._now()
        self.held, self.mapped, self.both = held, mapped, held + mapped
        return {"anonymous": held, "mapped": mapped}

    def _now(self) -> tuple[int, int]:
        _, resident, mapped = Path("/proc/self/statm").read_text().split()[:3]
        page = os.sysconf("SC_PAGE_SIZE")
        return page * (int(resident) - int(mapped)), page * int(mapped)

    def _watch(self) -> None:
        while not self._stop.wait(0.01):
            held, mapped = self._now()
            self.held, self.mapped = max(self.held, held), max(self.mapped, mapped)
            self.both = max(self.both, held + mapped)

    def found(self) -> dict[str, int]:
        """The peaks of all, of what is held and of what is mapped, which need not be at once."""
        return {"peak": self.both, "peak_anonymous": self.held, "peak_mapped": self.mapped}

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def module_of(options: argparse.Namespace) -> Any:
    from fastvid_export.models.t5 import T5Encoder, T5Options
    from fastvid_export.models.wan_transformer import WanTransformer

    if options.network == "transformer":
        return shapes.hollow(lambda: WanTransformer(shapes.configuration(options.layers)))
    encoder = T5Options(
        vocab_size=256_384, d_model=4096, d_kv=64, d_ff=10_240, num_layers=options.layers,
        num_heads=64, activation="gated-gelu_new", bias_in_each_layer=True,
    )  # fmt: skip
    return shapes.hollow(lambda: T5Encoder(encoder))


def make(options: argparse.Namespace, watch: Watch) -> dict[str, Any]:
    folder = options.folder / options.network
    return shapes.make_weights(module_of(options), folder, options.dtype)


def export(options: argparse.Namespace, watch: Watch) -> dict[str, Any]:
    from fastvid_export.importers import wan_graphs

    network = shapes.network_of(module_of(options), options.folder / options.network)
    if options.network == "encoder":
        return shapes.write(options, wan_graphs.text_encoder(network))
    part = wan_graphs.transformer(network, name="transformer", tokens=shapes.TOKENS)
    return shapes.write(options, part)


def step(options: argparse.Namespace, watch: Watch) -> dict[str, Any]:
    """Loads the bundle and runs it twice, as every step and every prompt does."""
    from fastvid import backends
    from fastvid._generation.staged_memory import StagedMeter
    from fastvid.bundle import Bundle

    name = "text_encoder" if options.network == "encoder" else "transformer"
    given = inputs(options)
    sizes = {"N": 1, "T": 1, "h": 1, "w": 1, "L": PROMPTS[options.size]}
    sizes |= dict(zip("Thw", LATENTS[options.size][2:], strict=True))
    bundle = Bundle.load(options.folder / f"bundle-{options.precision}")
    meter = StagedMeter(bundle, {"device": "cpu"}, (sizes, sizes), lambda *_: 1)
    planned = meter.worked_out(name, sizes)
    answer: dict[str, Any] = {"before": watch.reset(), "planned": planned}
    start = time.perf_counter()
    with backends.open(
        bundle, device="cpu", backend="onnxruntime", threads=options.threads
    ) as model:
        session = model.graph(name)
        answer["load_seconds"] = round(time.perf_counter() - start, 2)
        answer["load"] = watch.found()
        seconds = []
        for _ in range(_RUNS):
            start = time.perf_counter()
            session.run(given)
            seconds.append(round(time.perf_counter() - start, 3))
    weights = sum(file.size for file in bundle.files.values())
    before = sum(answer["before"].values())
    answer |= {"seconds": seconds, "weights": weights, "tokens": tokens_of(options)}
    answer["activations"] = watch.both - before - weights
    answer["of_plan"] = round((watch.both - before) / (weights + planned), 3)
    return answer


def batches(options: argparse.Namespace, watch: Watch) -> dict[str, Any]:
    """Seconds of one prompt and of two in a batch, by the latents of a clip."""
    from fastvid import backends
    from fastvid.bundle import Bundle

    bundle = Bundle.load(options.folder / f"bundle-{options.precision}")
    found: dict[str, list[float]] = {}
    with backends.open(
        bundle, device="cpu", backend="onnxruntime", threads=options.threads
    ) as model:
        session = model.graph("transformer")
        for frames, height, width in BATCHES:
            times: dict[int, list[float]] = {1: [], 2: []}
            for count in (1, 2) * (_ROUNDS + 1):
                given = inputs(options, (1, 16, frames, height, width))
                given = {name: np.concatenate([x] * count) for name, x in given.items()}
                start = time.perf_counter()
                session.run(given)
                times[count].append(time.perf_counter() - start)
            # The first of each size finds no memory that was used before.
            best = [round(min(times[count][1:]), 4) for count in (1, 2)]
            found[str(frames * height * width)] = best
    return {"seconds": found}


def tokens_of(options: argparse.Namespace) -> int:
    if options.network == "encoder":
        return PROMPTS[options.size]
    _, _, frames, height, width = LATENTS[options.size]
    return frames * (height // 2) * (width // 2)


def inputs(options: argparse.Namespace, shape: tuple[int, ...] | None = None) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    if options.network == "encoder":
        ids = rng.integers(0, 256_384, (1, PROMPTS[options.size]))
        return {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    text = rng.normal(size=(1, shapes.TOKENS, shapes.TEXT))
    return {
        "hidden_states": rng.normal(size=shape or LATENTS[options.size]).astype(np.float32),
        "timestep": np.float32([700]),
        "encoder_hidden_states": text.astype(np.float32),
    }


PARTS = {"make": make, "export": export, "step": step, "batches": batches}


if __name__ == "__main__":
    main()
