// Sixteen pixels at a time. Neighbouring pixels mostly come from neighbouring places, so the source
// is read as a window of 32 columns by 2 to 4 rows into registers and picked apart by a permute;
// only blocks that do not fit a window gather.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "fastvid/core/half.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Avx512 {
  using F = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kWindow = 32;
  static bool fits(int64_t height, int64_t width) { return height >= 4 && width >= kWindow; }

  static F load(const float* p) { return _mm512_loadu_ps(p); }
  static F load(const Half* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
  static F load(const BFloat16* p) {
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
  }
  static void store(float* p, F v) { _mm512_storeu_ps(p, v); }
  static void store(Half* p, F v) {
    const __m256i bits = _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), bits);
  }
  // As float_to_bfloat16 in core/half.h.
  static void store(BFloat16* p, F v) {
    const __m512i u = _mm512_castps_si512(v);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
    const __m512i up = _mm512_add_epi32(u, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
    const __m512i bits = _mm512_mask_or_epi32(up, _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q), u,
                                              _mm512_set1_epi32(0x400000));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(bits, 16)));
  }
  static void stream(float* p, F v) { _mm512_stream_ps(p, v); }
  static void fence() { _mm_sfence(); }
  static F splat(float v) { return _mm512_set1_ps(v); }
  static F iota() { return _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static F nan_to_zero(F v) { return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(v, v, _CMP_ORD_Q), v); }
  static F power_of_two(F t) {
    const __m512i n = _mm512_slli_epi32(_mm512_castps_si512(t), 23);
    return _mm512_castsi512_ps(_mm512_add_epi32(n, _mm512_set1_epi32(0x3f800000)));
  }
  static void store_rgb(uint8_t* p, const F* rgb) {
    // Byte i of the output is channel i % 3 of pixel i / 3; the channels lie 16 bytes apart.
    alignas(64) static constexpr uint8_t kOrder[64] = {
        0,  16, 32, 1,  17, 33, 2,  18, 34, 3,  19, 35, 4,  20, 36, 5,
        21, 37, 6,  22, 38, 7,  23, 39, 8,  24, 40, 9,  25, 41, 10, 26,
        42, 11, 27, 43, 12, 28, 44, 13, 29, 45, 14, 30, 46, 15, 31, 47};
    __m128i bytes[3];
    for (int c = 0; c < 3; ++c) {
      bytes[c] = _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(rgb[c] * 255.0f));
    }
    const __m512i planes = _mm512_inserti32x4(
        _mm512_inserti32x4(_mm512_castsi128_si512(bytes[0]), bytes[1], 1), bytes[2], 2);
    const __m512i order = _mm512_load_si512(kOrder);
    _mm512_mask_storeu_epi8(p, 0xffffffffffffull, _mm512_permutexvar_epi8(order, planes));
  }

  enum Kind { kOneRow, kTwoRows, kThreeRows, kScattered };
  struct Plan {
    F wx, wy;
    __m512i left, right;  // columns inside the window
    __m512i index;        // kScattered: element of the plane; kThreeRows: row inside the window
    int64_t base;         // element where the window starts
    __mmask16 lower;      // kTwoRows: lanes of the second row
    Kind kind;
  };

  static Plan plan(F x, F y, int64_t height, int64_t width) {
    const int w = static_cast<int>(width), h = static_cast<int>(height);
    Plan p;
    const __m512i x0 = _mm512_min_epi32(_mm512_cvttps_epi32(x), _mm512_set1_epi32(w - 2));
    const __m512i y0 = _mm512_min_epi32(_mm512_cvttps_epi32(y), _mm512_set1_epi32(h - 2));
    p.wx = x - _mm512_cvtepi32_ps(x0);
    p.wy = y - _mm512_cvtepi32_ps(y0);
    int column = _mm_cvtsi128_si32(_mm512_castsi512_si128(x0)) - 8;
    column = column < 0 ? 0 : column;
    column = column > w - kWindow ? w - kWindow : column;
    p.left = _mm512_sub_epi32(x0, _mm512_set1_epi32(column));
    p.right = _mm512_add_epi32(p.left, _mm512_set1_epi32(1));
    p.index = _mm512_add_epi32(_mm512_mullo_epi32(y0, _mm512_set1_epi32(w)), x0);
    p.lower = 0;
    p.base = 0;
    p.kind = kScattered;
    if (_mm512_cmplt_epu32_mask(p.left, _mm512_set1_epi32(kWindow - 1)) == 0xffff) {
      choose_rows(p, y0, column, h, width);
    }
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
          out[c] = lerp(_mm512_mask_mov_ps(a, p.lower, b), _mm512_mask_mov_ps(b, p.lower, d), p.wy);
        }
        return;
      case kThreeRows:
        sample_three_rows<C>(s, plane, p, width, out);
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
      __builtin_prefetch(s + p.base + 3 * width + 16);
    }
  }
  static bool all_inside(F x, F y, float right, float bottom) {
    const __m512 zero = _mm512_setzero_ps();
    __mmask16 m = _mm512_cmp_ps_mask(x, zero, _CMP_GE_OQ);
    m = _mm512_mask_cmp_ps_mask(m, x, _mm512_set1_ps(right), _CMP_LE_OQ);
    m = _mm512_mask_cmp_ps_mask(m, y, zero, _CMP_GE_OQ);
    return _mm512_mask_cmp_ps_mask(m, y, _mm512_set1_ps(bottom), _CMP_LE_OQ) == 0xffff;
  }

 private:
  static F lerp(F a, F b, F w) { return a + w * (b - a); }

  // One row of the window, interpolated across.
  static F across(const float* q, const Plan& p) {
    const F low = _mm512_loadu_ps(q), high = _mm512_loadu_ps(q + 16);
    return lerp(_mm512_permutex2var_ps(low, p.left, high),
                _mm512_permutex2var_ps(low, p.right, high), p.wx);
  }

  static void choose_rows(Plan& p, __m512i y0, int column, int height, int64_t width) {
    const int first = _mm_cvtsi128_si32(_mm512_castsi512_si128(y0));
    const auto equal = [&](int row) { return _mm512_cmpeq_epi32_mask(y0, _mm512_set1_epi32(row)); };
    const __mmask16 same = equal(first), below = equal(first + 1);
    int row = first;
    if (same == 0xffff) {
      p.kind = kOneRow;
    } else if (static_cast<__mmask16>(same | below) == 0xffff) {
      p.kind = kTwoRows;
      p.lower = below;
    } else if (static_cast<__mmask16>(same | equal(first - 1)) == 0xffff) {
      p.kind = kTwoRows;
      p.lower = same;
      row = first - 1;
    } else {
      row = _mm512_reduce_min_epi32(y0);
      row = row > height - 4 ? height - 4 : row;
      const __m512i inside = _mm512_sub_epi32(y0, _mm512_set1_epi32(row));
      if (_mm512_cmplt_epu32_mask(inside, _mm512_set1_epi32(3)) != 0xffff) return;
      p.kind = kThreeRows;
      p.index = inside;
    }
    p.base = row * width + column;
  }

  template <int C>
  static void sample_three_rows(const float* s, int64_t plane, const Plan& p, int64_t width,
                                F* out) {
    const __mmask16 second = _mm512_cmpgt_epi32_mask(p.index, _mm512_setzero_si512());
    const __mmask16 third = _mm512_cmpgt_epi32_mask(p.index, _mm512_set1_epi32(1));
    for (int c = 0; c < C; ++c, s += plane) {
      F r[4];
      for (int k = 0; k < 4; ++k) r[k] = across(s + p.base + k * width, p);
      const F top = _mm512_mask_mov_ps(_mm512_mask_mov_ps(r[0], second, r[1]), third, r[2]);
      const F bottom = _mm512_mask_mov_ps(_mm512_mask_mov_ps(r[1], second, r[2]), third, r[3]);
      out[c] = lerp(top, bottom, p.wy);
    }
  }

  // Left and right neighbour in one 64-bit element: half the gathers.
  static F gather(const float* s, const Plan& p) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    const F low = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_castsi512_si256(p.index), s, 4));
    const F high =
        _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_extracti64x4_epi64(p.index, 1), s, 4));
    return lerp(_mm512_permutex2var_ps(low, even, high), _mm512_permutex2var_ps(low, odd, high),
                p.wx);
  }
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
