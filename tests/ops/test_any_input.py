"""Every op on drawn calls: right or refused, equal on all instruction sets, no byte out of bounds.

Each array lies in memory that ends, or starts, where the process may touch it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory import guarded, guarded_copy
from op_cases import OPS, Array, Case, Draw, Op

from fastvid import _core, ops
from fastvid.errors import InputError

# Fewer where every instruction is emulated.
_EXAMPLES = int(os.environ.get("FASTVID_TEST_EXAMPLES", "40"))
_NOT_RUN = {"rope_table_3d", "softmax_splat_workspace"}  # they take no arrays


def test_every_op_is_driven() -> None:
    assert set(ops.__all__) - _NOT_RUN == set(OPS)


@pytest.mark.parametrize("name", OPS)
@given(data=st.data())
@settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_drawn_call_is_right_everywhere(name: str, data: st.DataObject) -> None:
    op = OPS[name]
    special = data.draw(st.booleans())
    draw = Draw(lambda options: data.draw(st.sampled_from(options)), special=special)
    case = op.make(draw)
    at_end, layout = data.draw(st.booleans()), data.draw(st.sampled_from(["", "rows", "axes"]))
    arrays = {
        argument: laid_out(op, argument, array, layout, at_end)
        for argument, array in case.arrays.items()
    }
    if any(array.size == 0 for array in case.arrays.values()):
        # Nothing to compute gives nothing, or an error that says so.
        with contextlib.suppress(InputError):
            assert all(output.size == 0 for output in op.allocate(case))
        return
    template = op.allocate(case)
    results = {}
    for isa in _core.cpu_isas():
        threads = data.draw(st.sampled_from([1, 2, 5]))
        results[isa] = run(op, case, arrays, template, layout, at_end, isa, threads)
    for argument, array in arrays.items():
        np.testing.assert_array_equal(bits(array), bits(case.arrays[argument]), argument)
    check(case, results, special)


def run(
    op: Op,
    case: Case,
    arrays: Mapping[str, Array],
    template: tuple[Array, ...],
    layout: str,
    at_end: bool,
    isa: str,
    threads: int,
) -> tuple[Array, ...]:
    outputs = tuple(
        laid_out(op, "out" if op.strided else output, like, layout, at_end)
        for output, like in zip(op.outputs, template, strict=True)
    )
    for array in outputs:
        array[...] = 77
    _core._force_isa(isa)
    try:
        op(case, arrays, op.pack(outputs), threads=threads)
    finally:
        _core._force_isa(None)
    return outputs


def check(case: Case, results: Mapping[str, tuple[Array, ...]], special: bool) -> None:
    baseline = results["baseline"]
    if case.exact:
        for isa, outputs in results.items():
            for output, same in zip(outputs, baseline, strict=True):
                # As floats NumPy has, among which a NaN is a NaN.
                wide = output.astype(np.float32), same.astype(np.float32)
                np.testing.assert_array_equal(*wide, isa)
    if case.expected is not None and not special:
        for outputs in results.values():
            for output, right in zip(outputs, case.expected(case.arrays), strict=True):
                near(output, right, case.tolerance)
    bounded = not special or set(case.arrays) <= set(case.wild)
    if case.bounds is not None and bounded:
        for output in baseline:
            values = output.astype(np.float64)
            assert np.all((values >= case.bounds[0]) & (values <= case.bounds[1]))


def near(output: Array, right: Array, tolerance: float) -> None:
    relative = {2: 2.0**-8, 4: 0.0, 1: 0.0}[output.dtype.itemsize]
    if output.dtype == np.uint16:
        relative = 0.0
    np.testing.assert_allclose(output.astype(np.float64), right, rtol=relative, atol=tolerance)


def bits(array: Array) -> Array:
    return np.ascontiguousarray(array).view(np.uint8)


def laid_out(op: Op, argument: str, array: Array, layout: str, at_end: bool) -> Array:
    """A copy in guarded memory, laid out in a way that the op takes."""
    dims = array.ndim
    if layout == "axes" and argument in op.strided and dims > 2:
        order = (*range(dims - 2, -1, -1), dims - 1)
        return guarded_copy(array.transpose(order), at_end=at_end).transpose(order)
    if layout and (argument in op.strided or argument in op.rows) and dims > 1:
        # Rows stand apart; what is between them is in reach, so only the last byte is guarded.
        wide = guarded((*array.shape[:-1], array.shape[-1] + 5), array.dtype, at_end=at_end)
        view = wide[..., 5:] if at_end else wide[..., : array.shape[-1]]
        view[...] = array
        return view
    return guarded_copy(array, at_end=at_end)
