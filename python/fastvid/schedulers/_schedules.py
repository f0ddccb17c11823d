"""Betas, timesteps and sigmas, as diffusers computes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastvid.errors import InputError
from fastvid.schedulers._config import at_most_one, option, unchecked

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

# Instead of 0 for the last cumulative alpha, whose sigma would be infinite.
_SMALLEST_ALPHA = 2.0**-24
_KARRAS_RHO = 7.0
_BETA_SHAPE = 0.6
# exp(mu) is a shift, which is about 1 to 12 in practice.
LARGEST_MU = 13.0


@dataclass(frozen=True)
class BetaOptions:
    """The forward process of models trained on a discrete noise schedule."""

    num_train_timesteps: int = option(1000, low=2, high=100_000)
    beta_start: float = option(0.0001, low=0.0, high=1.0)
    beta_end: float = option(0.02, low=0.0, high=1.0)
    beta_schedule: str = option("linear", "linear", "scaled_linear", "squaredcos_cap_v2")
    trained_betas: tuple[float, ...] | None = unchecked()
    timestep_spacing: str = option("linspace", "linspace", "leading", "trailing")
    steps_offset: int = option(0, low=0)
    rescale_betas_zero_snr: bool = option(False)


@dataclass(frozen=True)
class SigmaOptions:
    """How the sigmas of a run are spread."""

    use_karras_sigmas: bool = option(False)
    use_exponential_sigmas: bool = option(False)
    use_beta_sigmas: bool = option(False)

    def kind(self, name: str) -> str | None:
        """Which of them is set: "karras", "exponential", "beta" or None."""
        kinds = ("karras", "exponential", "beta")
        at_most_one(name, self, *(f"use_{kind}_sigmas" for kind in kinds))
        return next((kind for kind in kinds if getattr(self, f"use_{kind}_sigmas")), None)


def cumulative_alphas(name: str, config: BetaOptions, *, finite_sigmas: bool) -> F32:
    """The products of 1 - beta over the training timesteps, float32 (num_train_timesteps,).

    With `finite_sigmas` the last one is not 0 where betas are rescaled to end in pure noise.
    """
    count = config.num_train_timesteps
    if config.trained_betas is not None:
        betas = _trained_betas(name, config.trained_betas, count)
    elif config.beta_schedule == "linear":
        betas = _linspace(config.beta_start, config.beta_end, count)
    elif config.beta_schedule == "scaled_linear":
        betas = _linspace(config.beta_start**0.5, config.beta_end**0.5, count) ** 2
    else:
        betas = _cosine_betas(count)
    if config.rescale_betas_zero_snr:
        betas = _zero_terminal_snr(betas)
    products = _products(np.float32(1) - betas)
    rescaled = config.rescale_betas_zero_snr
    falling = products[0] < 1 and (np.diff(products) < 0).all()
    if not falling or (products[-1] <= 0 and not rescaled):
        raise InputError(
            f"{name}: betas must be positive and leave a trace of the signal at every timestep, "
            f"got products of 1 - beta from {products[0]} to {products[-1]}"
        )
    if rescaled and finite_sigmas:
        products[-1] = _SMALLEST_ALPHA
    return products


def sigmas_of(alphas: F32) -> F32:
    """Noise relative to the signal: sqrt((1 - alpha) / alpha)."""
    return np.asarray(np.sqrt((np.float32(1) - alphas) / alphas))


def spread(kind: str, sigma_min: float, sigma_max: float, count: int) -> F64:
    """`count` sigmas from the largest to the smallest: Karras', exponential or beta spacing."""
    if kind == "karras":
        ramp = np.linspace(0, 1, count)
        low, high = sigma_min ** (1 / _KARRAS_RHO), sigma_max ** (1 / _KARRAS_RHO)
        return np.asarray((high + ramp * (low - high)) ** _KARRAS_RHO)
    if kind == "exponential":
        return np.exp(np.linspace(math.log(sigma_max), math.log(sigma_min), count))
    return sigma_min + _beta_quantile(1 - np.linspace(0, 1, count)) * (sigma_max - sigma_min)


