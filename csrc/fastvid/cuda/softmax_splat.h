// CUDA launcher of ops/softmax_splat.h. It assumes valid shapes and works on `stream` without
// waiting; a workspace that is not given comes from the device's memory pool, in stream order.
#pragma once

#include "fastvid/ops/softmax_splat.h"

namespace fastvid::cuda {

// `bytes` is what softmax_splat_workspace() says.
void softmax_splat(const SoftmaxSplatArgs& args, const Tensor& out, int64_t bytes, void* stream);

}  // namespace fastvid::cuda
