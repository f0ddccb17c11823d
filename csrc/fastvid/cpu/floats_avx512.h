// `Floats` in one AVX-512 register; floats_scalar.h says what the names mean.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "fastvid/core/half.h"
#include "fastvid/core/isa.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Floats {
  __m512 v;
};

FASTVID_INLINE Floats splat(float v) { return {_mm512_set1_ps(v)}; }

FASTVID_INLINE __m512 widen(__m256i bits, const Half*) { return _mm512_cvtph_ps(bits); }
FASTVID_INLINE __m512 widen(__m256i bits, const BFloat16*) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}
FASTVID_INLINE __m256i narrow(__m512 v, const Half*) {
  return _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// The upper halves are the rounded values; the lower ones are not cleared.
FASTVID_INLINE __m512i rounded_to_bfloat16(__m512 v) {
  const __m512i u = _mm512_castps_si512(v);
  const __mmask16 odd = _mm512_test_epi32_mask(u, _mm512_set1_epi32(0x10000));
  const __m512i sum = _mm512_add_epi32(u, _mm512_set1_epi32(0x7fff));
  const __m512i even = _mm512_mask_add_epi32(sum, odd, u, _mm512_set1_epi32(0x8000));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(even, nan, u, _mm512_set1_epi32(0x400000));
}
FASTVID_INLINE __m256i narrow(__m512 v, const BFloat16*) {
  return _mm512_cvtepi32_epi16(_mm512_srli_epi32(rounded_to_bfloat16(v), 16));
}
FASTVID_INLINE __mmask16 first(int64_t n) {
  return static_cast<__mmask16>(n >= 16 ? 0xffff : (1 << (n < 0 ? 0 : n)) - 1);
}

FASTVID_INLINE Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
FASTVID_INLINE Floats load_first(const float* p, int64_t n) {
  return {_mm512_maskz_loadu_ps(first(n), p)};
}
FASTVID_INLINE void store(float* p, const Floats& a) { _mm512_storeu_ps(p, a.v); }
FASTVID_INLINE void store_first(float* p, const Floats& a, int64_t n) {
  _mm512_mask_storeu_ps(p, first(n), a.v);
}
template <class T>
FASTVID_INLINE Floats load(const T* p) {
  return {widen(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)), p)};
}
template <class T>
FASTVID_INLINE Floats load_first(const T* p, int64_t n) {
  return {widen(_mm256_maskz_loadu_epi16(first(n), p), p)};
}
template <class T>
FASTVID_INLINE void store(T* p, const Floats& a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), narrow(a.v, p));
}
template <class T>
FASTVID_INLINE void store_first(T* p, const Floats& a, int64_t n) {
  _mm256_mask_storeu_epi16(p, first(n), narrow(a.v, p));
}

FASTVID_INLINE void store_past_caches(float* p, const Floats& a) { _mm512_stream_ps(p, a.v); }
template <class T>
FASTVID_INLINE void store_past_caches(T* p, const Floats& a) {
  _mm256_stream_si256(reinterpret_cast<__m256i*>(p), narrow(a.v, p));
}
FASTVID_INLINE void fence() { _mm_sfence(); }

FASTVID_INLINE Floats operator+(const Floats& a, const Floats& b) { return {a.v + b.v}; }
FASTVID_INLINE Floats operator-(const Floats& a, const Floats& b) { return {a.v - b.v}; }
FASTVID_INLINE Floats operator*(const Floats& a, const Floats& b) { return {a.v * b.v}; }
FASTVID_INLINE Floats fma(const Floats& a, const Floats& b, const Floats& c) {
  return {_mm512_fmadd_ps(a.v, b.v, c.v)};
}
FASTVID_INLINE Floats max(const Floats& a, const Floats& b) { return {_mm512_max_ps(a.v, b.v)}; }
FASTVID_INLINE Floats round(const Floats& a) { return {_mm512_roundscale_ps(a.v, 0)}; }
FASTVID_INLINE Floats scale_by_power(const Floats& p, const Floats& n, const Floats& x) {
  const __mmask16 kept = _mm512_cmp_ps_mask(x.v, _mm512_set1_ps(-126.0f), _CMP_NLT_UQ);
  return {_mm512_maskz_scalef_ps(kept, p.v, n.v)};
}
FASTVID_INLINE Floats keep_first(const Floats& a, int64_t n, float other) {
  return {_mm512_mask_mov_ps(_mm512_set1_ps(other), first(n), a.v)};
}

