"""The generator that reproduces torch's noise, against torch."""

from __future__ import annotations

import numpy as np
import pytest

from fastvid._generation.torch_noise import TorchNoise

SIZES = (1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 100, 1023, 4096, 32767, 32768, 32769, 100_001)
SEEDS = (0, 1, 42, 2**31, 2**32 - 1, 2**32 + 5, 2**63, 2**64 - 1)


def test_known_values():
    """Of torch 2.13 on x86 with AVX2, so that they are checked where torch is not installed."""
    noise = TorchNoise(42)
    few = noise.normal((3,))
    assert few.tolist() == pytest.approx([0.33669036, 0.12880941, 0.23446237], abs=1e-7)
    many = TorchNoise(0).normal((4, 5))
    assert many[0, :3].tolist() == pytest.approx([-1.1258398, -1.1523602, -0.2505786], abs=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("seed", SEEDS)
def test_equals_torch(size, seed):
    torch = pytest.importorskip("torch")
    theirs = torch.randn(size, generator=torch.Generator("cpu").manual_seed(seed)).numpy()
    ours = TorchNoise(seed).normal((size,))
    assert ours.dtype == np.float32
    if size < 16 or "AVX" in torch.backends.cpu.get_cpu_capability():
        np.testing.assert_array_equal(ours, theirs)
    else:
        # Without AVX torch takes the C library's functions.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_goes_on_as_torch_does():
    torch = pytest.importorskip("torch")
    generator, noise = torch.Generator("cpu").manual_seed(3), TorchNoise(3)
    for shape in ((2, 3), (1,), (4, 4, 5), (3,), (2, 2), (0,), (6, 7), (5,)):
        theirs = torch.randn(shape, generator=generator).numpy()
        ours = noise.normal(shape)
        assert ours.shape == shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)


def test_is_standard_normal():
    values = TorchNoise(9).normal((400_000,))
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
