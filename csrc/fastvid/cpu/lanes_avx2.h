// Eight pixels at a time.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "fastvid/core/half.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int kLanes = 8;
  static constexpr bool kMasks = false;

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const Half* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F load(const BFloat16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
  }
  static F load(const uint8_t* p) {
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
    return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes));
  }
  static void store(float* p, F v) { _mm256_storeu_ps(p, v); }
  static void store(Half* p, F v) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
  }
  // As float_to_bfloat16 in core/half.h.
  static void store(BFloat16* p, F v) {
    const __m256i u = _mm256_castps_si256(v);
    const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(u, 16), _mm256_set1_epi32(1));
    const __m256i up = _mm256_add_epi32(u, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
    const __m256i quiet = _mm256_or_si256(u, _mm256_set1_epi32(0x400000));
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
    const __m256i bits = _mm256_srli_epi32(_mm256_blendv_epi8(up, quiet, nan), 16);
    const __m128i packed =
        _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256(bits, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), packed);
  }
  // Rounds values in [0, 255] half to even.
  static void store(uint8_t* p, F v) {
    const __m256i n = _mm256_cvtps_epi32(v);
    const __m128i words =
        _mm_packus_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packus_epi16(words, words));
  }
  static void stream(float* p, F v) { _mm256_stream_ps(p, v); }
  static void fence() { _mm_sfence(); }
  static F splat(float v) { return _mm256_set1_ps(v); }
  static F iota() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  // at + by, or at where by is NaN.
  static F displace(F at, F by) {
    return at + _mm256_and_ps(by, _mm256_cmp_ps(by, by, _CMP_ORD_Q));
  }
  static F power_of_two(F t) {
    const __m256i n = _mm256_slli_epi32(_mm256_castps_si256(t), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(n, _mm256_set1_epi32(0x3f800000)));
  }
  static void store_rgb(uint8_t* p, const F* rgb) {
    const auto bytes = [](F v) { return _mm256_cvtps_epi32(v * 255.0f); };
    // Per 128-bit half: r0..r3 g0..g3 b0..b3, then interleaved to 12 bytes.
    const __m256i packed =
        _mm256_packus_epi16(_mm256_packus_epi32(bytes(rgb[0]), bytes(rgb[1])),
                            _mm256_packus_epi32(bytes(rgb[2]), _mm256_setzero_si256()));
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11, -1, -1, -1, -1));
    uint8_t both[32];
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(both), _mm256_shuffle_epi8(packed, order));
    __builtin_memcpy(p, both, 12);
    __builtin_memcpy(p + 12, both + 16, 12);
  }

  using I = __m256i;
  static void store(int32_t* p, I v) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v); }
  static I load(const int32_t* p) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static I splat(int32_t v) { return _mm256_set1_epi32(v); }
  static I truncate(F v) { return _mm256_cvttps_epi32(v); }
  static F to_float(I v) { return _mm256_cvtepi32_ps(v); }
  static I min(I a, I b) { return _mm256_min_epi32(a, b); }
  static I max(I a, I b) { return _mm256_max_epi32(a, b); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  static I mul(I a, I b) { return _mm256_mullo_epi32(a, b); }
  // The first and the last lane, in every lane.
  static I from_first(I v) { return _mm256_broadcastd_epi32(_mm256_castsi256_si128(v)); }
  static I from_last(I v) { return _mm256_permutevar8x32_epi32(v, splat(7)); }
  static int32_t first(I v) { return _mm256_cvtsi256_si32(v); }
  // The lanes, unsigned, above `limit`, as bits.
  static uint16_t above(I v, int32_t limit) {
    // Negative numbers are above as well, and their sign says so.
    const I is_above = _mm256_or_si256(v, _mm256_cmpgt_epi32(v, splat(limit)));
    return static_cast<uint16_t>(_mm256_movemask_ps(_mm256_castsi256_ps(is_above)));
  }
  // Bit i: v[i] of 64 is not 0.
  static uint64_t not_zero(const uint16_t* v) {
    uint64_t bits = 0;
    for (int i = 0; i < 64; i += 32) {
      const auto zero = [v, i](int at) {
        const I words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(v + i + at));
        return _mm256_cmpeq_epi16(words, _mm256_setzero_si256());
      };
      const I bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(zero(0), zero(16)), 0xd8);
      bits |= uint64_t{~static_cast<uint32_t>(_mm256_movemask_epi8(bytes))} << i;
    }
    return bits;
  }
  // b in the lanes of v above `limit`, else a.
  static F select_above(I v, int32_t limit, F a, F b) {
    return _mm256_blendv_ps(a, b, _mm256_castsi256_ps(_mm256_cmpgt_epi32(v, splat(limit))));
  }
  static bool all_inside(F x, F y, float right, float bottom) {
    const __m256 zero = _mm256_setzero_ps();
    const __m256 column = _mm256_and_ps(_mm256_cmp_ps(x, zero, _CMP_GE_OQ),
                                        _mm256_cmp_ps(x, _mm256_set1_ps(right), _CMP_LE_OQ));
    const __m256 row = _mm256_and_ps(_mm256_cmp_ps(y, zero, _CMP_GE_OQ),
                                     _mm256_cmp_ps(y, _mm256_set1_ps(bottom), _CMP_LE_OQ));
    return _mm256_movemask_ps(_mm256_and_ps(column, row)) == 0xff;
  }
  static F lerp(F a, F b, F w) { return a + w * (b - a); }
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
