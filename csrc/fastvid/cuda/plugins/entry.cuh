// What the kernels of TensorRT plugins share. TensorRT passes an ahead-of-time plugin's kernel the
// addresses of its inputs, then 32-bit integers, then the addresses of its outputs; numbers that
// are the node's attributes are constants of the module instead, whose values
// fastvid/backends/tensorrt_plugins writes into the PTX.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace fastvid::cuda {

constexpr int kPluginThreads = 256;

__device__ __forceinline__ int64_t plugin_index() {
  return int64_t{blockIdx.x} * kPluginThreads + threadIdx.x;
}

}  // namespace fastvid::cuda
