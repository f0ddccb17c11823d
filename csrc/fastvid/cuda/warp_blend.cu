#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/warp_blend.cuh"
#include "fastvid/cuda/warp_blend.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = kBlendThreads;

template <class T, class Out>
__global__ void __launch_bounds__(kThreads)
    warp_blend_kernel(Blend<T> blend, Field flow, Field mask, Out* __restrict__ out) {
  warp_blend_pixel(blend, flow, mask, out);
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
  } else if (out.dtype == DType::kUint16) {
    launch<T, uint16_t>(args, scale, out, stream);
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
