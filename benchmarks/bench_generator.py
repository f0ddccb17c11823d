"""Time of a clip of 17 frames from a prompt, beside torch and beside diffusers.

    python benchmarks/bench_generator.py --checkpoint GEN.pt --vae VAE.pt [--model tiny]
    python benchmarks/bench_generator.py --measure cold --diffusers FOLDER [--model tiny]

What must be done at least, for 9.5 M parameters of the transformer (8 blocks of width 256) and
2.9 M of the decoder, in float32; the program counts again and says so in its results:

    one evaluation, 64x64:    80 tokens,   1.3 GFLOP, 35 MB of weights
    one evaluation, 128x128:  320 tokens,  5.8 GFLOP, the same weights
    decoding, 64x64:          5 latents,   6.6 GFLOP, 12 MB of weights for each
    decoding, 128x128:        5 latents,   26 GFLOP, the same

Few steps is the bundle's default; full is 30 steps with guidance, 60 evaluations, of the same
graphs. Warm: the model is loaded, the prompt is new every time. torch runs the exporter's modules
on the same weights, noise and steps under `inference_mode`, the decoder on the whole clip or latent
by latent, whichever is faster; the frames are compared first. Cold: whole processes up to the first
frame written, `fastvid generate` beside diffusers with a Wan pipeline of random weights of equal
width, depth and heads, made and saved before. Its process ends with its first frame as a PNG;
fastvid's is timed until it has ended, with the whole video written. Chain: from the text through
interpolation by 4 and upscaling by 4 into a file, in one process, and its peak of memory.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timing
from generation import cold_peer, torch_peer

from fastvid import Generator

SIZES = (64, 128)
FRAMES = 17
FULL = {"num_inference_steps": 30, "guidance_scale": 3.0}
_COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "white")
_SHAPES = ("circle", "square", "triangle", "star")


def new_prompts() -> Iterator[str]:
    """Prompts that the model has not read yet, so that none is remembered."""
    for i in itertools.count():
        colour, shape = _COLOURS[i % 8], _SHAPES[i // 8 % 4]
        yield f"a {colour} {shape} moves left over a grey background" + " ." * (i // 32 % 20)


def stages(generator: Generator, prompt: str, **arguments: Any) -> dict[str, float]:
    """Milliseconds of each part of one clip, and to its first and its last frame."""
    spent = {"text": 0.0, "denoise": 0.0, "decode": 0.0}
    graphs = {
        "text_encoder": "text", "transformer": "denoise",
        "decoder_first": "decode", "decoder_next": "decode",
    }  # fmt: skip
    sessions = {name: generator._graph(name) for name in graphs}
    for name, session in sessions.items():
        session.run = _counted(session.run, spent, graphs[name])
    try:
        start = time.perf_counter()
        pieces = generator.stream(prompt, seed=1, **arguments)
        next(pieces)
        first = time.perf_counter() - start
        for _ in pieces:
            pass
        total = time.perf_counter() - start
    finally:
        for session in sessions.values():
            del session.run
    graph_time = sum(spent.values())
    times = {**spent, "rest": total - graph_time, "first_frame": first, "total": total}
    return {name: 1e3 * seconds for name, seconds in times.items()}


def _counted(run: Callable[..., Any], spent: dict[str, float], part: str) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        start = time.perf_counter()
        try:
            return run(*arguments, **options)
        finally:
            spent[part] += time.perf_counter() - start

    return timed


def medians(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(row[name] for row in rows), 3) for name in rows[0]}


def warm(options: argparse.Namespace) -> dict[str, Any]:
    """All sizes, few-step and full, interleaved with torch on the same work."""
    peer = torch_peer.Peer(options.checkpoint, options.vae, options.threads, options.compile)
    report: dict[str, Any] = {"work": {}, "runs": {}}
    prompts = new_prompts()
    with Generator(options.model, threads=options.threads) as generator:
        spec = generator.bundle.generation
        few = {
            "num_inference_steps": spec.num_inference_steps,
            "guidance_scale": spec.guidance_scale,
        }
        for size in options.sizes:
            work = report["work"][f"{size}x{size}"] = peer.work(size, FRAMES)
            for name, asked in (("few", few), ("full", FULL)):
                if name == "full" and few == FULL:
                    continue
                shape = {"height": size, "width": size, "num_frames": FRAMES}
                rounds = options.rounds if name == "few" else max(3, options.rounds // 5)
                key = f"{name} {size}x{size}"
                run = beside(generator, peer, prompts, rounds, {**shape, **asked})
                copies = 2 if asked["guidance_scale"] > 1 else 1
                evaluations = copies * asked["num_inference_steps"]
                gflop = evaluations * work["evaluation_gflop"] + work["decoding_gflop"]
                run["peak_ms"] = at_peak(1e9 * gflop, options.threads)
                report["runs"][key] = run
                print(key, report["runs"][key], flush=True)
    return report


def at_peak(flops: float, threads: int) -> float:
    """Milliseconds that as many multiply-adds take in registers, without any memory."""
    part = timing.multiply(int(1e9), threads)
    return round(flops / 1e9 * timing.compare({"peak": part}, rounds=9)["peak"]["median_ms"], 2)


def beside(
    generator: Generator,
    peer: torch_peer.Peer,
    prompts: Iterator[str],
    rounds: int,
    asked: dict[str, Any],
) -> dict[str, Any]:
    """One row: ours by parts, torch's whole, and how far the frames are apart."""
    shift = float(generator.bundle.scheduler.get("shift", 1.0))
    methods = peer.methods()
    prompt = next(prompts)
    frames = generator.generate(prompt, seed=1, **asked).frames()
    apart = {}
    for name, method in methods.items():
        other = peer.frames(prompt, 1, shift, method, asked)
        difference = abs(other.astype(int) - frames.astype(int))
        apart[name] = int(difference.max())
        # Rounding moves a level here and there; a wrong answer moves more than a few pixels.
        if difference.mean() > 0.5:
            raise SystemExit(f"the answer is wrong, so its time means nothing: {name} {apart}")
    mine: list[dict[str, float]] = []
    theirs: dict[str, list[float]] = {name: [] for name in methods}
    # What takes long needs no run before it to wake the threads and fill the caches.
    short = asked["num_inference_steps"] < 10
    for _ in range(rounds):
        if short:
            stages(generator, next(prompts), **asked)
        mine.append(stages(generator, next(prompts), **asked))
        for name, method in methods.items():
            if short:
                peer.frames(prompt, 1, shift, method, asked)
            start = time.perf_counter()
            peer.frames(prompt, 1, shift, method, asked)
            theirs[name].append(1e3 * (time.perf_counter() - start))
    row = medians(mine)
    total = row["total"]
    milliseconds = {name: round(statistics.median(values), 3) for name, values in theirs.items()}
    best = min(ms for name, ms in milliseconds.items() if not name.startswith("compiled"))
    return {
        "steps": asked["num_inference_steps"],
        "guidance_scale": asked["guidance_scale"],
        "ms": row,
        "frames_per_second": round(1e3 * FRAMES / total, 1),
        "first_frame_share": round(row["first_frame"] / total, 3),
        "torch_ms": milliseconds,
        "torch_eager_over_fastvid": round(best / total, 2),
        "levels_apart": apart,
    }


