"""Every op on every kind of wrong argument: a typed error that names it, and `out` untouched."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from arrays import OnDevice
from memory import huge
from op_cases import OPS, Array, Case, Op, usual

from fastvid import ops
from fastvid.errors import InputError, InputTypeError, NoDeviceError

_FILL = 77

USUAL = {name: op.make(usual()).arrays for name, op in OPS.items()}
INPUTS = [(name, argument) for name, arrays in USUAL.items() for argument in arrays]
REQUIRED = [(name, argument) for name, argument in INPUTS if argument not in OPS[name].optional]
# Of one axis, an array can only be reversed or thinned out; a byte fits everywhere.
WITH_ROWS = [(name, argument) for name, argument in INPUTS if USUAL[name][argument].ndim > 1]
OF_WORDS = [(name, argument) for name, argument in INPUTS if USUAL[name][argument].itemsize > 1]
OUTPUTS = [(name, i) for name, op in OPS.items() for i in range(len(op.outputs))]


class Trial:
    """A usual call of an op whose arguments a test then spoils."""

    def __init__(self, name: str) -> None:
        self.op: Op = OPS[name]
        self.case: Case = self.op.make(usual())
        self.arrays: dict[str, Any] = dict(self.case.arrays)
        self.outputs: list[Any] = list(self.op.allocate(self.case))
        for output in self.outputs:
            output[...] = _FILL
        self._watched = list(self.outputs)

    def run(self, **more: Any) -> Any:
        return self.op(self.case, self.arrays, self.op.pack(self.outputs), **more)

    def refused(self, error: type[Exception], *words: str, **more: Any) -> str:
        """Runs it; the message must begin with the op and hold the words, no output be written."""
        with pytest.raises(error) as info:
            self.run(**more)
        message = str(info.value)
        assert message.startswith(f"{self.op.name}: "), message
        assert len(message) < 400, message
        for word in words:
            assert word in message, message
        for output in self._watched:
            assert (output == _FILL).all(), "an output was written before the error"
        return message


def base(argument: str) -> str:
    return argument.split("[")[0]


WRONG_DTYPES = ["float64", "int8", "int64", "bool", "complex64", ">f4", "U1", "object", "f4,f4"]


@pytest.mark.parametrize("dtype", WRONG_DTYPES)
@pytest.mark.parametrize(("name", "argument"), INPUTS)
def test_a_wrong_dtype_is_refused(name: str, argument: str, dtype: str) -> None:
    trial = Trial(name)
    trial.arrays[argument] = np.zeros(trial.arrays[argument].shape, dtype)
    trial.refused(InputTypeError, f"{argument} must be ", "got ")


@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8", "uint16"])
@pytest.mark.parametrize(("name", "argument"), INPUTS)
def test_a_dtype_of_another_op_is_refused_or_taken(name: str, argument: str, dtype: str) -> None:
    trial = Trial(name)
    trial.arrays[argument] = np.zeros(trial.arrays[argument].shape, dtype)
    try:
        trial.run()
    except InputError:
        trial.refused(InputError, " must ", "got ")


@pytest.mark.parametrize("bad", [3, 2.5, "x", [1.0], {}, b"bytes", object(), np.float32(1), ...])
@pytest.mark.parametrize(("name", "argument"), INPUTS)
def test_what_is_no_array_is_refused(name: str, argument: str, bad: Any) -> None:
    trial = Trial(name)
    trial.arrays[argument] = bad
    # A list may be several images, for which a single output is wrong.
    trial.refused(InputError, " must ", "got ", *([] if isinstance(bad, list) else [argument]))


@pytest.mark.parametrize(("name", "argument"), REQUIRED)
def test_a_missing_array_is_refused(name: str, argument: str) -> None:
    trial = Trial(name)
    trial.arrays[argument] = None
    trial.refused(InputTypeError, f"{argument} must ", "got NoneType")


@pytest.mark.parametrize(("name", "argument"), INPUTS)
def test_an_axis_too_many_or_too_few_is_refused(name: str, argument: str) -> None:
    array = OPS[name].make(usual()).arrays[argument]
    for changed in (array[None], array[0], array.reshape(-1)[0].reshape(())):
        trial = Trial(name)
        trial.arrays[argument] = np.array(changed, order="C")
        trial.refused(InputError, " must ", "got ")


SIZES: dict[str, Callable[[int], int]] = {
    "one more": lambda size: size + 1,
    "none": lambda size: 0,
    "2**31": lambda size: 2**31,
    "2**32 and the right size": lambda size: 2**32 + size,
}


@pytest.mark.parametrize("change", SIZES)
@pytest.mark.parametrize(("name", "argument"), INPUTS)
def test_a_size_that_does_not_fit_is_refused(name: str, argument: str, change: str) -> None:
    array = OPS[name].make(usual()).arrays[argument]
    for axis in range(array.ndim):
        trial = Trial(name)
        shape = list(array.shape)
        shape[axis] = SIZES[change](shape[axis])
        trial.arrays[argument] = huge(shape, array.dtype)
        trial.refused(InputError, " must ", "got ")


@pytest.mark.parametrize(("name", "argument"), INPUTS)
def test_sizes_whose_product_overflows_are_refused(name: str, argument: str) -> None:
    array = OPS[name].make(usual()).arrays[argument]
    for size in (2**31, 2**62):
        trial = Trial(name)
        shape = (0,) + (size,) * (array.ndim - 1)
        try:
            trial.arrays[argument] = np.lib.stride_tricks.as_strided(
                np.zeros(1, array.dtype), shape, (0,) * array.ndim
            )
        except ValueError:
            continue  # NumPy itself has no such array
        trial.refused(InputError, " must ", "got ")


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "reversed": lambda a: a[::-1],
    "last axis reversed": lambda a: a[..., ::-1],
    "every second": lambda a: a.repeat(2, -1)[..., ::2],
    "columns first": lambda a: np.asfortranarray(a),
    "broadcast": lambda a: np.broadcast_to(a[..., :1], a.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("name", "argument"), WITH_ROWS)
def test_a_layout_is_refused_by_name(name: str, argument: str, layout: str) -> None:
    trial = Trial(name)
    array = trial.arrays[argument] = LAYOUTS[layout](trial.arrays[argument])
    if array.flags.c_contiguous:
        trial.run()  # an axis of one element has no order
        return
    trial.refused(InputError, f"{argument} must be ", "got a strided array", "ascontiguousarray")


@pytest.mark.parametrize(("name", "argument"), OF_WORDS)
def test_an_array_between_its_elements_places_is_refused(name: str, argument: str) -> None:
    trial = Trial(name)
    array = trial.arrays[argument]
    memory = np.zeros(array.nbytes + 1, np.uint8)
    trial.arrays[argument] = memory[1:].view(array.dtype).reshape(array.shape)
    trial.refused(InputError, f"{argument} must be aligned", "got ")


@pytest.mark.parametrize(("name", "argument"), INPUTS)
def test_a_device_array_without_a_device_is_refused(name: str, argument: str) -> None:
    trial = Trial(name)
    trial.arrays[argument] = OnDevice()
    trial.refused(NoDeviceError)


@pytest.mark.parametrize(("name", "argument"), INPUTS)
def test_a_read_only_input_is_as_good(name: str, argument: str) -> None:
    trial = Trial(name)
    trial.arrays[argument] = trial.arrays[argument].copy()
    trial.arrays[argument].flags.writeable = False
    trial.run()
    for output, same in zip(trial.outputs, trial.op.allocate(trial.case), strict=True):
        np.testing.assert_array_equal(output, same)


def spoiled_outputs(output: Array) -> dict[str, tuple[Any, type[Exception], str]]:
    read_only = output.copy()
    read_only.flags.writeable = False
    more = np.full((*output.shape[:-1], output.shape[-1] + 1), _FILL, output.dtype)
    shifted = np.zeros(output.nbytes + 1, np.uint8)[1:].view(output.dtype).reshape(output.shape)
    spoiled: dict[str, tuple[Any, type[Exception], str]] = {
        "dtype": (output.astype(np.int32), InputTypeError, "got int32"),
        "list": (output.tolist(), InputTypeError, "got list"),
        "text": ("out", InputTypeError, "got str"),
        "read-only": (read_only, InputError, "must be writable, got read-only"),
        "wider": (more, InputError, "must have shape"),
        "axis": (output[None], InputError, "must have shape"),
        "broadcast": (
            np.lib.stride_tricks.as_strided(output, output.shape, (0,) * output.ndim),
            InputError,
            "must ",
        ),
        "every second": (output.repeat(2, -1)[..., ::2], InputError, "got a strided array"),
        "reversed": (output[..., ::-1], InputError, "got a strided array"),
        "device": (OnDevice(), NoDeviceError, ""),
    }
    if output.dtype.itemsize > 1:
        spoiled["shifted"] = (shifted, InputError, "must be aligned")
    return spoiled


@pytest.mark.parametrize(("name", "which"), OUTPUTS)
def test_an_output_that_cannot_take_the_result_is_refused(name: str, which: int) -> None:
    for spoiled, error, words in spoiled_outputs(Trial(name).outputs[which]).values():
        trial = Trial(name)
        trial.outputs[which] = spoiled
        label = trial.op.outputs[which] if error is not NoDeviceError else ""
        trial.refused(error, label, words)


@pytest.mark.parametrize(("name", "which"), OUTPUTS)
def test_an_output_that_shares_memory_is_refused(name: str, which: int) -> None:
    for argument in OPS[name].make(usual()).arrays:
        trial = Trial(name)
        array, output = trial.arrays[argument], trial.outputs[which]
        memory = np.zeros(array.nbytes + output.nbytes, np.uint8)
        # The last element of the one is the first of the other.
        first = (array.nbytes - 1) // output.itemsize * output.itemsize
        trial.arrays[argument] = memory[: array.nbytes].view(array.dtype).reshape(array.shape)
        trial.arrays[argument][...] = array
        part = memory[first : first + output.nbytes]
        trial.outputs[which] = part.view(output.dtype).reshape(output.shape)
        before = memory.copy()
        message = trial.refused(InputError, "must not share memory with ")
        assert trial.op.outputs[which] in message
        np.testing.assert_array_equal(memory, before)


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if len(op.outputs) > 1])
def test_outputs_that_share_memory_are_refused(name: str) -> None:
    trial = Trial(name)
    first, second = trial.outputs[0], trial.outputs[1]
    memory = np.full(first.nbytes + second.nbytes, 0, np.uint8)
    trial.outputs[0] = memory[: first.nbytes].view(first.dtype).reshape(first.shape)
    start = first.nbytes - first.dtype.itemsize
    part = memory[start : start + second.nbytes]
    trial.outputs[1] = part.view(second.dtype).reshape(second.shape)
    trial.refused(InputError, "must not share memory with ")
    assert not memory.any()


@pytest.mark.parametrize("name", OPS)
def test_an_output_may_be_an_input_where_the_op_says_so(name: str) -> None:
    for output, argument in OPS[name].in_place.items():
        trial = Trial(name)
        right = trial.op.allocate(trial.case)
        which = trial.op.outputs.index(output)
        trial.arrays[argument] = trial.outputs[which] = trial.arrays[argument].copy()
        trial.run()
        np.testing.assert_array_equal(trial.outputs[which], right[which])


@pytest.mark.parametrize("name", OPS)
def test_wrong_threads_and_streams_are_refused(name: str) -> None:
    for threads in (0, -1, 257, 2**70):
        Trial(name).refused(
            InputError, f"threads must be from 1 to 256, got {threads}", threads=threads
        )
    for bad in (1.0, "2", True, [1]):
        Trial(name).refused(InputTypeError, "threads must be an int or None, got", threads=bad)
    Trial(name).refused(InputError, "stream must be None for arrays on the CPU", stream=7)
    Trial(name).refused(InputTypeError, "stream must be an int or None, got str", stream="7")


@pytest.mark.parametrize("name", [name for name, op in OPS.items() if len(op.outputs) > 1])
def test_outputs_must_be_a_tuple_of_all(name: str) -> None:
    trial = Trial(name)
    outputs = trial.outputs
    for bad in (outputs, outputs[0], tuple(outputs[:1]), (*outputs, None), "out"):
        with pytest.raises(InputError, match=rf"^{name}: out must be a tuple of {len(outputs)} "):
            trial.op(trial.case, trial.arrays, bad)
    assert all((output == _FILL).all() for output in outputs)


@pytest.mark.parametrize("name", OPS)
def test_words_and_numbers_are_checked(name: str) -> None:
    for option, value in OPS[name].make(usual()).options.items():
        if isinstance(value, str):
            with pytest.raises(InputError, match=f"^{name}: {option} must be .*got 'another'"):
                _with(name, option, "another")
            with pytest.raises(InputTypeError, match=f"^{name}: {option} must be .*got int"):
                _with(name, option, 3)
        elif type(value) is int:
            for bad in (-1, 2**70):
                with pytest.raises(InputError, match=f"^{name}: {option} must be .*got {bad}"):
                    _with(name, option, bad)
            with pytest.raises(InputTypeError, match=f"^{name}: {option} must be .*got str"):
                _with(name, option, "1")


def _with(name: str, option: str, value: Any) -> None:
    Trial(name).run(**{option: value})


@pytest.mark.parametrize("name", OPS)
def test_nothing_holds_on_to_the_arguments(name: str) -> None:
    trial = Trial(name)

    def counts() -> list[int]:
        return [sys.getrefcount(x) for x in (*trial.arrays.values(), *trial.outputs)]

    trial.run()
    before = counts()
    for _ in range(3):
        trial.run()
        with pytest.raises(InputError):
            trial.run(threads=0)
        with pytest.raises(InputError):
            trial.run(stream=7)
    assert counts() == before


@pytest.mark.slow
def test_offsets_beyond_32_bits_are_reached() -> None:
    """More than 2**32 elements in, and the block beyond them right; the rest are zeros."""
    x = huge((1, 2**19 + 1, 8, 1024), np.dtype(np.float32))
    x[0, -1, :, -8:] = np.arange(64).reshape(8, 8)
    assert x.size > 2**32
    out = ops.downscale(x, 8)
    assert out[0, -1, 0, -1] == np.arange(64).mean()
    assert np.count_nonzero(out) == 1
