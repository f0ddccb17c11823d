// CUDA launcher of ops/warp.h. It assumes valid shapes and works on `stream` without waiting.
#pragma once

#include "fastvid/ops/warp.h"

namespace fastvid::cuda {

void warp(const WarpArgs& args, int scale, const Tensor* outs, void* stream);

}  // namespace fastvid::cuda
