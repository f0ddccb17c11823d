"""Super-resolution checkpoints of others: what is read, that it stays the same, what is refused."""

from __future__ import annotations

import importlib.util
import os
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

import spandrel_networks
import torch

from fastvid import Upscaler, cli
from fastvid._tiles import equal_spans
from fastvid.backends._protobuf import varint
from fastvid.errors import InputError
from fastvid.scene import Scene
from fastvid_export import frozen_graphs, importers, onnx, state_dicts, upscaler_bundles
from fastvid_export.errors import CheckpointError, ExportError
from fastvid_export.foreign_graphs import OnnxFlags
from fastvid_export.importers import ImportOptions, spandrel, upscalers
from fastvid_export.models import efdn, espcn, folding, fsrcnn, rlfn
from fastvid_export.models import span as span_model

WEIGHTS = Path(__file__).parents[3] / "shared" / "data" / "weights"
needs_weights = pytest.mark.skipif(not WEIGHTS.is_dir(), reason="published weights are not here")
needs_spandrel = pytest.mark.skipif(
    importlib.util.find_spec("spandrel") is None, reason="spandrel is not installed"
)


def quiet(line: str) -> None:
    pass


def seeded(module: Any) -> dict[str, Any]:
    """A state dict of small random weights."""
    generator = torch.Generator().manual_seed(0)
    return {
        name: 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in module.state_dict().items()
    }


def trained_span(channels: int) -> dict[str, Any]:
    """A SPAN checkpoint in the layout of its training: four convolutions in each place of one."""
    folded = span_model.Span(span_model.SpanOptions(channels, channels, 2)).state_dict()
    state: dict[str, Any] = {}
    for name, value in folded.items():
        base, _, kind = name.rpartition(".eval_conv.")
        state[name] = torch.zeros_like(value)  # out of date, as in real files
        if base and kind == "weight":
            outputs, inputs = value.shape[:2]
            sizes = {"sk": (outputs, inputs, 1), "conv.0": (2 * inputs, inputs, 1)}
            sizes |= {"conv.1": (2 * outputs, 2 * inputs, 3), "conv.2": (outputs, 2 * outputs, 1)}
            for part, (o, i, side) in sizes.items():
                state[f"{base}.{part}.weight"] = torch.empty(o, i, side, side)
                state[f"{base}.{part}.bias"] = torch.empty(o)
    generator = torch.Generator().manual_seed(1)
    return {
        name: value
        if ".eval_conv." in name
        else 0.2 * torch.randn(value.shape, generator=generator)
        for name, value in state.items()
    }


TINY = {
    "RLFN": lambda: seeded(rlfn.Rlfn(rlfn.RlfnOptions(8, 12, 2, 4, 2))),
    "SPAN": lambda: trained_span(8),
    "EFDN": lambda: seeded(efdn.Efdn(efdn.EfdnOptions(8, 4, 3))),
    "FSRCNN": lambda: seeded(fsrcnn.Fsrcnn(fsrcnn.FsrcnnOptions(8, 4, 2, 3))),
    "ESPCN": lambda: seeded(espcn.Espcn(espcn.EspcnOptions((8, 4), 2))),
}


def saved(state: Any, path: Path) -> Path:
    torch.save(state, path)
    return path


# Import, export, run


@pytest.mark.parametrize("name", TINY)
def test_networks_come_out_as_their_source(name, tmp_path):
    state = TINY[name]()
    wrapped = {"params": {k: torch.zeros_like(v) for k, v in state.items()}, "params_ema": state}
    path = saved(wrapped, tmp_path / f"{name.lower()}.pth")
    assert importers.find(path) is upscalers
    flags = OnnxFlags(scale=3) if name == "FSRCNN" else OnnxFlags()
    bundle = upscalers.build(path, tmp_path / "out", ImportOptions("tiny", flags), quiet)
    figures = {f.metric: f.value for f in bundle.quality}
    assert figures["PSNR against PyTorch"] >= 60
    assert bundle.provenance.settings["architecture"] == name
    frame = Scene(70, 64, seed=1).draw(0.5)
    scale = bundle.scale
    made = Upscaler(bundle.path, scale=scale, threads=1, device="cpu").upscale_frame(frame)
    assert made.shape == (64 * scale, 70 * scale, 3)


@needs_spandrel
@pytest.mark.parametrize("scale", [1, 2])
def test_spandrels_networks_come_out_as_their_source(scale, tmp_path):
    with spandrel._torchvision():
        from spandrel.architectures.Compact import Compact
        from spandrel.architectures.DnCNN import DnCNN
    network = Compact(num_feat=8, num_conv=2, upscale=2)
    if scale == 1:
        network = DnCNN(in_nc=3, out_nc=3, nc=8, nb=8, act_mode="R")
    path = saved(seeded(network), tmp_path / "network.pth")
    assert importers.find(path) is spandrel
    bundle = spandrel.build(path, tmp_path / "out", ImportOptions("tiny"), quiet)
    assert bundle.scale == scale
    frame = Scene(70, 64, seed=1).draw(0.5)
    made = Upscaler(bundle.path, scale=scale, threads=1, device="cpu").upscale_frame(frame)
    assert made.shape == (64 * scale, 70 * scale, 3)


