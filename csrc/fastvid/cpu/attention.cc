#include "fastvid/cpu/attention.h"

#include "fastvid/cpu/attention_tiles.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Vectors of a row of the product that are made at once: kRows times as many must fit registers.
#if defined(__AVX512VBMI__)
constexpr int kVectors = 4;
#else
constexpr int kVectors = 1;
#endif

// kRows x (kWide * 16) of `out` (+)= a * b over `depth`; rows of a, b and out stand this far apart.
// Every element is one chain of fused multiply-adds, so that its bits do not depend on kWide.
template <int kWide>
FASTVID_INLINE void multiply(const float* a, int64_t a_row, const float* b, int64_t b_row,
                             int64_t depth, float* out, int64_t out_row, bool add) {
  Floats sums[kRows][kWide];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kWide; ++j) {
      sums[i][j] = add ? load(out + i * out_row + j * kFloats) : splat(0.0f);
    }
  }
  for (int64_t d = 0; d < depth; ++d) {
    Floats row[kWide];
    for (int j = 0; j < kWide; ++j) row[j] = load(b + d * b_row + j * kFloats);
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      const Floats factor = splat(a[i * a_row + d]);
#pragma GCC unroll 4
      for (int j = 0; j < kWide; ++j) sums[i][j] = fma(factor, row[j], sums[i][j]);
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kWide; ++j) store(out + i * out_row + j * kFloats, sums[i][j]);
  }
}

// The same for `vectors` vectors, in steps of kVectors.
FASTVID_INLINE void multiply_rows(const float* a, int64_t a_row, const float* b, int64_t b_row,
                                  int64_t depth, float* out, int64_t out_row, int64_t vectors,
                                  bool add) {
  int64_t j = 0;
  for (; j + kVectors <= vectors; j += kVectors) {
    multiply<kVectors>(a, a_row, b + j * kFloats, b_row, depth, out + j * kFloats, out_row, add);
  }
  for (; j < vectors; ++j) {
    multiply<1>(a, a_row, b + j * kFloats, b_row, depth, out + j * kFloats, out_row, add);
  }
}

// Products in float32, whatever the dtype of the arrays.
template <class Element>
struct Float32Math {
  using T = Element;
  struct Tile {
    alignas(64) float queries[kTile];
    alignas(64) float scores[kQueries * kKeys];  // then the weights
  };

  FASTVID_INLINE static Floats power(Floats x) { return exp2(x); }
  FASTVID_INLINE static void put_weights(Tile& tile, int64_t i, int64_t j, Floats a, Floats b) {
    store(tile.scores + i * kKeys + j, a);
    store(tile.scores + i * kKeys + j + kFloats, b);
  }

  static void load_queries(Tile& tile, const T* q, int64_t stride, int64_t rows, int64_t padded,
                           int64_t dim) {
    const int64_t width = round_up(dim, kFloats);
    for (int64_t i = 0; i < padded; ++i) {
      for (int64_t d = 0; d < dim; d += kFloats) {
        const Floats value = i < rows ? load_first(q + i * stride + d, dim - d) : splat(0.0f);
        store(tile.queries + i * width + d, value);
      }
    }
  }

  static void scores(Tile& tile, const float* keys, int64_t start, int64_t count, int64_t rows,
                     int64_t dim) {
    const int64_t width = round_up(dim, kFloats);
    for (int64_t j = 0; j < count; j += kPanel) {
      const float* panel = keys + (start + j) * dim;
      const int64_t vectors = round_up(smaller(kPanel, count - j), kFloats) / kFloats;
      for (int64_t i = 0; i < rows; i += kRows) {
        multiply_rows(tile.queries + i * width, width, panel, kPanel, dim,
                      tile.scores + i * kKeys + j, kKeys, vectors, false);
      }
    }
  }

  static void accumulate(const Tile& tile, float* out, const float* values, int64_t start,
                         int64_t count, int64_t rows, int64_t width) {
    for (int64_t i = 0; i < rows; i += kRows) {
      multiply_rows(tile.scores + i * kKeys, kKeys, values + start * width, width, count,
                    out + i * width, width, width / kFloats, true);
    }
  }

  // Panels of kPanel keys: dim rows of one value of each.
  static void pack_keys(float* keys, const T* k, int64_t stride, int64_t first, int64_t count,
                        int64_t dim) {
    float* panel = keys + first * dim;
    for (int64_t j = 0; j < kPanel; j += kFloats) {
      for (int64_t d = 0; d < dim; d += kFloats) {
        Floats block[kFloats];
        for (int64_t i = 0; i < kFloats; ++i) {
          block[i] = j + i < count ? load_first(k + (j + i) * stride + d, dim - d) : splat(0.0f);
        }
        transpose(block);
        for (int64_t i = 0; i < smaller(kFloats, dim - d); ++i) {
          store(panel + (d + i) * kPanel + j, block[i]);
        }
      }
    }
  }

  static void pack_values(float* values, const T* v, int64_t stride, int64_t first, int64_t count,
                          int64_t dim) {
    const int64_t width = round_up(dim, kFloats);
    for (int64_t j = 0; j < count; ++j) {
      for (int64_t d = 0; d < dim; d += kFloats) {
        store(values + (first + j) * width + d, load_first(v + j * stride + d, dim - d));
      }
    }
  }
};

}  // namespace

void attention_pack_float32(const Attention& a, const AttentionGroup& group, int64_t begin,
                            int64_t end) {
  pack_panels<Float32Math<float>>(a, group, begin, end);
}
void attention_pack_float16(const Attention& a, const AttentionGroup& group, int64_t begin,
                            int64_t end) {
  pack_panels<Float32Math<Half>>(a, group, begin, end);
}
void attention_pack_bfloat16(const Attention& a, const AttentionGroup& group, int64_t begin,
                             int64_t end) {
  pack_panels<Float32Math<BFloat16>>(a, group, begin, end);
}
void attention_float32(const Attention& a, const AttentionGroup& group, int64_t begin,
                       int64_t end) {
  attend_blocks<Float32Math<float>>(a, group, begin, end);
}
void attention_float16(const Attention& a, const AttentionGroup& group, int64_t begin,
                       int64_t end) {
  attend_blocks<Float32Math<Half>>(a, group, begin, end);
}
void attention_bfloat16(const Attention& a, const AttentionGroup& group, int64_t begin,
                        int64_t end) {
  attend_blocks<Float32Math<BFloat16>>(a, group, begin, end);
}

}  // namespace fastvid::cpu::FASTVID_ISA
