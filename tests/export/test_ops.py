"""The ops as operators of PyTorch: equal to their definitions, right gradients, one node each."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from fastvid.errors import InputError  # noqa: E402
from fastvid_export import ops  # noqa: E402
from fastvid_export.ops import _library  # noqa: E402


def images(n: int = 2, c: int = 3, h: int = 9, w: int = 14, seed: int = 0, **to: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, c, h, w, generator=generator).to(**to)


def flows(n: int = 2, c: int = 2, h: int = 9, w: int = 14, seed: int = 1, **to: Any) -> Any:
    """Displacements that put no sample on the kink at a pixel or at the edge."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randint(-2, 3, (n, c, h, w), generator=generator)
    return (whole + 0.2 + 0.6 * torch.rand(n, c, h, w, generator=generator)).to(**to)


def clips(b: int = 2, t: int = 5, s: int = 6, h: int = 2, d: int = 8, **to: Any) -> list[Any]:
    """Views of packed queries, keys and values."""
    generator = torch.Generator().manual_seed(3)
    packed = torch.randn(b, t, s, 3, h, d, generator=generator).to(**to)
    return [packed[..., i, :, :] for i in range(3)]


def biases(h: int = 2, t: int = 5, **to: Any) -> Any:
    return torch.randn(h, t, t, generator=torch.Generator().manual_seed(4)).to(**to)


def frames(seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 8, 12, 3), dtype=torch.uint8, generator=generator)


def tokens(n: int = 5, heads: int = 3, dim: int = 8, seed: int = 0, **to: Any) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, heads, dim, generator=generator).to(**to)


def turning(**to: Any) -> tuple[Any, ...]:
    """q, k, their weights over all heads, and tables of each head."""
    angles = tokens(dim=4, seed=3)[0].flatten(1).to(**to)
    weights = (1 + 0.2 * tokens(seed=s)[0, 0].flatten() for s in (4, 5))
    return (
        tokens(**to),
        tokens(seed=1, **to),
        *(w.to(**to) for w in weights),
        angles.cos(),
        (angles.sin()),
    )


def attended(**to: Any) -> tuple[Any, ...]:
    """q, k, v and a bias for all heads."""
    bias = images(n=2, c=1, h=5, w=7).to(**to)
    return tokens(**to), tokens(n=7, seed=1, **to), tokens(n=7, seed=2, **to), bias


def multiplied() -> tuple[Any, Any]:
    """A weight of nine rows, and its bias."""
    weight = tokens(n=9, heads=1, seed=1)[0, :, 0]
    return weight, weight.sum(1)


# By op: arguments of the operator, as the compiled op takes them.
ARGUMENTS: dict[str, Callable[[], tuple[Any, ...]]] = {
    "attention": lambda: (*attended(), True, 0.5),
    "qk_norm_rope": lambda: (*turning(), "full", "interleaved", 1e-6),
    "linear": lambda: (tokens()[0], *multiplied(), True),
    "rgb_to_planar": lambda: (frames(),),
    "planar_to_rgb": lambda: (images(),),
    "rgb_to_luma": lambda: (frames(),),
    "luma_to_rgb": lambda: (images(c=1, h=8, w=12), images(c=2, h=4, w=6) - 0.5),
    "downscale": lambda: (images(h=8, w=12), 2),
    "inverse_search": lambda: (
        images(c=1, h=16, w=24),
        images(c=1, h=16, w=24, seed=5),
        8,
        4,
        0,
    ),
    "softmax_splat": lambda: (images(), flows(), 4 * images(c=1, seed=7), "softmax", False),
    "scheduler_step": lambda: (
        images(),
        torch.tensor([0.5, -1.25, 2]),
        images(seed=1),
        images(seed=2),
        images(seed=3),
        None,
        None,
        None,
        3.5,
    ),
    "warp": lambda: (images(), flows(), True, False),
    "warp_blend": lambda: (images(), images(seed=3), flows(c=4), flows(c=1), images(), False),
    "temporal_attention": lambda: (*clips(), biases(), 0.3, True),
}
WITH_GRADIENTS = {"attention", "downscale", "qk_norm_rope", "softmax_splat", "warp", "warp_blend"}
NO_DEFINITION = {"inverse_search"}
CASES = sorted(ARGUMENTS)


