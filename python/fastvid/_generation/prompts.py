"""Prompts as a model reads them."""

from __future__ import annotations

import html
import warnings
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvid.bundle import Bundle, GenerationSpec
from fastvid.errors import BackendUnavailableError, InputError, InputTypeError, ManifestError

if TYPE_CHECKING:
    from fastvid.backends import Session

TOKENIZER = "tokenizer.json"
MAX_CHARACTERS = 10_000
_KEPT = 64
# Pieces of one letter from which a word counts as spelled out.
_SPELLED = 3


@dataclass(frozen=True)
class Embedding:
    """What the text encoder says about one prompt."""

    embeds: NDArray[np.float32]
    """float32 (1, tokens, width)."""
    mask: NDArray[np.int64]
    """int64 (1, tokens): 1 for a token, 0 for padding."""


class PromptEncoder:
    """Turns prompts into embeddings; the latest ones are kept.

    Args:
        bundle: Holds `tokenizer.json`, a file of the `tokenizers` package.
        session: The graph `text_encoder`: `input_ids` and, where padding is hidden,
            `attention_mask`, int64 (1, tokens), to `prompt_embeds`, float32 (1, tokens, width).
        spec: How prompts are cleaned, and how long they and their embeddings are.

    Raises:
        ManifestError: The bundle has no tokenizer that can be read.
        BackendUnavailableError: The package `tokenizers` is not installed.
    """

    def __init__(self, bundle: Bundle, session: Session, spec: GenerationSpec) -> None:
        self._session, self._spec = session, spec
        self._max_tokens = spec.max_prompt_tokens
        self._tokenizer = _tokenizer(bundle)
        self._kept: OrderedDict[str, Embedding] = OrderedDict()
        self._nothing: Embedding | None = None

    def encode(self, what: str, prompt: object) -> Embedding:
        """The embedding of a prompt.

        Args:
            what: Name of the argument, for errors.
            prompt: 1 to 10,000 characters and at most `max_tokens` tokens; spaces at the ends and
                repeated ones do not count.

        Raises:
            InputTypeError: Not a string.
            InputError: Empty, or too long.
        """
        text = clean_prompt(what, prompt, self._spec.prompt_cleaning)
        if text in self._kept:
            self._kept.move_to_end(text)
            return self._kept[text]
        ids = self._tokens(what, text)
        self._kept[text] = self._embedding(ids)
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[text]

    def forget(self) -> None:
        """Drop the embeddings that are kept, so that the next ones are computed."""
        self._kept.clear()
        self._nothing = None

    def nothing(self) -> Embedding:
        """The embedding of no prompt, which a model learns from prompts dropped in training."""
        if self._nothing is None:
            # A tokenizer without marks at the ends gives no token; attention needs one.
            self._nothing = self._embedding(list(self._tokenizer.encode("").ids) or [0])
        return self._nothing

    def _tokens(self, what: str, text: str) -> list[int]:
        encoding = self._tokenizer.encode(text)
        ids: list[int] = list(encoding.ids)
        if not ids:
            raise InputError(f"{what}: argument must hold a word, got {text[:40]!r}")
        if len(ids) > self._max_tokens:
            raise InputError(
                f"{what}: argument must have at most {self._max_tokens} tokens, got {len(ids)}",
                hint="a token is a word or a part of one; shorten the text",
            )
        if unknown := self._unknown(encoding, text):
            words = ", ".join(map(repr, unknown[:5]))
            warnings.warn(f"{what}: the model does not know {words}", UserWarning, stacklevel=4)
        return ids

    def _unknown(self, encoding: Any, text: str) -> list[str]:
        """Words that have no token, or that are spelled out letter by letter."""
        missing = self._tokenizer.token_to_id("[UNK]")
        pieces: dict[int, list[int]] = {}
        for i, word in enumerate(encoding.word_ids):
            if word is not None:
                pieces.setdefault(word, []).append(i)
        found = []
        for places in pieces.values():
            bounds = [encoding.offsets[i] for i in places]
            name = text[bounds[0][0] : bounds[-1][1]]
            letters = sum(end - start == 1 for start, end in bounds)
            # Languages that are written in single signs are not spelled out, and vocabularies
            # without the mark know every letter.
            spelled = missing is not None and letters >= _SPELLED and name.isascii()
            unknown = any(encoding.ids[i] == missing for i in places)
            if spelled or (missing is not None and unknown):
                found.append(name)
        return found

    def _embedding(self, ids: list[int]) -> Embedding:
        padding = [0] * (self._max_tokens - len(ids))
        mask = np.array([[1] * len(ids) + padding], np.int64)
        if not self._spec.zero_padding:
            return Embedding(self._read(np.array([ids + padding], np.int64), mask), mask)
        read = self._read(np.array([ids], np.int64), mask[:, : len(ids)])
        embeds = np.zeros((1, self._max_tokens, read.shape[2]), np.float32)
        embeds[:, : len(ids)] = read
        return Embedding(embeds, mask)

    def _read(self, ids: NDArray[np.int64], mask: NDArray[np.int64]) -> NDArray[np.float32]:
        inputs = {"input_ids": ids}
        # Some encoders were used with padding that their tokens see.
        if "attention_mask" in self._session.inputs:
            inputs["attention_mask"] = mask
        read: NDArray[np.float32] = self._session.run(inputs)["prompt_embeds"]
        return read


def clean_prompt(what: str, prompt: object, cleaning: str = "spaces") -> str:
    """A prompt with single spaces, checked; see `GenerationSpec.prompt_cleaning`."""
    if not isinstance(prompt, str):
        raise InputTypeError(f"{what}: argument must be a str, got {type(prompt).__name__}")
    if len(prompt) > MAX_CHARACTERS:
        raise InputError(
            f"{what}: argument must have at most {MAX_CHARACTERS} characters, got {len(prompt)}"
        )
    # Twice, as pipelines do: prompts from the web are sometimes escaped twice.
    plain = html.unescape(html.unescape(prompt)) if cleaning == "html" else prompt
    text = " ".join(plain.split())
    if not text:
        raise InputError(f"{what}: argument must say what to draw, got {prompt[:20]!r}")
    return text


def _tokenizer(bundle: Bundle) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError:
        raise BackendUnavailableError(
            "generator: prompts need the package tokenizers, which is not installed",
            hint="pip install 'fastvid-sdk[generate]' or pip install tokenizers",
        ) from None
    if TOKENIZER not in bundle.files:
        raise ManifestError(f"{bundle.name}: a generator's files must hold {TOKENIZER!r}")
    try:
        return Tokenizer.from_str(bundle.read(TOKENIZER).decode("utf-8"))
    except ManifestError:
        raise
    except Exception as error:
        raise ManifestError(
            f"{bundle.name}: {TOKENIZER} is not a tokenizer: {error!s:.200}"
        ) from None
