// Device code of warp, for its launcher and its TensorRT plugin.
#pragma once

#include <cstdint>

#include "fastvid/cuda/half.cuh"
#include "fastvid/cuda/sampling.cuh"

namespace fastvid::cuda {

constexpr int kWarpThreads = 128;

// Images of a batch, and how far apart a pixel's neighbours and channels are in elements.
struct Images {
  int64_t count, channels;
  int height, width;
};

// Neighbours of a pixel as pixels of the image; -1 counts as 0.
struct Taps {
  int at[4];
  float wx, wy;
};

// A point outside the image with zero padding.
__device__ inline Taps taps_outside(float x, float y, int height, int width) {
  Taps taps{{-1, -1, -1, -1}, 0.0f, 0.0f};
  if (!(x > -1.0f && x < static_cast<float>(width) && y > -1.0f &&
        y < static_cast<float>(height))) {
    return taps;
  }
  const int x0 = static_cast<int>(x + 1.0f) - 1, y0 = static_cast<int>(y + 1.0f) - 1;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int column = x0 + k % 2, row = y0 + k / 2;
    const bool inside = column >= 0 && column < width && row >= 0 && row < height;
    if (inside) taps.at[k] = row * width + column;
  }
  taps.wx = x - static_cast<float>(x0);
  taps.wy = y - static_cast<float>(y0);
  return taps;
}

__device__ inline Taps taps_of(const Field& flow, int64_t n, int pixel, const Images& images,
                               bool zeros) {
  const int y = pixel / images.width, x = pixel - y * images.width;
  const float px = displaced(x, flow.read(2 * n, y, x));
  const float py = displaced(y, flow.read(2 * n + 1, y, x));
  const float ex = to_edge(px, images.width), ey = to_edge(py, images.height);
  if (zeros && (ex != px || ey != py)) return taps_outside(px, py, images.height, images.width);
  const Neighbours near(ex, ey, images.height, images.width);
  const auto top = static_cast<int>(near.top);
  const auto right = static_cast<int>(near.right), down = static_cast<int>(near.down);
  return {{top, top + right, top + down, top + down + right}, near.wx, near.wy};
}

__device__ inline float mix(const float (&v)[4], const Taps& taps) {
  const float above = v[0] + taps.wx * (v[1] - v[0]);
  const float below = v[2] + taps.wx * (v[3] - v[2]);
  return above + taps.wy * (below - above);
}

// One thread per pixel of a batch; the channels share its coordinates. C is the number of channels,
// 0 where it is not known beforehand.
template <class T, int C, class Index>
__device__ __forceinline__ void warp_planes(const T* __restrict__ image, const Images& images,
                                            const Field& flow, bool zeros, T* __restrict__ out) {
  const int plane = images.height * images.width;
  const Index i = static_cast<Index>(blockIdx.x) * kWarpThreads + threadIdx.x;
  if (i >= static_cast<Index>(images.count) * plane) return;
  const auto n = static_cast<int64_t>(i / plane);
  const auto pixel = static_cast<int>(i - static_cast<Index>(n) * plane);
  const Taps taps = taps_of(flow, n, pixel, images, zeros);
  const int64_t channels = C > 0 ? C : images.channels;
  const T* source = image + n * channels * plane;
  T* target = out + n * channels * plane + pixel;
#pragma unroll C> 0 ? C : 4
  for (int64_t c = 0; c < channels; ++c, source += plane, target += plane) {
    float v[4];
#pragma unroll
    for (int k = 0; k < 4; ++k) v[k] = taps.at[k] >= 0 ? to_float(source[taps.at[k]]) : 0.0f;
    from_float(mix(v, taps), target);
  }
}

// kVector neighbouring channels; aligned to their size.
template <class T, int kVector>
struct alignas(kVector * sizeof(T)) Pack {
  T v[kVector];
};

// One thread per kVector channels of a pixel of a batch, channels last. Threads of a pixel are
// neighbours, so its coordinates come from one place and its channels go to one.
template <class T, int kVector, class Index>
__device__ __forceinline__ void warp_pixels(const T* __restrict__ image, const Images& images,
                                            const Field& flow, bool zeros, T* __restrict__ out) {
  using Vector = Pack<T, kVector>;
  const int plane = images.height * images.width;
  const auto groups = static_cast<Index>(images.channels / kVector);
  const Index i = static_cast<Index>(blockIdx.x) * kWarpThreads + threadIdx.x;
  const Index place = i / groups;
  if (place >= static_cast<Index>(images.count) * plane) return;
  const auto n = static_cast<int64_t>(place / plane);
  const auto pixel = static_cast<int>(place - static_cast<Index>(n) * plane);
  const Taps taps = taps_of(flow, n, pixel, images, zeros);
  const auto group = static_cast<int64_t>(i - place * groups);
  const auto* source = reinterpret_cast<const Vector*>(image) + n * plane * groups + group;
  Vector corner[4];
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    corner[k] = taps.at[k] >= 0 ? source[taps.at[k] * static_cast<int64_t>(groups)] : Vector{};
  }
  Vector result;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const float v[4] = {to_float(corner[0].v[j]), to_float(corner[1].v[j]),
                        to_float(corner[2].v[j]), to_float(corner[3].v[j])};
    from_float(mix(v, taps), &result.v[j]);
  }
  reinterpret_cast<Vector*>(out)[i] = result;
}

}  // namespace fastvid::cuda