def as_list(results: Any) -> list[Any]:
    return [results] if isinstance(results, torch.Tensor) else list(results)


def definition_of(name: str) -> Callable[..., Any]:
    return _library.DEFINITIONS[name]


def test_every_operator_is_tested() -> None:
    assert set(ARGUMENTS) == set(_library.OPERATORS)


@pytest.mark.parametrize("name", CASES)
def test_operators_keep_pytorchs_rules(name: str) -> None:
    """Schema, fake tensors, autograd registration and tracing, with gradients where they exist."""
    arguments = ARGUMENTS[name]()
    torch.library.opcheck(_library.OPERATORS[name], arguments)
    if name not in WITH_GRADIENTS:
        return
    wanting = [a.requires_grad_() if torch.is_tensor(a) else a for a in arguments]
    torch.library.opcheck(_library.OPERATORS[name], tuple(wanting))


@pytest.mark.parametrize("name", sorted(set(CASES) - NO_DEFINITION))
def test_the_compiled_op_equals_the_definition(name: str) -> None:
    arguments = ARGUMENTS[name]()
    found = as_list(_library.OPERATORS[name](*arguments))
    expected = as_list(definition_of(name)(*arguments))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        atol = 1 if one.dtype == torch.uint8 else 2e-5
        torch.testing.assert_close(one.float(), other.float(), atol=atol, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_inputs_may_be_views(name: str) -> None:
    def stretched(a: Any) -> Any:
        if not torch.is_tensor(a):
            return a
        return a.repeat_interleave(2, -1)[..., ::2]

    arguments = ARGUMENTS[name]()
    found = as_list(_library.OPERATORS[name](*map(stretched, arguments)))
    for one, other in zip(found, as_list(_library.OPERATORS[name](*arguments)), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.uint8])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_warp_takes_images_of_any_dtype_and_layout(dtype: Any, layout: str) -> None:
    image = (255 * images()).to(dtype)
    if layout == "NHWC":
        image = image.permute(0, 2, 3, 1).contiguous()
    found = ops.warp(image, flows(), layout=layout)
    expected = definition_of("warp")(image, flows(), False, layout == "NHWC")
    assert found.dtype == dtype
    # Half a step of the dtype at 255, and one of uint8.
    atol = {torch.float16: 0.13, torch.bfloat16: 1.1, torch.uint8: 1}[dtype]
    torch.testing.assert_close(found.float(), expected.float(), atol=atol, rtol=0)


