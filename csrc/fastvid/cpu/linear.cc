#include "fastvid/cpu/linear.h"

#include "fastvid/cpu/linear_tiles.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

FASTVID_INLINE Floats rounded(const Floats& value) {
  alignas(64) BFloat16 narrow[kFloats];
  store(narrow, value);
  return load(narrow);
}

// Products in float32; where kRounded, of weights rounded to bfloat16.
template <class Element, bool kRounded>
struct Float32Math {
  using Word = float;
// Vectors of a row that are made at once: kRows times as many must fit registers.
#if defined(__AVX512VBMI__)
  static constexpr int kVectors = 4;
#else
  static constexpr int kVectors = 1;
#endif

  static int64_t words(int64_t depth) { return depth; }

  // Every element is one chain of fused multiply-adds, so that its bits do not depend on kWide.
  template <int kHigh, int kWide>
  FASTVID_INLINE static void multiply(const float* x, int64_t stride, const float* panel,
                                      int64_t depth, const float* start, float* out,
                                      int64_t out_stride) {
    Floats sums[kHigh][kWide];
    for (int i = 0; i < kHigh; ++i) {
      for (int j = 0; j < kWide; ++j) {
        sums[i][j] =
            load(start == nullptr ? out + i * out_stride + j * kFloats : start + j * kFloats);
      }
    }
    for (int64_t d = 0; d < depth; ++d) {
      Floats row[kWide];
      for (int j = 0; j < kWide; ++j) row[j] = load(panel + d * kPanel + j * kFloats);
#pragma GCC unroll 6
      for (int i = 0; i < kHigh; ++i) {
        const Floats factor = splat(x[i * stride + d]);
#pragma GCC unroll 4
        for (int j = 0; j < kWide; ++j) sums[i][j] = fma(factor, row[j], sums[i][j]);
      }
    }
    for (int i = 0; i < kHigh; ++i) {
      for (int j = 0; j < kWide; ++j) store(out + i * out_stride + j * kFloats, sums[i][j]);
    }
  }

  // Rows of one weight of each of the panel's columns.
  static void pack(const Linear& a, int64_t column, int64_t count, int64_t first, int64_t deep,
                   float* piece) {
    const auto* weight = static_cast<const Element*>(a.weight) + column * a.depth + first;
    for (int64_t j = 0; j < round_up(count, kFloats); j += kFloats) {
      for (int64_t d = 0; d < deep; d += kFloats) {
        Floats block[kFloats];
        for (int64_t i = 0; i < kFloats; ++i) {
          block[i] =
              j + i < count ? load_first(weight + (j + i) * a.depth + d, deep - d) : splat(0.0f);
          if constexpr (kRounded) block[i] = rounded(block[i]);
        }
        transpose(block);
        for (int64_t i = 0; i < smaller(kFloats, deep - d); ++i) {
          store(piece + (d + i) * kPanel + j, block[i]);
        }
      }
    }
  }
};

}  // namespace

void linear_float32(const Linear& a, int64_t begin, int64_t end) {
  multiply_tiles<Float32Math<float, false>>(a, begin, end);
}
void linear_float16(const Linear& a, int64_t begin, int64_t end) {
  multiply_tiles<Float32Math<Half, false>>(a, begin, end);
}
void linear_bfloat16(const Linear& a, int64_t begin, int64_t end) {
  multiply_tiles<Float32Math<BFloat16, false>>(a, begin, end);
}
void linear_rounded_float32(const Linear& a, int64_t begin, int64_t end) {
  multiply_tiles<Float32Math<float, true>>(a, begin, end);
}
void linear_rounded_float16(const Linear& a, int64_t begin, int64_t end) {
  multiply_tiles<Float32Math<Half, true>>(a, begin, end);
}
void linear_round(const float* x, float* to, int64_t count) {
  for (int64_t i = 0; i < count; i += kFloats) {
    store_first(to + i, rounded(load_first(x + i, count - i)), count - i);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
