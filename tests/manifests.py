"""A whole manifest and its files, for the tests of bundles."""

from __future__ import annotations

import copy
from typing import Any

FRAMES = {"name": "frames", "dtype": "uint8", "shape": ["N", "H", "W", 3], "range": [0, 255]}
UPSCALED = {"name": "upscaled", "dtype": "uint8", "shape": ["N", "2*H", "2*W", 3]}

MANIFEST: dict[str, Any] = {
    "name": "upscaler-test-x2",
    "task": "upscaler",
    "description": "Doubles frames.\nFor tests.",
    "licence": "Apache-2.0",
    "precision": "float16",
    "scale": 2,
    "provenance": {
        "weights": "drawn at random",
        "training_data": ["none"],
        "exporter": "tests",
        "command": "pytest",
        "created": "2026-11-20",
        "settings": {"steps": 10, "rate": 1e-3, "seeded": True, "loss": ""},
    },
    "credits": [{"name": "A. Author", "licence": "CC0-1.0", "source": "a list", "notice": "n"}],
    "graphs": {
        "upscale": {
            "file": "upscale.onnx",
            "external_data": ["weights/upscale.data"],
            "inputs": [FRAMES],
            "outputs": [UPSCALED],
        }
    },
    "size_rule": {"minimum": 4, "multiple_of": 2, "padding": "edge", "maximum": 4096},
    "scheduler": {"kind": "euler", "steps": 4},
    "quality": [{"metric": "PSNR", "data": "noise", "value": 31.5, "unit": "dB"}],
    "fidelity": [
        {
            "graph": "upscale",
            "output": "upscaled",
            "data": "noise",
            "psnr": 61.5,
            "max_error": 1,
            "unit": "levels",
            "cosine": 0.99998,
        }
    ],
    "precisions": [
        {
            "precision": "bfloat16",
            "backend": "openvino",
            "loss": 0.02,
            "speed": 1.7,
            "processor": "avx512_bf16",
            "data": "2 pictures of noise",
            "psnr": 58.2,
            "version": "2026.4.1",
        }
    ],
}
GENERATION: dict[str, Any] = {
    "height": 64,
    "width": 64,
    "num_frames": 17,
    "max_num_frames": 65,
    "frame_rate": 12.5,
    "num_inference_steps": 4,
    "guidance_scale": 1,
    "max_prompt_tokens": 32,
    "latent_channels": 16,
    "spatial_compression": 8,
    "temporal_compression": 4,
}
FILES = {"upscale.onnx": b"graph", "weights/upscale.data": bytes(100), "README.md": b"text"}


def whole() -> dict[str, Any]:
    specs = {name: {"sha256": "0" * 64, "size": len(data)} for name, data in FILES.items()}
    return copy.deepcopy({"format_version": 1, **MANIFEST, "files": specs})


UNSAFE_NAMES = [
    "../upscale.onnx",
    "a/../../upscale.onnx",
    "/etc/passwd.txt",
    "./upscale.onnx",
    "a//upscale.onnx",
    "upscale.onnx/",
    "C:\\x.onnx",
    "C:x.onnx",
    "\\\\server\\x.onnx",
    "a\\..\\x.onnx",
    "CON.onnx",
    "nul.txt",
    "sub/aux.data",
    "a\u0301.onnx",
    "\u00e1.onnx",
    "x" * 200 + ".onnx",
    "a/b/c/d/e.onnx",
    ".hidden.onnx",
    "..onnx",
    "*/_ORT_MEM_ADDR_/*",
    "x.onnx ",
    " x.onnx",
    "x.pt",
    "x.pth",
    "x.PT",
    "x.pkl",
    "x.npy",
    "x.engine",
    "x.plan",
    "x.so",
    "x.py",
    "x",
]

DELETE = object()


def changed(path: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    manifest = whole()
    node: Any = manifest
    for key in path[:-1]:
        node = node[key]
    if value is DELETE:
        del node[path[-1]]
    else:
        node[path[-1]] = value
    return manifest
