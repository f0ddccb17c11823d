"""Video generation: a prompt, a picture or a clip becomes a video."""

from __future__ import annotations

import functools
import inspect
import os
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastvid._frames import FrameArray
from fastvid._generation.ahead import StagedDecoder, stage_names, takes_timestep
from fastvid._generation.arrays import HostArrays, arrays_for
from fastvid._generation.latents import Decoder, Drawn, Frames
from fastvid._generation.memory import ClipMemory
from fastvid._generation.noise import DECODING, Noise
from fastvid._generation.pictures import Pictures
from fastvid._generation.pictures import require as require_pictures
from fastvid._generation.prompts import PromptEncoder
from fastvid._generation.request import Callback, Request, check_request
from fastvid._generation.sampling import Sampler
from fastvid._memory import MemoryPlan
from fastvid._model import Model
from fastvid.bundle import Bundle, GenerationSpec
from fastvid.errors import InputTypeError, NumericError, UnsupportedModelError
from fastvid.video.types import Frame, VideoInfo

if TYPE_CHECKING:
    from fastvid.backends.tensorrt import EngineOptions
    from fastvid.schedulers._base import Scheduler
    from fastvid.video import Video

_GRAPHS = ("text_encoder", "transformer")
_DECODER = ("decoder_first", "decoder_next")
# A picture whose brightest sample is below this shows nothing.
_BLACK = 3


