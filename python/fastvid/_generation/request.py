"""What a call of `Generator` asks for, checked before anything is computed."""

from __future__ import annotations

import numbers
import os
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid import schedulers
from fastvid._frames import FrameArray, check_frame
from fastvid._generation.ahead import takes_timestep
from fastvid._generation.prompts import clean_prompt
from fastvid._rates import frame_rate as exact_rate
from fastvid.bundle import Bundle, GenerationSpec
from fastvid.errors import InputError, InputTypeError
from fastvid.schedulers._base import Scheduler
from fastvid.video.types import eight_bits

MAX_STEPS = 1000
_FLOW = "FlowMatchEulerDiscreteScheduler"
_FLOW_SOLVERS = ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
MAX_SEED = 2**64 - 1
# What LTXConditionPipeline of diffusers adds by default.
_PICTURE_NOISE = 0.15
NOISES = ("philox", "torch-cpu")
"""Where the noise comes from: `ops.randn`, or what torch's CPU generator draws."""

Callback = Callable[[Any, int, float, dict[str, Any]], Any]


@dataclass(frozen=True)
class Request:
    """Arguments of one generation, with the bundle's defaults filled in."""

    prompt: str
    negative_prompt: str | None
    image: FrameArray | None
    last_image: FrameArray | None
    video: NDArray[np.uint8] | None
    """uint8 (T, H, W, 3)."""
    strength: float | None
    """None continues `video`; a number redraws it."""
    height: int
    width: int
    num_frames: int
    frame_rate: Fraction
    num_inference_steps: int
    guidance_scale: float
    guidance_scale_2: float
    """Below the boundary of a model of two transformers."""
    seed: int
    noise: str
    """One of `NOISES`."""
    guidance_rescale: float
    image_cond_noise_scale: float
    decode_timestep: float
    decode_noise_scale: float
    scheduler: Scheduler
    callback: Callback | None

    @property
    def redraws(self) -> bool:
        """Whether sampling starts from `video` and not from noise."""
        return self.video is not None and self.strength is not None


def check_request(bundle: Bundle, spec: GenerationSpec, prompt: object, **given: Any) -> Request:
    """Checks the arguments of `Generator.generate`.

    Raises:
        InputTypeError: An argument has the wrong type.
        InputError: An argument has a value that is not allowed, or two do not go together.
    """
    image = _picture("image", given["image"])
    last_image = _picture("last_image", given["last_image"])
    video = _clip(given["video"])
    strength = _strength(given["strength"], video)
    if video is not None and (image is not None or last_image is not None):
        raise InputError("video: give video or image, not both")
    if last_image is not None and image is None:
        raise InputError("last_image: argument needs image too, got it alone")
    height, width = _size(bundle, spec, given, image if video is None else video[0])
    if last_image is not None and last_image.shape != (height, width, 3):
        raise InputError(
            f"last_image: argument must have the size of image, {height}x{width}, got "
            f"{last_image.shape[0]}x{last_image.shape[1]}"
        )
    num_frames = _num_frames(spec, given["num_frames"], video, strength)
    if last_image is not None and num_frames <= spec.temporal_compression + 1:
        raise InputError(
            f"num_frames: argument must be more than {spec.temporal_compression + 1} between image "
            f"and last_image, got {num_frames}"
        )
    negative = given["negative_prompt"]
    guidance = _number("guidance_scale", given["guidance_scale"], spec.guidance_scale, 0, 100)
    rate = given["frame_rate"]
    timestep = _number("decode_timestep", given["decode_timestep"], 0.0, 0, 1)
    for name in ("decode_timestep", "decode_noise_scale"):
        if given[name] is not None and not takes_timestep(bundle):
            raise InputError(
                f"{name}: argument is for decoders that take a timestep, {bundle.name!r} has none"
            )
    return Request(
        prompt=clean_prompt("prompt", prompt),
        negative_prompt=None if negative is None else _negative(negative),
        image=image,
        last_image=last_image,
        video=video,
        strength=strength,
        height=height,
        width=width,
        num_frames=num_frames,
        frame_rate=exact_rate("frame_rate", spec.frame_rate if rate is None else rate),
        num_inference_steps=_integer(
            "num_inference_steps", given["num_inference_steps"], spec.num_inference_steps, MAX_STEPS
        ),
        guidance_scale=guidance,
        guidance_scale_2=_second_guidance(spec, given, guidance),
        seed=_seed(given["seed"]),
        noise=_noise(given["noise"]),
        guidance_rescale=_number("guidance_rescale", given["guidance_rescale"], 0.0, 0, 1),
        image_cond_noise_scale=_picture_noise(spec, given["image_cond_noise_scale"]),
        decode_timestep=timestep,
        decode_noise_scale=_number(
            "decode_noise_scale", given["decode_noise_scale"], timestep, 0, 1
        ),
        scheduler=_scheduler(bundle, given["scheduler"], given["flow_shift"]),
        callback=_callback(given["callback_on_step_end"]),
    )