@needs_spandrel
def test_networks_that_fix_sizes_run_in_pieces(tmp_path):
    """SwinIR's masks are computed in Python for a size; pieces are spandrel's network on them."""
    state = spandrel_networks.state("SwinIR")
    path = saved(state, tmp_path / "network.pth")
    flags = OnnxFlags(tile=64)
    bundle = spandrel.build(path, tmp_path / "out", ImportOptions("tiny", flags), quiet)
    assert bundle.graphs["upscale"].inputs[0].shape == (1, 64, 64, 3)
    frame = Scene(101, 90, seed=1).draw(0.5)
    net = spandrel._network(spandrel._described(state, path), path, 64)
    with Upscaler(bundle.path, threads=1, device="cpu") as model:
        made = model.upscale_frame(frame)
        height, width = model._padded(90, 101)
        padded = np.pad(frame, ((0, height - 90), (0, width - 101), (0, 0)), "reflect")
        worst = 0.0
        for rows in equal_spans(height, 64, *model._reach):
            for span in equal_spans(width, 64, *model._reach):
                piece = padded[rows.first : rows.last, span.first : span.last]
                planes = torch.from_numpy(piece.copy()).permute(2, 0, 1)[None].float() / 255
                large = net.source(planes).clamp(0, 1)[0].permute(1, 2, 0).numpy() * 255
                top, left = 2 * (rows.begin - rows.first), 2 * (span.begin - span.first)
                there = made[2 * rows.begin : 2 * rows.end, 2 * span.begin : 2 * span.end]
                part = large[top:, left:][: there.shape[0], : there.shape[1]]
                worst = max(worst, float(np.abs(part - there).max()))
    assert worst <= 0.51


@needs_spandrel
@pytest.mark.parametrize(("tile", "least"), [(8, 16), (40, 16)])
def test_tiles_must_fit_the_network(tile, least, tmp_path):
    path = saved(spandrel_networks.state("SAFMNBCIE"), tmp_path / "network.pth")
    options = ImportOptions("tiny", OnnxFlags(tile=tile))
    with pytest.raises(InputError, match=f"tile: argument must be at least {least} and a multiple"):
        spandrel.build(path, tmp_path / "out", options, quiet)


@needs_spandrel
def test_the_table_lists_what_spandrel_knows():
    listed = {one.name for one in spandrel.ARCHITECTURES}
    assert listed | {"SPAN"} == set(spandrel_networks.architectures())
    assert {name.partition("_")[0] for name in spandrel_networks.OPTIONS} >= listed - {"PLKSR"}


