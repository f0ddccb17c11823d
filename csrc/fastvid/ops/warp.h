// Backward warp of images by a flow in pixels.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

enum class Padding { kBorder, kZeros };

// out[n, c, y, x] = image[n, c, y + dy, x + dx], bilinear, (dx, dy) = flow[n, :, y, x].
//   image  float32 (N, C, H, W)
//   flow   float32 (N, 2, h, w) in pixels of the image, dx first; h = ceil(H / k), w = ceil(W / k),
//          k in 1, 2, 4, 8: upsampled bilinearly with pixel centres at halves, its values unscaled
//   out    float32 (N, C, H, W), shares no memory with image or flow
// Outside the image, kBorder repeats its edge and kZeros is 0 (each of the four neighbours by
// itself). A NaN displacement counts as 0, an infinite one as far outside. The result is the same
// to the last bit on every instruction set and number of threads.
struct WarpArgs {
  Tensor image, flow;
  Padding padding = Padding::kBorder;
};

// Checks the arguments and says what out must be (data is null).
Tensor warp_output(const WarpArgs& args);
void warp(const WarpArgs& args, const Tensor& out, const Executor& executor);

}  // namespace fastvid
