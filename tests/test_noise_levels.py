"""Noise levels of pipelines, beside those of diffusers."""

from __future__ import annotations

import pytest

from fastvid import schedulers
from fastvid._generation.levels import linear_quadratic, shift_of


@pytest.mark.parametrize("steps", [1, 2, 3, 8, 25, 50])
def test_linear_quadratic_levels_are_those_of_diffusers(steps: int) -> None:
    pytest.importorskip("diffusers")
    from diffusers.pipelines.ltx import pipeline_ltx_condition

    expected = pipeline_ltx_condition.linear_quadratic_schedule(steps) * 1000
    assert linear_quadratic(steps) == pytest.approx(expected.tolist(), rel=1e-6)


def test_linear_quadratic_levels_fall_slowly_and_then_faster() -> None:
    levels = linear_quadratic(8)
    assert levels[:4] == pytest.approx([1000, 993.75, 987.5, 981.25])
    falls = [a - b for a, b in zip(levels, [*levels[1:], 0.0], strict=True)]
    assert falls[3:] == sorted(falls[3:])
    assert sum(falls) == pytest.approx(1000)


@pytest.mark.parametrize(("tokens", "expected"), [(1024, 0.95), (4096, 2.05), (2560, 1.5)])
def test_the_shift_is_linear_in_the_number_of_tokens(tokens: int, expected: float) -> None:
    config = schedulers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.95, max_shift=2.05, base_image_seq_len=1024
    ).config
    assert shift_of(config, tokens) == pytest.approx(expected)
