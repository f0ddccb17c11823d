"""The configuration of a T5 or UMT5 encoder, as transformers writes it."""

from __future__ import annotations

from pathlib import Path

from fastvid.errors import InputError
from fastvid_export.importers.configs import Config
from fastvid_export.models.t5 import T5Options, activation_of

_SIZES = ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")


def read(path: Path, model_type: str) -> T5Options:
    """The shape of an encoder.

    Args:
        path: `config.json`.
        model_type: `t5` or `umt5`, which has a bias of positions in every layer.

    Raises:
        CheckpointError: The file is damaged, or lacks a size.
        InputError: An option is not supported; names it.
    """
    config = Config(path)
    config.expect("model_type", model_type)
    config.expect("is_decoder", False)
    each = model_type == "umt5"
    try:
        activation = activation_of(config.rest(), gated=each)
    except ValueError as error:
        raise InputError(f"{config.what}: {error}") from None
    config.expect("dense_act_fn", activation.removeprefix("gated-"))
    config.ignore(
        "feed_forward_proj", "is_gated_act", "is_encoder_decoder", "num_decoder_layers",
        "decoder_start_token_id", "eos_token_id", "pad_token_id", "bos_token_id",
        "tie_word_embeddings", "tokenizer_class", "output_past", "scalable_attention",
        "n_positions", "task_specific_params", "scale_decoder_outputs",
    )  # fmt: skip
    sizes = {name: config.take(name, int) for name in _SIZES}
    options = config.fill(T5Options, **sizes, activation=activation, bias_in_each_layer=each)
    config.finish()
    return options
