#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/warp.cuh"
#include "fastvid/cuda/warp.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = kWarpThreads;

template <class T, int C, class Index>
__global__ void __launch_bounds__(kThreads)
    warp_planes_kernel(const T* __restrict__ image, Images images, Field flow, bool zeros,
                       T* __restrict__ out) {
  warp_planes<T, C, Index>(image, images, flow, zeros, out);
}

template <class T, int kVector, class Index>
__global__ void __launch_bounds__(kThreads)
    warp_pixels_kernel(const T* __restrict__ image, Images images, Field flow, bool zeros,
                       T* __restrict__ out) {
  warp_pixels<T, kVector, Index>(image, images, flow, zeros, out);
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
