"""Damaged folders of diffusers by the command: one line that says why, and nothing left behind."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")


from fastvid.cli import main  # noqa: E402
from fastvid_export import large_graphs, weight_store, weight_writer  # noqa: E402
from fastvid_export.large_graphs import LargeGraph  # noqa: E402
from fastvid_export.weight_files import WeightFiles  # noqa: E402

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
FIRST = "blocks.0.attn1.to_q.weight"
Damage = Callable[[Path], Any]


def refused(
    capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str, code: int, says: list[str]
) -> None:
    """By one line that says what is wrong, and with nothing new beside the folder."""
    before = sorted(path.name for path in folder.parent.iterdir())
    out = folder.parent / "made"
    capsys.readouterr()
    assert main(["export", str(folder), "--out", str(out), "--quiet", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[0].startswith("fastvid: error: ")
    assert all(line.startswith("hint: ") for line in lines[1:])
    for text in says:
        assert text in captured.err
    assert sorted(path.name for path in folder.parent.iterdir()) == before


def tensors(path: Path) -> dict[str, Any]:
    files = WeightFiles.open(path)
    return {name: files.read(name).clone() for name in files.names}


def save(path: Path, values: dict[str, Any]) -> None:
    shapes = {name: (value.dtype, tuple(value.shape)) for name, value in values.items()}
    weight_writer.write(path, shapes, values.__getitem__)


def change(folder: Path, **values: Any) -> None:
    """Tensors of the transformer; None takes one away."""
    merged = {**tensors(folder / WEIGHTS), **values}
    save(folder / WEIGHTS, {name: value for name, value in merged.items() if value is not None})


def shards(folder: Path, **extra: Any) -> Path:
    """The transformer in two files with an index; the first also holds `extra`."""
    values = tensors(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    names = sorted(values)
    half = len(names) // 2
    places = {}
    for number, part in enumerate((names[:half], names[half:])):
        file = f"model-{number}.safetensors"
        more = extra if number == 0 else {}
        save(folder / "transformer" / file, {**{name: values[name] for name in part}, **more})
        places |= dict.fromkeys(part, file)
    index = folder / "transformer" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


def a_shard_is_missing(folder: Path) -> None:
    shards(folder)
    (folder / "transformer" / "model-1.safetensors").unlink()


def a_shard_is_cut(folder: Path) -> None:
    shards(folder)
    path = folder / "transformer" / "model-1.safetensors"
    os.truncate(path, path.stat().st_size - 7)


def the_index_names_tensors_that_are_nowhere(folder: Path) -> None:
    index = shards(folder)
    value = json.loads(index.read_text())
    value["weight_map"] |= {"one.more": "model-0.safetensors", "two.more": "model-1.safetensors"}
    index.write_text(json.dumps(value))


def a_tensor_is_in_two_shards(folder: Path) -> None:
    shards(folder, scale_shift_table=torch.zeros(1))


def tensors_overlap(folder: Path) -> None:
    path = folder / WEIGHTS
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    names = sorted(set(header) - {"__metadata__"}, key=lambda n: header[n]["data_offsets"])
    before, after = next(
        (a, b) for a, b in itertools.pairwise(names) if header[a]["shape"] == header[b]["shape"]
    )
    header[after]["data_offsets"] = header[before]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def keys_are_others(folder: Path) -> None:
    change(
        folder,
        **{FIRST: None, "proj_out.bias": None, "a.one": torch.zeros(1), "b.two": torch.zeros(1)},
    )


def weights_are_whole_numbers(folder: Path) -> None:
    change(folder, **{FIRST: torch.zeros(24, 24, dtype=torch.int32)})


def a_dtype_is_unknown(folder: Path) -> None:
    data = (folder / WEIGHTS).read_bytes().replace(b'"F32"', b'"F99"', 1)
    (folder / WEIGHTS).write_bytes(data)


def a_pickle_has_the_name_of_weights(folder: Path) -> None:
    torch.save({"x": torch.zeros(1)}, folder / WEIGHTS)


def there_is_only_a_pickle(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    torch.save({"x": torch.zeros(1)}, folder / "transformer" / "diffusion_pytorch_model.bin")


def configure(file: str, **values: Any) -> Damage:
    def damage(folder: Path) -> None:
        config = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**config, **values}))

    return damage


def write(file: str, text: str) -> Damage:
    return lambda folder: (folder / file).write_text(text)


@pytest.mark.parametrize(
    ("damage", "code", "says"),
    [
        (a_shard_is_missing, 2, ["names files that are not there: model-1", "download is incompl"]),
        (a_shard_is_cut, 2, ["model-1.safetensors must have", "download is incomplete"]),
        (the_index_names_tensors_that_are_nowhere, 2, ["do not hold: one.more, two.more"]),
        (a_tensor_is_in_two_shards, 2, ["'scale_shift_table' must be in", "model-0"]),
        (tensors_overlap, 2, ["overlaps"]),
        (keys_are_others, 2, [FIRST, "proj_out.bias", "unexpected: a.one, b.two"]),
        (weights_are_whole_numbers, 2, [f"dtypes: {FIRST} int32"]),
        (a_dtype_is_unknown, 2, ["got dtype 'F99'"]),
        (a_pickle_has_the_name_of_weights, 2, ["got a pickle", "safetensors"]),
        (there_is_only_a_pickle, 2, ["got a pickle", "safetensors"]),
        (configure("model_index.json", _class_name="Flux"), 2, ["'Flux'", "WanPipeline, "]),
        (configure("model_index.json", _class_name=7), 2, ["_class_name", "got '7'"]),
        (write("model_index.json", "{"), 2, ["model_index.json is not JSON"]),
        (write("vae/config.json", "[]"), 2, ["vae/config.json must hold an object"]),
        (configure("scheduler/scheduler_config.json", thresholding=True), 2, ["thresholding must"]),
        (configure("transformer/config.json", magic=1), 2, ["got magic=1"]),
    ],
)  # fmt: skip
def test_damaged_folders_are_refused(capsys, folder, damage, code, says):
    damage(folder)
    refused(capsys, folder, code=code, says=says)


@pytest.mark.parametrize(
    ("name", "make", "says"),
    [
        ("none.safetensors", lambda path: None, ["none.safetensors", "there is none"]),
        ("odd.safetensors", lambda path: save(path, {"x.lora_A.weight": torch.zeros(2, 3),
                                                     "y.magic": torch.zeros(1)}),
         ["unknown: x.lora_A.weight, y.magic"]),
        ("p.safetensors", lambda path: torch.save({}, path), ["got a pickle"]),
    ],
)  # fmt: skip
def test_lora_files_that_do_not_fit_are_refused(capsys, folder, tmp_path, name, make, says):
    make(tmp_path / name)
    refused(capsys, folder, "--lora", str(tmp_path / name), code=2, says=says)


def test_components_of_lora_files_must_be_there(capsys, folder, tmp_path):
    save(tmp_path / "x.safetensors", {"x": torch.zeros(1)})
    argument = f"transformer_2={tmp_path / 'x.safetensors'}"
    refused(capsys, folder, "--lora", argument, code=2, says=["got 'transformer_2'"])


@pytest.fixture
def untraced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Exports that take no time: weights are written, graphs are nothing. Names in their order."""
    seen: list[str] = []

    def export(plan: Any, weights: Any, names: Any, store: Any, **_: Any) -> LargeGraph:
        seen.append(plan.name)
        name = next(iter(names.values()))
        store.require_disk(weights.spec(name).nbytes, plan.name)
        place = store.write(plan.name, weights.read(name))
        return LargeGraph(plan, b"nothing", (place.location,), ())

    monkeypatch.setattr(large_graphs, "export", export)
    return seen