class Generator(Model):
    """Draws videos from text with a diffusion model.

    Args:
        model: `"tiny"`, the full name of a shipped model, or a folder that holds a bundle.
        device: `"auto"`, `"cpu"`, `"cuda"` or `"cuda:N"`; only `"auto"` may fall back to the CPU.
        backend: `"auto"`, `"onnxruntime"`, `"tensorrt"`, or `EngineOptions` of
            `fastvid.backends.tensorrt`.
        precision: `"auto"`, or one that the backend offers.
        threads: CPU threads of the networks; None takes what the machine has.
        low_memory: Whether memory goes back to the system after each step, which takes time.
        cuda_graphs: Whether work on CUDA is recorded once per size and repeated.
        check_output: Whether a clip that starts with nothing but black is an error; NaN always is.

    Raises:
        InputError: No such model.
        ModelError: The bundle cannot be used.
        DeviceError: Device or backend are not there.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] = "tiny",
        *,
        device: str = "auto",
        backend: str | EngineOptions = "auto",
        precision: str = "auto",
        threads: int | None = None,
        low_memory: bool = False,
        cuda_graphs: bool = False,
        check_output: bool = True,
    ) -> None:
        bundle = Bundle.find(model, "generator")
        self._spec = _spec_of(bundle)
        super().__init__(
            bundle,
            device=device,
            backend=backend,
            precision=precision,
            threads=threads,
            low_memory=low_memory,
            cuda_graphs=cuda_graphs,
        )
        self._check_output = check_output
        self._prompts = PromptEncoder(bundle, self._graph("text_encoder"), self._spec)
        self._arrays = arrays_for(self._graph("transformer"))
        self._decoder = self._made_decoder()
        self._running: set[threading.Event] = set()
        self.last_seed: int | None = None
        """The seed of the latest generation: the one given, or the one that was drawn."""

    @classmethod
    def from_pretrained(cls, model: str | os.PathLike[str] = "tiny", **options: Any) -> Generator:
        """The same as calling the class: `Generator.from_pretrained("tiny", threads=2)`."""
        return cls(model, **options)

    def generate(
        self,
        prompt: str,
        *,
        negative_prompt: str | None = None,
        image: FrameArray | None = None,
        last_image: FrameArray | None = None,
        video: Video | NDArray[np.uint8] | None = None,
        strength: float | None = None,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        frame_rate: int | float | str | Fraction | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        guidance_scale_2: float | None = None,
        seed: int | None = None,
        noise: str | None = None,
        guidance_rescale: float | None = None,
        image_cond_noise_scale: float | None = None,
        decode_timestep: float | None = None,
        decode_noise_scale: float | None = None,
        scheduler: str | Scheduler | None = None,
        flow_shift: float | None = None,
        callback_on_step_end: Callback | None = None,
    ) -> Video:
        """Draw a video.

        The clip is drawn as latents before this returns; its frames are decoded lazily and anew
        for each iteration of the video. The same arguments, seed included, give the same frames
        on any number of threads.

        Args:
            prompt: What to draw; 1 to 10,000 characters, and no more tokens than the model takes.
            negative_prompt: What to lead away from, with a `guidance_scale` above 1.
            image: uint8 RGB (H, W, 3), the first frame.
            last_image: The last frame, together with `image`.
            video: A clip, uint8 (T, H, W, 3) or a `Video`. Without `strength` the new clip starts
                with the end of this one and continues it; with it the clip is redrawn.
            strength: Above 0 to 1: how much of `video` is redrawn; 1 keeps nothing.
            height: Pixels; None is that of `image` or `video`, or what the model was made for.
            width: The same.
            num_frames: Frames of the result, `temporal_compression * k + 1`.
            frame_rate: Frames per second that the video is shown at.
            num_inference_steps: Steps of the solver, 1 to 1000.
            guidance_scale: How strongly to follow the prompt, 0 to 100; 1 and less is one
                evaluation of the model per step instead of two.
            guidance_scale_2: The same for the second transformer of models that have two; None is
                `guidance_scale` where that is given, else the model's.
            seed: 0 to 2**64 - 1; None draws one, see `last_seed`.
            noise: `"philox"` (the default), the same on every device, or `"torch-cpu"`, what
                `torch.Generator("cpu").manual_seed(seed)` gives diffusers' pipelines.
            guidance_rescale: 0 to 1: how much of the spread that guidance adds is taken back.
            image_cond_noise_scale: 0 to 1: noise in the pictures that a clip starts with, which
                fades from step to step; for models made for it.
            decode_timestep: 0 to 1: the noise that a decoder with a timestep takes latents to have.
            decode_noise_scale: 0 to 1: the share of noise that is put into them; None is
                `decode_timestep`.
            scheduler: Class name in `fastvid.schedulers`, or an object of one.
            flow_shift: How far the noise levels of a flow matching model are moved towards noise;
                None is the model's. Models are made for more of it in larger pictures.
            callback_on_step_end: Called as `f(generator, step, timestep, {"latents": array})`
                after each step. It may return a dict with other latents, or False to stop.

        Returns:
            The video, of `num_frames` frames.

        Raises:
            InputTypeError: An argument has the wrong type.
            InputError: A value is not allowed; sizes name the nearest that are.
            CancelledError: The callback, or `cancel` in another thread, ended the run.
            NumericError: The model gave no picture.
            OutOfMemoryError: The clip cannot fit into memory; the hint names a size that does.
            DeviceError: The runtime failed.
        """
        request = self._request(
            prompt,
            negative_prompt=negative_prompt,
            image=image,
            last_image=last_image,
            video=video,
            strength=strength,
            height=height,
            width=width,
            num_frames=num_frames,
            frame_rate=frame_rate,
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            guidance_scale_2=guidance_scale_2,
            seed=seed,
            noise=noise,
            guidance_rescale=guidance_rescale,
            image_cond_noise_scale=image_cond_noise_scale,
            decode_timestep=decode_timestep,
            decode_noise_scale=decode_noise_scale,
            scheduler=scheduler,
            flow_shift=flow_shift,
            callback_on_step_end=callback_on_step_end,
        )
        return self._video(request, self._sample(request))

    def stream(self, prompt: str, **arguments: Any) -> Iterator[Frames]:
        """Draw a video and yield its frames in pieces while the rest is still to be decoded.

        Args:
            prompt: As in `generate`.
            **arguments: As in `generate`.

        Yields:
            uint8 RGB (n, H, W, 3): one frame, then as many as a latent has.

        Raises:
            FastvidError: As in `generate`; wrong arguments are named before anything is drawn.
        """
        for name in arguments:
            if name not in _ARGUMENTS:
                raise InputTypeError(
                    f"stream: arguments must be among those of generate, got {name!r}"
                )
        request = self._request(prompt, **{name: arguments.get(name) for name in _ARGUMENTS})

        def pieces() -> Iterator[Frames]:
            yield from self._frames(self._sample(request))

        return pieces()

    def plan(
        self,
        height: int | None = None,
        width: int | None = None,
        num_frames: int | None = None,
        *,
        guidance_scale: float | None = None,
    ) -> MemoryPlan:
        """What drawing a clip needs in memory; arguments as in `generate`.

        The first call measures the model at the size that it was made for.

        Raises:
            InputError: A value is not allowed.
            DeviceError: The memory cannot be measured.
        """
        given = {
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "guidance_scale": guidance_scale,
        }
        arguments = dict.fromkeys(_ARGUMENTS) | given
        return self._clips.plan(check_request(self._bundle, self._spec, "a", **arguments))

    @functools.cached_property
    def _clips(self) -> ClipMemory:
        return ClipMemory(self._bundle, self._spec, self._options_here())

    def cancel(self) -> None:
        """Stop what runs now in other threads, which then raise `CancelledError`."""
        for stop in list(self._running):
            stop.set()
        super().cancel()

    def close(self) -> None:
        """Free the sessions; calling it again does nothing."""
        self._arrays.close()
        super().close()

    def _request(self, prompt: str, **arguments: Any) -> Request:
        request = check_request(self._bundle, self._spec, prompt, **arguments)
        require_pictures(self._bundle, self._spec, request)
        self._clips.require(request)
        self.last_seed = request.seed
        return request

    def _made_decoder(self) -> Decoder | StagedDecoder:
        if stages := stage_names(self._bundle):
            return StagedDecoder([self._graph(name) for name in stages], self._transfers)
        first, following = map(self._graph, _DECODER)
        return Decoder(first, following, self._transfers)

    def _sample(self, request: Request) -> Drawn:
        stop = threading.Event()
        self._running.add(stop)
        try:
            prompt = self._prompts.encode("prompt", request.prompt)
            negative = None
            if request.guidance_scale > 1:
                negative = self._negative(request.negative_prompt)
            noise = Noise(request.seed, request.noise)
            pictures = Pictures(self._bundle, self._spec, self._graph, self._transfers, noise)
            shape = self._latent_shape(request)
            sampler = Sampler(self._graph, self._spec, shape, request, stop, self._arrays, noise)
            if self._spec.picture_conditioning == "noised_first_frames":
                sampler.draw_first()
            start = pictures.start(request)
            latents = sampler.run(self, prompt, negative, start)
            added = noise.normal(shape, DECODING) if takes_timestep(self._bundle) else None
            return Drawn(
                latents, request.seed, request.decode_timestep, request.decode_noise_scale, added
            )
        finally:
            self._running.discard(stop)

    def _negative(self, negative_prompt: str | None) -> Any:
        if negative_prompt is None:
            return self._prompts.nothing()
        return self._prompts.encode("negative_prompt", negative_prompt)

    def _latent_shape(self, request: Request) -> tuple[int, ...]:
        spec = self._spec
        side = spec.spatial_compression
        count = 1 + (request.num_frames - 1) // spec.temporal_compression
        return (1, spec.latent_channels, count, request.height // side, request.width // side)

    def _frames(self, drawn: Drawn) -> Iterator[Frames]:
        seen = 0
        bright = not self._check_output
        # A scheduler that is not ours leaves its latents on the host.
        arrays = HostArrays() if isinstance(drawn.latents, np.ndarray) else self._arrays
        for piece in self._decoder.decode(drawn, arrays):
            bright = bright or int(piece.max()) >= _BLACK
            seen += len(piece)
            if not bright and seen > self._spec.temporal_compression:
                raise NumericError(
                    "generate: the clip must show something, got nothing but black",
                    hint="another seed; or Generator(check_output=False) if that is what you want",
                )
            yield piece

    def _video(self, request: Request, drawn: Drawn) -> Video:
        from fastvid.video import Video

        duration = request.num_frames / request.frame_rate
        info = VideoInfo(
            request.width,
            request.height,
            request.frame_rate,
            request.num_frames,
            duration,
            time_base=1 / request.frame_rate,
        )
        return Video(lambda: _LatentSource(self, drawn, info), info)


class _LatentSource:
    """Latents as an open source of a video."""

    def __init__(self, generator: Generator, drawn: Drawn, info: VideoInfo) -> None:
        self.info = info
        self.warnings: list[str] = []
        self.truncated = False
        self._generator, self._drawn = generator, drawn

    def frames(self) -> Iterator[Frame]:
        """Decodes the frames one latent at a time."""
        step = 1 / self.info.fps
        number = 0
        for piece in self._generator._frames(self._drawn):
            for picture in piece:
                yield Frame(np.ascontiguousarray(picture), number * step, step)
                number += 1

    def close(self) -> None:
        """Nothing is open."""


_ARGUMENTS = tuple(inspect.signature(Generator.generate).parameters)[2:]


def _spec_of(bundle: Bundle) -> GenerationSpec:
    """The settings of a bundle that has all a generator needs."""
    decoder = () if stage_names(bundle) else _DECODER
    for name in (*_GRAPHS, *decoder):
        if name not in bundle.graphs:
            raise UnsupportedModelError(
                f"model: {bundle.name!r} must have the graph {name!r}, it has "
                f"{', '.join(bundle.graphs)}"
            )
    if bundle.generation is None:
        raise UnsupportedModelError(f"model: {bundle.name!r} must have settings 'generation'")
    return bundle.generation
