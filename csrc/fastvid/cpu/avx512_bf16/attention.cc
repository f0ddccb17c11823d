// attention of bfloat16 arrays with the products of AVX-512 BF16: pairs of neighbours are
// multiplied and added to a float32 in one instruction, which takes subnormals as 0. Weights are
// rounded to bfloat16 before they meet the values.
#include "fastvid/cpu/attention.h"

#include "fastvid/cpu/attention_tiles.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

FASTVID_INLINE __m512bh as_pairs(__m512i words) { return reinterpret_cast<__m512bh>(words); }

// kRows x (kWide * 16) of `out` (+)= a * b over `depth` pairs; rows of a, b and out stand this far
// apart, those of a and b counted in pairs.
template <int kWide>
FASTVID_INLINE void multiply_pairs(const uint32_t* a, int64_t a_row, const uint32_t* b,
                                   int64_t b_row, int64_t depth, float* out, int64_t out_row,
                                   bool add) {
  __m512 sums[kRows][kWide];
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kWide; ++j) {
      sums[i][j] = add ? load(out + i * out_row + j * kFloats).v : _mm512_setzero_ps();
    }
  }
  for (int64_t d = 0; d < depth; ++d) {
    __m512bh row[kWide];
    for (int j = 0; j < kWide; ++j) {
      row[j] = as_pairs(_mm512_loadu_si512(b + d * b_row + j * kFloats));
    }
#pragma GCC unroll 6
    for (int i = 0; i < kRows; ++i) {
      const __m512bh factor = as_pairs(_mm512_set1_epi32(static_cast<int>(a[i * a_row + d])));
#pragma GCC unroll 4
      for (int j = 0; j < kWide; ++j) {
        sums[i][j] = _mm512_dpbf16_ps(sums[i][j], factor, row[j]);
      }
    }
  }
  for (int i = 0; i < kRows; ++i) {
    for (int j = 0; j < kWide; ++j) {
      store(out + i * out_row + j * kFloats, Floats{sums[i][j]});
    }
  }
}

FASTVID_INLINE void multiply_rows(const uint32_t* a, int64_t a_row, const uint32_t* b,
                                  int64_t b_row, int64_t depth, float* out, int64_t out_row,
                                  int64_t vectors, bool add) {
  int64_t j = 0;
  for (; j + 4 <= vectors; j += 4) {
    multiply_pairs<4>(a, a_row, b + j * kFloats, b_row, depth, out + j * kFloats, out_row, add);
  }
  for (; j < vectors; ++j) {
    multiply_pairs<1>(a, a_row, b + j * kFloats, b_row, depth, out + j * kFloats, out_row, add);
  }
}

struct PairMath {
  using T = BFloat16;
  struct Tile {
    alignas(64) uint32_t queries[kTile / 2];
    alignas(64) float scores[kQueries * kKeys];
    alignas(64) uint32_t weights[kQueries * kKeys / 2];
  };

  FASTVID_INLINE static int64_t pairs(int64_t dim) { return (dim + 1) / 2; }

  // The minimax cubic, 7.5e-5 relative: a fiftieth of what rounding to bfloat16 takes.
  FASTVID_INLINE static Floats power(Floats x) {
    const Floats n = round(x), r = x - n;
    Floats p = fma(splat(5.517166906e-2f), r, splat(2.426111222e-1f));
    p = fma(p, r, splat(6.932609855e-1f));
    p = fma(p, r, splat(9.999280735e-1f));
    return scale_by_power(p, n, x);
  }

  FASTVID_INLINE static void put_weights(Tile& tile, int64_t i, int64_t j, Floats a, Floats b) {
    const __m512bh both = _mm512_cvtne2ps_pbh(b.v, a.v);
    _mm512_store_si512(tile.weights + (i * kKeys + j) / 2, reinterpret_cast<__m512i>(both));
  }

