"""The page sections that rank fastvid beside its peers, and the points of the plots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tables import exists, load, source, table

OWN = "fastvid "
FIRST_SIZE = {2: "960x540", 3: "640x360", 4: "480x270"}
_FEATURES = (
    "`features` is a distance of learned features (k-means filters of photos, "
    "`benchmarks/quality/learned_features.py`): of LPIPS's form, but not LPIPS, whose weights "
    "cannot be had here. `temporal` is how much the error changes along the motion from frame to "
    "frame, in levels of luma; smaller is better for both. "
)


@dataclass(frozen=True)
class Row:
    """One method of a ranking."""

    name: str
    quality: dict[str, Any]
    """Empty where pictures are not scored."""
    best: dict[str, Any]
    """Its fastest time in full precision; empty where it was not timed."""
    narrow: dict[str, Any]
    """Its fastest time in bfloat16, with its runtime."""
    measured: tuple[dict[str, Any], ...]

    @property
    def own(self) -> bool:
        """Whether it is one of fastvid's."""
        return self.name.startswith(OWN)

    @property
    def fastest(self) -> dict[str, Any]:
        """Of both precisions."""
        timed = [t for t in (self.best, self.narrow) if t]
        return min(timed, key=lambda t: t["median_ms"]) if timed else {}


def rows(result: dict[str, Any], prefix: str = "", size: str = "") -> list[Row]:
    """The methods of a results file whose names begin so, the best first."""
    found = []
    for key, parts in result["rows"].items():
        if not key.startswith(prefix):
            continue
        times = [
            p for n, p in parts.items() if n.startswith(f"time {size}".strip()) and "median_ms" in p
        ]
        wide = [t for t in times if "bfloat16" not in t["runtime"]]
        narrow = [t for t in times if "bfloat16" in t["runtime"]]
        found.append(
            Row(
                key.removeprefix(prefix),
                parts.get("quality", {}).get("mean", {}),
                min(wide, key=lambda t: t["median_ms"], default={}),
                min(narrow, key=lambda t: t["median_ms"], default={}),
                tuple(p["measured"] for p in parts.values()),
            )
        )
    return sorted(found, key=lambda r: -score(r))


def score(row: Row) -> float:
    """PSNR in dB, or 0 where pictures are not scored."""
    return float((row.quality.get("all") or row.quality).get("psnr", 0))


def interpolation() -> str:
    """Ranks what draws frames between two."""
    if not exists("rank_interpolation"):
        return ""
    result = load("rank_interpolation")
    found = rows(result)
    lines = []
    for row in found:
        q = row.quality
        lines.append((
            _named(row), _db(q, "psnr"), _db(q, "psnr_unseen"), _number(q, "ssim", 4),
            _number(q, "features", 1), _db(q, "psnr_quarters"), _number(q, "temporal", 2),
            _ms(row.best), row.best.get("runtime", ""), _mib(row.best),
        ))  # fmt: skip
    header = [
        "", "PSNR dB", "clips never seen dB", "SSIM", "features", "quarters dB", "temporal",
        "ms at 720p", "runtime", "peak MiB",
    ]  # fmt: skip
    return (
        "Best first. PSNR over RGB, SSIM of luma and features of the frame in the middle of two, "
        "mean over ten clips (three never seen in training, of the others the part kept aside) at "
        "strides 1 and 2; `quarters` draws three frames between frames four apart. "
        + _FEATURES
        + "Time: one frame at 1280x720, frames in to frame out, 2 threads, in the fastest runtime; "
        "peak memory is that of the whole process. IFNet 4.6 has random weights, as none can be "
        "had here: its time does not depend on them, its pictures are not scored.\n\n"
        + table(header, lines)
        + "\n"
        + _when(found, result)
    )


