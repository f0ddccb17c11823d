// A row of 32 neighbouring elements in registers, picked apart by a permute.
#pragma once

#include "fastvid/cpu/lanes_avx512.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Avx512Window : Avx512 {
  static constexpr int kWidth = 32;

  // The column, in every lane, where the window of a block that reads from columns x0 on starts: a
  // whole vector, since reads across two cache lines take twice as long, or where that does not
  // cover the block, somewhat left of its first pixel.
  static I window_start(I x0, int32_t rightmost) {
    const I first = from_first(x0), last = splat(rightmost);
    const I whole = min(_mm512_and_si512(first, splat(-16)), last);
    const I near = min(max(sub(first, splat(8)), splat(0)), last);
    const bool covered = above(sub(x0, whole), kWidth - 2) == 0;
    return _mm512_mask_mov_epi32(near, static_cast<__mmask16>(-int{covered}), whole);
  }

  // Between columns `left` and left + 1 of the window at q, `w` of the way. left is in [0, 30].
  static F across(const float* q, I left, F w) {
    F low = _mm512_loadu_ps(q), high = _mm512_loadu_ps(q + 16);
    // Else the compiler reads the window again for the second permute: reads limit this op.
    asm("" : "+v"(low), "+v"(high));
    return lerp(_mm512_permutex2var_ps(low, left, high),
                _mm512_permutex2var_ps(low, next(left), high), w);
  }
  static F across(const Half* q, I left, F w) {
    const I words = _mm512_loadu_si512(q);
    const I index = _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtepi32_epi16(left)),
                                       _mm512_cvtepi32_epi16(next(left)), 1);
    const I pairs = _mm512_permutexvar_epi16(index, words);
    return lerp(_mm512_cvtph_ps(_mm512_castsi512_si256(pairs)),
                _mm512_cvtph_ps(_mm512_extracti64x4_epi64(pairs, 1)), w);
  }
  static F across(const BFloat16* q, I left, F w) {
    const I words = _mm512_loadu_si512(q);
    // The upper half of each lane is the number.
    const auto at = [&](I column) {
      return _mm512_castsi512_ps(
          _mm512_maskz_permutexvar_epi16(0xaaaaaaaau, _mm512_slli_epi32(column, 16), words));
    };
    return lerp(at(left), at(next(left)), w);
  }
  static F across(const uint8_t* q, I left, F w) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(q));
    const __m256i index = _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm512_cvtepi32_epi8(left)), _mm512_cvtepi32_epi8(next(left)), 1);
    const __m256i pairs = _mm256_permutexvar_epi8(index, bytes);
    const auto numbers = [](__m128i v) { return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(v)); };
    return lerp(numbers(_mm256_castsi256_si128(pairs)), numbers(_mm256_extracti128_si256(pairs, 1)),
                w);
  }

  // The same where the columns are any of the `size` elements from s on. Both neighbours are one
  // 64-bit element: half the gathers.
  static F gather_across(const float* s, I left, int64_t, F w) {
    const I even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const F low = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_castsi512_si256(left), s, 4));
    const F high = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_extracti64x4_epi64(left, 1), s, 4));
    return lerp(_mm512_permutex2var_ps(low, even, high),
                _mm512_permutex2var_ps(low, next(even), high), w);
  }
  static F gather_across(const Half* s, I left, int64_t, F w) {
    const I pairs = _mm512_i32gather_epi32(left, s, 2);
    return lerp(_mm512_cvtph_ps(_mm512_cvtepi32_epi16(pairs)),
                _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32(pairs, 16))), w);
  }
  static F gather_across(const BFloat16* s, I left, int64_t, F w) {
    const I pairs = _mm512_i32gather_epi32(left, s, 2);
    const I upper = _mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
    return lerp(_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16)), _mm512_castsi512_ps(upper), w);
  }
  static F gather_across(const uint8_t* s, I left, int64_t size, F w) {
    // Four bytes are read at once, and none after the last of s.
    const I at = min(left, splat(static_cast<int32_t>(size - 4)));
    const I bytes =
        _mm512_srlv_epi32(_mm512_i32gather_epi32(at, s, 1), _mm512_slli_epi32(sub(left, at), 3));
    const auto number = [](I v) { return to_float(_mm512_and_si512(v, splat(0xff))); };
    return lerp(number(bytes), number(_mm512_srli_epi32(bytes, 8)), w);
  }

  // Elements of s; 0 for those before it.
  static F gather(const float* s, I at) {
    const __mmask16 there = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
    return _mm512_mask_i32gather_ps(_mm512_setzero_ps(), there, at, s, 4);
  }

 private:
  static I next(I column) { return _mm512_add_epi32(column, _mm512_set1_epi32(1)); }
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
