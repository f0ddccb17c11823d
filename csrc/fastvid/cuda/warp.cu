#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/half.cuh"
#include "fastvid/cuda/sampling.cuh"
#include "fastvid/cuda/warp.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 128;

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
__global__ void __launch_bounds__(kThreads)
    warp_planes_kernel(const T* __restrict__ image, Images images, Field flow, bool zeros,
                       T* __restrict__ out) {
  const int plane = images.height * images.width;
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
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
__global__ void __launch_bounds__(kThreads)
    warp_pixels_kernel(const T* __restrict__ image, Images images, Field flow, bool zeros,
                       T* __restrict__ out) {
  using Vector = Pack<T, kVector>;
  const int plane = images.height * images.width;
  const auto groups = static_cast<Index>(images.channels / kVector);
  const Index i = static_cast<Index>(blockIdx.x) * kThreads + threadIdx.x;
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

// Threads are counted in 32 bits where they fit: a 64-bit division is a subroutine.
template <class Narrow, class Wide>
void launch_for(int64_t threads, Narrow narrow, Wide wide) {
  const auto blocks = static_cast<unsigned>((threads + kThreads - 1) / kThreads);
  if (threads < (int64_t{1} << 31)) {
    narrow(blocks);
  } else {
    wide(blocks);
  }
}

template <class T, int C>
void launch_planes(const T* image, const Images& images, const Field& flow, bool zeros, T* out,
                   cudaStream_t stream) {
  launch_for(
      images.count * images.height * images.width,
      [&](unsigned blocks) {
        warp_planes_kernel<T, C, uint32_t>
            <<<blocks, kThreads, 0, stream>>>(image, images, flow, zeros, out);
      },
      [&](unsigned blocks) {
        warp_planes_kernel<T, C, uint64_t>
            <<<blocks, kThreads, 0, stream>>>(image, images, flow, zeros, out);
      });
}

template <class T, int kVector>
void launch_pixels(const T* image, const Images& images, const Field& flow, bool zeros, T* out,
                   cudaStream_t stream) {
  launch_for(
      images.count * images.height * images.width * (images.channels / kVector),
      [&](unsigned blocks) {
        warp_pixels_kernel<T, kVector, uint32_t>
            <<<blocks, kThreads, 0, stream>>>(image, images, flow, zeros, out);
      },
      [&](unsigned blocks) {
        warp_pixels_kernel<T, kVector, uint64_t>
            <<<blocks, kThreads, 0, stream>>>(image, images, flow, zeros, out);
      });
}

// Whether pixels are whole vectors of `size` bytes.
template <class T>
bool aligned(const T* image, const T* out, int64_t channels, size_t size) {
  const auto at = reinterpret_cast<uintptr_t>(image) | reinterpret_cast<uintptr_t>(out);
  return (at | static_cast<uintptr_t>(channels) * sizeof(T)) % size == 0;
}

template <class T>
void warp_image(const Tensor& image, const Tensor& out, bool channels_last, const Field& flow,
                bool zeros, cudaStream_t stream) {
  const int height = static_cast<int>(image.dim(channels_last ? 1 : 2));
  const int width = static_cast<int>(image.dim(channels_last ? 2 : 3));
  const Images images{image.dim(0), image.dim(channels_last ? 3 : 1), height, width};
  const auto* source = image.as<const T>();
  auto* target = out.as<T>();
  if (!channels_last) {
    if (images.channels == 3) {
      launch_planes<T, 3>(source, images, flow, zeros, target, stream);
    } else {
      launch_planes<T, 0>(source, images, flow, zeros, target, stream);
    }
    return;
  }
  constexpr int kVector = 16 / sizeof(T);
  if (aligned(source, target, images.channels, 16)) {
    launch_pixels<T, kVector>(source, images, flow, zeros, target, stream);
  } else if (aligned(source, target, images.channels, 4)) {
    launch_pixels<T, 4 / sizeof(T)>(source, images, flow, zeros, target, stream);
  } else {
    launch_pixels<T, 1>(source, images, flow, zeros, target, stream);
  }
}

}  // namespace

void warp(const WarpArgs& args, int scale, const Tensor* outs, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const Field flow{args.flow.as<const float>(), args.flow.dim(2), args.flow.dim(3), scale};
  const bool last = args.layout == PixelLayout::kChannelsLast;
  const bool zeros = args.padding == Padding::kZeros;
  for (int i = 0; i < args.count; ++i) {
    const Tensor& image = args.images[i];
    const DeviceGuard guard("warp", {&image, &args.flow, &outs[i]});
    if (image.shape.elements() == 0) continue;
    switch (image.dtype) {
      case DType::kFloat16:
        warp_image<Half>(image, outs[i], last, flow, zeros, on);
        break;
      case DType::kBFloat16:
        warp_image<BFloat16>(image, outs[i], last, flow, zeros, on);
        break;
      case DType::kUint8:
        warp_image<uint8_t>(image, outs[i], last, flow, zeros, on);
        break;
      default:
        warp_image<float>(image, outs[i], last, flow, zeros, on);
    }
    check_launch("warp");
  }
}

}  // namespace fastvid::cuda
