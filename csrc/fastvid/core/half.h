// The 16-bit floating-point types in software: what every instruction set and CUDA agree with.
#pragma once

#include <cstdint>

#include "fastvid/core/isa.h"

namespace fastvid {

// IEEE 754 binary16.
struct Half {
  uint16_t bits;
};

// The upper half of a binary32.
struct BFloat16 {
  uint16_t bits;
};

FASTVID_INLINE float bfloat16_to_float(BFloat16 value) {
  return __builtin_bit_cast(float, uint32_t{value.bits} << 16);
}

// Rounds half to even; a NaN becomes a quiet NaN of the same sign.
FASTVID_INLINE BFloat16 float_to_bfloat16(float value) {
  const auto u = __builtin_bit_cast(uint32_t, value);
  if ((u & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((u >> 16) | 0x40u)};
  return {static_cast<uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

FASTVID_INLINE float half_to_float(Half value) {
  const uint32_t sign = uint32_t{value.bits & 0x8000u} << 16;
  const uint32_t rest = uint32_t{value.bits & 0x7fffu} << 13;
  const uint32_t exponent = rest & 0x0f800000u;
  if (exponent == 0x0f800000u) {
    // Infinity, or a NaN made quiet.
    const uint32_t quiet = (rest & 0x007fffffu) != 0 ? 0x00400000u : 0u;
    return __builtin_bit_cast(float, sign | 0x7f800000u | (rest & 0x007fffffu) | quiet);
  }
  if (exponent == 0) {
    // Subnormal: exact as a multiple of 2^-24.
    const float magnitude = static_cast<float>(value.bits & 0x7fffu) * 0x1p-24f;
    return __builtin_bit_cast(float, sign | __builtin_bit_cast(uint32_t, magnitude));
  }
  return __builtin_bit_cast(float, sign | (rest + 0x38000000u));
}

// Rounds half to even; too large becomes infinity, a NaN a quiet NaN of the same sign.
FASTVID_INLINE Half float_to_half(float value) {
  const auto u = __builtin_bit_cast(uint32_t, value);
  const auto sign = static_cast<uint16_t>((u >> 16) & 0x8000u);
  const uint32_t magnitude = u & 0x7fffffffu;
  const auto with_sign = [sign](uint32_t bits) { return Half{static_cast<uint16_t>(sign | bits)}; };
  if (magnitude > 0x7f800000u) return with_sign(0x7e00u | ((magnitude >> 13) & 0x3ffu));
  if (magnitude >= 0x477ff000u) return with_sign(0x7c00u);
  if (magnitude < 0x38800000u) {
    // Subnormal: adding 0.5 leaves the multiple of 2^-24, rounded, in the low bits.
    const float shifted = __builtin_bit_cast(float, magnitude) + 0.5f;
    return with_sign(__builtin_bit_cast(uint32_t, shifted) - 0x3f000000u);
  }
  const uint32_t odd = (magnitude >> 13) & 1u;
  return with_sign((magnitude - 0x38000000u + 0xfffu + odd) >> 13);
}

}  // namespace fastvid
