// A row of 16 neighbouring elements in registers, picked apart by permutes.
#pragma once

#include "fastvid/cpu/lanes_avx2.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Avx2Window : Avx2 {
  static constexpr int kWidth = 16;

  // The column, in every lane, where the window of a block that reads from columns x0 on starts.
  static I window_start(I x0, int32_t rightmost) {
    return min(max(sub(from_first(x0), splat(3)), splat(0)), splat(rightmost));
  }

  // Between columns `left` and left + 1 of the window at q, `w` of the way. left is in [0, 14].
  template <class T>
  static F across(const T* q, I left, F w) {
    F low = load(q), high = load(q + 8);
    // Else the compiler reads the window again for the second permute.
    asm("" : "+x"(low), "+x"(high));
    const auto at = [&](I column) {
      // Bit 3 of the column, as the sign, says which half.
      const F half = _mm256_castsi256_ps(_mm256_slli_epi32(column, 28));
      return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, column),
                              _mm256_permutevar8x32_ps(high, column), half);
    };
    return lerp(at(left), at(_mm256_add_epi32(left, splat(1))), w);
  }

  // The same where the columns are any of the `size` elements from s on. Both neighbours are one
  // 64-bit element: half the gathers.
  static F gather_across(const float* s, I left, int64_t, F w) {
    const auto* pairs = reinterpret_cast<const double*>(s);
    const F low = _mm256_castpd_ps(_mm256_i32gather_pd(pairs, _mm256_castsi256_si128(left), 4));
    const F high =
        _mm256_castpd_ps(_mm256_i32gather_pd(pairs, _mm256_extracti128_si256(left, 1), 4));
    const auto ordered = [](F v) {
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8));
    };
    return lerp(ordered(_mm256_shuffle_ps(low, high, 0x88)),
                ordered(_mm256_shuffle_ps(low, high, 0xdd)), w);
  }
  static F gather_across(const Half* s, I left, int64_t, F w) {
    const I pairs = _mm256_i32gather_epi32(reinterpret_cast<const int*>(s), left, 2);
    const auto numbers = [](I words) {
      return _mm256_cvtph_ps(
          _mm_packus_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    };
    return lerp(numbers(_mm256_and_si256(pairs, splat(0xffff))),
                numbers(_mm256_srli_epi32(pairs, 16)), w);
  }
  static F gather_across(const BFloat16* s, I left, int64_t, F w) {
    const I pairs = _mm256_i32gather_epi32(reinterpret_cast<const int*>(s), left, 2);
    const I upper = _mm256_and_si256(pairs, splat(static_cast<int>(0xffff0000u)));
    return lerp(_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16)), _mm256_castsi256_ps(upper), w);
  }
  static F gather_across(const uint8_t* s, I left, int64_t size, F w) {
    // Four bytes are read at once, and none after the last of s.
    const I at = min(left, splat(static_cast<int32_t>(size - 4)));
    const I words = _mm256_i32gather_epi32(reinterpret_cast<const int*>(s), at, 1);
    const I bytes = _mm256_srlv_epi32(words, _mm256_slli_epi32(sub(left, at), 3));
    const auto number = [](I v) { return to_float(_mm256_and_si256(v, splat(0xff))); };
    return lerp(number(bytes), number(_mm256_srli_epi32(bytes, 8)), w);
  }

  // Elements of s; 0 for those before it.
  static F gather(const float* s, I at) {
    const F there = _mm256_castsi256_ps(_mm256_cmpgt_epi32(at, splat(-1)));
    return _mm256_mask_i32gather_ps(_mm256_setzero_ps(), s, at, there, 4);
  }
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
