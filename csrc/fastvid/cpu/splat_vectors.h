// Vectors of the compiler's own for `softmax_splat`: the widest of the instruction set, and four
// and eight floats on all of them. Only arithmetic that every width rounds alike.
#pragma once

#include <cstdint>

#include "fastvid/cpu/lanes.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kWide = 16;
#elif defined(__AVX2__)
constexpr int kWide = 8;
#else
constexpr int kWide = 4;
#endif
typedef float Wide __attribute__((vector_size(4 * kWide)));
typedef int32_t WideInts __attribute__((vector_size(4 * kWide)));
typedef uint32_t WideWords __attribute__((vector_size(4 * kWide)));
typedef float Quad __attribute__((vector_size(16)));
typedef float Oct __attribute__((vector_size(32)));

template <class V>
FASTVID_INLINE V load(const float* p) {
  V v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
template <class V>
FASTVID_INLINE void store(float* p, const V& v) {
  __builtin_memcpy(p, &v, sizeof(v));
}
FASTVID_INLINE Wide spread(float v) { return v - Wide{}; }

// Wide from and to any dtype of image.
template <class T>
FASTVID_INLINE Wide widen(const T* p) {
#ifdef __AVX2__
  return (Wide)Lanes::load(p);
#else
  Wide v;
  for (int i = 0; i < kWide; ++i) v[i] = Scalar::load(p + i);
  return v;
#endif
}
template <class T>
FASTVID_INLINE void narrow(T* p, const Wide& v) {
#ifdef __AVX2__
  Lanes::store(p, v);
#else
  for (int i = 0; i < kWide; ++i) Scalar::store(p + i, v[i]);
#endif
}

FASTVID_INLINE Wide to_wide(const WideInts& v) { return __builtin_convertvector(v, Wide); }
// floor, for |v| < 2^31; any number for others.
FASTVID_INLINE WideInts floor_of(const Wide& v) {
  const WideInts whole = __builtin_convertvector(v, WideInts);
  return (WideInts)((WideWords)whole + (WideWords)(v < to_wide(whole)));
}
FASTVID_INLINE WideInts is_finite(const Wide& v) { return v - v == 0.0f; }

// A bit for every lane that is set.
FASTVID_INLINE uint64_t bits_of(const WideInts& lanes) {
#if defined(__AVX512F__)
  return _mm512_movepi32_mask((__m512i)lanes);
#elif defined(__AVX2__)
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)lanes));
#else
  uint64_t bits = 0;
  for (int i = 0; i < kWide; ++i) bits |= static_cast<uint64_t>(lanes[i] & 1) << i;
  return bits;
#endif
}

// What cpu/exponential.h needs.
struct WideLanes {
  using F = Wide;
  static F splat(float v) { return spread(v); }
#ifdef __AVX2__
  static F min(const F& a, const F& b) { return Lanes::min(a, b); }
  static F max(const F& a, const F& b) { return Lanes::max(a, b); }
#else
  static F min(const F& a, const F& b) { return a < b ? a : b; }
  static F max(const F& a, const F& b) { return a > b ? a : b; }
#endif
  static F power_of_two(const F& t) { return (F)(((WideInts)t << 23) + 0x3f800000); }
};

// The shuffles below, by the width; a and b are the vectors, 0 to kWide - 1 and on the lanes.
#if defined(__AVX512F__)
#define FASTVID_PICK(a, b, i, j)                                                                   \
  __builtin_shufflevector(a, b, i, 16 + i, j, 16 + j, 4 + i, 20 + i, 4 + j, 20 + j, 8 + i, 24 + i, \
                          8 + j, 24 + j, 12 + i, 28 + i, 12 + j, 28 + j)
#define FASTVID_JOIN(a, b, i, j)                                                                  \
  __builtin_shufflevector(a, b, i, j, 16 + i, 16 + j, 4 + i, 4 + j, 20 + i, 20 + j, 8 + i, 8 + j, \
                          24 + i, 24 + j, 12 + i, 12 + j, 28 + i, 28 + j)
#define FASTVID_HALVES(a, b, i)                                                               \
  __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 8 + i, 9 + i, 10 + i, 11 + i, 16 + i, \
                          17 + i, 18 + i, 19 + i, 24 + i, 25 + i, 26 + i, 27 + i)
#define FASTVID_ORDER(a) \
  __builtin_shufflevector(a, a, 0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15)
#elif defined(__AVX2__)
#define FASTVID_PICK(a, b, i, j) \
  __builtin_shufflevector(a, b, i, 8 + i, j, 8 + j, 4 + i, 12 + i, 4 + j, 12 + j)
#define FASTVID_JOIN(a, b, i, j) \
  __builtin_shufflevector(a, b, i, j, 8 + i, 8 + j, 4 + i, 4 + j, 12 + i, 12 + j)
#define FASTVID_HALVES(a, b, i) \
  __builtin_shufflevector(a, b, i, 1 + i, 2 + i, 3 + i, 8 + i, 9 + i, 10 + i, 11 + i)
#define FASTVID_ORDER(a) __builtin_shufflevector(a, a, 0, 4, 1, 5, 2, 6, 3, 7)
#else
#define FASTVID_PICK(a, b, i, j) __builtin_shufflevector(a, b, i, 4 + i, j, 4 + j)
#define FASTVID_JOIN(a, b, i, j) __builtin_shufflevector(a, b, i, j, 4 + i, 4 + j)
#endif

// Between four channels of kWide pixels and kWide pixels of four channels, within every four of
// them: pixel i then stands at 4 * slot_of(i).
FASTVID_INLINE void transpose(Wide (&v)[4]) {
  const Wide a = FASTVID_PICK(v[0], v[1], 0, 1), b = FASTVID_PICK(v[2], v[3], 0, 1);
  const Wide c = FASTVID_PICK(v[0], v[1], 2, 3), d = FASTVID_PICK(v[2], v[3], 2, 3);
  v[0] = FASTVID_JOIN(a, b, 0, 1);
  v[1] = FASTVID_JOIN(a, b, 2, 3);
  v[2] = FASTVID_JOIN(c, d, 0, 1);
  v[3] = FASTVID_JOIN(c, d, 2, 3);
}

// Adds the second four of every eight floats from `above` on to the first four from `below` on,
// for kWide pixels of four channels, and gives them by channel.
FASTVID_INLINE void add_halves(const float* above, const float* below, Wide (&v)[4]) {
  for (int k = 0; k < 4; ++k, above += 2 * kWide, below += 2 * kWide) {
#ifdef __AVX2__
    const Wide upper = FASTVID_HALVES(load<Wide>(above), load<Wide>(above + kWide), 4);
    v[k] = FASTVID_HALVES(load<Wide>(below), load<Wide>(below + kWide), 0) + upper;
#else
    v[k] = load<Wide>(below) + load<Wide>(above + 4);
#endif
  }
  transpose(v);
#ifdef __AVX2__
  for (int k = 0; k < 4; ++k) v[k] = FASTVID_ORDER(v[k]);
#endif
}

#undef FASTVID_PICK
#undef FASTVID_JOIN
#undef FASTVID_HALVES
#undef FASTVID_ORDER

constexpr int slot_of(int pixel) {
  const int lane = pixel % kWide;
  return pixel - lane + lane % 4 * (kWide / 4) + lane / 4;
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
