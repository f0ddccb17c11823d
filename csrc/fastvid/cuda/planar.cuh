// Device code of the conversions between frames and planes, for launchers and TensorRT plugins.
// T is uint8_t, uint16_t, or float holding levels of 8 bits: TensorRT's plugins have no uint8.
#pragma once

#include <cstdint>

namespace fastvid::cuda {

template <class T>
constexpr float kTop = sizeof(T) == 2 ? 65535.0f : 255.0f;

template <class T>
__device__ __forceinline__ void rgb_to_planar_pixel(const T* __restrict__ rgb,
                                                    float* __restrict__ planes, int64_t plane,
                                                    int64_t i) {
  const int64_t n = i / plane;
  float* out = planes + n * 3 * plane + (i - n * plane);
  for (int c = 0; c < 3; ++c) out[c * plane] = __fdiv_rn(rgb[3 * i + c], kTop<T>);
}

template <class T>
__device__ __forceinline__ void planar_to_rgb_pixel(const float* __restrict__ planes,
                                                    T* __restrict__ rgb, int64_t plane, int64_t i) {
  const int64_t n = i / plane;
  const float* in = planes + n * 3 * plane + (i - n * plane);
  for (int c = 0; c < 3; ++c) {
    // __saturatef takes NaN to 0.
    rgb[3 * i + c] = static_cast<T>(__float2uint_rn(__saturatef(in[c * plane]) * kTop<T>));
  }
}

}  // namespace fastvid::cuda
