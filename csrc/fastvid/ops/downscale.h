// Images at a half, a quarter or an eighth of their size.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

// out[y, x] = mean of the factor x factor block of x at (factor * y, factor * x): each column of
// the block is summed from the top, then the columns from the left, in float32.
//   x    float32 (N, C, H, W), H and W multiples of factor
//   out  float32 (N, C, H / factor, W / factor), shares no memory with x
//   factor  2, 4 or 8
// NaN and infinity spread over their block. The first form checks x and says what out must be.
Tensor downscale_output(const Tensor& x, int64_t factor);
void downscale(const Tensor& x, const Tensor& out, int64_t factor, const Executor& executor);

}  // namespace fastvid
