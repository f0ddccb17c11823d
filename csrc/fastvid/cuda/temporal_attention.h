// CUDA launcher of ops/temporal_attention.h. It assumes valid shapes and works on `stream` without
// waiting.
#pragma once

#include "fastvid/ops/temporal_attention.h"

namespace fastvid::cuda {

void temporal_attention(const TemporalAttentionArgs& args, float scale, const Tensor& out,
                        void* stream);

}  // namespace fastvid::cuda
