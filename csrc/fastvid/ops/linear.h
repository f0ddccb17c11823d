// A linear layer whose weights stay as a checkpoint has them.
#pragma once

#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid {

// out[..., n] = bias[n] + sum over k of x[..., k] * weight[n, k]
//   x       float32 (..., K), 2 to 6 sizes
//   weight  float32, float16 or bfloat16 (N, K), as torch.nn.Linear has it: read where it lies,
//           never copied as a whole
//   bias    float32 (N), or absent
//   bfloat16  x and weight are rounded to bfloat16 before they are multiplied
//   out     float32 (..., N), shares no memory with an input
// The sum starts from the bias and goes through k in order, in float32, each step a fused
// multiply-add. The result is the same to the last bit on every instruction set and number of
// threads, except for `bfloat16` with AVX-512 BF16: its products add neighbours in another order
// and take subnormals as 0, which moves a result by at most K * 2^-23 of the sum of |x * weight|,
// |bias| included, or K * 2^-110 where that is more. There is no CUDA kernel: on a GPU this is work
// for the runtime's own product.
struct LinearArgs {
  Tensor x, weight, bias;
  bool bfloat16 = false;
};

// Checks the arguments and says what out must be (data is null).
Tensor linear_output(const LinearArgs& args);
void linear(const LinearArgs& args, const Tensor& out, const Executor& executor);

}  // namespace fastvid
