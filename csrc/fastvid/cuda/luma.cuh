// Device code of the conversions between frames and luma, for launchers and TensorRT plugins.
// T is uint8_t, uint16_t, or float holding levels of 8 bits: TensorRT's plugins have no uint8.
#pragma once

#include <cstdint>

#include "fastvid/core/luma.h"

namespace fastvid::cuda {

template <class T>
__device__ __forceinline__ void rgb_to_luma_pixel(const RgbToLuma& op, const T* __restrict__ rgb,
                                                  int64_t plane, int64_t i) {
  const LumaWeights& w = op.weights;
  const int64_t n = i / plane, at = i - n * plane;
  const float green = rgb[3 * i + 1];
  const float red = rgb[3 * i] - green, blue = rgb[3 * i + 2] - green;
  op.luma[i] = w.green_to_luma * green + (w.red_to_luma * red + w.blue_to_luma * blue);
  op.cb[2 * n * plane + at] = w.half * blue + w.red_to_cb * red;
  op.cr[2 * n * plane + at] = w.half * red + w.blue_to_cr * blue;
}

struct ChromaTaps {
  int64_t near, far;
  float step;
};
__device__ __forceinline__ ChromaTaps taps(const LumaToRgb& op, int64_t at, int64_t count) {
  const int64_t near = at / op.scale;
  const int phase = static_cast<int>(at - near * op.scale);
  const int64_t far = 2 * phase + 1 < op.scale ? near - 1 : near + 1;
  return {near, far < 0 ? 0 : far >= count ? count - 1 : far, op.step[phase]};
}

__device__ __forceinline__ float mix(float near, float far, float step) {
  return near + step * (far - near);
}

__device__ __forceinline__ float enlarge(const float* plane, int64_t width, const ChromaTaps& x,
                                         const ChromaTaps& y) {
  const float *near = plane + y.near * width, *far = plane + y.far * width;
  return mix(mix(near[x.near], far[x.near], y.step), mix(near[x.far], far[x.far], y.step), x.step);
}

// A NaN becomes 0.
template <class T>
__device__ __forceinline__ T to_level(float x) {
  return static_cast<T>(__float2int_rn(fminf(fmaxf(x, 0.0f), sizeof(T) == 2 ? 65535.0f : 255.0f)));
}

template <class T>
__device__ __forceinline__ void luma_to_rgb_pixel(const LumaToRgb& op, T* __restrict__ rgb,
                                                  int64_t i) {
  const int64_t width = op.width * op.scale, height = op.height * op.scale;
  const int64_t row = i / width, n = row / height, chroma = 2 * n * op.height * op.width;
  const ChromaTaps x = taps(op, i - row * width, op.width),
                   y = taps(op, row - n * height, op.height);
  const float cb = enlarge(op.cb + chroma, op.width, x, y);
  const float cr = enlarge(op.cr + chroma, op.width, x, y);
  const LumaWeights& w = op.weights;
  const float luma = w.luma_scale * op.luma[i];
  rgb[3 * i] = to_level<T>(luma + w.cr_to_red * cr);
  rgb[3 * i + 1] = to_level<T>(luma + (w.cb_to_green * cb + w.cr_to_green * cr));
  rgb[3 * i + 2] = to_level<T>(luma + w.cb_to_blue * cb);
}

}  // namespace fastvid::cuda
