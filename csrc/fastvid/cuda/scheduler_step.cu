#include <cuda_runtime.h>

#include "fastvid/cuda/device.h"
#include "fastvid/cuda/normals.cuh"
#include "fastvid/cuda/scheduler_step.h"

namespace fastvid::cuda {
namespace {

constexpr int kThreads = 256;

// A thread makes the elements of one block of the noise, so that no block is made twice. Bounds
// known to the compiler keep the values in registers.
__global__ void __launch_bounds__(kThreads)
    scheduler_step_kernel(const SolverStep step, int64_t elements, int64_t blocks) {
  const int64_t block = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (block >= blocks) return;
  const uint64_t offset = step.noisy ? step.noise.offset : 0;
  float z[4];
  if (step.noisy) normal_block(step.noise, (offset >> 2) + static_cast<uint64_t>(block), z);
  const int64_t at = 4 * block - static_cast<int64_t>(offset & 3);
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t i = at + j;
    if (i < 0 || i >= elements) continue;
    float in[SolverStep::kMaxInputs], out[SolverStep::kMaxOutputs];
#pragma unroll
    for (int k = 0; k < SolverStep::kMaxInputs; ++k) in[k] = k < step.inputs ? step.in[k][i] : 0.0f;
    if (step.uncond != nullptr) {
      const float uncond = step.uncond[i];
      in[0] = uncond + step.guidance * (in[0] - uncond);
    }
#pragma unroll
    for (int o = 0; o < SolverStep::kMaxOutputs; ++o) {
      if (o >= step.outputs) continue;
      out[o] = step.matrix[o][0] * in[0];
#pragma unroll
      for (int k = 1; k < SolverStep::kMaxInputs; ++k) {
        if (k < step.inputs) out[o] = out[o] + step.matrix[o][k] * in[k];
      }
      if (step.noisy) out[o] = out[o] + step.noise_scale[o] * z[j];
    }
#pragma unroll
    for (int o = 0; o < SolverStep::kMaxOutputs; ++o) {
      if (o < step.outputs) step.out[o][i] = out[o];
    }
  }
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
  scheduler_step_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(kernel, elements,
                                                                                  blocks);
  check_launch("scheduler_step");
}

}  // namespace fastvid::cuda