@needs_spandrel
def test_folded_span_is_spandrels():
    with spandrel._torchvision():
        import spandrel as package
    state = trained_span(8)
    theirs = package.MAIN_REGISTRY.load(dict(state)).model.eval()
    ours = upscalers._span(state, ImportOptions("x"))
    x = torch.rand(1, 3, 20, 24, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        wanted, got = theirs(x), ours.source(x)
    assert (got - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_folding_is_three_convolutions_in_float64():
    generator = torch.Generator().manual_seed(3)
    shapes = ((6, 3, 1, 1), (5, 6, 3, 3), (4, 5, 1, 1))
    layers = [
        (torch.randn(s, generator=generator), torch.randn(s[0], generator=generator))
        for s in shapes
    ]
    x = torch.randn(1, 3, 9, 9, generator=generator, dtype=torch.float64)
    wanted = x
    for weight, bias in layers:
        wanted = torch.nn.functional.conv2d(wanted, weight.double(), bias.double())
    got = torch.nn.functional.conv2d(x, *folding.chain_1x1_3x3_1x1(*layers))
    assert (got - wanted).abs().max() < 1e-10


def test_command_makes_a_bundle_that_the_sdk_runs(tmp_path, capsys):
    path = saved(TINY["ESPCN"](), tmp_path / "My ESPCN.pth")
    assert cli.main(["export", str(path), "--out", str(tmp_path / "small"), "--quiet"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "small")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["My ESPCN.pth", "small"]


# Published weights


@needs_weights
@pytest.mark.parametrize(
    ("file", "name", "parameters", "scale"),
    [
        ("rlfn/rlfn_s_x2.pth", "RLFN", 454_620, 2),
        ("rlfn/rlfn_s_x4.pth", "RLFN", 470_208, 4),
        ("rlfn/rlfn_ntire_x4.pth", "RLFN", 317_218, 4),
        ("span_ntire2025/team51_span.pth", "SPAN", 146_328, 4),
        ("span_ntire2025/team00_EFDN.pth", "EFDN", 276_192, 4),
    ],
)
def test_published_files_are_known_by_their_weights(file, name, parameters, scale):
    path = WEIGHTS / file
    assert importers.find(path) is upscalers
    state = state_dicts.read(path)
    kind = upscalers._find(state.keys())
    network = kind.make(state, ImportOptions("x"))
    assert (network.name, network.scale) == (name, scale)
    assert f" {parameters} parameters" in network.description
    picture = torch.from_numpy(Scene(80, 64, seed=2).draw(0.5)[None])
    x = picture.permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        large = network.source(x)
    # Halving what a network enlarged gives the picture again, nearly.
    small = torch.nn.functional.avg_pool2d(large, scale)
    assert (small - x).square().mean().log10() * -10 > 24


@needs_weights
@pytest.mark.parametrize("name", ["FSRCNN_x2", "FSRCNN-small_x4", "ESPCN_x3"])
def test_frozen_graphs_hold_what_was_converted_from_them(name):
    folder = "espcn_pb" if name.startswith("ESPCN") else "fsrcnn_pb"
    graph = frozen_graphs.read(WEIGHTS / folder / f"{name}.pb")
    with np.load(WEIGHTS / "converted" / f"{name}.npz") as archive:
        assert sorted(graph.constants) == sorted(archive.files)
        assert all(np.array_equal(graph.constants[k], archive[k]) for k in archive.files)
    network = upscalers._from_constants(WEIGHTS / folder / f"{name}.pb")
    assert network.scale == int(name[-1])
    flat = torch.full((1, 1, 24, 24), 0.5)
    with torch.no_grad():
        middle = network.source(flat)[..., 20:-20, 20:-20]
    assert (middle - 0.5).abs().max() < 0.05


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def constant(name: str, value: np.ndarray, *, as_numbers: bool = False) -> bytes:
    """A Const node of a GraphDef."""
    dims = b"".join(message(2, varint(1 << 3) + varint(size)) for size in value.shape)
    data = value.astype("<f4").tobytes()
    tensor = varint(1 << 3) + varint(1) + message(2, dims) + message(5 if as_numbers else 4, data)
    attribute = message(1, b"value") + message(2, message(8, tensor))
    return message(1, message(1, name.encode()) + message(2, b"Const") + message(5, attribute))


def test_frozen_graphs_of_any_encoding_are_read(tmp_path):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((3, 3, 1, 2)).astype(np.float32)
    nodes = constant("f1", kernel) + constant("b1", np.ones(2), as_numbers=True)
    nodes += constant("half", np.float32(0.5))
    nodes += message(1, message(1, b"conv1") + message(2, b"Conv2D"))
    (tmp_path / "x.pb").write_bytes(nodes)
    graph = frozen_graphs.read(tmp_path / "x.pb")
    assert np.array_equal(graph.constants["f1"], kernel)
    assert graph.constants["b1"].tolist() == [1, 1]
    assert graph.scalars == {"half": 0.5}
    assert graph.operators == ("Conv2D",)


# Bad input


class Attack:
    """Unpickling it would make a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("legacy", [False, True])
def test_pickles_with_code_are_refused_and_not_run(legacy, tmp_path, capsys):
    path, proof = tmp_path / "evil.pth", tmp_path / "proof"
    torch.save({"a": Attack(proof)}, path, _use_new_zipfile_serialization=not legacy)
    assert cli.main(["export", str(path), "--out", str(tmp_path / "out")]) == InputError.exit_code
    assert "code in it is not run" in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["evil.pth"]
    path.write_bytes(pickle.dumps(Attack(proof)))
    with pytest.raises(CheckpointError):
        state_dicts.read(path)
    assert not proof.exists()


def test_damaged_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    state = TINY["ESPCN"]()
    whole = saved(state, tmp_path / "a.pth").read_bytes()
    save_file(state, tmp_path / "a.safetensors")
    safe = (tmp_path / "a.safetensors").read_bytes()
    for suffix, data in ((".pth", whole), (".safetensors", safe)):
        for size in (0, 7, 100, len(data) // 2, len(data) - 1):
            path = tmp_path / f"cut{suffix}"
            path.write_bytes(data[:size])
            with pytest.raises(CheckpointError, match="cannot be read"):
                state_dicts.read(path)
            assert importers.find(path) in (upscalers, spandrel)


@pytest.mark.parametrize("content", [{"epoch": 3}, {"weights": [1, 2]}, [1, 2], {}])
def test_files_without_weights_are_refused(content, tmp_path):
    with pytest.raises(CheckpointError, match="must hold tensors by name"):
        state_dicts.read(saved(content, tmp_path / "x.pth"))


def test_every_key_that_does_not_fit_is_listed(tmp_path):
    state = TINY["RLFN"]()
    state["block_2.c2_r.other"] = state.pop("block_2.c2_r.bias")
    state["block_1.c5.weight"] = torch.zeros(8, 8, 3, 3)
    del state["conv_2.weight"]
    path = saved(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError) as caught:
        upscalers.build(path, tmp_path / "out", ImportOptions("x"), quiet)
    text = caught.value.message
    assert "missing: block_2.c2_r.bias, conv_2.weight;" in text
    assert "unexpected: block_2.c2_r.other;" in text
    assert "block_1.c5.weight [8, 8, 3, 3] instead of [8, 8, 1, 1]" in text
    assert not (tmp_path / "out").exists()


def test_blocks_are_numbered_without_gaps(tmp_path):
    state = {k.replace("block_2", "block_4"): v for k, v in TINY["RLFN"]().items()}
    path = saved(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="numbered without gaps"):
        upscalers.build(path, tmp_path / "out", ImportOptions("x"), quiet)


@needs_spandrel
def test_unknown_networks_are_refused_with_their_names(tmp_path, capsys):
    path = saved({"encoder.odd.weight": torch.zeros(3)}, tmp_path / "x.pth")
    assert cli.main(["export", str(path)]) == InputError.exit_code
    error = capsys.readouterr().err
    assert "encoder.odd.weight" in error
    assert "fastvid_export architectures" in error


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"purpose": "FaceSR"}, "cannot be used: it restores one face"),
        ({"purpose": "Inpainting"}, "cannot be used: it fills a mask"),
        ({"architecture": SimpleNamespace(name="Aura", id="AuraSR")}, "a style at random"),
        ({"input_channels": 4}, "must take and give RGB or grey"),
    ],
)
def test_networks_that_make_no_picture_of_a_picture_are_refused(changed, problem):
    plain = {
        "architecture": SimpleNamespace(name="Odd", id="Odd"), "purpose": "SR",
        "input_channels": 3, "output_channels": 3, "model": None,
        "size_requirements": SimpleNamespace(square=False),
    }  # fmt: skip
    with pytest.raises(InputError, match=problem):
        spandrel._network(SimpleNamespace(**plain | changed), Path("x.pth"), None)


def test_flags_must_fit(tmp_path):
    path = saved(TINY["FSRCNN"](), tmp_path / "x.pth")
    with pytest.raises(InputError, match="scale: argument must be given for FSRCNN"):
        upscalers.build(path, tmp_path / "out", ImportOptions("x"), quiet)
    for flags, problem in (
        (OnnxFlags(scale=3, layout="nchw"), "layout: argument is for ONNX files"),
        (OnnxFlags(scale=4), "scale: argument must be 2"),
    ):
        other = saved(TINY["ESPCN" if flags.scale == 4 else "FSRCNN"](), tmp_path / "y.pth")
        with pytest.raises(InputError, match=problem):
            upscalers.build(other, tmp_path / "out", ImportOptions("x", flags), quiet)


def test_files_of_ncnn_have_another_way_in(tmp_path):
    for name in ("net.param", "net.bin"):
        (tmp_path / name).write_bytes(b"7767517\n")
    for name in ("net.param", "net.bin"):
        assert importers.find(tmp_path / name) is upscalers
        with pytest.raises(InputError, match="ncnn") as caught:
            upscalers.build(tmp_path / name, tmp_path / "out", ImportOptions("x"), quiet)
        assert "ONNX" in caught.value.hint


def test_interrupted_export_leaves_nothing(tmp_path, monkeypatch):
    path = saved(TINY["ESPCN"](), tmp_path / "x.pth")

    def interrupted(plan: Any) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx, "trace", interrupted)
    assert cli.main(["export", str(path), "--out", str(tmp_path / "out")]) == 130
    assert [p.name for p in tmp_path.iterdir()] == ["x.pth"]


def test_a_graph_that_differs_from_its_source_is_refused(tmp_path):
    net = espcn.Espcn(espcn.EspcnOptions((8, 4), 2)).eval()
    network = upscaler_bundles.Network(
        "ESPCN", source=lambda x: net(x) + 0.01, module=net, scale=2, channels=1
    )
    with pytest.raises(ExportError, match="within 60 dB and 1 level"):
        upscaler_bundles.write(network, "x", tmp_path / "out", quiet)
    assert list(tmp_path.iterdir()) == []


def test_own_checkpoints_are_not_imported(tmp_path):
    values = dict.fromkeys(("format", "task", "ema", "optimizer", "step"), 1)
    path = saved(values, tmp_path / "best.pt")
    assert importers.find(path) is None
