// Scaled dot product attention without its matrix of scores in memory.
#pragma once

#include <optional>

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

// For every batch b and head h, with i over Nq queries and j over Nk keys:
//   score[i, j] = scale * (q[b, i, h] . k[b, j, h]) + bias[b, h, i, j]
//   out[b, i, h] = sum over j of softmax(score[i])[j] * v[b, j, h]
//   q     float32, float16 or bfloat16 (B, Nq, H, D), any strides with D adjacent; D from 1 to 256
//   k, v  the same dtype, (B, Nk, H, D)
//   bias  float32 (1 or B, 1 or H, Nq, Nk), keys adjacent; -infinity hides a key
//   scale positive; 1 / sqrt(D) where it is absent
//   causal  query i sees the keys j <= i only
//   out   like q, shares no memory with an input
// A query that sees no key gives zeros. A NaN in a query, or in a key or bias it sees, makes the
// query's output NaN; one in a value may reach every query of its head, whether it sees it or not.
// Sums are float32. The result is the same to the last bit on every instruction set and number of
// threads, except for bfloat16 with AVX-512 BF16: its products round the weights to bfloat16 and
// take subnormals as 0, which moves results by at most 2^-7 of the largest |v|.
struct AttentionArgs {
  Tensor q, k, v, bias;
  std::optional<float> scale = std::nullopt;
  bool causal = false;
};

// Checks the arguments and says what out must be (data is null).
Tensor attention_output(const AttentionArgs& args);
void attention(const AttentionArgs& args, const Tensor& out, const Executor& executor);

}  // namespace fastvid
