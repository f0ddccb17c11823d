// `Floats` in two AVX2 registers; floats_scalar.h says what the names mean.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "fastvid/core/half.h"
#include "fastvid/core/isa.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Floats {
  __m256 lo, hi;
};

FASTVID_INLINE Floats splat(float v) { return {_mm256_set1_ps(v), _mm256_set1_ps(v)}; }

FASTVID_INLINE __m256 load_eight(const float* p) { return _mm256_loadu_ps(p); }
FASTVID_INLINE __m256 load_eight(const Half* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
FASTVID_INLINE __m256 load_eight(const BFloat16* p) {
  const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
}
FASTVID_INLINE void store_eight(float* p, __m256 v) { _mm256_storeu_ps(p, v); }
FASTVID_INLINE void store_eight(Half* p, __m256 v) {
  const __m128i bits = _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), bits);
}
FASTVID_INLINE void store_eight(BFloat16* p, __m256 v) {
  const __m256i u = _mm256_castps_si256(v), upper = _mm256_srli_epi32(u, 16);
  const __m256i odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), odd);
  const __m256i quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
  const __m256 nan = _mm256_cmp_ps(v, v, _CMP_UNORD_Q);
  const __m256i words =
      _mm256_blendv_epi8(_mm256_srli_epi32(sum, 16), quiet, _mm256_castps_si256(nan));
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_castsi256_si128(packed));
}

template <class T>
FASTVID_INLINE Floats load(const T* p) {
  return {load_eight(p), load_eight(p + 8)};
}
template <class T>
FASTVID_INLINE void store(T* p, const Floats& a) {
  store_eight(p, a.lo);
  store_eight(p + 8, a.hi);
}
template <class T>
FASTVID_INLINE Floats load_first(const T* p, int64_t n) {
  if (n >= 16) return load(p);
  T all[16] = {};
  for (int64_t i = 0; i < n; ++i) all[i] = p[i];
  return load(all);
}
template <class T>
FASTVID_INLINE void store_first(T* p, const Floats& a, int64_t n) {
  if (n >= 16) return store(p, a);
  T all[16];
  store(all, a);
  for (int64_t i = 0; i < n; ++i) p[i] = all[i];
}

template <class T>
FASTVID_INLINE void store_past_caches(T* p, const Floats& a) {
  if constexpr (sizeof(T) == 4) {
    _mm256_stream_ps(p, a.lo);
    _mm256_stream_ps(p + 8, a.hi);
  } else {
    store(p, a);
  }
}
FASTVID_INLINE void fence() { _mm_sfence(); }

FASTVID_INLINE Floats operator+(const Floats& a, const Floats& b) {
  return {a.lo + b.lo, a.hi + b.hi};
}
FASTVID_INLINE Floats operator-(const Floats& a, const Floats& b) {
  return {a.lo - b.lo, a.hi - b.hi};
}
FASTVID_INLINE Floats operator*(const Floats& a, const Floats& b) {
  return {a.lo * b.lo, a.hi * b.hi};
}
FASTVID_INLINE Floats fma(const Floats& a, const Floats& b, const Floats& c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
FASTVID_INLINE Floats max(const Floats& a, const Floats& b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
FASTVID_INLINE Floats round(const Floats& a) {
  constexpr int kNearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kNearest), _mm256_round_ps(a.hi, kNearest)};
}
FASTVID_INLINE __m256 scale_eight(__m256 p, __m256 n, __m256 x) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  const __m256 power = _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
  const __m256 kept = _mm256_cmp_ps(x, _mm256_set1_ps(-126.0f), _CMP_NLT_UQ);
  return _mm256_and_ps(p * power, kept);
}
FASTVID_INLINE Floats scale_by_power(const Floats& p, const Floats& n, const Floats& x) {
  return {scale_eight(p.lo, n.lo, x.lo), scale_eight(p.hi, n.hi, x.hi)};
}
FASTVID_INLINE Floats keep_first(const Floats& a, int64_t n, float other) {
  const __m256i count = _mm256_set1_epi32(static_cast<int>(n > 16 ? 16 : n));
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i upper = _mm256_add_epi32(lanes, _mm256_set1_epi32(8));
  const __m256 rest = _mm256_set1_ps(other);
  return {_mm256_blendv_ps(rest, a.lo, _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, lanes))),
          _mm256_blendv_ps(rest, a.hi, _mm256_castsi256_ps(_mm256_cmpgt_epi32(count, upper)))};
}

