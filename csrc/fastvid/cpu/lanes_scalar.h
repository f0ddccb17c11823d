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
  // Whether it can load and store the first of its lanes alone.
  static constexpr bool kMasks = false;

  static F load(const float* p) { return *p; }
  static F load(const Half* p) { return half_to_float(*p); }
  static F load(const BFloat16* p) { return bfloat16_to_float(*p); }
  static F load(const uint8_t* p) { return static_cast<float>(*p); }
  static void store(float* p, F v) { *p = v; }
  static void store(Half* p, F v) { *p = float_to_half(v); }
  static void store(BFloat16* p, F v) { *p = float_to_bfloat16(v); }
  // Rounds values in [0, 255] half to even.
  static void store(uint8_t* p, F v) {
    *p = static_cast<uint8_t>(__builtin_bit_cast(uint32_t, v + 12582912.0f));
  }
  static void stream(float* p, F v) { *p = v; }
  static void fence() {}
  static F splat(float v) { return v; }
  // 0, 1, 2, ...
  static F iota() { return 0.0f; }
  // As minps and maxps: the second operand where either is NaN.
  static F min(F a, F b) { return a < b ? a : b; }
  static F max(F a, F b) { return a > b ? a : b; }
  // at + by, or at where by is NaN.
  static F displace(F at, F by) { return at + (by == by ? by : 0.0f); }
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

  using I = int32_t;
  static void store(int32_t* p, I v) { *p = v; }
  static I load(const int32_t* p) { return *p; }
  static I splat(int32_t v) { return v; }
  static I truncate(F v) { return static_cast<int32_t>(v); }
  static F to_float(I v) { return static_cast<float>(v); }
  static I min(I a, I b) { return a < b ? a : b; }
  static I max(I a, I b) { return a > b ? a : b; }
  // Bit i: v[i] of 64 is not 0.
  static uint64_t not_zero(const uint16_t* v) {
    uint64_t bits = 0;
    for (int i = 0; i < 64; ++i) bits |= uint64_t{v[i] != 0} << i;
    return bits;
  }
  static bool all_inside(F x, F y, float right, float bottom) {
    return x >= 0.0f && x <= right && y >= 0.0f && y <= bottom;
  }
  static F lerp(F a, F b, F w) { return a + w * (b - a); }
};

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