FASTVID_INLINE float reduce_add(const Floats& a) {
  const __m256 eight = _mm512_castps512_ps256(a.v) + _mm512_extractf32x8_ps(a.v, 1);
  const __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
  const __m128 two = four + _mm_movehl_ps(four, four);
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
FASTVID_INLINE float reduce_max(const Floats& a) {
  const __m256 eight = _mm256_max_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

struct Pairs {
  Floats even, odd;
};

// Shuffles stay within 128 bits; the order they leave is undone by those of store_pairs.
template <class T>
FASTVID_INLINE Floats load_for_pairs(const float* p) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  return {_mm512_castpd_ps(_mm512_permutexvar_pd(order, _mm512_castps_pd(_mm512_loadu_ps(p))))};
}
template <>
FASTVID_INLINE Floats load_for_pairs<BFloat16>(const float* p) {
  return load(p);
}
template <class T>
FASTVID_INLINE Pairs load_pairs(const T* p) {
  const __m512 a = load(p).v, b = load(p + 16).v;
  return {{_mm512_shuffle_ps(a, b, 0x88)}, {_mm512_shuffle_ps(a, b, 0xdd)}};
}
FASTVID_INLINE Pairs load_pairs(const BFloat16* p) {
  const __m512i words = _mm512_loadu_si512(p);
  const __m512i upper = _mm512_and_si512(words, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
  return {{_mm512_castsi512_ps(_mm512_slli_epi32(words, 16))}, {_mm512_castsi512_ps(upper)}};
}
template <class T>
FASTVID_INLINE Pairs load_pairs_like(const float* p) {
  return load_pairs(p);
}
template <>
FASTVID_INLINE Pairs load_pairs_like<BFloat16>(const float* p) {
  const __m512 a = _mm512_loadu_ps(p), b = _mm512_loadu_ps(p + 16);
  const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  return {{_mm512_permutex2var_ps(a, even, b)}, {_mm512_permutex2var_ps(a, odd, b)}};
}
template <class T>
FASTVID_INLINE void store_pairs(T* p, const Pairs& a, bool stream) {
  const Floats first{_mm512_unpacklo_ps(a.even.v, a.odd.v)};
  const Floats second{_mm512_unpackhi_ps(a.even.v, a.odd.v)};
  if (stream) {
    store_past_caches(p, first);
    store_past_caches(p + 16, second);
  } else {
    store(p, first);
    store(p + 16, second);
  }
}
FASTVID_INLINE void store_pairs(BFloat16* p, const Pairs& a, bool stream) {
  const __m512i even = _mm512_srli_epi32(rounded_to_bfloat16(a.even.v), 16);
  const __m512i odd = rounded_to_bfloat16(a.odd.v);
  const __m512i words = _mm512_mask_blend_epi16(0xaaaaaaaau, even, odd);
  if (stream) {
    _mm512_stream_si512(reinterpret_cast<__m512i*>(p), words);
  } else {
    _mm512_storeu_si512(p, words);
  }
}
FASTVID_INLINE void transpose(Floats* rows) {
  __m512 t[16], u[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    t[i + 1] = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
  }
  for (int i = 0; i < 16; i += 4) {
    u[i] = _mm512_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm512_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm512_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_f32x4(u[i], u[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_f32x4(u[i + 8], u[i + 12], 0xdd);
  }
  for (int i = 0; i < 4; ++i) {
    rows[i].v = _mm512_shuffle_f32x4(t[i], t[i + 8], 0x88);
    rows[i + 8].v = _mm512_shuffle_f32x4(t[i], t[i + 8], 0xdd);
    rows[i + 4].v = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0x88);
    rows[i + 12].v = _mm512_shuffle_f32x4(t[i + 4], t[i + 12], 0xdd);
  }
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
