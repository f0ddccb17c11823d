"""The text encoder against transformers."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")

from fastvid_export.models.t5 import T5Encoder, options_of  # noqa: E402

_SHAPE = {
    "vocab_size": 256, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
}  # fmt: skip


def _pair(name, kind, *, masked):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**_SHAPE, feed_forward_proj=kind)
    theirs = getattr(transformers, f"{name}EncoderModel")(config).eval()
    options = options_of(config.to_dict(), bias_in_each_layer=name == "UMT5")
    with torch.device("meta"):
        ours = T5Encoder(options, masked=masked).eval()
    weights = theirs.state_dict()
    # The same tensor as `shared`.
    weights.pop("encoder.embed_tokens.weight", None)
    ours.load_state_dict(weights, assign=True)
    return theirs, ours


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("name", "kind"), [("T5", "gated-gelu"), ("T5", "relu"), ("UMT5", "gated-gelu")]
)
def test_the_encoder_gives_what_transformers_gives(name, kind, masked):
    theirs, ours = _pair(name, kind, masked=masked)
    ids = torch.randint(0, 256, (2, 40))
    mask = (torch.arange(40) < torch.tensor([[9], [40]])).long()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask if masked else None).last_hidden_state
        found = ours(ids, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_an_unknown_activation_is_named():
    with pytest.raises(ValueError, match="'gated-silu'"):
        options_of({"feed_forward_proj": "gated-silu"}, bias_in_each_layer=False)
