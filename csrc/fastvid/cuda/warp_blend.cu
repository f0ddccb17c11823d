#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/exponential.cuh"
#include "fastvid/cuda/sampling.cuh"
#include "fastvid/cuda/warp_blend.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 128;

struct Blend {
  const float *image0, *image1;  // (3, height, width)
  const float* residual;         // the same, or null
  int64_t height, width;
};

template <class Out>
__global__ void __launch_bounds__(kThreads)
    warp_blend_kernel(Blend blend, Field flow, Field mask, Out* __restrict__ out) {
  const int64_t plane = blend.height * blend.width;
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= plane) return;
  const int64_t y = i / blend.width, x = i - y * blend.width;
  const auto neighbours = [&](int channel) {
    return Neighbours(to_edge(displaced(x, flow.read(channel, y, x)), blend.width),
                      to_edge(displaced(y, flow.read(channel + 1, y, x)), blend.height),
                      blend.height, blend.width);
  };
  const Neighbours first = neighbours(0), second = neighbours(2);
  const float weight = 1.0f / (exponential(-mask.read(0, y, x)) + 1.0f);
  for (int c = 0; c < 3; ++c) {
    const float a = first.sample(blend.image0 + c * plane);
    const float b = second.sample(blend.image1 + c * plane);
    float value = b + weight * (a - b);
    if (blend.residual != nullptr) value = value + __ldg(blend.residual + c * plane + i);
    value = fminf(fmaxf(value, 0.0f), 1.0f);
    if constexpr (sizeof(Out) == 1) {
      out[3 * i + c] = static_cast<Out>(__float2uint_rn(value * 255.0f));
    } else {
      out[c * plane + i] = value;
    }
  }
}

template <class Out>
void launch(const WarpBlendArgs& args, int scale, Out* out, cudaStream_t stream) {
  Blend blend{args.image0.as<const float>(), args.image1.as<const float>(),
              args.residual.as<const float>(), args.image0.dim(2), args.image0.dim(3)};
  Field flow{args.flow.as<const float>(), args.flow.dim(2), args.flow.dim(3), scale};
  Field mask{args.mask.as<const float>(), args.flow.dim(2), args.flow.dim(3), scale};
  const int64_t plane = blend.height * blend.width, cells = flow.height * flow.width;
  const auto blocks = static_cast<unsigned>((plane + kThreads - 1) / kThreads);
  for (int64_t n = 0; n < args.image0.dim(0); ++n) {
    warp_blend_kernel<<<blocks, kThreads, 0, stream>>>(blend, flow, mask, out);
    blend.image0 += 3 * plane;
    blend.image1 += 3 * plane;
    if (blend.residual != nullptr) blend.residual += 3 * plane;
    flow.data += 4 * cells;
    mask.data += cells;
    out += 3 * plane;
  }
  check_launch("warp_blend");
}

}  // namespace

void warp_blend(const WarpBlendArgs& args, int scale, const Tensor& out, void* stream) {
  const DeviceGuard guard(
      "warp_blend", {&args.image0, &args.image1, &args.flow, &args.mask, &args.residual, &out});
  if (out.shape.elements() == 0) return;
  if (out.dtype == DType::kUint8) {
    launch(args, scale, out.as<uint8_t>(), static_cast<cudaStream_t>(stream));
  } else {
    launch(args, scale, out.as<float>(), static_cast<cudaStream_t>(stream));
  }
}

}  // namespace fastvid::cuda
