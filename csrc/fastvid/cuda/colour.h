// CUDA launchers of ops/colour.h. They assume valid shapes and work on `stream` without waiting.
#pragma once

#include "fastvid/core/yuv.h"
#include "fastvid/ops/colour.h"

namespace fastvid::cuda {

void yuv_to_rgb(const YuvToRgb& op, const YuvTensors& yuv, const Tensor& out, void* stream);
void rgb_to_yuv(const RgbToYuv& op, const Tensor& rgb, const YuvTensors& out, void* stream);

}  // namespace fastvid::cuda
