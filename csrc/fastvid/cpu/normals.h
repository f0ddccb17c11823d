// Normal noise, for the kernels that fill arrays with it and for those that add it.
// Only IEEE additions, multiplications and square roots, one by one: cuda/normals.cuh repeats them.
#pragma once

#include <cstdint>

#include "fastvid/core/noise.h"

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Blocks of four elements made at a time: what lies between two steps stays in the first cache.
constexpr int kNoiseBlocks = 64;
constexpr int kNoiseTile = 4 * kNoiseBlocks;

// The words of 32 bits stand in the low halves of 64: a product's low half can then be taken as the
// next word as it is, and no lane has to change places. What the high halves hold does not matter.
#if defined(__AVX512F__)
using Wide = __m512i;
inline Wide multiply(Wide a, Wide b) { return _mm512_mul_epu32(a, b); }
inline Wide high_half(Wide a) { return _mm512_srli_epi64(a, 32); }
#elif defined(__AVX2__)
using Wide = __m256i;
inline Wide multiply(Wide a, Wide b) { return _mm256_mul_epu32(a, b); }
inline Wide high_half(Wide a) { return _mm256_srli_epi64(a, 32); }
#elif defined(__SSE2__)
using Wide = __m128i;
inline Wide multiply(Wide a, Wide b) { return _mm_mul_epu32(a, b); }
inline Wide high_half(Wide a) { return _mm_srli_epi64(a, 32); }
#else
using Wide = uint64_t;
inline Wide multiply(Wide a, Wide b) { return (a & 0xffffffffu) * (b & 0xffffffffu); }
inline Wide high_half(Wide a) { return a >> 32; }
#endif
constexpr int kWideLanes = sizeof(Wide) / sizeof(uint64_t);

struct Words {
  alignas(64) uint64_t w[4][kNoiseBlocks];
};

inline Wide wide(const uint64_t* p) {
  Wide value;
  __builtin_memcpy(&value, p, sizeof(value));
  return value;
}
inline Wide wide(uint32_t word) {
  uint64_t all[kWideLanes];
  for (uint64_t& lane : all) lane = word;
  return wide(all);
}

// Two groups of counters at once: the multiplications of one hide those of the other.
inline void philox_words(const Noise& noise, uint64_t block, Words& words) {
  constexpr int kGroups = 2;
  for (int i = 0; i < kNoiseBlocks; ++i) {
    words.w[0][i] = block + static_cast<uint64_t>(i);
    words.w[1][i] = words.w[0][i] >> 32;
  }
  const Wide multiplier0 = wide(philox::kMultiplier0), multiplier1 = wide(philox::kMultiplier1);
  const Wide row = wide(noise.subsequence), zero = wide(uint32_t{0});
  for (int i = 0; i < kNoiseBlocks; i += kGroups * kWideLanes) {
    Wide c[kGroups][4];
    for (int g = 0; g < kGroups; ++g) {
      c[g][0] = wide(words.w[0] + i + g * kWideLanes);
      c[g][1] = wide(words.w[1] + i + g * kWideLanes);
      c[g][2] = row;
      c[g][3] = zero;
    }
    auto key0 = static_cast<uint32_t>(noise.seed), key1 = static_cast<uint32_t>(noise.seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < philox::kRounds; ++round) {
      const Wide k0 = wide(key0), k1 = wide(key1);
#pragma GCC unroll 2
      for (int g = 0; g < kGroups; ++g) {
        const Wide p0 = multiply(c[g][0], multiplier0), p1 = multiply(c[g][2], multiplier1);
        c[g][0] = high_half(p1) ^ c[g][1] ^ k0;
        c[g][2] = high_half(p0) ^ c[g][3] ^ k1;
        c[g][1] = p1;
        c[g][3] = p0;
      }
      key0 += philox::kWeyl0;
      key1 += philox::kWeyl1;
    }
    for (int g = 0; g < kGroups; ++g) {
      for (int j = 0; j < 4; ++j) {
        __builtin_memcpy(words.w[j] + i + g * kWideLanes, &c[g][j], sizeof(Wide));
      }
    }
  }
}