def upscaling() -> str:
    """Ranks what enlarges frames, a table for each scale."""
    if not exists("rank_upscaling"):
        return ""
    result = load("rank_upscaling")
    parts = [
        "Best first. Luma PSNR and SSIM by the papers' protocol on held-back photos and frames of "
        "clips; `photos` and `clips` are the two parts of the PSNR. "
        + _FEATURES
        + "`compressed` is the same clips reduced and passed through H.264 at rate factor 28, "
        "which networks for real video are trained for, and others are not. Time: frame of bytes "
        "in to frame of bytes out, 2 threads, in the fastest runtime tried (PyTorch in both "
        "layouts, onnxruntime, OpenVINO, and ncnn for what was published for it); peak memory is "
        "that of the whole process.\n"
    ]
    every: list[Row] = []
    for scale, size in FIRST_SIZE.items():
        found = rows(result, f"x{scale} ", size)
        every += found
        lines = []
        for row in found:
            q = row.quality
            lines.append((
                _named(row), _db(q.get("all", {}), "psnr"), _db(q.get("photo", {}), "psnr"),
                _db(q.get("clip", {}), "psnr"), _number(q.get("all", {}), "ssim", 4),
                _number(q.get("all", {}), "features", 1),
                _number(q.get("clean", {}), "temporal", 2),
                _db(q.get("compressed", {}), "psnr"),
                _number(q.get("compressed", {}), "temporal", 2),
                _ms(row.best), row.best.get("runtime", ""), _ms(row.narrow), _mib(row.best),
            ))  # fmt: skip
        header = [
            f"x{scale}", "PSNR dB", "photos", "clips", "SSIM", "features", "temporal",
            "compressed dB", "temporal", f"ms at {size}", "runtime", "ms in bfloat16", "peak MiB",
        ]  # fmt: skip
        parts.append(table(header, lines))
        parts.append(_by_runtime(result, scale, size))
        if other := _other_sizes(result, scale, size):
            parts.append(f"At other sizes, ms: {other}.\n")
    return "\n".join(parts) + "\n" + _when(every, result)


def _by_runtime(result: dict[str, Any], scale: int, size: str) -> str:
    """Milliseconds of every method in every runtime."""
    timed = {
        key.removeprefix(f"x{scale} "): {
            part["runtime"]: part["median_ms"]
            for name, part in parts.items()
            if name.startswith(f"time {size}") and "median_ms" in part and part["runtime"]
        }
        for key, parts in result["rows"].items()
        if key.startswith(f"x{scale} ")
    }
    timed = {name: times for name, times in timed.items() if times}
    if not timed:
        return ""
    runtimes = list(dict.fromkeys(r for times in timed.values() for r in times))
    lines = [
        (name, *(f"{times[r]:.1f}" if r in times else "" for r in runtimes))
        for name, times in timed.items()
    ]
    return table([f"x{scale}, {size}, ms in", *runtimes], lines)


def _other_sizes(result: dict[str, Any], scale: int, size: str) -> str:
    found = []
    for key, parts in result["rows"].items():
        for name, part in parts.items():
            words = name.split()
            if (
                key.startswith(f"x{scale} ")
                and words[0] == "time"
                and words[1] != size
                and "median_ms" in part
            ):
                title = key.removeprefix(f"x{scale} ")
                found.append(f"{title} {part['median_ms']:.1f} ({words[1]}, {part['runtime']})")
    return "; ".join(found)


def _named(row: Row) -> str:
    return f"**{row.name}**" if row.own else row.name


def _db(figures: dict[str, Any], key: str) -> str:
    return f"{figures[key]:.2f}" if key in figures else ""


def _number(figures: dict[str, Any], key: str, digits: int) -> str:
    return f"{figures[key]:.{digits}f}" if key in figures else ""


def _ms(entry: dict[str, Any]) -> str:
    return f"{entry['median_ms']:.1f}" if entry else ""


def _mib(entry: dict[str, Any]) -> str:
    return f"{entry['peak_mib']:.0f}" if entry.get("peak_mib") else ""


def _when(found: list[Row], result: dict[str, Any]) -> str:
    dates = sorted({m["date"] for row in found for m in row.measured})
    commits = sorted({str(m["commit"])[:9] for row in found for m in row.measured})
    paces = [row.best["pace_ms"] for row in found if row.best]
    text = f"Rows measured {dates[0]} to {dates[-1]} UTC at {', '.join(commits)}"
    if paces:
        text += (
            f"; twenty billion operations in registers took {min(paces):.1f} to {max(paces):.1f} "
            "ms in turn with them, which is how even the machine's pace was"
        )
    return text + f". Last: {source(result)}"


