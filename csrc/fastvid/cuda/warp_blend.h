// CUDA launcher of ops/warp_blend.h. It assumes valid shapes and works on `stream` without waiting.
#pragma once

#include "fastvid/ops/warp_blend.h"

namespace fastvid::cuda {

void warp_blend(const WarpBlendArgs& args, int scale, const Tensor& out, void* stream);

}  // namespace fastvid::cuda
