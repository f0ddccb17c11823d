// Frames as decoders deliver them <-> the layout models work in.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

// out = frames / 255, or / 65535 of uint16, correctly rounded.
//   frames  uint8 or uint16 (N, H, W, 3)
//   out     float32 (N, 3, H, W), shares no memory with frames
// The first form checks frames and says what out must be (data is null).
Tensor rgb_to_planar_output(const Tensor& frames);
void rgb_to_planar(const Tensor& frames, const Tensor& out, const Executor& executor);

// out = round_half_even(255 * clamp(x, 0, 1)), or of 65535 for uint16; NaN becomes 0.
//   x    float32 (N, 3, H, W)
//   out  uint8 or uint16 (N, H, W, 3), shares no memory with x
Tensor planar_to_rgb_output(const Tensor& x, DType dtype = DType::kUint8);
void planar_to_rgb(const Tensor& x, const Tensor& out, const Executor& executor);

}  // namespace fastvid
