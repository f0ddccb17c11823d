// Normal noise that is the same on every processor and device.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/noise.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

// out[i] = element noise.offset + i, in C order, of an endless row of standard normal numbers:
// Philox4x32-10 under the key `seed` on the counter (low and high half of the block, subsequence,
// 0) gives the words w of a block of four elements; with u = ((w[0] >> 8) + 1) / 2^24 and t = (w[1]
// >> 8) / 2^24 its first two elements are sqrt(-2 ln u) times cos(2 pi t) and sin(2 pi t), and
// w[2], w[3] give the others (Box and Muller). |element| <= 5.77.
//   out  float32, or float16 or bfloat16 (the float32 rounded half to even); any shape
// float32 additions, multiplications and square roots in a fixed order: equal bits everywhere.
void randn(const Tensor& out, const Noise& noise, const Executor& executor);

}  // namespace fastvid
