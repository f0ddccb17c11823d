// Eight pixels at a time: as lanes_avx512.h with windows of 16 columns by 2 or 3 rows.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "fastvid/core/half.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Avx2 {
  using F = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kWindow = 16;
  static bool fits(int64_t height, int64_t width) { return height >= 2 && width >= kWindow; }

  static F load(const float* p) { return _mm256_loadu_ps(p); }
  static F load(const Half* p) {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
  static F load(const BFloat16* p) {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16));
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
  static void stream(float* p, F v) { _mm256_stream_ps(p, v); }
  static void fence() { _mm_sfence(); }
  static F splat(float v) { return _mm256_set1_ps(v); }
  static F iota() { return _mm256_setr_ps(0, 1, 2, 3, 4, 5, 6, 7); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static F nan_to_zero(F v) { return _mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q)); }
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

  enum Kind { kOneRow, kTwoRows, kScattered };
  struct Plan {
    F wx, wy;
    __m256i left, right;      // columns inside the window
    F left_high, right_high;  // lanes whose column is in the upper half of the window
    __m256i index;
    F lower;  // kTwoRows: lanes of the second row
    int64_t base;
    Kind kind;
  };

  static Plan plan(F x, F y, int64_t height, int64_t width) {
    const int w = static_cast<int>(width), h = static_cast<int>(height);
    Plan p;
    const __m256i x0 = _mm256_min_epi32(_mm256_cvttps_epi32(x), _mm256_set1_epi32(w - 2));
    const __m256i y0 = _mm256_min_epi32(_mm256_cvttps_epi32(y), _mm256_set1_epi32(h - 2));
    p.wx = x - _mm256_cvtepi32_ps(x0);
    p.wy = y - _mm256_cvtepi32_ps(y0);
    int column = _mm256_cvtsi256_si32(x0) - 3;
    column = column < 0 ? 0 : column;
    column = column > w - kWindow ? w - kWindow : column;
    p.left = _mm256_sub_epi32(x0, _mm256_set1_epi32(column));
    p.right = _mm256_add_epi32(p.left, _mm256_set1_epi32(1));
    const __m256i seven = _mm256_set1_epi32(7);
    p.left_high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(p.left, seven));
    p.right_high = _mm256_castsi256_ps(_mm256_cmpgt_epi32(p.right, seven));
    p.index = _mm256_add_epi32(_mm256_mullo_epi32(y0, _mm256_set1_epi32(w)), x0);
    p.lower = _mm256_setzero_ps();
    p.base = 0;
    p.kind = kScattered;
    const __m256i over = _mm256_sub_epi32(_mm256_set1_epi32(kWindow - 2), p.left);
    if (lanes(_mm256_or_si256(p.left, over)) == 0) choose_rows(p, y0, column, width);
    return p;
  }

  template <int C>
  static void sample(const float* s, int64_t plane, const Plan& p, int64_t width, F* out) {
    switch (p.kind) {
      case kOneRow:
        for (int c = 0; c < C; ++c, s += plane) {
          const float* q = s + p.base;
          out[c] = lerp(across(q, p), across(q + width, p), p.wy);
        }
        return;
      case kTwoRows:
        for (int c = 0; c < C; ++c, s += plane) {
          const float* q = s + p.base;
          const F a = across(q, p), b = across(q + width, p), d = across(q + 2 * width, p);
          out[c] = lerp(_mm256_blendv_ps(a, b, p.lower), _mm256_blendv_ps(b, d, p.lower), p.wy);
        }
        return;
      default:
        for (int c = 0; c < C; ++c, s += plane) {
          out[c] = lerp(gather(s, p), gather(s + width, p), p.wy);
        }
    }
  }

  static void prefetch_source(const float* s, int64_t plane, int channels, const Plan& p,
                              int64_t width) {
    if (p.kind == kScattered) return;
    for (int c = 0; c < channels; ++c, s += plane) {
      __builtin_prefetch(s + p.base + 3 * width + 8);
    }
  }
  static bool all_inside(F x, F y, float right, float bottom) {
    const __m256 zero = _mm256_setzero_ps();
    const __m256 column = _mm256_and_ps(_mm256_cmp_ps(x, zero, _CMP_GE_OQ),
                                        _mm256_cmp_ps(x, _mm256_set1_ps(right), _CMP_LE_OQ));
    const __m256 row = _mm256_and_ps(_mm256_cmp_ps(y, zero, _CMP_GE_OQ),
                                     _mm256_cmp_ps(y, _mm256_set1_ps(bottom), _CMP_LE_OQ));
    return _mm256_movemask_ps(_mm256_and_ps(column, row)) == 0xff;
  }

 private:
  static F lerp(F a, F b, F w) { return a + w * (b - a); }
  static int lanes(__m256i mask) { return _mm256_movemask_ps(_mm256_castsi256_ps(mask)); }

  static F across(const float* q, const Plan& p) {
    const F low = _mm256_loadu_ps(q), high = _mm256_loadu_ps(q + 8);
    const F a = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, p.left),
                                 _mm256_permutevar8x32_ps(high, p.left), p.left_high);
    const F b = _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, p.right),
                                 _mm256_permutevar8x32_ps(high, p.right), p.right_high);
    return lerp(a, b, p.wx);
  }

  static void choose_rows(Plan& p, __m256i y0, int column, int64_t width) {
    const int first = _mm256_cvtsi256_si32(y0);
    const auto equal = [&](int row) { return _mm256_cmpeq_epi32(y0, _mm256_set1_epi32(row)); };
    const __m256i same = equal(first), below = equal(first + 1);
    int row = first;
    if (lanes(same) == 0xff) {
      p.kind = kOneRow;
    } else if (lanes(_mm256_or_si256(same, below)) == 0xff) {
      p.kind = kTwoRows;
      p.lower = _mm256_castsi256_ps(below);
    } else if (lanes(_mm256_or_si256(same, equal(first - 1))) == 0xff) {
      p.kind = kTwoRows;
      p.lower = _mm256_castsi256_ps(same);
      row = first - 1;
    } else {
      return;
    }
    p.base = row * width + column;
  }

  // Left and right neighbour in one 64-bit element: half the gathers.
  static F gather(const float* s, const Plan& p) {
    const auto* pairs = reinterpret_cast<const double*>(s);
    const F low = _mm256_castpd_ps(_mm256_i32gather_pd(pairs, _mm256_castsi256_si128(p.index), 4));
    const F high =
        _mm256_castpd_ps(_mm256_i32gather_pd(pairs, _mm256_extracti128_si256(p.index, 1), 4));
    const auto ordered = [](F v) {
      return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8));
    };
    return lerp(ordered(_mm256_shuffle_ps(low, high, 0x88)),
                ordered(_mm256_shuffle_ps(low, high, 0xdd)), p.wx);
  }
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
