"""The generator's sections of docs/benchmarks.md; each is empty while its results are not there."""

from __future__ import annotations

from typing import Any

from tables import exists, load, source, table

_NAMES = {"few": "few steps", "full": "full sampler"}


def time() -> str:
    """Warm times, by parts, beside torch."""
    result = load("generator") if exists("generator") else {}
    if "warm" not in result:
        return ""
    warm, frames = result["warm"], result["model"]["frames"]
    rows = []
    for key, run in warm["runs"].items():
        name, size = key.split()
        ms, torch = run["ms"], run["torch_ms"]
        eager = min(value for method, value in torch.items() if method.startswith("eager"))
        rows.append(
            (
                f"{_NAMES[name]}, {size}",
                f"{run['steps']}, {run['guidance_scale']:g}",
                *(f"{ms[part]:.1f}" for part in ("text", "denoise", "decode", "rest")),
                f"{ms['first_frame']:.1f}",
                f"**{ms['total']:.1f}**",
                f"{run['frames_per_second']:.0f}",
                f"{eager:.1f} ({run['torch_eager_over_fastvid']:.2f}x)",
                f"{torch['compiled']:.1f}" if "compiled" in torch else "",
                f"{run['peak_ms']:.1f}",
            )
        )
    header = ["", "steps, guidance", "text ms", "denoise ms", "decode ms", "rest ms"]
    header += ["first frame ms", "all frames ms", "frames/s", "torch eager ms", "torch compiled ms"]
    header += ["at peak ms"]
    work = [
        f"{size}: {w['evaluation_gflop']:.2f} GFLOP an evaluation, "
        f"{w['decoding_gflop']:.2f} to decode"
        for size, w in warm["work"].items()
    ]
    weights = next(iter(warm["work"].values()))
    apart = max(max(run["levels_apart"].values()) for run in warm["runs"].values())
    return (
        f"{frames} frames from a prompt the model has not read before, {warm['threads']} threads, "
        f"float32; every evaluation reads {weights['transformer_megabytes']:.0f} MB of weights, "
        f"every latent {weights['decoder_megabytes']:.0f} MB. {'; '.join(work)}. torch has the "
        "same weights, noise and steps, the exporter's modules, `inference_mode`, and decodes "
        f"whole or latent by latent, whichever is faster; frames differ by {apart} levels at most. "
        "With guidance a step is two evaluations. The last column is what as many multiply-adds "
        "take in registers alone: no float32 program is faster.\n\n"
        + table(header, rows)
        + "\n"
        + source({"environment": warm["environment"]})
    )


def cold_start() -> str:
    """Whole processes beside diffusers."""
    result = load("generator") if exists("generator") else {}
    if "cold" not in result:
        return ""
    cold = result["cold"]
    other, seconds = cold["diffusers_is"], cold["seconds"]
    rows = [
        ("`fastvid generate`, until it has ended", seconds["fastvid"]),
        ("diffusers, until its first frame is written", seconds["diffusers"]),
    ]
    return (
        "From the start of the process, 4 steps, 17 frames of 64x64. fastvid has written the "
        f"whole video when its clock stops. diffusers {other['diffusers']} with torch "
        f"{other['torch']} and transformers {other['transformers']} runs a {other['pipeline']} "
        "saved before, of the same width, depth and heads: transformer "
        f"{other['transformer_million']} M parameters, decoder {other['decoder_million']} M, "
        f"text encoder {other['text_encoder_million']} M; its imports alone take "
        f"{cold['diffusers_imports_s']:.2f} s. Median of {cold['rounds']}, "
        f"interleaved: {cold['diffusers_over_fastvid']:.1f} times as long.\n\n"
        + table(
            ["", "median s", "min s"],
            [(name, f"{v['median_s']:.2f}", f"{v['min_s']:.2f}") for name, v in rows],
        )
        + "\n"
        + source({"environment": cold["environment"]})
    )


