// Device code of downscale, for its launcher and its TensorRT plugin.
#pragma once

#include <cstdint>

namespace fastvid::cuda {

// Pixel `i` of the result. Sums in the order of the CPU, so that both give the same bits.
template <int kFactor>
__device__ __forceinline__ void downscale_pixel(const float* __restrict__ in,
                                                float* __restrict__ out, int64_t width, int64_t i) {
  const int64_t row = i / width, column = i - row * width, stride = width * kFactor;
  const float* block = in + row * kFactor * stride + column * kFactor;
  float total = 0.0f;
#pragma unroll
  for (int x = 0; x < kFactor; ++x) {
    float sum = block[x];
#pragma unroll
    for (int y = 1; y < kFactor; ++y) sum = __fadd_rn(sum, block[y * stride + x]);
    total = x == 0 ? sum : __fadd_rn(total, sum);
  }
  out[i] = __fmul_rn(total, 1.0f / (kFactor * kFactor));
}

}  // namespace fastvid::cuda
