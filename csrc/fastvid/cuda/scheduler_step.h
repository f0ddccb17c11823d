// CUDA launcher of ops/scheduler_step.h. It assumes valid shapes and works on `stream` without
// waiting.
#pragma once

#include "fastvid/ops/scheduler_step.h"

namespace fastvid::cuda {

// `kernel` is the step with its pointers filled in from the tensors.
void scheduler_step(const SchedulerStep& step, const SolverStep& kernel, void* stream);

}  // namespace fastvid::cuda
