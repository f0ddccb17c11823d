"""The text encoder against transformers."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", reason="needs transformers")

from fastvid.errors import InputError  # noqa: E402
from fastvid_export.errors import CheckpointError  # noqa: E402
from fastvid_export.importers import t5_config  # noqa: E402
from fastvid_export.models.t5 import T5Encoder  # noqa: E402

_SHAPE = {
    "vocab_size": 256, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 20,
}  # fmt: skip


def _pair(folder, name, kind, *, masked):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**_SHAPE, feed_forward_proj=kind)
    theirs = getattr(transformers, f"{name}EncoderModel")(config).eval()
    config.save_pretrained(folder)
    options = t5_config.read(folder / "config.json", name.lower())
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
def test_the_encoder_gives_what_transformers_gives(tmp_path, name, kind, masked):
    theirs, ours = _pair(tmp_path, name, kind, masked=masked)
    ids = torch.randint(0, 256, (2, 40))
    mask = (torch.arange(40) < torch.tensor([[9], [40]])).long()
    with torch.no_grad():
        expected = theirs(ids, attention_mask=mask if masked else None).last_hidden_state
        found = ours(ids, mask)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("changed", "error", "problem"),
    [
        ({"feed_forward_proj": "gated-silu"}, InputError, "feed_forward_proj must be .*gated-silu"),
        ({"dense_act_fn": "silu"}, InputError, "dense_act_fn must be 'gelu_new', got 'silu'"),
        ({"model_type": "t5"}, InputError, "model_type must be 'umt5', got 't5'"),
        ({"window": 3}, InputError, "options must be known ones, got window=3"),
        ({"d_model": None}, CheckpointError, "must hold 'd_model'"),
    ],
)
def test_configurations_that_are_not_known_are_refused(tmp_path, changed, error, problem):
    transformers.UMT5Config(**_SHAPE, feed_forward_proj="gated-gelu").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    values = {**json.loads(path.read_text()), **changed}
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))
    with pytest.raises(error, match=problem):
        t5_config.read(path, "umt5")
