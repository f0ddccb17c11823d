"""`temporal_attention` inside PyTorch: gradients, views, and scales and masks in a graph."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from fastvid_export import ops  # noqa: E402


def clips(shape: tuple[int, ...] = (2, 4, 3, 2, 8), **to: Any) -> list[Any]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(shape, generator=generator).to(**to) for _ in range(3)]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [0, 1, 2])
def test_gradients(causal: bool, heads: int) -> None:
    tensors = [x.requires_grad_() for x in clips(dtype=torch.float64)]
    if heads:
        tensors.append(torch.randn(heads, 4, 4, dtype=torch.float64, requires_grad=True))

    def attend(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
        return ops.temporal_attention(q, k, v, causal=causal, bias=bias, scale=0.7)

    assert torch.autograd.gradcheck(attend, tensors)


def test_a_query_without_keys_gives_zero_and_has_no_gradient() -> None:
    q, k, v = (x.requires_grad_() for x in clips())
    bias = torch.zeros(2, 4, 4)
    bias[1, 2] = -torch.inf
    out = ops.temporal_attention(q, k, v, bias=bias)
    assert not out[:, 2, :, 1].any()
    out.sum().backward()
    assert not q.grad[:, 2, :, 1].any()
    assert all(torch.isfinite(x.grad).all() for x in (q, k, v))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_it_equals_pytorchs_own(dtype: Any) -> None:
    q, k, v = clips((2, 21, 6, 3, 40), dtype=dtype)
    for causal, scale in itertools.product([False, True], [None, 0.1]):
        found = ops.temporal_attention(q, k, v, causal=causal, scale=scale)
        expected = torch.nn.functional.scaled_dot_product_attention(
            *(x.double().permute(0, 2, 3, 1, 4) for x in (q, k, v)), is_causal=causal, scale=scale
        ).permute(0, 3, 1, 2, 4)
        atol = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}[dtype]
        torch.testing.assert_close(found.double(), expected, atol=atol, rtol=0)


def test_half_precision_trains_near_float64() -> None:
    def gradients(dtype: Any) -> list[Any]:
        tensors = [x.to(torch.bfloat16).to(dtype).requires_grad_() for x in clips()]
        ops.temporal_attention(*tensors).square().sum().backward()
        return [x.grad.double() for x in tensors]

    for one, other in zip(gradients(torch.bfloat16), gradients(torch.float64), strict=True):
        torch.testing.assert_close(one, other, atol=0.05, rtol=0.05)


def test_a_model_exports_with_any_number_of_places() -> None:
    pytest.importorskip("onnxruntime")
    from nodes import session_of

    class Model(torch.nn.Module):
        def forward(self, qkv: Any) -> Any:
            q, k, v = qkv.unbind(3)
            return ops.temporal_attention(q, k, v, causal=True)

    packed = torch.randn(1, 6, 5, 3, 2, 16)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Model(),
            (packed,),
            dynamo=True,
            verbose=False,
            dynamic_shapes=({2: torch.export.Dim.DYNAMIC},),
            custom_translation_table=ops.onnx_translations(),
        )
    (node,) = (n for n in program.model_proto.graph.node if n.domain == "fastvid")
    assert node.op_type == "TemporalAttention"
    session = session_of(program.model_proto.SerializeToString())
    larger = torch.randn(1, 6, 11, 3, 2, 16)
    (found,) = session.run(None, {session.get_inputs()[0].name: larger.numpy()})
    np.testing.assert_array_equal(found, Model()(larger).numpy())


def test_wrong_arguments_raise_the_ops_own_errors() -> None:
    from fastvid.errors import InputError, InputTypeError

    q, k, v = clips()
    with pytest.raises(InputError, match=r"^temporal_attention: k must have shape"):
        ops.temporal_attention(q, k[:, :2], v)
    with pytest.raises(InputTypeError, match=r"^temporal_attention: k must be float32"):
        ops.temporal_attention(q, k.half(), v)
