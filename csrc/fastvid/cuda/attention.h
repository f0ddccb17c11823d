// CUDA launcher of ops/attention.h. It assumes valid shapes and works on `stream` without waiting.
#pragma once

#include "fastvid/core/attention.h"
#include "fastvid/ops/attention.h"

namespace fastvid::cuda {

void attention(const AttentionArgs& args, const Attention& kernel, const Tensor& out, void* stream);

}  // namespace fastvid::cuda
