"""Matrix products with the weights of a checkpoint. `fastvid.ops` is the public face."""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray

from fastvid import _core
from fastvid._ops.checks import choice, threads_of

_PRECISIONS = ("float32", "bfloat16")


def linear(
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    precision: str = "float32",
    out: Any = None,
    threads: int | None = None,
    stream: int | None = None,
) -> NDArray[Any]:
    """A linear layer whose weights stay as a checkpoint has them: `x @ weight.T + bias`.

    Weights are read where they lie and packed a panel at a time, so that a file that is mapped into
    memory is never copied; sums are float32 and start from the bias.

    With `precision="bfloat16"`, x and weight are rounded to bfloat16 before they are multiplied: on
    a processor with AVX-512 BF16 about twice as fast. There, neighbours are added in another order
    and subnormals are 0, which moves a result by at most `K * 2**-23` of the sum of `|x * weight|`
    and `|bias|`, or `K * 2**-110` where that is more; everything else gives equal bits on all
    processors.

    Args:
        x: float32 (..., K), 2 to 6 sizes.
        weight: float32, float16 or bfloat16 (N, K).
        bias: float32 (N,); None is 0.
        precision: What is multiplied: "float32" or "bfloat16".
        out: float32 (..., N) to write to; None allocates.
        threads: Number of threads; None is the default.
        stream: For arrays on a CUDA device, for which there is no kernel: None.

    Returns:
        float32 (..., N); `out` where it was given.

    Raises:
        InputTypeError: An argument has the wrong type or dtype.
        InputError: An argument has the wrong shape, layout or value.
        NoDeviceError: The arrays are on a CUDA device.
    """
    op = "linear"
    narrow = choice(op, "precision", precision, _PRECISIONS) == "bfloat16"
    return _core.linear(x, weight, bias, narrow, out, threads_of(op, threads), stream)
