// `Floats`: sixteen float32 as one value, read from and written to arrays of any floating-point
// type. Every instruction set gives equal bits. floats_scalar.h describes the names.
#pragma once

#include "fastvid/core/half.h"
#include "fastvid/core/isa.h"

#if defined(__AVX512VBMI__)
#include "fastvid/cpu/floats_avx512.h"
#elif defined(__AVX2__)
#include "fastvid/cpu/floats_avx2.h"
#else
#include "fastvid/cpu/floats_scalar.h"
#endif

namespace fastvid::cpu::FASTVID_ISA {
namespace {

constexpr int kFloats = 16;

// 2^x to 2.3e-7 relative, for x up to 127; 0 below -126, so that there are no subnormals. A NaN
// stays one. The polynomial is the minimax one of 2^r for |r| <= 1/2, exact at 0.
FASTVID_INLINE Floats exp2(Floats x) {
  const Floats n = round(x), r = x - n;
  Floats p = fma(splat(1.327646780e-3f), r, splat(9.675540961e-3f));
  p = fma(p, r, splat(5.550713465e-2f));
  p = fma(p, r, splat(2.402212024e-1f));
  p = fma(p, r, splat(6.931469440e-1f));
  p = fma(p, r, splat(1.0f));
  return scale_by_power(p, n, x);
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
