// The last step of frame interpolation: two images warped to one moment and blended.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

// out = clamp(s * warp(image0, flow[:, 0:2]) + (1 - s) * warp(image1, flow[:, 2:4]) + residual, 0,
// 1) with s = sigmoid(mask), border padding, in one pass.
//   image0, image1  float32, float16 or bfloat16 (N, 3, H, W), both the same
//   flow            float32 (N, 4, h, w): dx, dy into image0, then dx, dy into image1, in pixels of
//                   the images; h = ceil(H / k), w = ceil(W / k), k in 1, 2, 4, 8: upsampled
//                   bilinearly with pixel centres at halves, its values unscaled
//   mask            float32 (N, 1, h, w), a logit, upsampled likewise before the sigmoid
//   residual        (N, 3, H, W) of the images' dtype, or not present
//   out             (N, 3, H, W) of the images' dtype, the float32 result rounded half to even to
//   it,
//                   or uint8 (N, H, W, 3) = round_half_even(255 * out), or uint16 with 65535;
//                   shares no memory with an input
// A NaN displacement counts as 0, an infinite one as far outside; where the mask is NaN, image0 is
// taken; a result that is NaN becomes 0. The same to the last bit on every instruction set and
// number of threads.
struct WarpBlendArgs {
  Tensor image0, image1, flow, mask, residual;
};

// Checks the arguments and says what out must be for `dtype`: that of the images, uint8 or uint16
// (data is null).
Tensor warp_blend_output(const WarpBlendArgs& args, DType dtype);
void warp_blend(const WarpBlendArgs& args, const Tensor& out, const Executor& executor);

}  // namespace fastvid
