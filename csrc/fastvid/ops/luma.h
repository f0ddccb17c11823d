// rgb_to_luma and luma_to_rgb: frames to and from luma and chroma, BT.601 full range in floats.
//
//   luma = 0.299 R + 0.587 G + 0.114 B    cb = (B - luma) / 1.772    cr = (R - luma) / 1.402
//
// with R, G, B in [0, 1], luma in [0, 1] and chroma in [-0.5, 0.5]; grey has a chroma of exactly 0.
// Back to bytes the result is round_half_even(255 * clamp(., 0, 1)), NaN becomes 0, and every byte
// colour survives the round trip. uint16 frames have 65535 in place of 255; their colours come back
// to within a level. Single precision without fused multiply-add, in one fixed order:
// every instruction set, thread count and CUDA give the same bits.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

struct LumaTensors {
  Tensor luma, chroma;
};

//   frames  uint8 or uint16 (N, H, W, 3)
//   luma    float32 (N, 1, H, W), shares no memory with the others
//   chroma  float32 (N, 2, H, W), cb then cr; shares no memory with the others
// The first form checks frames and says what the outputs must be (data is null).
LumaTensors rgb_to_luma_output(const Tensor& frames);
void rgb_to_luma(const Tensor& frames, const LumaTensors& out, const Executor& executor);

//   luma    float32 (N, 1, sH, sW) with s = 1, 2, 3 or 4
//   chroma  float32 (N, 2, H, W) with H, W >= 1, enlarged bilinearly: half-pixel centres, clamped
//           at the edge
//   out     uint8 or uint16 (N, sH, sW, 3), shares no memory with the inputs
Tensor luma_to_rgb_output(const LumaTensors& in, DType dtype = DType::kUint8);
void luma_to_rgb(const LumaTensors& in, const Tensor& out, const Executor& executor);

}  // namespace fastvid
