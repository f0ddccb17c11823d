// CUDA launcher of ops/randn.h. It assumes valid input and works on `stream` without waiting.
#pragma once

#include "fastvid/core/noise.h"
#include "fastvid/core/tensor.h"

namespace fastvid::cuda {

void randn(const Tensor& out, const Noise& noise, void* stream);

}  // namespace fastvid::cuda