FASTVID_INLINE float reduce_add(const Floats& a) {
  const __m256 eight = a.lo + a.hi;
  const __m128 four = _mm256_castps256_ps128(eight) + _mm256_extractf128_ps(eight, 1);
  const __m128 two = four + _mm_movehl_ps(four, four);
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
FASTVID_INLINE float reduce_max(const Floats& a) {
  const __m256 eight = _mm256_max_ps(a.lo, a.hi);
  const __m128 four = _mm_max_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
  const __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

struct Pairs {
  Floats even, odd;
};

FASTVID_INLINE __m256 quarters_in_order(__m256 v) {
  return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8));
}
// Shuffles stay within 128 bits; the order they leave is undone by those of store_pairs.
template <class T>
FASTVID_INLINE Floats load_for_pairs(const float* p) {
  return {quarters_in_order(_mm256_loadu_ps(p)), quarters_in_order(_mm256_loadu_ps(p + 8))};
}
template <>
FASTVID_INLINE Floats load_for_pairs<BFloat16>(const float* p) {
  return load(p);
}
template <class T>
FASTVID_INLINE Pairs load_pairs(const T* p) {
  const Floats a = load(p), b = load(p + 16);
  return {{_mm256_shuffle_ps(a.lo, a.hi, 0x88), _mm256_shuffle_ps(b.lo, b.hi, 0x88)},
          {_mm256_shuffle_ps(a.lo, a.hi, 0xdd), _mm256_shuffle_ps(b.lo, b.hi, 0xdd)}};
}
FASTVID_INLINE Pairs load_pairs(const BFloat16* p) {
  const auto* words = reinterpret_cast<const __m256i*>(p);
  const __m256i a = _mm256_loadu_si256(words), b = _mm256_loadu_si256(words + 1);
  const __m256i upper = _mm256_set1_epi32(static_cast<int>(0xffff0000u));
  return {{_mm256_castsi256_ps(_mm256_slli_epi32(a, 16)),
           _mm256_castsi256_ps(_mm256_slli_epi32(b, 16))},
          {_mm256_castsi256_ps(_mm256_and_si256(a, upper)),
           _mm256_castsi256_ps(_mm256_and_si256(b, upper))}};
}
template <class T>
FASTVID_INLINE Pairs load_pairs_like(const float* p) {
  return load_pairs(p);
}
template <>
FASTVID_INLINE Pairs load_pairs_like<BFloat16>(const float* p) {
  const Pairs mixed = load_pairs(p);
  return {{quarters_in_order(mixed.even.lo), quarters_in_order(mixed.even.hi)},
          {quarters_in_order(mixed.odd.lo), quarters_in_order(mixed.odd.hi)}};
}
template <class T>
FASTVID_INLINE Floats in_order(const T*, const Floats& a) {
  return a;
}
FASTVID_INLINE Floats in_order(const BFloat16*, const Floats& a) {
  return {_mm256_permute2f128_ps(a.lo, a.hi, 0x20), _mm256_permute2f128_ps(a.lo, a.hi, 0x31)};
}
template <class T>
FASTVID_INLINE void store_pairs(T* p, const Pairs& a, bool stream) {
  for (int i = 0; i < 2; ++i, p += 16) {
    const __m256 even = i == 0 ? a.even.lo : a.even.hi, odd = i == 0 ? a.odd.lo : a.odd.hi;
    Floats both{_mm256_unpacklo_ps(even, odd), _mm256_unpackhi_ps(even, odd)};
    both = in_order(p, both);
    if (stream) {
      store_past_caches(p, both);
    } else {
      store(p, both);
    }
  }
}
FASTVID_INLINE void transpose_eight(__m256* r) {
  __m256 t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  __m256 u[8];
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}
FASTVID_INLINE void transpose(Floats* rows) {
  __m256 block[4][8];
  for (int i = 0; i < 8; ++i) {
    block[0][i] = rows[i].lo;
    block[1][i] = rows[i].hi;
    block[2][i] = rows[i + 8].lo;
    block[3][i] = rows[i + 8].hi;
  }
  for (auto& part : block) transpose_eight(part);
  for (int i = 0; i < 8; ++i) {
    rows[i] = {block[0][i], block[2][i]};
    rows[i + 8] = {block[1][i], block[3][i]};
  }
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
