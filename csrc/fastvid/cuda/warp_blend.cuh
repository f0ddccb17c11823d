// Device code of warp_blend, for its launcher and its TensorRT plugin.
#pragma once

#include <cstdint>

#include "fastvid/cuda/exponential.cuh"
#include "fastvid/cuda/half.cuh"
#include "fastvid/cuda/sampling.cuh"

namespace fastvid::cuda {

constexpr int kBlendThreads = 128;

// The highest level, where results of a type are levels of frames and not values of planes, else 0.
template <class Out>
constexpr float kTopLevel = 0.0f;
template <>
constexpr float kTopLevel<uint8_t> = 255.0f;
template <>
constexpr float kTopLevel<uint16_t> = 65535.0f;

template <class T>
struct Blend {
  const T *image0, *image1;  // (count, 3, height, width)
  const T* residual;         // the same, or null
  int64_t count, height, width;
};

// One thread per pixel of a batch.
template <class T, class Out>
__device__ __forceinline__ void warp_blend_pixel(const Blend<T>& blend, const Field& flow,
                                                 const Field& mask, Out* __restrict__ out) {
  const int64_t plane = blend.height * blend.width;
  const int64_t i = int64_t{blockIdx.x} * kBlendThreads + threadIdx.x;
  if (i >= blend.count * plane) return;
  // A plane has fewer than 2^31 pixels, and 32-bit divisions are cheap.
  const int64_t n = blend.count == 1 ? 0 : i / plane;
  const auto pixel = static_cast<uint32_t>(i - n * plane);
  const auto row = pixel / static_cast<uint32_t>(blend.width);
  const int64_t y = row, x = pixel - row * static_cast<uint32_t>(blend.width);
  const auto neighbours = [&](int64_t channel) {
    return Neighbours(to_edge(displaced(x, flow.read(channel, y, x)), blend.width),
                      to_edge(displaced(y, flow.read(channel + 1, y, x)), blend.height),
                      blend.height, blend.width);
  };
  const Neighbours first = neighbours(4 * n), second = neighbours(4 * n + 2);
  const float weight = 1.0f / (exponential(-mask.read(n, y, x)) + 1.0f);
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const int64_t start = (3 * n + c) * plane;
    const float a = first.sample(blend.image0 + start);
    const float b = second.sample(blend.image1 + start);
    float value = b + weight * (a - b);
    if (blend.residual != nullptr) value = value + to_float(blend.residual[start + pixel]);
    value = fminf(fmaxf(value, 0.0f), 1.0f);
    if constexpr (kTopLevel<Out> != 0.0f) {
      from_float(value * kTopLevel<Out>, out + 3 * i + c);
    } else {
      from_float(value, out + start + pixel);
    }
  }
}

}  // namespace fastvid::cuda
