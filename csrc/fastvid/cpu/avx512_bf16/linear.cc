// linear in bfloat16 with the products of AVX-512 BF16: pairs of neighbours are multiplied and
// added to a float32 in one instruction, which takes subnormals as 0.
#include "fastvid/cpu/linear.h"

#include "fastvid/cpu/linear_tiles.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

FASTVID_INLINE __m512bh as_pairs(__m512i words) { return reinterpret_cast<__m512bh>(words); }

// Sixteen pairs of the first `n` values at `p`, others 0.
FASTVID_INLINE __m512i load_words(const BFloat16* p, int64_t n) {
  const auto lanes = static_cast<__mmask32>(n >= 32 ? 0xffffffffu : (1u << n) - 1u);
  return _mm512_maskz_loadu_epi16(lanes, p);
}
template <class T>
FASTVID_INLINE __m512i load_words(const T* p, int64_t n) {
  const __m512 low = load_first(p, n).v;
  const __m512 high = n > kFloats ? load_first(p + kFloats, n - kFloats).v : _mm512_setzero_ps();
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

template <class Element>
struct PairMath {
  using Word = uint32_t;
  static constexpr int kVectors = 4;

  static int64_t words(int64_t depth) { return (depth + 1) / 2; }

  template <int kHigh, int kWide>
  FASTVID_INLINE static void multiply(const uint32_t* x, int64_t stride, const uint32_t* panel,
                                      int64_t depth, const float* start, float* out,
                                      int64_t out_stride) {
    __m512 sums[kHigh][kWide];
    for (int i = 0; i < kHigh; ++i) {
      for (int j = 0; j < kWide; ++j) {
        sums[i][j] =
            load(start == nullptr ? out + i * out_stride + j * kFloats : start + j * kFloats).v;
      }
    }
    for (int64_t d = 0; d < depth; ++d) {
      __m512bh row[kWide];
      for (int j = 0; j < kWide; ++j) {
        row[j] = as_pairs(_mm512_load_si512(panel + d * kPanel + j * kFloats));
      }
#pragma GCC unroll 6
      for (int i = 0; i < kHigh; ++i) {
        const __m512bh factor = as_pairs(_mm512_set1_epi32(static_cast<int>(x[i * stride + d])));
#pragma GCC unroll 4
        for (int j = 0; j < kWide; ++j) {
          sums[i][j] = _mm512_dpbf16_ps(sums[i][j], factor, row[j]);
        }
      }
    }
    for (int i = 0; i < kHigh; ++i) {
      for (int j = 0; j < kWide; ++j) {
        store(out + i * out_stride + j * kFloats, Floats{sums[i][j]});
      }
    }
  }

  // Rows of one pair of weights of each of the panel's columns.
  static void pack(const Linear& a, int64_t column, int64_t count, int64_t first, int64_t deep,
                   uint32_t* piece) {
    const auto* weight = static_cast<const Element*>(a.weight) + column * a.depth;
    for (int64_t j = 0; j < round_up(count, kFloats); j += kFloats) {
      for (int64_t d = 0; d < deep; d += kFloats) {
        const int64_t from = 2 * (first + d);
        Floats block[kFloats];
        for (int64_t i = 0; i < kFloats; ++i) {
          block[i].v = j + i < count ? _mm512_castsi512_ps(load_words(
                                           weight + (j + i) * a.depth + from, a.depth - from))
                                     : _mm512_setzero_ps();
        }
        transpose(block);
        for (int64_t i = 0; i < smaller(kFloats, deep - d); ++i) {
          _mm512_store_ps(piece + (d + i) * kPanel + j, block[i].v);
        }
      }
    }
  }
};

}  // namespace

void linear_float32(const Linear& a, int64_t begin, int64_t end) {
  multiply_tiles<PairMath<float>>(a, begin, end);
}
void linear_float16(const Linear& a, int64_t begin, int64_t end) {
  multiply_tiles<PairMath<Half>>(a, begin, end);
}
void linear_bfloat16(const Linear& a, int64_t begin, int64_t end) {
  multiply_tiles<PairMath<BFloat16>>(a, begin, end);
}

void linear_pair(const float* x, int64_t depth, uint32_t* to, int64_t begin, int64_t end) {
  const int64_t width = (depth + 1) / 2;
  for (int64_t i = begin; i < end; ++i) {
    for (int64_t d = 0; d < width; d += kFloats) {
      const __m512i words = load_words(x + i * depth + 2 * d, depth - 2 * d);
      _mm512_mask_storeu_epi32(to + i * width + d, first(width - d), words);
    }
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
