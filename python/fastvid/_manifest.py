"""The text of `bundle.json`: strict parsing and validation.

`parse` turns bytes into plain objects, `check` holds them against the format that
`bundle.schema.json` publishes, `check_references` adds what a schema cannot say: that names
inside one manifest agree with each other. Whatever is not allowed is refused; nothing is guessed.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

from fastvid._safe_files import check_path
from fastvid._version import __version__
from fastvid.errors import ManifestError, UnsupportedModelError

FORMAT_VERSION = 1
"""The newest format this version of fastvid reads, and the one it writes."""

MAX_BYTES = 1 << 20
MAX_DEPTH = 16

TASKS = ("upscaler", "interpolator", "generator")
DTYPES = (
    "bool",
    "uint8",
    "int8",
    "uint16",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
)
PRECISIONS = ("float32", "float16", "bfloat16", "int8", "int4")
PADDINGS = ("internal", "edge", "reflect", "none")
REQUIRED_GRAPHS: Mapping[str, tuple[str, ...]] = {
    "upscaler": ("upscale",),
    "interpolator": ("motion", "between"),
    "generator": (),
}

NAME = r"^[a-z0-9][a-z0-9._-]{0,63}$"
IDENTIFIER = r"^[A-Za-z_][A-Za-z0-9_./:-]{0,127}$"
SYMBOL = r"^([1-9][0-9]{0,3}\*)?[A-Za-z_][A-Za-z0-9_]{0,63}$"
VERSION = r"^[0-9]{1,4}(\.[0-9]{1,4}){1,2}$"
DATE = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"
SHA256 = r"^[0-9a-f]{64}$"
# Control characters could steer the terminal that a description is printed on.
TEXT = "^[^\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f]*$"

MAX_DIM = 1 << 31
MAX_FILE_BYTES = 1 << 40
MAX_SIDE = 1 << 16
MAX_NUMBER = 1e30

Check = Callable[[Any, str], None]


def fail(at: str, problem: str) -> NoReturn:
    """Raises `ManifestError` for the value at the JSON path `at`."""
    raise ManifestError(f"bundle.json: {at} {problem}")


def show(value: object) -> str:
    """`value` as it stands in an error message: quoted, escaped and cut to 60 characters."""
    text = ascii(value)
    return text if len(text) <= 60 else text[:57] + "..."


def parse(data: bytes) -> dict[str, Any]:
    """Reads JSON as strictly as RFC 8259 allows.

    Args:
        data: The bytes of the file: UTF-8, at most 1 MiB, nested at most 16 deep.

    Returns:
        The top-level object.

    Raises:
        ManifestError: Not JSON, duplicate keys, NaN or Infinity, numbers that do not fit a double,
            unpaired surrogates, too large or too deep.
    """
    if len(data) > MAX_BYTES:
        raise ManifestError(f"bundle.json: size must be at most {MAX_BYTES} bytes, got {len(data)}")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ManifestError(
            f"bundle.json: text must be UTF-8, got byte {data[error.start]:#04x} at {error.start}"
        ) from None
    try:
        value = json.loads(
            text,
            object_pairs_hook=_unique_keys,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except json.JSONDecodeError as error:
        raise ManifestError(
            f"bundle.json: line {error.lineno} column {error.colno} is not JSON: {error.msg}"
        ) from None
    except RecursionError:
        raise ManifestError(f"bundle.json: nesting must be at most {MAX_DEPTH} deep") from None
    except ValueError as error:  # an integer with more digits than Python converts
        raise ManifestError(f"bundle.json: number is too large: {error}") from None
    _check_depth(value)
    _check_characters(value)
    if not isinstance(value, dict):
        fail("$", f"must be an object, got {show(value)}")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ManifestError(f"bundle.json: key {show(key)} must be given once, got twice")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ManifestError(f"bundle.json: number must be finite, got {name}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ManifestError(f"bundle.json: number must be finite, got {text[:40]}")
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for node in level
            if isinstance(node, dict | list)
            for child in (node.values() if isinstance(node, dict) else node)
        ]
        if not level:
            return
    raise ManifestError(f"bundle.json: nesting must be at most {MAX_DEPTH} deep")


def _check_characters(value: object) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise ManifestError("bundle.json: text must not hold unpaired surrogates") from None


# Checks of one value. Each takes the value and its JSON path.


def _text(pattern: str = TEXT, *, maximum: int = 4096, minimum: int = 1) -> Check:
    compiled = re.compile(pattern)

    def check(value: Any, at: str) -> None:
        if not isinstance(value, str):
            fail(at, f"must be a string, got {show(value)}")
        if not minimum <= len(value) <= maximum:
            fail(at, f"must have {minimum} to {maximum} characters, got {len(value)}")
        # `$` would accept a newline at the end, which JSON Schema does not.
        if compiled.match(value) is None or (value.endswith("\n") and pattern is not TEXT):
            wanted = "free of control characters" if pattern is TEXT else f"like {pattern}"
            fail(at, f"must be {wanted}, got {show(value)}")

    return check


def _integer(minimum: int, maximum: int) -> Check:
    def check(value: Any, at: str) -> None:
        if not is_integer(value) or not minimum <= value <= maximum:
            fail(at, f"must be an integer from {minimum} to {maximum}, got {show(value)}")

    return check


def is_integer(value: object) -> bool:
    """Whether JSON Schema calls `value` an integer: 2 and 2.0 are, true is not."""
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, float) and value.is_integer()
    )


def _number(value: Any, at: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        fail(at, f"must be a number, got {show(value)}")
    if not -MAX_NUMBER <= value <= MAX_NUMBER:
        fail(at, f"must be from {-MAX_NUMBER:g} to {MAX_NUMBER:g}, got {show(value)}")


def _flag(value: Any, at: str) -> None:
    if not isinstance(value, bool):
        fail(at, f"must be true or false, got {show(value)}")


def _scalar(value: Any, at: str) -> None:
    if isinstance(value, bool):
        return
    if isinstance(value, str):
        _text(minimum=0)(value, at)
    else:
        _number(value, at)


def _one_of(allowed: tuple[str, ...]) -> Check:
    def check(value: Any, at: str) -> None:
        if not isinstance(value, str) or value not in allowed:
            fail(at, f"must be one of {', '.join(map(repr, allowed))}, got {show(value)}")

    return check


def _array(item: Check, minimum: int, maximum: int) -> Check:
    def check(value: Any, at: str) -> None:
        if not isinstance(value, list):
            fail(at, f"must be an array, got {show(value)}")
        if not minimum <= len(value) <= maximum:
            fail(at, f"must have {minimum} to {maximum} items, got {len(value)}")
        for i, element in enumerate(value):
            item(element, f"{at}[{i}]")

    return check


def _table(key: Check, item: Check, minimum: int, maximum: int) -> Check:
    def check(value: Any, at: str) -> None:
        if not isinstance(value, dict):
            fail(at, f"must be an object, got {show(value)}")
        if not minimum <= len(value) <= maximum:
            fail(at, f"must have {minimum} to {maximum} entries, got {len(value)}")
        for name, element in value.items():
            key(name, f"{at}: key")
            item(element, f"{at}.{name}")

    return check


def _record(required: Mapping[str, Check], optional: Mapping[str, Check]) -> Check:
    fields = {**required, **optional}

    def check(value: Any, at: str) -> None:
        if not isinstance(value, dict):
            fail(at, f"must be an object, got {show(value)}")
        for name in value:
            if name not in fields:
                fail(at, f"must hold only {', '.join(fields)}, got {show(name)}")
        for name in required:
            if name not in value:
                fail(at, f"must hold {name!r}, which is missing")
        for name, element in value.items():
            fields[name](element, f"{at}.{name}")

    return check


def _path(value: Any, at: str) -> None:
    _text(maximum=255)(value, at)
    check_path(value, f"bundle.json: {at}")


def _dimension(value: Any, at: str) -> None:
    if isinstance(value, str):
        _text(SYMBOL, maximum=69)(value, at)
    else:
        _integer(1, MAX_DIM)(value, at)


_SETTINGS = _table(_text(IDENTIFIER, maximum=128), _scalar, 0, 64)
_TENSOR = _record(
    {
        "name": _text(IDENTIFIER, maximum=128),
        "dtype": _one_of(DTYPES),
        "shape": _array(_dimension, 0, 8),
    },
    {"range": _array(_number, 2, 2)},
)
_GRAPH = _record(
    {"file": _path, "inputs": _array(_TENSOR, 1, 64), "outputs": _array(_TENSOR, 1, 64)},
    {"external_data": _array(_path, 0, 64)},
)
_PROVENANCE = _record(
    {"weights": _text()},
    {
        "training_data": _array(_text(), 0, 64),
        "exporter": _text(),
        "command": _text(),
        "created": _text(DATE),
        "settings": _SETTINGS,
    },
)
_CREDIT = _record({"name": _text(), "licence": _text()}, {"source": _text(), "notice": _text()})
_SIZE_RULE = _record(
    {
        "minimum": _integer(1, MAX_SIDE),
        "multiple_of": _integer(1, MAX_SIDE),
        "padding": _one_of(PADDINGS),
    },
    {"maximum": _integer(1, MAX_SIDE)},
)
_TILING = _record(
    {"reach": _integer(0, MAX_SIDE), "multiple_of": _integer(1, MAX_SIDE), "exact": _flag}, {}
)
MAX_FRAMES = 1 << 20
_GENERATION = _record(
    {
        "height": _integer(1, MAX_SIDE),
        "width": _integer(1, MAX_SIDE),
        "num_frames": _integer(1, MAX_FRAMES),
        "max_num_frames": _integer(1, MAX_FRAMES),
        "frame_rate": _number,
        "num_inference_steps": _integer(1, 10_000),
        "guidance_scale": _number,
        "max_prompt_tokens": _integer(1, 1 << 16),
        "latent_channels": _integer(1, 1 << 12),
        "spatial_compression": _integer(1, 1 << 8),
        "temporal_compression": _integer(1, 1 << 8),
    },
    {
        "prompt_cleaning": _one_of(("spaces", "html")),
        "zero_padding": _flag,
        "schedule": _one_of(("linear", "linear_quadratic", "scheduler")),
        "picture_conditioning": _one_of(
            ("latents", "masked_video", "first_frame", "first_frames", "noised_first_frames")
        ),
        "guidance_scale_2": _number,
        "boundary_timestep": _number,
    },
)
_QUALITY = _record({"metric": _text(), "data": _text(), "value": _number}, {"unit": _text()})
_FIDELITY = _record(
    {
        "graph": _text(IDENTIFIER, maximum=128),
        "output": _text(IDENTIFIER, maximum=128),
        "data": _text(),
        "max_error": _number,
        "unit": _one_of(("levels", "of the range")),
        "cosine": _number,
    },
    {"psnr": _number},
)
_FIGURE = _record(
    {
        "precision": _one_of(PRECISIONS),
        "backend": _one_of(("onnxruntime", "openvino")),
        "loss": _number,
        "speed": _number,
        "processor": _text(NAME, maximum=64),
        "data": _text(),
    },
    {"psnr": _number, "version": _text()},
)
_FILE = _record({"sha256": _text(SHA256, maximum=64), "size": _integer(0, MAX_FILE_BYTES)}, {})
_MANIFEST = _record(
    {
        "format_version": _integer(1, FORMAT_VERSION),
        "name": _text(NAME, maximum=64),
        "task": _one_of(TASKS),
        "description": _text(),
        "licence": _text(),
        "provenance": _PROVENANCE,
        "graphs": _table(_text(IDENTIFIER, maximum=128), _GRAPH, 1, 16),
        "size_rule": _SIZE_RULE,
        "files": _table(_path, _FILE, 1, 256),
    },
    {
        "requires_fastvid": _text(VERSION, maximum=14),
        "precision": _one_of(PRECISIONS),
        "scale": _integer(1, 16),
        "credits": _array(_CREDIT, 0, 256),
        "scheduler": _SETTINGS,
        "generation": _GENERATION,
        "tiling": _TILING,
        "quality": _array(_QUALITY, 0, 256),
        "fidelity": _array(_FIDELITY, 0, 256),
        "precisions": _array(_FIGURE, 0, 16),
    },
)


def check_version(manifest: Mapping[str, Any]) -> None:
    """Refuses a manifest that was written for a newer fastvid, before anything else is judged.

    Raises:
        UnsupportedModelError: The format or the version of fastvid it needs is newer.
    """
    hint = "pip install --upgrade fastvid-sdk"
    needed = manifest.get("requires_fastvid")
    known = isinstance(needed, str) and re.fullmatch(VERSION.strip("^$"), needed) is not None
    version = manifest.get("format_version")
    if is_integer(version) and version is not None and version > FORMAT_VERSION:
        which = f"fastvid {needed} or newer" if known else "a newer fastvid"
        raise UnsupportedModelError(
            f"bundle.json: $.format_version must be at most {FORMAT_VERSION} for fastvid "
            f"{__version__}, got {show(version)}, which needs {which}",
            hint=hint,
        )
    if known and _release(str(needed)) > _release(__version__):
        raise UnsupportedModelError(
            f"bundle.json: $.requires_fastvid asks for fastvid {needed} or newer, "
            f"this is {__version__}",
            hint=hint,
        )


def _release(version: str) -> tuple[int, ...]:
    numbers = [int(n) for n in re.findall(r"\d+", version)[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))


def check(manifest: Mapping[str, Any]) -> None:
    """Holds a manifest against the format; same verdict as `bundle.schema.json`.

    Raises:
        ManifestError: A key is missing or unknown, or a value is not allowed; names its JSON path.
        UnsafePathError: A file name leaves the folder or is of a kind that is never opened.
    """
    _MANIFEST(manifest, "$")
    task, graphs = manifest["task"], manifest["graphs"]
    for name in REQUIRED_GRAPHS[task]:
        if name not in graphs:
            fail("$.graphs", f"must hold {name!r} for task {task!r}, got {show(sorted(graphs))}")
    if (task == "upscaler") != ("scale" in manifest):
        fail("$.scale", f"must be given for task 'upscaler' and for no other, task is {task!r}")
    if task != "upscaler" and "tiling" in manifest:
        fail("$.tiling", f"must be given for no task but 'upscaler', task is {task!r}")
    if task != "generator" and "generation" in manifest:
        fail("$.generation", f"must be given for no task but 'generator', task is {task!r}")


def check_references(manifest: Mapping[str, Any]) -> None:
    """Checks that the names and numbers inside a valid manifest agree with each other.

    Raises:
        ManifestError: Names the JSON path.
    """
    files = manifest["files"]
    folded = {path.casefold() for path in files}
    if len(folded) != len(files):
        fail("$.files", "must not hold names that differ only in case")
    if "bundle.json" in folded:
        fail("$.files", "must not hold 'bundle.json' itself")
    rule = manifest["size_rule"]
    if rule.get("maximum", MAX_SIDE) < rule["minimum"]:
        fail("$.size_rule.maximum", f"must be at least {rule['minimum']}, got {rule['maximum']}")
    for i, figure in enumerate(manifest.get("fidelity", ())):
        _check_figure(figure, manifest["graphs"], f"$.fidelity[{i}]")
    generation = manifest.get("generation")
    if generation is not None:
        frames, most = generation["num_frames"], generation["max_num_frames"]
        if frames > most or (frames - 1) % generation["temporal_compression"]:
            fail(
                "$.generation.num_frames",
                f"must be temporal_compression * k + 1 and at most max_num_frames, got {frames}",
            )
        second = "transformer_2" in manifest["graphs"]
        if second != ("boundary_timestep" in generation):
            fail(
                "$.generation.boundary_timestep",
                "must be given exactly where there is a graph 'transformer_2'",
            )
    for name, graph in manifest["graphs"].items():
        at = f"$.graphs.{name}"
        _check_file(graph["file"], ".onnx", files, f"{at}.file")
        for i, path in enumerate(graph.get("external_data", ())):
            _check_file(path, ".data", files, f"{at}.external_data[{i}]")
        for side in ("inputs", "outputs"):
            _check_tensors(graph[side], f"{at}.{side}")


def _check_figure(figure: Mapping[str, Any], graphs: Mapping[str, Any], at: str) -> None:
    if figure["graph"] not in graphs:
        fail(f"{at}.graph", f"must be one of {show(sorted(graphs))}, got {show(figure['graph'])}")
    names = [output["name"] for output in graphs[figure["graph"]]["outputs"]]
    if figure["output"] not in names:
        fail(f"{at}.output", f"must be one of {show(names)}, got {show(figure['output'])}")


def _check_file(path: str, suffix: str, files: Mapping[str, Any], at: str) -> None:
    if not path.endswith(suffix):
        fail(at, f"must end in {suffix!r}, got {show(path)}")
    if path not in files:
        fail(at, f"must be listed in $.files, got {show(path)}")


def _check_tensors(tensors: list[dict[str, Any]], at: str) -> None:
    names = [tensor["name"] for tensor in tensors]
    if len(set(names)) != len(names):
        fail(at, f"must have distinct names, got {show(names)}")
    for i, tensor in enumerate(tensors):
        low, high = tensor.get("range", (0, 1))
        if low >= high:
            fail(f"{at}[{i}].range", f"must be [low, high] with low < high, got [{low}, {high}]")
