// 8x8 patches in vector registers, for the kernels of inverse search. Included once per instruction
// set; everything has internal linkage.
#pragma once

#include <cstring>

#include "fastvid/cpu/inverse_search.h"

// Vectors wider than the machine's are only passed between inlined functions.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

using namespace search;

// Sixteen lanes are no faster: joining two rows costs what they save.
#if defined(__AVX2__)
constexpr int kLanes = 8;
#else
constexpr int kLanes = 4;
#endif

constexpr int kPairs = kPatchSize / 2;
using Vec = float __attribute__((vector_size(kLanes * sizeof(float))));
using Integers = int __attribute__((vector_size(kLanes * sizeof(int))));
using Quad = float __attribute__((vector_size(16)));
using Eight = float __attribute__((vector_size(32)));

// Two rows of eight pixels: lanes 0 to 7 are the upper row.
struct Pair {
  static constexpr int kParts = 16 / kLanes;
  Vec part[kParts];
};

#define FASTVID_PAIR_OPERATOR(op)                                                \
  FASTVID_INLINE Pair operator op(const Pair& a, const Pair& b) {                \
    Pair out;                                                                    \
    for (int i = 0; i < Pair::kParts; ++i) out.part[i] = a.part[i] op b.part[i]; \
    return out;                                                                  \
  }
FASTVID_PAIR_OPERATOR(+)
FASTVID_PAIR_OPERATOR(-)
FASTVID_PAIR_OPERATOR(*)
FASTVID_PAIR_OPERATOR(/)
#undef FASTVID_PAIR_OPERATOR

FASTVID_INLINE Pair splat(float x) {
  Pair out;
  for (int i = 0; i < Pair::kParts; ++i) out.part[i] = x - Vec{};
  return out;
}

FASTVID_INLINE Vec load_lanes(const float* p) {
  Vec out;
  std::memcpy(&out, p, sizeof(out));
  return out;
}

FASTVID_INLINE void store_lanes(float* p, const Vec& x) { std::memcpy(p, &x, sizeof(x)); }

FASTVID_INLINE Eight load_eight(const float* p) {
  Eight out;
  std::memcpy(&out, p, sizeof(out));
  return out;
}

FASTVID_INLINE Pair load(const float* p) {
  Pair out;
  for (int i = 0; i < Pair::kParts; ++i) out.part[i] = load_lanes(p + i * kLanes);
  return out;
}

FASTVID_INLINE void store(float* p, const Pair& x) {
  for (int i = 0; i < Pair::kParts; ++i) store_lanes(p + i * kLanes, x.part[i]);
}

FASTVID_INLINE Pair load_rows(const float* upper, const float* lower) {
  Pair out;
  constexpr int kHalf = Pair::kParts / 2;
  for (int i = 0; i < kHalf; ++i) {
    out.part[i] = load_lanes(upper + i * kLanes);
    out.part[kHalf + i] = load_lanes(lower + i * kLanes);
  }
  return out;
}

// The lower row of a above the upper row of b.
FASTVID_INLINE Pair next_rows(const Pair& a, const Pair& b) {
  Pair out;
  constexpr int kHalf = Pair::kParts / 2;
  for (int i = 0; i < kHalf; ++i) {
    out.part[i] = a.part[kHalf + i];
    out.part[kHalf + i] = b.part[i];
  }
  return out;
}

// Lanes i, i + 4, i + 8 and i + 12 as (i + (i + 8)) + ((i + 4) + (i + 12)).
FASTVID_INLINE Quad fold(const Pair& x) {
#if defined(__AVX2__)
  const Eight eight = x.part[0] + x.part[1];
  return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) +
         __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
#else
  return (x.part[0] + x.part[2]) + (x.part[1] + x.part[3]);
#endif
}

// The four sums over all lanes, each (0 + 2) + (1 + 3) of its fold.
FASTVID_INLINE Quad sums(const Pair& a, const Pair& b, const Pair& c, const Pair& d) {
  const Quad qa = fold(a), qb = fold(b), qc = fold(c), qd = fold(d);
  const Quad ab =
      __builtin_shufflevector(qa, qb, 0, 4, 1, 5) + __builtin_shufflevector(qa, qb, 2, 6, 3, 7);
  const Quad cd =
      __builtin_shufflevector(qc, qd, 0, 4, 1, 5) + __builtin_shufflevector(qc, qd, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

FASTVID_INLINE float clamp(float x, float low, float high) {
  x = x > low ? x : low;
  return x < high ? x : high;
}

FASTVID_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
FASTVID_INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

// A place in a plane: the pixel up and left of it, and the weights of its neighbours.
struct Place {
  const float* pixel;
  float right, down;
};

FASTVID_INLINE Place place(const Plane& plane, float x, float y) {
  int64_t column = static_cast<int64_t>(x), row = static_cast<int64_t>(y);
  column -= x < static_cast<float>(column);
  row -= y < static_cast<float>(row);
  return {plane.data + row * plane.pitch + column, x - static_cast<float>(column),
          y - static_cast<float>(row)};
}

// The 8x8 pixels at a place, as four pairs of rows.
FASTVID_INLINE void sample(const Place& at, int64_t pitch, Pair (&out)[kPairs]) {
  const Pair right = splat(at.right), left = splat(1.0f - at.right);
  const Pair down = splat(at.down), up = splat(1.0f - at.down);
  Pair across[kPairs + 1];
  const float* p = at.pixel;
  for (int i = 0; i <= kPairs; ++i, p += 2 * pitch) {
    const float* lower = i < kPairs ? p + pitch : p;
    across[i] = load_rows(p, lower) * left + load_rows(p + 1, lower + 1) * right;
  }
  for (int i = 0; i < kPairs; ++i) {
    out[i] = across[i] * up + next_rows(across[i], across[i + 1]) * down;
  }
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