def chain() -> str:
    """From a text to a file through all three models."""
    result = load("generator") if exists("generator") else {}
    if "chain" not in result:
        return ""
    rows = [
        (
            f"{run['frames']:.0f}",
            f"{run['frames_written']:.0f}",
            f"{run['first_frame_ms']:.0f}",
            f"{run['total_ms']:.0f}",
            f"{run['first_frame_ms'] / run['total_ms']:.0%}",
            f"{run['peak_mib']:.0f}",
        )
        for run in result["chain"]["runs"]
    ]
    header = ["frames drawn", "written", "first frame ms", "file done ms", "share", "peak MiB"]
    return (
        "Few steps, 64x64, then four times the frames and four times the size, encoded as H.264, "
        "all in one process, models loaded.\n\n"
        + table(header, rows)
        + "\n"
        + source({"environment": result["chain"]["environment"]})
    )


def quality() -> str:
    """What clips of held-out prompts show, few steps beside the full sampler."""
    result = load("generator_quality") if exists("generator_quality") else {}
    runs = result.get("runs", {})
    if not runs:
        return ""
    columns: list[tuple[str, Any]] = [
        (_NAMES.get(label, label), run) for label, run in sorted(runs.items(), reverse=True)
    ]
    first = columns[0][1]
    drawn = first["detection_on_drawn_clips"]

    def share(name: str) -> tuple[str, ...]:
        found = (run["adherence"].get(name) for _, run in columns)
        return (*(_percent(value) for value in found), _percent(drawn.get(name)))

    def figure(name: str, form: str, reference: str) -> tuple[str, ...]:
        return (*(format(run[name], form) for _, run in columns), reference)

    distance = first["frechet_distance"]["drawn"]
    rows = [
        (
            "steps, guidance",
            *(f"{r['num_inference_steps']}, {r['guidance_scale']:g}" for _, r in columns),
            "",
        ),
        ("colour as asked", *share("colour")),
        ("shape as asked", *share("shape")),
        ("direction as asked", *share("direction")),
        ("growth as asked", *share("size")),
        (
            "Fréchet distance of fixed features",
            *(f"{run['frechet_distance']['generated']:.3f}" for _, run in columns),
            f"{distance:.3f}",
        ),
        (
            "distance between seeds",
            *figure("diversity", ".3f", f"{first['diversity_of_drawn_clips']:.3f}"),
        ),
        (
            "difference along the flow, levels",
            *figure(
                "flow_difference_levels", ".2f", f"{first['flow_difference_of_drawn_clips']:.2f}"
            ),
        ),
        ("autoencoder, PSNR in dB", *figure("autoencoder_psnr_db", ".2f", "")),
        ("ms per clip, while measured", *figure("milliseconds_per_clip", ".0f", "")),
    ]
    return (
        f"{first['prompts']} prompts of combinations that training never saw, one object over a "
        "plain background. What clips show is found by classical detection that shares nothing "
        "with the code that draws; the last column is the same measurement on drawn clips, the "
        "best there is to reach (for the distance between seeds: between clips drawn for one "
        "prompt).\n\n"
        + table(["", *(name for name, _ in columns), "drawn clips"], rows)
        + "\n"
        + source(result)
    )


def summary() -> list[tuple[str, str, str]]:
    """Rows of the README's table."""
    rows = []
    result = load("generator") if exists("generator") else {}
    if "warm" in result:
        for size in ("64x64", "128x128"):
            run = result["warm"]["runs"][f"few {size}"]
            torch = run["torch_eager_over_fastvid"]
            rows.append(
                (
                    f"{result['model']['frames']} frames {size} of a prompt, {run['steps']} steps",
                    f"{run['ms']['total']:.0f} ms",
                    f"torch eager, same weights: {torch:.1f}x",
                )
            )
    if "cold" in result:
        seconds = result["cold"]["seconds"]
        rows.append(
            (
                "Process start to the written video",
                f"{seconds['fastvid']['median_s']:.2f} s",
                f"diffusers to its first frame: {seconds['diffusers']['median_s']:.2f} s",
            )
        )
    return rows


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
