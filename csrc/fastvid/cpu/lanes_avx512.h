// Sixteen pixels at a time.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "fastvid/core/half.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr int kLanes = 16;
  static constexpr bool kMasks = true;

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const Half* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load(const BFloat16* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static F load(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes));
  }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void store(Half* p, F v) {
    const __m256i bits = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
  }
  // As float_to_bfloat16 in core/half.h.
  static void store(BFloat16* p, F v) {
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i bits = _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u,
                                              _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
  }
  // Rounds values in [0, 255] half to even.
  static void store(uint8_t* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(v)));
  }
  static void stream(float* p, F v) { _mm512_stream_ps(p, v); }
  static void fence() { _mm_sfence(); }
  static F splat(float v) { return _mm512_set1_ps(v); }
  static F iota() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  // at + by, or at where by is NaN.
  static F displace(F at, F by) {
    return _mm512_mask_add_ps(at, _mm512_cmp_ps_mask(by, by, _CMP_ORD_Q), at, by);
  }
  static F power_of_two(F t) {
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(0x3f800000)));
  }
  static void store_rgb(uint8_t* p, const F* rgb) {
    // Byte i of the output is channel i % 3 of pixel i / 3; the channels lie 16 bytes apart.
    alignas(64) static constexpr uint8_t kOrder[64] = {
        0,  16, 32, 1,  17, 33, 2,  18, 34, 3,  19, 35, 4,  20, 36, 5,
        21, 37, 6,  22, 38, 7,  23, 39, 8,  24, 40, 9,  25, 41, 10, 26,
        42, 11, 27, 43, 12, 28, 44, 13, 29, 45, 14, 30, 46, 15, 31, 47};
    __m128i bytes[3];
    for (int c = 0; c < 3; ++c) {
      bytes[c] = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(rgb[c] * 255.0f));
    }
    const __m512i planes = _mm512_inserti32x4(
        _mm512_inserti32x4(_mm512_castsi128_si512(bytes[0]), bytes[1], 1), bytes[2], 2);
    const __m512i order = _mm512_load_si512(kOrder);
    _mm512_mask_storeu_epi8(p, 0xffffffffffffull, _mm512_permutexvar_epi8(order, planes));
  }

  // The first n lanes; the others are 0.
  static F load_first(const float* p, int64_t n) {
    return _mm512_maskz_loadu_ps(first_lanes(n), p);
  }
  static F load_first(const Half* p, int64_t n) {
    return _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), p));
  }
  static F load_first(const BFloat16* p, int64_t n) {
    const __m256i bits = _mm256_maskz_loadu_epi16(first_lanes(n), p);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static F load_first(const uint8_t* p, int64_t n) {
    return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_maskz_loadu_epi8(first_lanes(n), p)));
  }
  template <class T>
  static void store_first(T* p, F v, int64_t n) {
    T all[kLanes];
    store(all, v);
    if constexpr (sizeof(T) == 4) {
      _mm512_mask_storeu_ps(p, first_lanes(n), v);
    } else if constexpr (sizeof(T) == 2) {
      _mm256_mask_storeu_epi16(p, first_lanes(n),
                               _mm256_loadu_si256(reinterpret_cast<const __m256i*>(all)));
    } else {
      _mm_mask_storeu_epi8(p, first_lanes(n),
                           _mm_loadu_si128(reinterpret_cast<const __m128i*>(all)));
    }
  }

  using I = __m512i;
  static void store(int32_t* p, I v) { _mm512_storeu_si512(p, v); }
  static I load(const int32_t* p) { return _mm512_loadu_si512(p); }
  static I splat(int32_t v) { return _mm512_set1_epi32(v); }
  static I truncate(F v) { return _mm512_cvttps_epi32(v); }
  static F to_float(I v) { return _mm512_cvtepi32_ps(v); }
  static I min(I a, I b) { return _mm512_min_epi32(a, b); }
  static I max(I a, I b) { return _mm512_max_epi32(a, b); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I mul(I a, I b) { return _mm512_mullo_epi32(a, b); }
  // The first and the last lane, in every lane.
  static I from_first(I v) { return _mm512_broadcastd_epi32(_mm512_castsi512_si128(v)); }
  static I from_last(I v) { return _mm512_permutexvar_epi32(_mm512_set1_epi32(15), v); }
  static int32_t first(I v) { return _mm_cvtsi128_si32(_mm512_castsi512_si128(v)); }
  // The lanes, unsigned, above `limit`, as bits.
  static uint16_t above(I v, int32_t limit) {
    return _mm512_cmpgt_epu32_mask(v, _mm512_set1_epi32(limit));
  }
  // Bit i: v[i] of 64 is not 0.
  static uint64_t not_zero(const uint16_t* v) {
    const auto bits = [](const uint16_t* p) {
      const I words = _mm512_loadu_si512(p);
      return uint64_t{_mm512_test_epi16_mask(words, words)};
    };
    return bits(v) | bits(v + 32) << 32;
  }
  // b in the lanes of v above `limit`, else a.
  static F select_above(I v, int32_t limit, F a, F b) {
    return _mm512_mask_mov_ps(a, _mm512_cmpgt_epi32_mask(v, _mm512_set1_epi32(limit)), b);
  }
  static bool all_inside(F x, F y, float right, float bottom) {
    const __m512 zero = _mm512_setzero_ps();
    __mmask16 m = _mm512_cmp_ps_mask(x, zero, _CMP_GE_OQ);
    m = _mm512_mask_cmp_ps_mask(m, x, _mm512_set1_ps(right), _CMP_LE_OQ);
    m = _mm512_mask_cmp_ps_mask(m, y, zero, _CMP_GE_OQ);
    return _mm512_mask_cmp_ps_mask(m, y, _mm512_set1_ps(bottom), _CMP_LE_OQ) == 0xffff;
  }
  static F lerp(F a, F b, F w) { return a + w * (b - a); }

 private:
  static __mmask16 first_lanes(int64_t n) {
    return static_cast<__mmask16>(_bzhi_u32(0xffff, static_cast<unsigned>(n)));
  }
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