  static void load_queries(Tile& tile, const T* q, int64_t stride, int64_t rows, int64_t padded,
                           int64_t dim) {
    const int64_t row = pairs(dim);
    for (int64_t i = 0; i < padded; ++i) {
      uint32_t* words = tile.queries + i * row;
      words[row - 1] = 0;
      if (i < rows) {
        __builtin_memcpy(words, q + i * stride, static_cast<size_t>(dim) * sizeof(T));
      } else {
        __builtin_memset(words, 0, static_cast<size_t>(row) * sizeof(uint32_t));
      }
    }
  }

  static void scores(Tile& tile, const float* keys, int64_t start, int64_t count, int64_t rows,
                     int64_t dim) {
    const int64_t depth = pairs(dim);
    const auto* words = reinterpret_cast<const uint32_t*>(keys);
    for (int64_t j = 0; j < count; j += kPanel) {
      const uint32_t* panel = words + (start + j) * depth;
      const int64_t vectors = round_up(smaller(kPanel, count - j), kFloats) / kFloats;
      for (int64_t i = 0; i < rows; i += kRows) {
        multiply_rows(tile.queries + i * depth, depth, panel, kPanel, depth,
                      tile.scores + i * kKeys + j, kKeys, vectors, false);
      }
    }
  }

  static void accumulate(const Tile& tile, float* out, const float* values, int64_t start,
                         int64_t count, int64_t rows, int64_t width) {
    const auto* words = reinterpret_cast<const uint32_t*>(values) + start / 2 * width;
    for (int64_t i = 0; i < rows; i += kRows) {
      multiply_rows(tile.weights + i * kKeys / 2, kKeys / 2, words, width, pairs(count),
                    out + i * width, width, width / kFloats, true);
    }
  }

  // Panels of kPanel keys: rows of one pair of values of each.
  static void pack_keys(float* keys, const T* k, int64_t stride, int64_t first, int64_t count,
                        int64_t dim) {
    const int64_t rows = pairs(dim);
    float* panel = keys + first * rows;
    for (int64_t j = 0; j < kPanel; j += kFloats) {
      for (int64_t d = 0; d < dim; d += 2 * kFloats) {
        const auto mask =
            static_cast<__mmask32>(dim - d >= 32 ? 0xffffffffu : (1u << (dim - d)) - 1u);
        Floats block[kFloats];
        for (int64_t i = 0; i < kFloats; ++i) {
          const __mmask32 lanes = j + i < count ? mask : 0;
          const __m512i words =
              _mm512_maskz_loadu_epi16(lanes, lanes != 0 ? k + (j + i) * stride + d : k);
          block[i].v = _mm512_castsi512_ps(words);
        }
        transpose(block);
        for (int64_t i = 0; i < smaller(kFloats, rows - d / 2); ++i) {
          store(panel + (d / 2 + i) * kPanel + j, block[i]);
        }
      }
    }
  }

  // Rows of pairs: the values of two neighbouring keys.
  static void pack_values(float* values, const T* v, int64_t stride, int64_t first, int64_t count,
                          int64_t dim) {
    const int64_t width = round_up(dim, kFloats);
    auto* words = reinterpret_cast<uint32_t*>(values) + first / 2 * width;
    for (int64_t j = 0; j < count; j += 2, words += width) {
      for (int64_t d = 0; d < dim; d += kFloats) {
        const T* x = v + j * stride + d;
        const __m512i even = widened(x, cpu::FASTVID_ISA::first(dim - d));
        const __m512i odd = j + 1 < count ? widened(x + stride, cpu::FASTVID_ISA::first(dim - d))
                                          : _mm512_setzero_si512();
        _mm512_storeu_si512(words + d, _mm512_or_si512(even, _mm512_slli_epi32(odd, 16)));
      }
    }
  }

 private:
  FASTVID_INLINE static __m512i widened(const T* p, __mmask16 lanes) {
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(lanes, p));
  }
};

}  // namespace

void attention_pack_bfloat16(const Attention& a, const AttentionGroup& group, int64_t begin,
                             int64_t end) {
  pack_panels<PairMath>(a, group, begin, end);
}
void attention_bfloat16(const Attention& a, const AttentionGroup& group, int64_t begin,
                        int64_t end) {
  attend_blocks<PairMath>(a, group, begin, end);
}

}  // namespace fastvid::cpu::FASTVID_ISA
