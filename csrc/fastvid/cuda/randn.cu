#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/normals.cuh"
#include "fastvid/cuda/randn.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;

// One block of four elements per thread; the first and the last may be cut.
__global__ void __launch_bounds__(kThreads)
    randn_kernel(Noise noise, float* __restrict__ out, int64_t elements, int64_t blocks) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= blocks) return;
  float z[4];
  normal_block(noise, (noise.offset >> 2) + static_cast<uint64_t>(i), z);
  const int64_t at = 4 * i - static_cast<int64_t>(noise.offset & 3);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (at + j >= 0 && at + j < elements) out[at + j] = z[j];
  }
}

}  // namespace

void randn(const Tensor& out, const Noise& noise, void* stream) {
  const DeviceGuard guard("randn", {&out});
  const int64_t elements = out.shape.elements();
  if (elements == 0) return;
  const int64_t blocks = (elements + static_cast<int64_t>(noise.offset & 3) + 3) / 4;
  const auto grid = static_cast<unsigned>((blocks + kThreads - 1) / kThreads);
  randn_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(noise, out.as<float>(),
                                                                         elements, blocks);
  check_launch("randn");
}

}  // namespace fastvid::cuda
