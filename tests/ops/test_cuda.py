"""Every op on CUDA tensors of torch, held to the same op on the CPU.

What cannot run here is skipped; `--no-skips` makes that a failure where a device has to be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
from op_cases import OPS, Array, Case, Draw, Op, usual

from fastvid import _core
from fastvid.errors import InputError, NoDeviceError

pytestmark = pytest.mark.cuda

# Documented as equal bits on every processor and device.
SAME_BITS = {"randn", "scheduler_step", "rgb_to_planar", "planar_to_rgb"}
DRAWS = 30
NAMES = sorted(name for name, op in OPS.items() if op.cuda)


@pytest.fixture(scope="module")
def torch() -> Any:
    if not _core.cuda_compiled():
        pytest.skip("this build of fastvid has no CUDA kernels")
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("this machine has no CUDA device")
    return torch


class Drawn(Draw):
    """The n-th of an endless row of draws."""

    def __init__(self, number: int) -> None:
        rng = np.random.default_rng(number)
        super().__init__(
            lambda options: options[rng.integers(len(options))], special=number % 3 == 2
        )


class ManyBatches(Draw):
    """More in the batch than a grid has rows (65,535), and as little as possible of all else."""

    def __init__(self) -> None:
        super().__init__(lambda options: options[0])

    def batch(self) -> int:
        return 70_000

    def size(self, usual: int, *, largest: int = 65, least: int = 0) -> int:
        return max(1, least)


def to_device(torch: Any, array: Array) -> Any:
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16).cuda()
    return torch.from_numpy(array.copy()).cuda()


def to_host(tensor: Any, like: Array) -> Array:
    if like.dtype.name == "bfloat16":
        tensor = tensor.view(__import__("torch").int16)
    return np.asarray(tensor.cpu().numpy()).view(like.dtype)


def on_device(
    torch: Any, op: Op, case: Case, template: Sequence[Array], **more: Any
) -> tuple[Array, ...]:
    arrays = {name: to_device(torch, array) for name, array in case.arrays.items()}
    outputs = [to_device(torch, np.full_like(like, 77)) for like in template]
    torch.cuda.synchronize()
    op(case, arrays, op.pack(outputs), **more)
    torch.cuda.synchronize()
    return tuple(map(to_host, outputs, template))


def compare(op: Op, case: Case, found: Sequence[Array], right: Sequence[Array]) -> None:
    for output, same in zip(found, right, strict=True):
        if op.name in SAME_BITS:
            np.testing.assert_array_equal(output.view(np.uint8), same.view(np.uint8))
            continue
        narrow = output.dtype.itemsize == 2 and output.dtype.kind != "u"
        np.testing.assert_allclose(
            output.astype(np.float64),
            same.astype(np.float64),
            rtol=2.0**-7 if narrow else 1e-5,
            atol=1 if output.dtype.kind == "u" else case.tolerance,
        )


@pytest.mark.parametrize("number", range(DRAWS))
@pytest.mark.parametrize("name", NAMES)
def test_the_device_computes_what_the_cpu_does(torch: Any, name: str, number: int) -> None:
    op = OPS[name]
    case = op.make(Drawn(number))
    template = op.allocate(case)
    compare(op, case, on_device(torch, op, case, template), template)


@pytest.mark.parametrize("name", NAMES)
def test_large_pictures_are_computed_completely(torch: Any, name: str) -> None:
    class Large(Draw):
        def batch(self) -> int:
            return 1

        def size(self, usual: int, *, largest: int = 65, least: int = 0) -> int:
            return largest if largest < 65 else 257 + usual

    op = OPS[name]
    case = op.make(Large(lambda options: options[0]))
    template = op.allocate(case)
    compare(op, case, on_device(torch, op, case, template), template)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_may_be_larger_than_a_grid(torch: Any, name: str) -> None:
    op = OPS[name]
    case = op.make(ManyBatches())
    template = op.allocate(case)
    compare(op, case, on_device(torch, op, case, template), template)


@pytest.mark.parametrize("name", NAMES)
def test_work_goes_to_the_stream_it_is_given(torch: Any, name: str) -> None:
    op = OPS[name]
    case = op.make(usual())
    template = op.allocate(case)
    stream = torch.cuda.Stream()
    compare(op, case, on_device(torch, op, case, template, stream=stream.cuda_stream), template)
    with torch.cuda.stream(stream):
        compare(op, case, on_device(torch, op, case, template), template)


@pytest.mark.parametrize("name", NAMES)
def test_a_call_can_be_captured_in_a_graph(torch: Any, name: str) -> None:
    op = OPS[name]
    case = op.make(usual())
    template = op.allocate(case)
    arrays = {argument: to_device(torch, array) for argument, array in case.arrays.items()}
    outputs = [to_device(torch, like) for like in template]
    op(case, arrays, op.pack(outputs))
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        op(case, arrays, op.pack(outputs))
    for output in outputs:
        output.fill_(77)
    graph.replay()
    torch.cuda.synchronize()
    compare(op, case, tuple(map(to_host, outputs, template)), template)


@pytest.mark.parametrize("name", NAMES)
def test_arrays_on_two_devices_are_refused(torch: Any, name: str) -> None:
    op = OPS[name]
    case = op.make(usual())
    template = op.allocate(case)
    arrays: Mapping[str, Any] = case.arrays
    outputs = [to_device(torch, like) for like in template]
    if arrays:
        with pytest.raises(InputError, match=f"^{name}: .*one device"):
            op(case, arrays, op.pack(outputs))
        on_gpu = {argument: to_device(torch, array) for argument, array in arrays.items()}
        with pytest.raises(InputError, match=f"^{name}: .*must be given for device arrays"):
            op(case, on_gpu, (None,) * len(outputs) if op.in_place else None)
    for argument in arrays:
        mixed = {a: to_device(torch, array) for a, array in arrays.items()}
        mixed[argument] = arrays[argument]
        with pytest.raises(InputError, match=f"^{name}: .*one device"):
            op(case, mixed, op.pack(outputs))


@pytest.mark.parametrize("name", sorted(set(OPS) - set(NAMES)))
def test_what_has_no_kernel_says_so(torch: Any, name: str) -> None:
    op = OPS[name]
    case = op.make(usual())
    with pytest.raises(NoDeviceError, match=f"^{name}: there is no CUDA kernel"):
        on_device(torch, op, case, op.allocate(case))