def test_a_disk_that_is_too_small_is_found_out(capsys, folder, untraced, monkeypatch):
    usage = shutil.disk_usage(folder)._replace(free=1000)
    monkeypatch.setattr(weight_store.shutil, "disk_usage", lambda path: usage)
    refused(capsys, folder, code=7, says=["GB of disk, 0.00 GB are free", "--output on another"])


def test_a_disk_that_fills_up_leaves_nothing(capsys, folder, untraced, monkeypatch):
    append = weight_store.WeightStore.append

    def full(self: Any, graph: str, *rest: Any) -> Any:
        if graph == "transformer":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return append(self, graph, *rest)

    monkeypatch.setattr(weight_store.WeightStore, "append", full)
    refused(capsys, folder, code=7, says=["No space left"])
    assert untraced == ["text_encoder", "transformer"]


def test_an_export_that_was_interrupted_starts_clean(capsys, folder, untraced, monkeypatch):
    counted = large_graphs.export
    stopped = []

    def interrupted(plan: Any, *rest: Any, **more: Any) -> LargeGraph:
        made = counted(plan, *rest, **more)
        if plan.name == "transformer" and not stopped:
            stopped.append(plan.name)
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(large_graphs, "export", interrupted)
    command = ["export", str(folder), "--out", str(folder.parent / "made"), "--quiet"]
    assert main(command) == 130
    assert "interrupted" in capsys.readouterr().err
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    assert main(command) == 0
    assert sorted(path.name for path in folder.parent.iterdir()) == ["made", "model"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_middle_leaves_nothing(folder, number):
    command = [sys.executable, "-m", "fastvid", "export", str(folder), "--precision", "int8"]
    command += ["--out", str(folder.parent / "made")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "exporting transformer" in line:
                process.send_signal(number)
                break
        rest = process.stderr.read()
        assert process.wait() == (130 if number == signal.SIGINT else 143), rest
    assert "Traceback" not in rest
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