def timestep_of(sigma: F64, log_sigmas: NDArray[Any]) -> F64:
    """The training timesteps, fractional, at which the sigma is these."""
    log_sigma = np.log(np.maximum(sigma, 1e-10))
    # The last not above it: they rise, but for the last one of rescaled betas.
    below = [np.flatnonzero(log_sigmas <= value) for value in log_sigma]
    low = np.array([found[-1] if len(found) else 0 for found in below])
    low = np.minimum(low, len(log_sigmas) - 2)
    weight = (log_sigmas[low] - log_sigma) / (log_sigmas[low] - log_sigmas[low + 1])
    weight = np.clip(weight, 0, 1)
    return np.asarray((1 - weight) * low + weight * (low + 1))


def shift(sigmas: NDArray[Any], factor: float) -> NDArray[Any]:
    """Moves flow sigmas towards noise: factor * sigma / (1 + (factor - 1) * sigma)."""
    return np.asarray(factor * sigmas / (1 + (factor - 1) * sigmas))


def shift_by_mu(sigmas: NDArray[Any], mu: float, kind: str = "exponential") -> NDArray[Any]:
    """The shift that depends on the number of tokens."""
    top = math.exp(mu) if kind == "exponential" else mu
    return np.asarray(top / (top + (1 / sigmas - 1)))


def stretch_to_terminal(sigmas: NDArray[Any], terminal: float) -> NDArray[Any]:
    """Scales 1 - sigma so that the last sigma is `terminal`."""
    rest = 1 - sigmas
    if rest[-1] <= 0:
        raise InputError(
            f"shift_terminal: the last of the sigmas must be below 1, got {float(sigmas[-1])}",
            hint="take more steps",
        )
    return np.asarray(1 - rest / (rest[-1] / (1 - terminal)))


def _trained_betas(name: str, values: Any, count: int) -> F32:
    try:
        betas = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: trained_betas must be numbers, got {values!r}") from error
    if betas.shape != (count,) or not ((betas >= 0) & (betas < 1)).all():
        raise InputError(
            f"{name}: trained_betas must be {count} numbers in [0, 1), got shape {betas.shape}"
        )
    return betas.astype(np.float32)


def _linspace(start: float, end: float, count: int) -> F32:
    """torch.linspace in float32: counted from the nearer end, each value rounded once."""
    first, last = np.float32(start), np.float32(end)
    step = np.float64((last - first) / np.float32(count - 1))
    i = np.arange(count)
    values = np.where(i < count // 2, first + step * i, last - step * (count - 1 - i))
    return values.astype(np.float32)


def _cosine_betas(count: int) -> F32:
    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    return np.array(
        [min(1 - alpha_bar((i + 1) / count) / alpha_bar(i / count), 0.999) for i in range(count)],
        dtype=np.float32,
    )


def _zero_terminal_snr(betas: F32) -> F32:
    """Algorithm 1 of Lin et al., "Common diffusion noise schedules and sample steps are flawed"."""
    roots = np.sqrt(_products(np.float32(1) - betas))
    first, last = roots[0], roots[-1]
    roots = (roots - last) * (first / (first - last))
    bars = roots**2
    alphas = np.concatenate([bars[:1], bars[1:] / bars[:-1]])
    return np.asarray(np.float32(1) - alphas)


def _products(alphas: F32) -> F32:
    return np.cumprod(alphas, dtype=np.float64).astype(np.float32)


def _beta_quantile(p: F64) -> F64:
    """Quantiles of the beta distribution with both shapes _BETA_SHAPE.

    Newton's method on the power series of the distribution function, in the half where it is fast;
    the other half is its mirror image.
    """
    a = _BETA_SHAPE
    scale = math.gamma(a) ** 2 / math.gamma(2 * a)
    tail = np.minimum(p, 1 - p)
    x = np.minimum((tail * a * scale) ** (1 / a), 0.5)
    inside = tail > 0
    for _ in range(12):
        y = x[inside]
        term, total = np.ones_like(y), np.zeros_like(y)
        for n in range(60):
            total += term
            term = term * y * (2 * a + n) / (a + 1 + n)
        mass = (y * (1 - y)) ** a / (a * scale) * total
        density = (y * (1 - y)) ** (a - 1) / scale
        x[inside] = np.clip(y + (tail[inside] - mass) / density, 1e-300, 0.5)
    return np.where(p <= 0.5, x, 1 - x)