inline float float_of(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}
inline uint32_t bits_of(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}
// Through int32: SSE2 has no conversion from uint32, and 24 bits need none.
inline float exact_float(uint32_t k) { return static_cast<float>(static_cast<int32_t>(k)); }

// ln(u) for u in (0, 1].
inline float log_of(float u) {
  const uint32_t shifted = bits_of(u) + (kOneBits - kSqrtHalfBits);
  const float exponent = static_cast<float>(static_cast<int32_t>(shifted >> 23) - 127);
  const float t = float_of((shifted & kMantissa) + kSqrtHalfBits) - 1.0f;
  const float square = t * t;
  float p = kLog[0];
#pragma GCC unroll 8
  for (int i = 1; i < 9; ++i) p = p * t + kLog[i];
  p = p * t * square + exponent * kLn2Low - 0.5f * square;
  return (t + p) + exponent * kLn2High;
}

// Box and Muller: two uniform words to two normals.
inline void normal_pair(uint32_t radius_word, uint32_t angle_word, float* first, float* second) {
  const float u = exact_float((radius_word >> kUniformShift) + 1) * kUniformStep;
  const float radius = __builtin_sqrtf(-2.0f * log_of(u));
  const uint32_t angle = angle_word >> kUniformShift;
  const uint32_t quarter = (angle + (1u << (kQuarterShift - 1))) >> kQuarterShift;
  const auto rest = static_cast<int32_t>(angle - (quarter << kQuarterShift));
  const float x = static_cast<float>(rest) * kRadiansPerStep, square = x * x;
  const float s = x + ((kSin[0] * square + kSin[1]) * square + kSin[2]) * square * x;
  const float c =
      ((kCos[0] * square + kCos[1]) * square + kCos[2]) * square * square + (1.0f - 0.5f * square);
  // A quarter turn swaps the two, and each turns negative for half of the circle.
  const uint32_t swap = 0u - (quarter & 1u);
  const uint32_t sine = (bits_of(s) & ~swap) | (bits_of(c) & swap);
  const uint32_t cosine = (bits_of(c) & ~swap) | (bits_of(s) & swap);
  *first = radius * float_of(cosine ^ (((quarter + 1) & 2u) << 30));
  *second = radius * float_of(sine ^ ((quarter & 2u) << 30));
}

// The kNoiseTile elements of the blocks from `block` on.
inline void normal_tile(const Noise& noise, uint64_t block, float* __restrict out) {
  Words words;
  philox_words(noise, block, words);
  alignas(64) float z[4][kNoiseBlocks];
  for (int half = 0; half < 4; half += 2) {
    for (int i = 0; i < kNoiseBlocks; ++i) {
      normal_pair(static_cast<uint32_t>(words.w[half][i]),
                  static_cast<uint32_t>(words.w[half + 1][i]), &z[half][i], &z[half + 1][i]);
    }
  }
  for (int i = 0; i < kNoiseBlocks; ++i) {
    for (int j = 0; j < 4; ++j) out[4 * i + j] = z[j][i];
  }
}

// Elements [begin, begin + count) of the noise, `offset` not counted.
inline void normals(const Noise& noise, uint64_t begin, int64_t count, float* out) {
  while (count > 0) {
    const auto skip = static_cast<int64_t>(begin & 3);
    const int64_t n = count < kNoiseTile - skip ? count : kNoiseTile - skip;
    if (n == kNoiseTile) {
      normal_tile(noise, begin >> 2, out);
    } else {
      alignas(64) float tile[kNoiseTile];
      normal_tile(noise, begin >> 2, tile);
      __builtin_memcpy(out, tile + skip, static_cast<uint64_t>(n) * sizeof(float));
    }
    begin += static_cast<uint64_t>(n);
    out += n;
    count -= n;
  }
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