# The short table and the points of the plots


def summary() -> str:
    """What the README says of the rankings: plots, and each model beside the peers around it."""
    if not (exists("rank_interpolation") and exists("rank_upscaling")):
        return ""
    blocks = [
        ("A frame between two, 1280x720", "rank_interpolation", rows(load("rank_interpolation")))
    ]
    blocks += [
        (
            f"Enlarged x{s}, from {size}",
            f"rank_upscaling_x{s}",
            rows(load("rank_upscaling"), f"x{s} ", size),
        )
        for s, size in FIRST_SIZE.items()
    ]
    parts, beaten = [], []
    for title, name, found in blocks:
        known = [row for row in found if score(row) and row.fastest]
        peers = [row for row in known if not row.own]
        own = sorted((r for r in known if r.own), key=_lasts)
        lines = [
            (
                f"`{row.name.removeprefix(OWN)}`",
                f"{score(row):.2f}",
                f"{row.fastest['median_ms']:.1f}",
                row.fastest["runtime"],
                _below(row, peers),
                _above(row, peers),
            )
            for row in own
        ]
        header = [title, "PSNR dB", "ms", "runtime", "best peer below", "peers above"]
        if len(known) > 1:
            parts.append(f"![{title}: PSNR against time](docs/figures/{name}.svg)\n")
        if lines:
            parts.append(table(header, lines))
        for row in own:
            faster = [p.name for p in peers if score(p) > score(row) and _lasts(p) < _lasts(row)]
            if faster:
                beaten.append(f"`{row.name.removeprefix(OWN)}` by {_listed(faster)}")
    parts.append(
        f"Beaten by peers in both time and quality: {'; '.join(beaten) or 'none'}.\n"
        + _whole_file()
    )
    return "\n".join(parts)


def _whole_file() -> str:
    """The best row of the whole files in a sentence; empty without results."""
    if not exists("pipeline_whole_file"):
        return ""
    timed = {n: parts["time"] for n, parts in load("pipeline_whole_file")["rows"].items()}
    own = {n: t["fps_out"] for n, t in timed.items() if n.startswith("fastvid")}
    peer = timed.get("OpenCV and torch, same networks")
    if not own or peer is None:
        return ""
    best, plain = max(own, key=lambda n: own[n]), "fastvid, onnxruntime"
    text = (
        "A whole file, 720p at 30 frames a second to 1440p at 60, decoding to encoding: "
        f"{own[best]:.1f} frames a second ({best.removeprefix('fastvid, ')})"
    )
    if plain in own and plain != best:
        text += f", {own[plain]:.1f} with onnxruntime alone in float32"
    times = own[best] / peer["fps_out"]
    return (
        f"{text}; OpenCV and PyTorch with the same networks {peer['fps_out']:.1f}, "
        f"so {times:.1f} times as fast.\n"
    )


def _lasts(row: Row) -> float:
    return float(row.fastest["median_ms"])


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _below(row: Row, peers: list[Row]) -> str:
    worse = [peer for peer in peers if score(peer) <= score(row)]
    return _beside(row, max(worse, key=score)) if worse else ""


def _above(row: Row, peers: list[Row]) -> str:
    better = sorted((peer for peer in peers if score(peer) > score(row)), key=score)
    return "; ".join(_beside(row, peer) for peer in better) or "none"


def _beside(row: Row, peer: Row) -> str:
    """The peer, what it gains or loses, and its time as a multiple."""
    times = peer.fastest["median_ms"] / row.fastest["median_ms"]
    return f"{peer.name} ({score(peer) - score(row):+.2f} dB, {times:.2g}x the time)"


def points(name: str, prefix: str = "", size: str = "") -> list[tuple[str, float, float, bool]]:
    """Name, milliseconds, dB and whether it is fastvid's, of every row that has both."""
    if not exists(name):
        return []
    return [
        (row.name.removeprefix(OWN), row.fastest["median_ms"], score(row), row.own)
        for row in rows(load(name), prefix, size)
        if score(row) and row.fastest
    ]
