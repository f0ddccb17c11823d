#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/downscale.cuh"
#include "fastvid/cuda/downscale.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;

template <int kFactor>
__global__ void __launch_bounds__(kThreads)
    downscale_kernel(const float* __restrict__ in, float* __restrict__ out, int64_t width,
                     int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i < pixels) downscale_pixel<kFactor>(in, out, width, i);
}

}  // namespace

void downscale(const Tensor& x, const Tensor& out, int64_t factor, void* stream) {
  const DeviceGuard guard("downscale", {&x, &out});
  const int64_t pixels = out.shape.elements();
  if (pixels == 0) return;
  const auto kernel = factor == 2   ? downscale_kernel<2>
                      : factor == 4 ? downscale_kernel<4>
                                    : downscale_kernel<8>;
  const auto blocks = static_cast<unsigned>((pixels + kThreads - 1) / kThreads);
  kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      x.as<const float>(), out.as<float>(), out.dim(3), pixels);
  check_launch("downscale");
}

}  // namespace fastvid::cuda
