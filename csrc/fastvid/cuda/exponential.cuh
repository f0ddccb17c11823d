// The exponential function, operation by operation that of cpu/exponential.h.
#pragma once

namespace fastvid::cuda {

__device__ inline float exponential(float x) {
  constexpr float kRound = 12582912.0f;
  x = fminf(fmaxf(x, -87.0f), 88.0f);
  const float t = x * 1.44269504f + kRound;
  const float n = t - kRound;
  const float r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  float p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r) * r + (r + 1.0f);
  return p * __uint_as_float((__float_as_uint(t) << 23) + 0x3f800000u);
}

}  // namespace fastvid::cuda
