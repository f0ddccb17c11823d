// CUDA launcher of ops/downscale.h. It assumes valid shapes and works on `stream` without waiting.
#pragma once

#include "fastvid/core/tensor.h"

namespace fastvid::cuda {

void downscale(const Tensor& x, const Tensor& out, int64_t factor, void* stream);

}  // namespace fastvid::cuda
