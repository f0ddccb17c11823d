"""The format of `bundle.json`: the validator and the published schema give one verdict."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from manifests import DELETE, FRAMES, GENERATION, UNSAFE_NAMES, UPSCALED, changed, whole

import fastvid
from fastvid import _manifest
from fastvid.errors import (
    ModelError,
)

SCHEMA = json.loads((Path(fastvid.__file__).parent / "bundle.schema.json").read_text())


def _ecma_pattern(validator: Any, pattern: str, value: Any, schema: Any) -> Any:
    # Python's `$` also matches before a final newline; that of JSON Schema does not.
    if isinstance(value, str) and not re.search(re.sub(r"\$(\)?)$", r"\\Z\1", pattern), value):
        yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")


_VALIDATOR = jsonschema.validators.extend(
    jsonschema.Draft202012Validator, {"pattern": _ecma_pattern}
)(SCHEMA)

# The format: one table for the validator and for the published schema


BAD: list[tuple[tuple[str | int, ...], Any]] = [
    (("format_version",), DELETE),
    (("format_version",), 0),
    (("format_version",), True),
    (("format_version",), "1"),
    (("unknown",), 1),
    (("name",), DELETE),
    (("name",), "Upper"),
    (("name",), ""),
    (("name",), "a" * 65),
    (("name",), "a/b"),
    (("name",), "a\n"),
    (("task",), "classifier"),
    (("task",), None),
    (("task",), "interpolator"),
    (("description",), ""),
    (("description",), "\x1b[2J"),
    (("description",), "x" * 4097),
    (("licence",), 3),
    (("scale",), DELETE),
    (("scale",), 0),
    (("scale",), 17),
    (("scale",), 2.5),
    (("scale",), True),
    (("requires_fastvid",), "new"),
    (("requires_fastvid",), "1.0\n"),
    (("provenance",), DELETE),
    (("provenance",), []),
    (("provenance", "weights"), DELETE),
    (("provenance", "created"), "yesterday"),
    (("provenance", "training_data"), "one"),
    (("provenance", "training_data"), [1]),
    (("provenance", "settings", "bad key"), 1),
    (("provenance", "settings", "nested"), {"a": 1}),
    (("provenance", "settings", "nothing"), None),
    (("provenance", "extra"), 1),
    (("credits", 0, "name"), DELETE),
    (("credits", 0, "extra"), ""),
    (("credits",), {}),
    (("graphs",), {}),
    (("graphs",), []),
    (("graphs", "upscale"), DELETE),
    (("graphs", "upscale", "file"), DELETE),
    (("graphs", "upscale", "file"), 7),
    (("graphs", "upscale", "external_data"), "x.data"),
    (("graphs", "upscale", "provider_options"), {}),
    (("graphs", "upscale", "inputs"), []),
    (("graphs", "upscale", "inputs", 0, "dtype"), "complex64"),
    (("graphs", "upscale", "inputs", 0, "dtype"), ["uint8"]),
    (("graphs", "upscale", "inputs", 0, "shape"), ["N", "H", "W", 0]),
    (("graphs", "upscale", "inputs", 0, "shape"), ["N", "H", "W", -1]),
    (("graphs", "upscale", "inputs", 0, "shape"), ["N"] * 9),
    (("graphs", "upscale", "inputs", 0, "shape"), ["0*N"]),
    (("graphs", "upscale", "inputs", 0, "shape"), ["H+1"]),
    (("graphs", "upscale", "inputs", 0, "shape"), [None]),
    (("graphs", "upscale", "inputs", 0, "shape"), [1 << 32]),
    (("graphs", "upscale", "inputs", 0, "range"), [0]),
    (("graphs", "upscale", "inputs", 0, "range"), [0, 1, 2]),
    (("graphs", "upscale", "inputs", 0, "range"), [0, "1"]),
    (("graphs", "upscale", "inputs", 0, "range"), [0, 1e31]),
    (("graphs", "upscale", "inputs", 0, "name"), "a b"),
    (("graphs", "upscale", "outputs", 0), DELETE),
    (("size_rule",), DELETE),
    (("size_rule", "minimum"), 0),
    (("size_rule", "multiple_of"), "2"),
    (("size_rule", "padding"), "zero"),
    (("size_rule", "maximum"), 1 << 17),
    (("scheduler", "kind"), [1]),
    (("generation",), GENERATION),
    (("tiling",), {"reach": 12, "exact": True}),
    (("tiling",), {"reach": -1, "multiple_of": 1, "exact": True}),
    (("tiling",), {"reach": 12, "multiple_of": 0, "exact": True}),
    (("tiling",), {"reach": 12, "multiple_of": 8, "exact": 1}),
    (("tiling",), {"reach": 12, "multiple_of": 8, "exact": True, "more": 1}),
    (("quality", 0, "value"), "31"),
    (("quality", 0, "value"), True),
    (("quality", 0, "data"), DELETE),
    (("precision",), "double"),
    (("precision",), None),
    (("fidelity",), {}),
    (("fidelity", 0, "graph"), DELETE),
    (("fidelity", 0, "unit"), "dB"),
    (("fidelity", 0, "cosine"), None),
    (("fidelity", 0, "psnr"), "61"),
    (("fidelity", 0, "extra"), 1),
    (("precisions",), {}),
    (("precisions", 0, "precision"), "fast"),
    (("precisions", 0, "backend"), "tensorrt"),
    (("precisions", 0, "loss"), DELETE),
    (("precisions", 0, "speed"), "2x"),
    (("precisions", 0, "processor"), ""),
    (("precisions", 0, "psnr"), None),
    (("precisions", 0, "extra"), 1),
    (("files",), {}),
    (("files", "README.md", "sha256"), "0" * 63),
    (("files", "README.md", "sha256"), "G" * 64),
    (("files", "README.md", "size"), -1),
    (("files", "README.md", "size"), 1.5),
    (("files", "README.md", "mode"), 1),
    *((("files", name), {"sha256": "0" * 64, "size": 1}) for name in UNSAFE_NAMES),
]

GOOD: list[tuple[tuple[str | int, ...], Any]] = [
    (("tiling",), {"reach": 12, "multiple_of": 8, "exact": False}),
    (("scale",), 3.0),
    (("requires_fastvid",), "0.1"),
    (("credits",), DELETE),
    (("quality",), []),
    (("precision",), DELETE),
    (("precision",), "int8"),
    (("fidelity",), DELETE),
    (("fidelity", 0, "psnr"), DELETE),
    (("precisions",), DELETE),
    (("precisions",), []),
    (("precisions", 0, "psnr"), DELETE),
    (("precisions", 0, "version"), DELETE),
    (("scheduler",), DELETE),
    (("size_rule", "maximum"), DELETE),
    (("graphs", "upscale", "external_data"), DELETE),
    (("graphs", "upscale", "inputs", 0, "shape"), []),
    (("graphs", "upscale", "inputs", 0, "range"), DELETE),
    (("graphs", "other"), {"file": "upscale.onnx", "inputs": [FRAMES], "outputs": [UPSCALED]}),
    (("files", "tokenizer.json"), {"sha256": "0" * 64, "size": 1}),
    (("description",), "Größe \U0001f3ac\tand\nmore"),
]


def _verdict(manifest: Any) -> bool:
    try:
        _manifest.check(manifest)
    except ModelError:
        return False
    return True


def _case_id(value: Any) -> str:
    if isinstance(value, tuple):
        return ".".join(map(str, value))[:60]
    return "absent" if value is DELETE else ascii(value)[:24]


def test_schema_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(("path", "value"), BAD, ids=_case_id)
def test_bad_manifest_is_refused_by_validator_and_schema(
    path: tuple[str | int, ...], value: Any
) -> None:
    manifest = changed(path, value)
    assert not _VALIDATOR.is_valid(manifest)
    with pytest.raises(ModelError, match=r"bundle\.json: \$"):
        _manifest.check(manifest)


@pytest.mark.parametrize(("path", "value"), GOOD, ids=_case_id)
def test_good_manifest_is_accepted_by_validator_and_schema(
    path: tuple[str | int, ...], value: Any
) -> None:
    manifest = changed(path, value)
    _manifest.check(manifest)
    assert _VALIDATOR.is_valid(manifest)


def _generator(**settings: Any) -> dict[str, Any]:
    manifest = whole() | {"task": "generator", "generation": GENERATION | settings}
    del manifest["scale"]
    return manifest


@pytest.mark.parametrize(
    ("settings", "good"),
    [
        ({}, True),
        ({"frame_rate": 24, "guidance_scale": 7.5}, True),
        ({"num_frames": 0}, False),
        ({"num_frames": "17"}, False),
        ({"height": 1 << 17}, False),
        ({"frame_rate": "8"}, False),
        ({"num_inference_steps": 10_001}, False),
        ({"latent_channels": 0.5}, False),
        ({"colour": 1}, False),
    ],
)
def test_settings_of_a_generator_are_checked(settings: dict[str, Any], good: bool) -> None:
    manifest = _generator(**settings)
    assert _VALIDATOR.is_valid(manifest) == good
    assert _verdict(manifest) == good


def test_only_upscalers_are_cut() -> None:
    manifest = _generator() | {"tiling": {"reach": 12, "multiple_of": 8, "exact": True}}
    assert not _VALIDATOR.is_valid(manifest)
    assert not _verdict(manifest)


def test_every_setting_of_a_generator_must_be_there() -> None:
    for name in GENERATION:
        manifest = _generator()
        manifest["generation"] = {k: v for k, v in GENERATION.items() if k != name}
        assert not _VALIDATOR.is_valid(manifest)
        assert not _verdict(manifest)


_LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-2, 20)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["upscaler", "interpolator", "generator", "uint8", "edge", "2*H", "a.onnx"])
)
_VALUES = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


def _nodes(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a JSON value."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    found = [(value, key) for key, _ in pairs]
    for _, child in pairs:
        if isinstance(child, dict | list):
            found += _nodes(child)
    return found


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_validator_and_schema_agree_on_mutations(data: st.DataObject) -> None:
    manifest = whole()
    for _ in range(data.draw(st.integers(1, 3))):
        node, key = data.draw(st.sampled_from(_nodes(manifest)))
        kind = data.draw(st.sampled_from(["replace", "delete", "rename", "append"]))
        if kind == "replace":
            node[key] = data.draw(_VALUES)
        elif kind == "delete":
            del node[key]
        elif kind == "append" and isinstance(node, list):
            node.append(data.draw(_VALUES))
        elif isinstance(node, dict):
            node[data.draw(st.text(max_size=12))] = node.pop(key)
        if not _nodes(manifest):
            break
    assert _verdict(manifest) == _VALIDATOR.is_valid(manifest)


@pytest.mark.parametrize(("key", "message"), [("graph", "must be one of"), ("output", "upscaled")])
def test_fidelity_names_what_there_is(key: str, message: str) -> None:
    manifest = changed(("fidelity", 0, key), "other")
    with pytest.raises(ModelError, match=rf"fidelity\[0\]\.{key} .*{message}.*got 'other'"):
        _manifest.check_references(manifest)
