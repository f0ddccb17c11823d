#include <cuda_runtime.h>

#include <cstdint>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/half.cuh"
#include "fastvid/cuda/normals.cuh"
#include "fastvid/cuda/scheduler_step.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;
using Array = SolverStep::Array;

// The elements [first, last) of the four from `at` on; all of them in one access with kWhole.
template <bool kWhole, class T>
__device__ void load_as(const Array& array, int64_t at, int first, int last, float* out) {
  const T* p = static_cast<const T*>(array.data) + at;
  if (kWhole) {
    load_four(p, out);
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) out[j] = j >= first && j < last ? to_float(p[j]) : 0.0f;
  }
}

template <bool kWhole>
__device__ void load(const Array& array, int64_t at, int first, int last, float* out) {
  if (array.dtype == DType::kFloat16) {
    load_as<kWhole, Half>(array, at, first, last, out);
  } else if (array.dtype == DType::kBFloat16) {
    load_as<kWhole, BFloat16>(array, at, first, last, out);
  } else {
    load_as<kWhole, float>(array, at, first, last, out);
  }
}

template <bool kWhole, class T>
__device__ void store_as(const Array& array, int64_t at, int first, int last, const float* in) {
  T* p = static_cast<T*>(array.data) + at;
  if (kWhole) {
    store_four(p, in);
  } else {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if (j >= first && j < last) from_float(in[j], p + j);
    }
  }
}

template <bool kWhole>
__device__ void store(const Array& array, int64_t at, int first, int last, const float* in) {
  if (array.dtype == DType::kFloat16) {
    store_as<kWhole, Half>(array, at, first, last, in);
  } else if (array.dtype == DType::kBFloat16) {
    store_as<kWhole, BFloat16>(array, at, first, last, in);
  } else {
    store_as<kWhole, float>(array, at, first, last, in);
  }
}

// Bounds known to the compiler keep the values in registers; all are read before any is written.
template <bool kWhole>
__device__ void four_elements(const SolverStep& step, int64_t at, int first, int last,
                              const float* z) {
  float in[SolverStep::kMaxInputs][4], out[SolverStep::kMaxOutputs][4];
#pragma unroll
  for (int k = 0; k < SolverStep::kMaxInputs; ++k) {
    if (k < step.inputs) load<kWhole>(step.in[k], at, first, last, in[k]);
  }
  if (step.uncond.data != nullptr) {
    float uncond[4];
    load<kWhole>(step.uncond, at, first, last, uncond);
#pragma unroll
    for (int j = 0; j < 4; ++j) in[0][j] = uncond[j] + step.guidance * (in[0][j] - uncond[j]);
  }
#pragma unroll
  for (int o = 0; o < SolverStep::kMaxOutputs; ++o) {
    if (o >= step.outputs) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) out[o][j] = step.matrix[o][0] * in[0][j];
#pragma unroll
    for (int k = 1; k < SolverStep::kMaxInputs; ++k) {
      if (k >= step.inputs) continue;
#pragma unroll
      for (int j = 0; j < 4; ++j) out[o][j] = out[o][j] + step.matrix[o][k] * in[k][j];
    }
    if (!step.noisy) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) out[o][j] = out[o][j] + step.noise_scale[o] * z[j];
  }
#pragma unroll
  for (int o = 0; o < SolverStep::kMaxOutputs; ++o) {
    if (o < step.outputs) store<kWhole>(step.out[o], at, first, last, out[o]);
  }
}

// A thread makes the elements of one block of the noise, so that no block is made twice.
__global__ void __launch_bounds__(kThreads)
    scheduler_step_kernel(const __grid_constant__ SolverStep step, int64_t elements, int64_t blocks,
                          bool aligned) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (block >= blocks) return;
  const uint64_t offset = step.noisy ? step.noise.offset : 0;
  float z[4] = {};
  if (step.noisy) normal_block(step.noise, (offset >> 2) + static_cast<uint64_t>(block), z);
  const int64_t at = 4 * block - static_cast<int64_t>(offset & 3);
  if (aligned && at + 4 <= elements) {
    four_elements<true>(step, at, 0, 4, z);
    return;
  }
  const int first = at < 0 ? static_cast<int>(-at) : 0;
  const int last = elements - at < 4 ? static_cast<int>(elements - at) : 4;
  four_elements<false>(step, at, first, last, z);
}

// Whether four elements of every array may be taken at once.
bool aligned(const SolverStep& step) {
  const auto fits = [](const Array& array) {
    return reinterpret_cast<uintptr_t>(array.data) % (4 * dtype_size(array.dtype)) == 0;
  };
  bool all = fits(step.uncond) && (!step.noisy || step.noise.offset % 4 == 0);
  for (int k = 0; k < step.inputs; ++k) all = all && fits(step.in[k]);
  for (int o = 0; o < step.outputs; ++o) all = all && fits(step.out[o]);
  return all;
}

}  // namespace

void scheduler_step(const SchedulerStep& step, const SolverStep& kernel, void* stream) {
  const DeviceGuard guard("scheduler_step",
                          {&step.in[0], &step.in[1], &step.in[2], &step.in[3], &step.in[4],
                           &step.in[5], &step.uncond, &step.out[0], &step.out[1], &step.out[2]});
  const int64_t elements = step.in[0].shape.elements();
  const int64_t skipped = kernel.noisy ? static_cast<int64_t>(kernel.noise.offset & 3) : 0;
  const int64_t blocks = (elements + skipped + 3) / 4;
  const auto grid = static_cast<unsigned>((blocks + kThreads - 1) / kThreads);
  scheduler_step_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(
      kernel, elements, blocks, aligned(kernel));
  check_launch("scheduler_step");
}

}  // namespace fastvid::cuda
