// CPU kernel of ops/scheduler_step.h. It assumes valid input.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"
#include "fastvid/core/solver.h"

// Elements [begin, end) of every output; with `stream`, begin is a multiple of 16.
FASTVID_DECLARE_KERNELS(void scheduler_step(const SolverStep& step, int64_t begin, int64_t end);)