def test_gradients_do_not_depend_on_the_layout() -> None:
    def gradients(layout: str) -> list[Any]:
        image, flow = images().requires_grad_(), flows().requires_grad_()
        given = image.permute(0, 2, 3, 1) if layout == "NHWC" else image
        moved = ops.warp(given, flow, layout=layout)
        moved = moved.permute(0, 3, 1, 2) if layout == "NHWC" else moved
        (moved * images(seed=7)).sum().backward()
        return [image.grad, flow.grad]

    for one, other in zip(gradients("NHWC"), gradients("NCHW"), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_gradients_of_warp(zeros: bool, scale: int) -> None:
    image = images(h=5, w=7, dtype=torch.float64).requires_grad_()
    h, w = -(-5 // scale), -(-7 // scale)
    flow = flows(h=h, w=w, dtype=torch.float64).requires_grad_()
    padding = "zeros" if zeros else "border"
    assert torch.autograd.gradcheck(lambda i, f: ops.warp(i, f, padding=padding), (image, flow))


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("residual", [False, True])
def test_gradients_of_warp_blend(scale: int, residual: bool) -> None:
    h, w = -(-5 // scale), -(-7 // scale)
    # Inside (0, 1): clamping has no gradient at its ends.
    tensors = [
        0.25 + 0.5 * images(h=5, w=7, dtype=torch.float64),
        0.25 + 0.5 * images(h=5, w=7, seed=4, dtype=torch.float64),
        flows(c=4, h=h, w=w, dtype=torch.float64),
        images(c=1, h=h, w=w, dtype=torch.float64) - 0.5,
    ]
    if residual:
        tensors.append(0.1 * images(h=5, w=7, seed=6, dtype=torch.float64) - 0.05)
    for tensor in tensors:
        tensor.requires_grad_()

    def blend(a: Any, b: Any, f: Any, m: Any, r: Any = None) -> Any:
        return ops.warp_blend(a, b, f, m, residual=r)

    assert torch.autograd.gradcheck(blend, tensors)


@pytest.mark.parametrize("mode", ["softmax", "linear", "average", "sum"])
def test_gradients_of_softmax_splat(mode: str) -> None:
    tensors = [images(h=5, w=7, dtype=torch.float64), flows(h=5, w=7, dtype=torch.float64)]
    if mode in ("softmax", "linear"):
        tensors.append(0.5 + images(c=1, h=5, w=7, seed=4, dtype=torch.float64))
    for tensor in tensors:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(lambda *t: ops.softmax_splat(*t, mode=mode), tensors)


def test_float32_gradients_of_softmax_splat_are_near_float64() -> None:
    def gradients(dtype: Any) -> list[Any]:
        tensors = [images(dtype=dtype), flows(dtype=dtype), 9 * images(c=1, dtype=dtype)]
        for tensor in tensors:
            tensor.requires_grad_()
        (ops.softmax_splat(*tensors) * images(seed=9, dtype=dtype)).sum().backward()
        return [tensor.grad.double() for tensor in tensors]

    for one, other in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert one.any()
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("mode", ["softmax", "linear", "average", "sum"])
def test_what_is_not_finite_is_not_splatted_and_has_no_gradient(mode: str) -> None:
    image, flow, metric = images(), flows(), images(c=1) + 0.5
    flow[:, 0, 2, 3], flow[:, 1, 4, 5], metric[:, :, 6, 7] = torch.nan, torch.inf, -torch.inf
    metric[:, :, 1, 1] = torch.nan
    tensors = [image, flow] + ([metric] if mode in ("softmax", "linear") else [])
    given = [*tensors, None][:3]
    torch.testing.assert_close(
        ops.softmax_splat(*given, mode=mode),
        definition_of("softmax_splat")(*given, mode, False),
        atol=1e-5,
        rtol=0,
    )
    for tensor in tensors:
        tensor.requires_grad_()
    ops.softmax_splat(*given, mode=mode).square().sum().backward()
    for tensor in tensors:
        assert tensor.grad.isfinite().all()
        assert not tensor.grad[:, :, 2, 3].any()
        assert not tensor.grad[:, :, 4, 5].any()
        assert tensor.grad.any()


def test_softmax_splat_exports_without_a_metric_and_in_float16() -> None:
    pytest.importorskip("onnxruntime")
    from nodes import session_of

    class Model(torch.nn.Module):
        def forward(self, image: Any, flow: Any) -> Any:
            return ops.softmax_splat(image, flow, mode="average", deterministic=True)

    tensors = (images(dtype=torch.float16), flows())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Model(),
            tensors,
            dynamo=True,
            verbose=False,
            custom_translation_table=ops.onnx_translations(),
        )
    session = session_of(program.model_proto.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    found = session.run(None, dict(zip(names, [t.numpy() for t in tensors], strict=True)))
    np.testing.assert_array_equal(found[0], Model()(*tensors).numpy())


@pytest.mark.parametrize(
    ("metric", "mode", "message"),
    [
        (False, "softmax", "metric must be given for modes softmax and linear only, got none"),
        (True, "sum", "metric must be given for .* only, got a tensor for mode sum"),
        (True, "max", "mode must be one of softmax, linear, average, sum, got 'max'"),
    ],
)
def test_softmax_splat_refuses_a_wrong_mode(metric: bool, mode: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^softmax_splat: {message}"):
        ops.softmax_splat(images(), flows(), images(c=1) if metric else None, mode=mode)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
def test_gradients_of_attention(causal: bool, with_bias: bool) -> None:
    *tensors, bias = attended(dtype=torch.float64)
    if with_bias:
        bias[..., 2] = -torch.inf
        tensors.append(bias)
    for tensor in tensors:
        tensor.requires_grad_()

    def attend(q: Any, k: Any, v: Any, bias: Any = None) -> Any:
        return ops.attention(q, k, v, bias=bias, causal=causal)

    if not with_bias:
        assert torch.autograd.gradcheck(attend, tensors, fast_mode=True)
        return
    # Finite differences of -inf are NaN: what is hidden must have no gradient, the rest be right.
    attend(*tensors).sum().backward()
    assert not tensors[3].grad[..., 2].any()
    finite = [t.detach().requires_grad_() for t in tensors[:3]]
    hidden = bias.detach()
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, hidden), finite, fast_mode=True)
    finite.append(torch.zeros_like(bias).requires_grad_())
    assert torch.autograd.gradcheck(attend, finite, fast_mode=True)


def test_attention_is_that_of_pytorch_in_every_dtype() -> None:
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)):
        q, k, v, bias = attended(dtype=dtype)
        right = torch.nn.functional.scaled_dot_product_attention(
            *(x.double().transpose(1, 2) for x in (q, k, v)), attn_mask=bias.double()
        )
        found = ops.attention(q, k, v, bias=bias.float())
        assert found.dtype == dtype
        torch.testing.assert_close(
            found.double(), right.transpose(1, 2), atol=tolerance, rtol=tolerance
        )


