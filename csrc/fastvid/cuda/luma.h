// CUDA launchers of ops/luma.h. They assume valid shapes and work on `stream` without waiting.
#pragma once

#include "fastvid/core/luma.h"
#include "fastvid/ops/luma.h"

namespace fastvid::cuda {

// `op` describes the first image of the batch.
void rgb_to_luma(const RgbToLuma& op, const Tensor& frames, const LumaTensors& out, void* stream);
void luma_to_rgb(const LumaToRgb& op, const LumaTensors& in, const Tensor& out, void* stream);

}  // namespace fastvid::cuda
