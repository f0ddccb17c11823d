"""The generator's vocabulary: a WordPiece tokenizer (Wu et al., 2016) of the world's captions.

Every word of the captions is one token; any other word falls into letters, so no prompt is unknown.
"""

from __future__ import annotations

import string
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fastvid_export.models.text_encoder import PAD
from fastvid_export.training import world_captions as captions

SPECIAL = ("[PAD]", "[UNK]", "[END]")
"""Ids 0, 1 and 2; `[END]` closes every prompt, so that an empty one is not only padding."""
END = 2


def build() -> Tokenizer:
    """The tokenizer; always the same one."""
    letters = string.ascii_lowercase + string.digits
    pieces = [*letters, *(f"##{c}" for c in letters), *string.punctuation]
    names = dict.fromkeys([*SPECIAL, *captions.words(), *pieces])
    tokenizer = Tokenizer(
        models.WordPiece({name: i for i, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.Lowercase(), normalizers.StripAccents()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [END]", special_tokens=[("[END]", END)]
    )
    return tokenizer


def encode(tokenizer: Tokenizer, prompts: Sequence[str], length: int) -> NDArray[np.int64]:
    """Ids (N, length): the prompt, `[END]`, padding; what is too long is cut before `[END]`."""
    ids = np.full((len(prompts), length), PAD, np.int64)
    for row, prompt in zip(ids, tokenizer.encode_batch(list(prompts)), strict=True):
        kept = prompt.ids[:length]
        row[: len(kept)] = kept
        row[len(kept) - 1] = END
    return ids