@pytest.mark.parametrize(
    ("norm", "rope"),
    [("head", None), ("full", None), (None, "half"), ("head", "interleaved"), ("full", "half")],
)
@pytest.mark.parametrize("each_head", [False, True])
def test_gradients_of_qk_norm_rope(norm: str | None, rope: str | None, each_head: bool) -> None:
    q, k, q_weight, k_weight, cos, sin = turning(dtype=torch.float64)
    given: dict[str, Any] = {"q": q, "k": k}
    if norm is not None:
        size = 24 if norm == "full" else 8
        given |= {"q_weight": q_weight[:size], "k_weight": k_weight[:size]}
    if rope is not None:
        width = 12 if each_head else 4
        given |= {"cos": cos[:, :width], "sin": sin[:, :width]}
    names, tensors = zip(*given.items(), strict=True)
    tensors = tuple(t.clone().requires_grad_() for t in tensors)

    def turn(*tensors: Any) -> Any:
        return ops.qk_norm_rope(**dict(zip(names, tensors, strict=True)), norm=norm, rope=rope)

    assert torch.autograd.gradcheck(turn, tensors, fast_mode=True)


def test_gradients_of_downscale() -> None:
    x = images(h=8, w=4, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.downscale(x, 2), (x,))


def test_clamped_pixels_have_no_gradient() -> None:
    image0, image1 = images().requires_grad_(), images(seed=2)
    residual = torch.zeros_like(image1)
    residual[:, :, :4] = 5
    blend = ops.warp_blend(image0, image1, torch.zeros(2, 4, 9, 14), torch.zeros(2, 1, 9, 14),
                           residual=residual)  # fmt: skip
    blend.sum().backward()
    assert (image0.grad[:, :, :4] == 0).all()
    torch.testing.assert_close(image0.grad[:, :, 4:], torch.full((2, 3, 5, 14), 0.5))


def test_a_nan_displaces_by_nothing_and_has_no_gradient() -> None:
    image = images().requires_grad_()
    flow = torch.full((2, 2, 9, 14), torch.nan, requires_grad=True)
    out = ops.warp(image, flow)
    torch.testing.assert_close(out, image, atol=0, rtol=0)
    out.sum().backward()
    assert (flow.grad == 0).all()
    # The backward's own coordinates are rounded once more than the forward's.
    torch.testing.assert_close(image.grad, torch.ones_like(image), atol=1e-4, rtol=0)


