// The exponential function that every instruction set and CUDA round alike.
#pragma once

#include "fastvid/core/isa.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// e^x for x clamped to [-87, 88], relative error below 2e-7, with mul and add alone so that every
// instruction set rounds alike. NaN counts as -87.
template <class S>
FASTVID_INLINE typename S::F exponential(typename S::F x) {
  using F = typename S::F;
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
  x = S::min(S::max(x, S::splat(-87.0f)), S::splat(88.0f));
  const F t = x * 1.44269504f + kRound;
  const F n = t - kRound;
  // ln 2 in two parts, the first exact in the product.
  const F r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  F p = r * 1.9875691500e-4f + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = (p * r) * r + (r + 1.0f);
  return p * S::power_of_two(t);
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
