// Attention along the frames of a video, each place by itself, where the tensors lie.
#pragma once

#include <optional>

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

// out[b, t, s, h] = sum_u w[u] v[b, u, s, h],  w = softmax_u(scale * q[b, t, s, h] . k[b, u, s, h]
//                                                           + bias[h, t, u])
//   q, k, v  float32, float16 or bfloat16 (B, T, S, H, D), all of one dtype; any strides with D
//            contiguous, so that views of a packed (B, T, S, 3, H, D) do. T from 1 to 64; D a
//            multiple of 8 from 8 to 256. S is height * width.
//   scale    finite; D^-0.5 where absent
//   causal   only keys u <= t count
//   bias     absent, or float32 (H, T, T) or (1, T, T); -inf masks a key
//   out      like q, contiguous or strided; shares no memory with an input
// A query of which all keys are masked gives 0. Arithmetic is float32 throughout on the CPU, with
// the same bits on every instruction set and number of threads; on CUDA, float16 and bfloat16
// weights are rounded to that dtype before they meet v. NaN and infinities spread as IEEE
// arithmetic has it.
struct TemporalAttentionArgs {
  static constexpr int64_t kMaxFrames = 64, kMaxDim = 256, kDimStep = 8;

  Tensor q, k, v, bias;
  std::optional<float> scale = std::nullopt;
  bool causal = false;
};

// Checks the arguments and says what out must be (data is null).
Tensor temporal_attention_output(const TemporalAttentionArgs& args);
void temporal_attention(const TemporalAttentionArgs& args, const Tensor& out,
                        const Executor& executor);

}  // namespace fastvid
