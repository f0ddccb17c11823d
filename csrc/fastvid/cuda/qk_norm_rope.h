// CUDA launcher of ops/qk_norm_rope.h. It assumes valid shapes and works on `stream` without
// waiting.
#pragma once

#include "fastvid/core/norm_rope.h"
#include "fastvid/ops/qk_norm_rope.h"

namespace fastvid::cuda {

void qk_norm_rope(const QkNormRopeArgs& args, const NormRope& q, const NormRope& k,
                  const Tensor& q_out, const Tensor& k_out, void* stream);

}  // namespace fastvid::cuda
