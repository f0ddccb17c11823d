// The normalisation and rotary embedding of queries and keys, in one pass over both.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/norm_rope.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

// For x = q and x = k, each with its weight w, in float32 whatever the dtype, rounded once:
//   norm   kHead: y = x / sqrt(mean(x^2 over D) + eps) * w,   w float32 (D,)
//          kFull: y = x / sqrt(mean(x^2 over H and D) + eps) * w,   w float32 (H * D,)
//          kNone: y = x; an absent w counts as ones
//          (root mean square norm, Zhang and Sennrich 2019, arXiv 1910.07467)
//   rope   the pairs (a, b) = (y[2i], y[2i + 1]) of kInterleaved, or (y[i], y[i + D / 2]) of kHalf,
//          become (a * c - b * s, b * c + a * s) with c = cos[n, i], s = sin[n, i]
//          (rotary embedding, Su et al. 2021, arXiv 2104.09864)
//   q    float32, float16 or bfloat16 (B, N, H, D), any strides with D adjacent
//   k    the same dtype, (B, N, H', D); without rope its number of tokens may differ
//   cos, sin  float32 (N, D / 2), the same for all heads, or (N, H * D / 2), one after another
// Each output is its own input, where it stands, or shares no memory with any input or with the
// other output. The result is the same to the last bit on every instruction set and number of
// threads; on CUDA it may differ by the rounding of the sums.
struct QkNormRopeArgs {
  Tensor q, k, q_weight, k_weight, cos, sin;
  QkNorm norm = QkNorm::kFull;
  Rope rope = Rope::kInterleaved;
  float eps = 1e-6f;
};

// The outputs expected for q and k (data is null).
struct QkNormRopeOutputs {
  Tensor q, k;
};

// Checks the arguments and says what the outputs must be.
QkNormRopeOutputs qk_norm_rope_outputs(const QkNormRopeArgs& args);
void qk_norm_rope(const QkNormRopeArgs& args, const Tensor& q_out, const Tensor& k_out,
                  const Executor& executor);

}  // namespace fastvid
