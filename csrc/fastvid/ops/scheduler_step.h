// One step of a diffusion solver: every solver here is linear in what it is given.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/solver.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

struct SchedulerStep {
  Tensor in[SolverStep::kMaxInputs];
  Tensor uncond;  // not present without guidance
  Tensor out[SolverStep::kMaxOutputs];
  // Numbers of inputs and outputs, matrix, guidance and noise; the pointers are not read.
  SolverStep numbers;
};

// out[o] = sum over k of matrix[o][k] * in[k]  [+ noise_scale[o] * noise], summed from the left in
// float32; with `uncond`, uncond + guidance * (in[0] - uncond) takes the place of in[0]
// (classifier-free guidance, Ho and Salimans 2022). Noise is that of ops/randn.h.
//   in, uncond, out  float32, float16 or bfloat16, each by itself; of one shape, up to 6 inputs and
//                    3 outputs. Sums are of float32, rounded half to even to a 16-bit output.
// An output may be one of the inputs, the same memory from the same start and of the same dtype;
// otherwise it shares no memory with an input, and never with another output. NaN and infinity
// spread even through a coefficient of 0.
void scheduler_step(const SchedulerStep& step, const Executor& executor);

}  // namespace fastvid
