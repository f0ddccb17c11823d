// Dense optical flow by inverse search.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

struct InverseSearchOptions {
  int64_t iterations = 8;  // steps of a patch on each level, 1 to 64
  int64_t stride = 4;      // pixels between patches, 1 to 8
  int64_t finest = 0;      // the level the search ends on: 0 is full size, 1 half, 2 a quarter
};

// Finds, for every pixel x of luma0, flow01(x) with luma0(x) ~ luma1(x + flow01(x)), and flow10 the
// other way round. On a pyramid of 2x2 means, from coarse to fine, 8x8 patches descend the squared
// difference without its mean (inverse compositional), try what their neighbours found, and are
// averaged into a dense flow with weights 1 / max(1, |error|), errors in 1/255.
//   luma0, luma1    float32 (N, 1, H, W) in [0, 1]; values outside are clamped, NaN counts as 0
//   flow01, flow10  float32 (N, 2, H, W), dx then dy, in pixels of the luma; share no memory with
//                   the inputs; flow10 may be absent
// Identical images give exactly zero, and so do images too small for a patch (a side below
// 8 * 2^finest). The result depends neither on the number of threads nor on the instruction set.
// The first form checks the inputs and says what either flow must be (data is null).
Tensor inverse_search_output(const Tensor& luma0, const Tensor& luma1,
                             const InverseSearchOptions& options);
void inverse_search(const Tensor& luma0, const Tensor& luma1, const Tensor& flow01,
                    const Tensor& flow10, const InverseSearchOptions& options,
                    const Executor& executor);

}  // namespace fastvid
