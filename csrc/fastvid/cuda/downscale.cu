#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/downscale.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;

// Sums in the order of the CPU, so that both give the same bits.
template <int kFactor>
__global__ void __launch_bounds__(kThreads)
    downscale_kernel(const float* __restrict__ in, float* __restrict__ out, int64_t width,
                     int64_t pixels) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= pixels) return;
  const int64_t row = i / width, column = i - row * width, stride = width * kFactor;
  const float* block = in + row * kFactor * stride + column * kFactor;
  float total = 0.0f;
#pragma unroll
  for (int x = 0; x < kFactor; ++x) {
    float sum = block[x];
#pragma unroll
    for (int y = 1; y < kFactor; ++y) sum = __fadd_rn(sum, block[y * stride + x]);
    total = x == 0 ? sum : __fadd_rn(total, sum);
  }
  out[i] = __fmul_rn(total, 1.0f / (kFactor * kFactor));
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
