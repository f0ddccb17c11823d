// yuv_to_rgb and rgb_to_yuv: planar YUV pictures to and from RGB, in one pass.
//
// With Kr, Kb of the matrix (BT.601: 0.299, 0.114; BT.709: 0.2126, 0.0722; BT.2020 non-constant
// luminance: 0.2627, 0.0593), Kg = 1 - Kr - Kb, R, G, B in [0, 1] and d the bit depth:
//
//   E = Kr R + Kg G + Kb B     Pb = (B - E) / (2 (1 - Kb))     Pr = (R - E) / (2 (1 - Kr))
//   limited range: Y = 2^(d-8) (219 E + 16)    U, V = 2^(d-8) (224 Pb, Pr + 128)
//   full range:    Y = (2^d - 1) E             U, V = (2^d - 1) Pb, Pr + 2^(d-1)
//
// yuv_to_rgb inverts these; the transfer function is left as it is. Chroma planes of a halved axis
// hold ceil(size / 2) samples. They are brought to luma positions by linear interpolation between
// the two samples around each, and from luma positions with the weights that undo it on a linear
// ramp: (1 2 1) / 4 around a sample on a luma position, (1 1) / 2 for one midway. Outside the
// picture stands its edge.
//
// RGB is clamped to [0, 1] before and after; in a float picture NaN counts as 0. Integers are
// rounded half to even, once. In a uint16 picture 65535 stands for 1. A 10-bit sample above 1023
// counts as 1023. R = G = B wherever U = V = 2^(d-1), and the other way round.
//
// The arithmetic is single precision without fused multiply-add, in one fixed order, and the chroma
// of integer pictures is resampled exactly: every instruction set, thread count and CUDA give the
// same bits.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"
#include "fastvid/core/yuv.h"

namespace fastvid {

// kWide is kInterleaved with uint16 samples, of which 65535 stands for 1.
enum class RgbLayout { kInterleaved, kWide, kPlanar };

struct YuvTensors {
  Tensor y, u, v;
};

//   y     uint8, or uint16 at 10 bits, (H, W) with H, W >= 1; rows may stand apart
//   u, v  the same, (H, W) with halved axes rounded up; rows may stand apart
//   out   uint8 or uint16 (H, W, 3), or float32 (1, 3, H, W), shares no memory with the planes
// The first form checks the planes and says what out must be (data is null).
Tensor yuv_to_rgb_output(const YuvTensors& yuv, const YuvFormat& format, RgbLayout layout);
void yuv_to_rgb(const YuvTensors& yuv, const Tensor& out, const YuvFormat& format,
                const Executor& executor);

//   rgb  uint8 or uint16 (H, W, 3), or float32 (1, 3, H, W) with H, W >= 1
//   out  planes as above, sharing no memory with rgb or each other
YuvTensors rgb_to_yuv_output(const Tensor& rgb, const YuvFormat& format);
void rgb_to_yuv(const Tensor& rgb, const YuvTensors& out, const YuvFormat& format,
                const Executor& executor);

}  // namespace fastvid
