// Normal noise on the device: the arithmetic of cpu/normals.h, operation by operation, so that the
// results are the same; compiled without contraction to fma.
#pragma once

#include <cstdint>

#include "fastvid/core/noise.h"

namespace fastvid::cuda {

// ln(u) for u in (0, 1].
__device__ inline float log_of(float u) {
  constexpr float kTerms[9] = {kLog[0], kLog[1], kLog[2], kLog[3], kLog[4],
                               kLog[5], kLog[6], kLog[7], kLog[8]};
  const uint32_t shifted = __float_as_uint(u) + (kOneBits - kSqrtHalfBits);
  const float exponent = static_cast<float>(static_cast<int32_t>(shifted >> 23) - 127);
  const float t = __uint_as_float((shifted & kMantissa) + kSqrtHalfBits) - 1.0f;
  const float square = t * t;
  float p = kTerms[0];
#pragma unroll
  for (int i = 1; i < 9; ++i) p = p * t + kTerms[i];
  p = p * t * square + exponent * kLn2Low - 0.5f * square;
  return (t + p) + exponent * kLn2High;
}

__device__ inline void normal_pair(uint32_t radius_word, uint32_t angle_word, float* first,
                                   float* second) {
  constexpr float kS0 = kSin[0], kS1 = kSin[1], kS2 = kSin[2];
  constexpr float kC0 = kCos[0], kC1 = kCos[1], kC2 = kCos[2];
  const float u = static_cast<float>((radius_word >> kUniformShift) + 1) * kUniformStep;
  const float radius = __fsqrt_rn(-2.0f * log_of(u));
  const uint32_t angle = angle_word >> kUniformShift;
  const uint32_t quarter = (angle + (1u << (kQuarterShift - 1))) >> kQuarterShift;
  const auto rest = static_cast<int32_t>(angle - (quarter << kQuarterShift));
  const float x = static_cast<float>(rest) * kRadiansPerStep, square = x * x;
  const float s = x + ((kS0 * square + kS1) * square + kS2) * square * x;
  const float c = ((kC0 * square + kC1) * square + kC2) * square * square + (1.0f - 0.5f * square);
  const uint32_t sine = __float_as_uint(quarter & 1u ? c : s);
  const uint32_t cosine = __float_as_uint(quarter & 1u ? s : c);
  *first = radius * __uint_as_float(cosine ^ (((quarter + 1) & 2u) << 30));
  *second = radius * __uint_as_float(sine ^ ((quarter & 2u) << 30));
}

// The four elements of a block.
__device__ inline void normal_block(const Noise& noise, uint64_t block, float* z) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
  uint32_t c2 = noise.subsequence, c3 = 0;
  auto key0 = static_cast<uint32_t>(noise.seed), key1 = static_cast<uint32_t>(noise.seed >> 32);
#pragma unroll
  for (int round = 0; round < philox::kRounds; ++round) {
    const uint32_t high0 = __umulhi(philox::kMultiplier0, c0), low0 = philox::kMultiplier0 * c0;
    const uint32_t high1 = __umulhi(philox::kMultiplier1, c2), low1 = philox::kMultiplier1 * c2;
    c0 = high1 ^ c1 ^ key0;
    c2 = high0 ^ c3 ^ key1;
    c1 = low1;
    c3 = low0;
    key0 += philox::kWeyl0;
    key1 += philox::kWeyl1;
  }
  normal_pair(c0, c1, z, z + 1);
  normal_pair(c2, c3, z + 2, z + 3);
}

}  // namespace fastvid::cuda