_CHILD = """
import json, re, sys, time
from fastvid import Generator, Interpolator, Upscaler
frames, model = int(sys.argv[2]), sys.argv[3]
with Generator(model) as generator, Interpolator() as between, Upscaler(scale=4) as larger:
    class Clock:
        name = "clock"
        def transform(self, info):
            return info
        def process(self, frames, info):
            for number, frame in enumerate(frames):
                if number == 0:
                    self.first = time.perf_counter()
                yield frame
    def run(count):
        clock, start = Clock(), time.perf_counter()
        clip = generator.generate("a red star moves right", seed=1, num_frames=count)
        video = larger.upscale(between.interpolate(clip, factor=4)).through(clock)
        result = video.save(sys.argv[1], overwrite=True)
        return clock.first - start, time.perf_counter() - start, result.frames_out
    run(5)
    first, total, written = run(frames)
# Not ru_maxrss: a process inherits that from the one that started it.
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())
print(json.dumps({
    "frames": frames, "frames_written": written, "first_frame_ms": round(1e3 * first, 1),
    "total_ms": round(1e3 * total, 1), "peak_mib": round(int(peak[1]) / 1024, 1),
}))
"""


def chain(options: argparse.Namespace) -> list[dict[str, float]]:
    """Text to a written video through all three models, warm, and the peak of the process."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for frames in (17, 65):
            line = [sys.executable, "-c", _CHILD, f"{folder}/out.mp4", str(frames), options.model]
            runs = []
            for _ in range(3):
                done = subprocess.run(line, capture_output=True, text=True)
                if done.returncode != 0:
                    raise SystemExit(f"the chain failed: {done.stderr[-2000:]}")
                runs.append(json.loads(done.stdout))
            row = medians(runs)
            if row["frames_written"] != 4 * frames:
                raise SystemExit(f"{row['frames_written']} frames were written, not {4 * frames}")
            rows.append(row)
    return rows


def cold(options: argparse.Namespace) -> dict[str, Any]:
    """Whole processes, interleaved."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        peer = cold_peer.Peer(folder / "wan", options.diffusers)
        described = peer.make()
        command = [sys.executable, "-m", "fastvid", "generate", "a red circle moves left"]
        command += ["--model", options.model, "--seed", "1", "--quiet", "--overwrite"]
        commands = {
            "fastvid": [*command, "-o", str(folder / "out.mp4")],
            "diffusers": peer.command(folder / "first.png"),
        }
        samples: dict[str, list[float]] = {name: [] for name in commands}
        imports: list[float] = []
        for turn in range(options.cold_rounds + 1):
            for kind, line in commands.items():
                start = time.perf_counter()
                done = subprocess.run(
                    line, env=peer.environment(kind), capture_output=True, text=True
                )
                seconds = time.perf_counter() - start
                if done.returncode != 0:
                    raise SystemExit(f"{kind} failed: {done.stderr[-2000:]}")
                # The first turn fills the page cache.
                if turn:
                    samples[kind].append(seconds)
                    if kind == "diffusers":
                        imports.append(peer.seconds_of_imports(done.stdout))
        for made in ("out.mp4", "first.png"):
            if (folder / made).stat().st_size < 100:
                raise SystemExit(f"{made} is no picture, so its time means nothing")
    seconds = {
        kind: {"median_s": round(statistics.median(v), 3), "min_s": round(min(v), 3)}
        for kind, v in samples.items()
    }
    ratio = seconds["diffusers"]["median_s"] / seconds["fastvid"]["median_s"]
    return {
        "rounds": options.cold_rounds,
        "seconds": seconds,
        "diffusers_imports_s": round(statistics.median(imports), 3),
        "diffusers_over_fastvid": round(ratio, 2),
        "diffusers_is": described,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--checkpoint", type=Path, help="what the bundle was made of")
    parser.add_argument("--vae", type=Path, help="its autoencoder's")
    parser.add_argument("--diffusers", help="folder with diffusers and transformers, if not here")
    parser.add_argument("--measure", choices=("all", "warm", "cold", "chain"), default="all")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cold-rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES)
    parser.add_argument("--compile", action="store_true", help="time torch.compile as well")
    options = parser.parse_args()
    path = timing.RESULTS / "generator.json"
    # The parts may be measured by runs of their own; each says what it ran as.
    kept = json.loads(path.read_text()) if path.is_file() else {}
    if options.measure in ("all", "warm"):
        if options.checkpoint is None or options.vae is None:
            raise SystemExit("warm: needs --checkpoint FILE and --vae FILE")
        kept["warm"] = warm(options) | {"environment": timing.environment()}
        kept["warm"]["threads"] = options.threads
    if options.measure in ("all", "cold"):
        kept["cold"] = cold(options) | {"environment": timing.environment()}
        print(kept["cold"])
    if options.measure in ("all", "chain"):
        kept["chain"] = {"runs": chain(options), "environment": timing.environment()}
        print(kept["chain"]["runs"])
    with Generator(options.model) as generator:
        kept["model"] = {
            "name": generator.bundle.name,
            "frames": FRAMES,
            "bytes": sum(file.size for file in generator.bundle.files.values()),
        }
    timing.write_results(path, {k: v for k, v in kept.items() if k != "environment"})


if __name__ == "__main__":
    main()
