// CUDA launchers of ops/planar.h. They assume valid shapes and work on `stream` without waiting.
#pragma once

#include "fastvid/core/tensor.h"

namespace fastvid::cuda {

void rgb_to_planar(const Tensor& frames, const Tensor& out, void* stream);
void planar_to_rgb(const Tensor& x, const Tensor& out, void* stream);

}  // namespace fastvid::cuda
