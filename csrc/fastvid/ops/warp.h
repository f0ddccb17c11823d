// Backward warp of images by a flow in pixels.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

enum class Padding { kBorder, kZeros };
enum class PixelLayout { kChannelsFirst, kChannelsLast };

// out[n, c, y, x] = image[n, c, y + dy, x + dx], bilinear, (dx, dy) = flow[n, :, y, x].
//   images  `count` of them, from 1 to kMaxImages, that share the flow: float32, float16, bfloat16
//           or uint8, each its own, (N, C, H, W), or (N, H, W, C) with kChannelsLast; C may differ
//   flow    float32 (N, 2, h, w) in pixels of the image, dx first; h = ceil(H / k),
//           w = ceil(W / k), k in 1, 2, 4, 8: upsampled bilinearly with pixel centres at halves,
//           its values unscaled
//   outs    `count` of them, each like its image; they share no memory with each other, an image or
//           the flow
// Outside the image, kBorder repeats its edge and kZeros is 0 (each of the four neighbours by
// itself). A NaN displacement counts as 0, an infinite one as far outside. The arithmetic is
// float32, its result rounded half to even to the dtype of the image. The result is the same to the
// last bit on every instruction set and number of threads.
struct WarpArgs {
  static constexpr int kMaxImages = 8;
  Tensor images[kMaxImages] = {};
  int count = 1;
  Tensor flow = {};
  Padding padding = Padding::kBorder;
  PixelLayout layout = PixelLayout::kChannelsFirst;
};

// Checks the arguments and says what the output of the i-th image must be (data is null).
Tensor warp_output(const WarpArgs& args, int i = 0);
void warp(const WarpArgs& args, const Tensor* outs, const Executor& executor);

}  // namespace fastvid