def _second_guidance(spec: GenerationSpec, given: dict[str, Any], first: float) -> float:
    value = given["guidance_scale_2"]
    if value is not None and spec.boundary_timestep is None:
        raise InputError("guidance_scale_2: argument is for models of two transformers, got one")
    own = None if given["guidance_scale"] is not None else spec.guidance_scale_2
    return _number("guidance_scale_2", value, first if own is None else own, 0, 100)


def _picture_noise(spec: GenerationSpec, value: object) -> float:
    noised = spec.picture_conditioning == "noised_first_frames"
    if value is not None and not noised:
        raise InputError(
            "image_cond_noise_scale: argument is for models that add noise to pictures, this is "
            "none"
        )
    return _number("image_cond_noise_scale", value, _PICTURE_NOISE if noised else 0.0, 0, 1)


def _noise(value: object) -> str:
    if value is None:
        return NOISES[0]
    if not isinstance(value, str):
        raise InputTypeError(f"noise: argument must be a str, got {type(value).__name__}")
    if value not in NOISES:
        raise InputError(f"noise: argument must be one of {', '.join(NOISES)}, got {value[:60]!r}")
    return value


def _negative(value: object) -> str | None:
    if isinstance(value, str) and not value.strip():
        return None
    return clean_prompt("negative_prompt", value)


def _picture(what: str, value: object) -> FrameArray | None:
    return None if value is None else eight_bits(check_frame(what, value))


def _clip(value: object) -> NDArray[np.uint8] | None:
    from fastvid.video import Video

    if value is None:
        return None
    if isinstance(value, Video):
        value = eight_bits(value.frames())
    if not isinstance(value, np.ndarray) or value.dtype != np.uint8:
        kind = value.dtype if isinstance(value, np.ndarray) else type(value).__name__
        raise InputTypeError(f"video: argument must be a Video or a uint8 array, got {kind}")
    if value.ndim != 4 or value.shape[3] != 3 or 0 in value.shape:
        raise InputError(f"video: argument must have shape (T, H, W, 3), got {value.shape}")
    return np.ascontiguousarray(value)


def _strength(value: object, video: object) -> float | None:
    if value is None:
        return None
    if video is None:
        raise InputError("strength: argument needs video too, got it alone")
    strength = _number("strength", value, 1.0, 0, 1)
    if strength == 0:
        raise InputError("strength: argument must be above 0 and at most 1, got 0")
    return strength


def _size(
    bundle: Bundle, spec: GenerationSpec, given: dict[str, Any], like: NDArray[np.uint8] | None
) -> tuple[int, int]:
    """Height and width: given, or those of the picture, or the bundle's."""
    natural = (spec.height, spec.width) if like is None else (like.shape[0], like.shape[1])
    rule = bundle.size_rule
    pictures = "image" if given["video"] is None else "video"
    sizes = []
    for what, default in zip(("height", "width"), natural, strict=True):
        size = _integer(what, given[what], default, None)
        legal = _nearest(size, rule.minimum, rule.multiple_of, rule.maximum)
        if size not in legal:
            own = given[what] is not None or like is None
            subject = f"{what}: argument" if own else f"{pictures}: {what}"
            raise InputError(
                f"{subject} must be a multiple of {rule.multiple_of} from {rule.minimum} to "
                f"{rule.maximum}, got {size}",
                hint=("" if own else "resize it; ") + _legal(legal),
            )
        if like is not None and size != default:
            raise InputError(
                f"{what}: argument must be that of the pictures given, {default}, got {size}",
                hint="resize the pictures, or leave the size out",
            )
        sizes.append(size)
    return sizes[0], sizes[1]