def test_float32_gradients_are_near_float64() -> None:
    def gradients(dtype: Any) -> list[Any]:
        tensors = [images(dtype=dtype), images(seed=2, dtype=dtype), flows(c=4, dtype=dtype),
                   flows(c=1, seed=8, dtype=dtype)]  # fmt: skip
        for tensor in tensors:
            tensor.requires_grad_()
        weights = images(seed=9, dtype=dtype)
        (ops.warp_blend(*tensors) * weights).sum().backward()
        return [tensor.grad.double() for tensor in tensors]

    for one, other in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)


def test_compiled_models_train() -> None:
    def loss(image0: Any, image1: Any, flow: Any, mask: Any) -> Any:
        moved = ops.warp(image0, flow[:, :2] * 0.5, padding="zeros")
        return (ops.warp_blend(image0, image1, flow, mask) - moved).square().sum()

    def run(function: Callable[..., Any]) -> list[Any]:
        tensors = [images(), images(seed=2), flows(c=4), flows(c=1)]
        for tensor in tensors:
            tensor.requires_grad_()
        value = function(*tensors)
        value.backward()
        return [value, *(tensor.grad for tensor in tensors)]

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    for one, other in zip(run(compiled), run(loss), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", CASES)
def test_each_op_exports_as_one_node_with_the_same_bits(name: str) -> None:
    pytest.importorskip("onnxruntime")
    from nodes import session_of

    arguments = ARGUMENTS[name]()
    tensors = [a for a in arguments if torch.is_tensor(a)]
    rest = [a for a in arguments if not torch.is_tensor(a)]

    class Model(torch.nn.Module):
        def forward(self, *tensors: Any) -> Any:
            return _library.OPERATORS[name](*tensors, *rest)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            Model(),
            tuple(tensors),
            dynamo=True,
            verbose=False,
            custom_translation_table=ops.onnx_translations(),
        )
    nodes = [(node.domain, node.op_type) for node in program.model_proto.graph.node]
    assert nodes == [("fastvid", _library.node_name(name))]
    session = session_of(program.model_proto.SerializeToString())
    names = [value.name for value in session.get_inputs()]
    found = session.run(None, dict(zip(names, [t.numpy() for t in tensors], strict=True)))
    for one, other in zip(found, as_list(_library.OPERATORS[name](*arguments)), strict=True):
        np.testing.assert_array_equal(one, other.numpy())


def test_an_exported_program_keeps_the_operators_and_becomes_a_graph_later() -> None:
    class Model(torch.nn.Module):
        def forward(self, image: Any, flow: Any) -> Any:
            return ops.warp(image, flow * 2, padding="zeros")

    size = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    program = torch.export.export(Model(), (images(), flows()), dynamic_shapes=(size, size))
    targets = {str(node.target) for node in program.graph.nodes}
    assert "fastvid.warp.default" in targets
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        graph = torch.onnx.export(
            program, dynamo=True, verbose=False, custom_translation_table=ops.onnx_translations()
        )
    (node,) = (n for n in graph.model_proto.graph.node if n.domain == "fastvid")
    assert node.op_type == "Warp"
    assert {a.name: a.i for a in node.attribute} == {"zeros": 1, "channels_last": 0}


def test_wrong_arguments_raise_the_ops_own_errors() -> None:
    from fastvid.errors import InputError, InputTypeError

    with pytest.raises(InputError, match=r"^warp: flow must have shape \(2, 2, 9, 14\)"):
        ops.warp(images(), flows(h=7))
    with pytest.raises(InputTypeError, match=r"^warp: flow must be float32, got float16"):
        ops.warp(images(), flows(dtype=torch.float16))
    with pytest.raises(InputError, match="padding must be one of border, zeros, got 'wrap'"):
        ops.warp(images(), flows(), padding="wrap")
    with pytest.raises(InputTypeError, match="no formula in plain PyTorch"):
        ops.inverse_search(images(c=1, dtype=torch.float64), images(c=1, dtype=torch.float64))
