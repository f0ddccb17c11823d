"""What `Interpolator` and `Upscaler` share: a bundle, its sessions, and their end."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from fastvid import backends
from fastvid._wide import HINT, widened
from fastvid.backends._transfer import transfers
from fastvid.bundle import Bundle
from fastvid.errors import UnsupportedModelError

if TYPE_CHECKING:
    from fastvid._memory import FrameMemory
    from fastvid.backends import LoadedModel, Report, Session
    from fastvid.video.types import VideoInfo

wrap_loaded: Callable[[LoadedModel], LoadedModel] | None = None
"""What a model passes through when it is opened; `fastvid.bench` sets it to time its sessions."""


class Model:
    """A bundle whose graphs are loaded on a device.

    Args:
        bundle: The model on disk.
        **device: `device`, `backend`, `precision`, `threads` and what else `backends.open` takes.

    Raises:
        InputError: An argument is none of those there are.
        ModelError: The bundle cannot be used.
        DeviceError: Device or backend are not there.
    """

    def __init__(self, bundle: Bundle, **device: Any) -> None:
        self._bundle = bundle
        self._options = device
        self._wide: LoadedModel | None = None
        self._widening = threading.Lock()
        opened = backends.open(bundle, **device)
        self._model = opened if wrap_loaded is None else wrap_loaded(opened)
        try:
            self._transfers = transfers(self._graph(next(iter(bundle.graphs))))
        except BaseException:
            self._model.close()
            raise

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str] = "fast", **options: Any) -> Self:
        """The same as calling the class: `X.from_pretrained("fast", threads=2)`."""
        # The subclasses take a model's name or folder where this class takes the bundle itself.
        return cls(model, **options)  # type: ignore[arg-type]

    @property
    def bundle(self) -> Bundle:
        """The model on disk."""
        return self._bundle

    def report(self) -> Report:
        """Which backend, device and provider run each graph, and why.

        Once frames of 16 bits a sample came, their sessions are listed too.
        """
        report = self._model.report()
        if self._wide is None:
            return report
        wide = (replace(g, graph=f"{g.graph}, 16 bits") for g in self._wide.report().graphs)
        return replace(report, graphs=(*report.graphs, *wide))

    def cancel(self) -> None:
        """Stop what runs now in other threads, which then raise `CancelledError`."""
        for model in self._loaded():
            model.cancel()

    def close(self) -> None:
        """Free the sessions; calling it again does nothing."""
        self._transfers.close()
        for model in self._loaded():
            model.close()

    def _loaded(self) -> list[LoadedModel]:
        return [self._model] if self._wide is None else [self._model, self._wide]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._bundle.name} on {self.report().device}>"

    @functools.cached_property
    def _memory(self) -> FrameMemory:
        """What frames take in memory."""
        from fastvid._memory import FrameMemory

        return FrameMemory(str(self._bundle.path), self._options_here(), self._seen)

    def _seen(self, height: int, width: int) -> tuple[int, int]:
        """Height and width that graphs see of a frame, or of a piece of one."""
        return self._bundle.size_rule.padded(height, width)

    def _options_here(self) -> dict[str, Any]:
        """What opens the model again on the device that it runs on."""
        report = self.report()
        return self._options | {"device": report.device, "backend": report.backend}

    def _graph(self, name: str, dtype: object = None) -> Session:
        """The session of a graph, for frames of that dtype."""
        if dtype != np.uint16:
            return self._model.graph(name)
        with self._widening:
            if self._wide is None:
                self._wide = self._open_wide()
        return self._wide.graph(name)

    def _require_depth(self, info: VideoInfo) -> None:
        """Loads what frames of the video take; raises where the model takes uint8 alone."""
        if info.bit_depth > 8:
            self._graph(next(iter(self._bundle.graphs)), np.uint16)

    def _open_wide(self) -> LoadedModel:
        """The model for frames of 16 bits a sample, which onnxruntime alone runs."""
        asked = self._options.get("backend", "auto")
        if asked not in ("auto", "onnxruntime"):
            raise UnsupportedModelError(
                f"frames: must have 8 bits a sample with backend {self.report().backend!r}, got 16",
                hint=f"backend='onnxruntime' takes both; {HINT}",
            )
        options = self._options_here() | {"backend": "onnxruntime"}
        opened = backends.open(widened(self._bundle), **options)
        return opened if wrap_loaded is None else wrap_loaded(opened)
