#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/exponential.cuh"
#include "fastvid/cuda/half.cuh"
#include "fastvid/cuda/sampling.cuh"
#include "fastvid/cuda/warp_blend.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 128;

template <class T>
struct Blend {
  const T *image0, *image1;  // (count, 3, height, width)
  const T* residual;         // the same, or null
  int64_t count, height, width;
};

// One thread per pixel of a batch.
template <class T, class Out>
__global__ void __launch_bounds__(kThreads)
    warp_blend_kernel(Blend<T> blend, Field flow, Field mask, Out* __restrict__ out) {
  const int64_t plane = blend.height * blend.width;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
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
    if constexpr (sizeof(Out) == 1) {
      from_float(value * 255.0f, out + 3 * i + c);
    } else {
      from_float(value, out + start + pixel);
    }
  }
}

template <class T, class Out>
void launch(const WarpBlendArgs& args, int scale, const Tensor& out, cudaStream_t stream) {
  const Blend<T> blend{args.image0.as<const T>(),   args.image1.as<const T>(),
                       args.residual.as<const T>(), args.image0.dim(0),
                       args.image0.dim(2),          args.image0.dim(3)};
  const Field flow{args.flow.as<const float>(), args.flow.dim(2), args.flow.dim(3), scale};
  const Field mask{args.mask.as<const float>(), args.flow.dim(2), args.flow.dim(3), scale};
  const int64_t pixels = blend.count * blend.height * blend.width;
  const auto blocks = static_cast<unsigned>((pixels + kThreads - 1) / kThreads);
  warp_blend_kernel<<<blocks, kThreads, 0, stream>>>(blend, flow, mask, out.as<Out>());
  check_launch("warp_blend");
}

template <class T>
void launch(const WarpBlendArgs& args, int scale, const Tensor& out, cudaStream_t stream) {
  if (out.dtype == DType::kUint8) {
    launch<T, uint8_t>(args, scale, out, stream);
  } else {
    launch<T, T>(args, scale, out, stream);
  }
}

}  // namespace

void warp_blend(const WarpBlendArgs& args, int scale, const Tensor& out, void* stream) {
  const DeviceGuard guard(
      "warp_blend", {&args.image0, &args.image1, &args.flow, &args.mask, &args.residual, &out});
  if (out.shape.elements() == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  switch (args.image0.dtype) {
    case DType::kFloat16:
      launch<Half>(args, scale, out, on);
      break;
    case DType::kBFloat16:
      launch<BFloat16>(args, scale, out, on);
      break;
    default:
      launch<float>(args, scale, out, on);
  }
}

}  // namespace fastvid::cuda