def _nearest(size: int, low: int, step: int, high: int) -> list[int]:
    """The legal sizes on both sides of one; that one alone if it is legal."""
    low, high = -(-low // step) * step, high // step * step
    below = min(max(size // step * step, low), high)
    above = min(max(-(-size // step) * step, low), high)
    return sorted({below, above})


def _legal(sizes: list[int]) -> str:
    verb = "are" if len(sizes) > 1 else "is"
    return f"the nearest {verb} {' and '.join(map(str, sizes))}"


def _num_frames(
    spec: GenerationSpec, value: object, video: NDArray[np.uint8] | None, strength: float | None
) -> int:
    step = spec.temporal_compression
    redraw = video is not None and strength is not None
    default = len(video) if redraw and video is not None else spec.num_frames
    what = "video" if redraw and value is None else "num_frames"
    count = _integer(what, value, default, None)
    legal = [1 + n for n in _nearest(count - 1, 0, step, spec.max_num_frames - 1)]
    if count not in legal:
        raise InputError(
            f"{what}: number of frames must be {step}k + 1 and at most {spec.max_num_frames}, "
            f"got {count}",
            hint=_legal(legal),
        )
    if video is None:
        return count
    if redraw and count != len(video):
        raise InputError(
            f"num_frames: argument must be that of video, {len(video)}, got {count}",
            hint="cut the video, or leave num_frames out",
        )
    if not redraw and count <= step + 1:
        raise InputError(
            f"num_frames: argument must be more than {step + 1} to continue a video, got {count}"
        )
    return count


def _integer(what: str, value: object, default: int, most: int | None) -> int:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputTypeError(f"{what}: argument must be an int, got {type(value).__name__}")
    number = int(value)
    if number < 1 or (most is not None and number > most):
        upper = "" if most is None else f" to {most}"
        raise InputError(f"{what}: argument must be from 1{upper}, got {number}")
    return number


def _number(what: str, value: object, default: float, low: float, high: float) -> float:
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise InputTypeError(f"{what}: argument must be a number, got {type(value).__name__}")
    number = float(value)
    # The comparison is false for NaN too.
    if not low <= number <= high:
        raise InputError(f"{what}: argument must be from {low} to {high}, got {number}")
    return number


def _seed(value: object) -> int:
    if value is None:
        return int.from_bytes(os.urandom(4), "little")
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise InputTypeError(f"seed: argument must be an int, got {type(value).__name__}")
    if not 0 <= int(value) <= MAX_SEED:
        raise InputError(f"seed: argument must be from 0 to 2**64 - 1, got {value}")
    return int(value)


def _scheduler(bundle: Bundle, value: object, flow_shift: object) -> Scheduler:
    """The scheduler object given, or one by its class name with the bundle's settings."""
    if isinstance(value, Scheduler):
        if flow_shift is not None:
            raise InputError(
                "flow_shift: argument must be None with a scheduler object, it has one"
            )
        return value
    choices = _schedulers(bundle, flow_shift)
    name = next(iter(choices)) if value is None else value
    if not isinstance(name, str):
        raise InputTypeError(
            "scheduler: argument must be a name or an object of fastvid.schedulers, got "
            f"{type(name).__name__}"
        )
    if name not in choices:
        raise InputError(
            f"scheduler: argument must be one of {', '.join(choices)}, got {name[:60]!r}",
            hint="or an object of fastvid.schedulers that fits the model's prediction",
        )
    scheduler: Scheduler = getattr(schedulers, name)(**choices[name])
    return scheduler


def _schedulers(bundle: Bundle, flow_shift: object) -> dict[str, dict[str, Any]]:
    """Settings by the class name of each scheduler that fits the model; its own is first."""
    own = str(bundle.scheduler.get("_class_name", _FLOW))
    settings = {key: v for key, v in bundle.scheduler.items() if not key.startswith("_")}
    flows = own == _FLOW or bool(settings.get("use_flow_sigmas"))
    key = "shift" if own == _FLOW else "flow_shift"
    if flow_shift is not None:
        if not flows:
            raise InputError(f"flow_shift: argument must be None for a model with {own}")
        if settings.get("use_dynamic_shifting"):
            raise InputError("flow_shift: argument must be None for a model that shifts by size")
        settings[key] = _number("flow_shift", flow_shift, 1.0, 1e-3, 1e6)
    if not flows or settings.get("use_dynamic_shifting"):
        return {own: settings}
    shift = settings.get(key, 1.0)
    flow = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": shift}
    others: dict[str, dict[str, Any]] = {_FLOW: {"shift": shift}}
    others |= dict.fromkeys(_FLOW_SOLVERS, flow)
    return {own: settings, **{name: others[name] for name in others if name != own}}


def _callback(value: object) -> Callback | None:
    if value is not None and not callable(value):
        raise InputTypeError(
            f"callback_on_step_end: argument must be callable, got {type(value).__name__}"
        )
    return value
