// One pixel at a time: what every instruction set computes, written plainly. The vector versions
// (lanes_avx2.h, lanes_avx512.h) offer the same names and give the same bits.
#pragma once

#include <cstdint>

#include "fastvid/core/half.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

struct Scalar {
  using F = float;
  static constexpr int kLanes = 1;
  static bool fits(int64_t, int64_t) { return true; }

  static F load(const float* p) { return *p; }
  static F load(const Half* p) { return half_to_float(*p); }
  static F load(const BFloat16* p) { return bfloat16_to_float(*p); }
  static void store(float* p, F v) { *p = v; }
  static void store(Half* p, F v) { *p = float_to_half(v); }
  static void store(BFloat16* p, F v) { *p = float_to_bfloat16(v); }
  static void stream(float* p, F v) { *p = v; }
  static void fence() {}
  static F splat(float v) { return v; }
  // 0, 1, 2, ...
  static F iota() { return 0.0f; }
  // As minps and maxps: the second operand where either is NaN.
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
  static F nan_to_zero(F v) { return v == v ? v : 0.0f; }
  // 2^n for t = 1.5 * 2^23 + n, n in [-126, 127].
  static F power_of_two(F t) {
    uint32_t bits;
    __builtin_memcpy(&bits, &t, sizeof(bits));
    bits = (bits << 23) + 0x3f800000u;
    __builtin_memcpy(&t, &bits, sizeof(t));
    return t;
  }
  // Writes r, g, b in [0, 1] as bytes, rounding halves to even.
  static void store_rgb(uint8_t* p, const F* rgb) {
    for (int c = 0; c < 3; ++c) {
      const float t = rgb[c] * 255.0f + 12582912.0f;
      uint32_t bits;
      __builtin_memcpy(&bits, &t, sizeof(bits));
      p[c] = static_cast<uint8_t>(bits);
    }
  }

  // Where to read the four neighbours of a point inside the image, and their weights.
  struct Plan {
    int64_t top;
    int64_t right, down;
    F wx, wy;
  };
  // x must be in [0, width - 1] and y in [0, height - 1].
  static Plan plan(F x, F y, int64_t height, int64_t width) {
    int64_t x0 = static_cast<int64_t>(x), y0 = static_cast<int64_t>(y);
    x0 = x0 > width - 2 ? width - 2 : x0;
    y0 = y0 > height - 2 ? height - 2 : y0;
    x0 = x0 < 0 ? 0 : x0;
    y0 = y0 < 0 ? 0 : y0;
    return {y0 * width + x0, width > 1 ? 1 : 0, height > 1 ? width : 0, x - static_cast<float>(x0),
            y - static_cast<float>(y0)};
  }
  template <int C>
  static void sample(const float* s, int64_t plane, const Plan& p, int64_t, F* out) {
    for (int c = 0; c < C; ++c, s += plane) {
      const float* q = s + p.top;
      const F top = q[0] + p.wx * (q[p.right] - q[0]);
      const F bottom = q[p.down] + p.wx * (q[p.down + p.right] - q[p.down]);
      out[c] = top + p.wy * (bottom - top);
    }
  }
  static void prefetch_source(const float*, int64_t, int, const Plan&, int64_t) {}
  static bool all_inside(F x, F y, float right, float bottom) {
    return x >= 0.0f && x <= right && y >= 0.0f && y <= bottom;
  }
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
