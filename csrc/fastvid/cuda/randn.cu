#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/half.cuh"
#include "fastvid/cuda/normals.cuh"
#include "fastvid/cuda/randn.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;

// One block of four elements per thread; the first and the last may be cut.
template <class T>
__global__ void __launch_bounds__(kThreads)
    randn_kernel(Noise noise, T* __restrict__ out, int64_t elements, int64_t blocks, bool aligned) {
  const int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (i >= blocks) return;
  float z[4];
  normal_block(noise, (noise.offset >> 2) + static_cast<uint64_t>(i), z);
  const int64_t at = 4 * i - static_cast<int64_t>(noise.offset & 3);
  if (aligned && at + 4 <= elements) {
    store_four(out + at, z);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    if (at + j >= 0 && at + j < elements) from_float(z[j], out + at + j);
  }
}

template <class T>
void launch(const Tensor& out, const Noise& noise, cudaStream_t stream) {
  const int64_t elements = out.shape.elements();
  const int64_t blocks = (elements + static_cast<int64_t>(noise.offset & 3) + 3) / 4;
  const auto grid = static_cast<unsigned>((blocks + kThreads - 1) / kThreads);
  const bool aligned =
      noise.offset % 4 == 0 && reinterpret_cast<uintptr_t>(out.data) % (4 * sizeof(T)) == 0;
  randn_kernel<T><<<grid, kThreads, 0, stream>>>(noise, out.as<T>(), elements, blocks, aligned);
}

}  // namespace

void randn(const Tensor& out, const Noise& noise, void* stream) {
  const DeviceGuard guard("randn", {&out});
  if (out.shape.elements() == 0) return;
  const auto on = static_cast<cudaStream_t>(stream);
  if (out.dtype == DType::kFloat16) {
    launch<Half>(out, noise, on);
  } else if (out.dtype == DType::kBFloat16) {
    launch<BFloat16>(out, noise, on);
  } else {
    launch<float>(out, noise, on);
  }
  check_launch("randn");
}

}  // namespace fastvid::cuda
