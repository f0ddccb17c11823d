// `Lanes`: the widest way this instruction set has to work on pixels; `Scalar` for what it does not
// fit. Both offer the same names, described in lanes_scalar.h.
#pragma once

#include "fastvid/cpu/lanes_scalar.h"

#if defined(__AVX512VBMI__)
#include "fastvid/cpu/lanes_avx512.h"
#elif defined(__AVX2__)
#include "fastvid/cpu/lanes_avx2.h"
#endif

namespace fastvid::cpu::FASTVID_ISA {
namespace {

#if defined(__AVX512VBMI__)
using Lanes = Avx512;
#elif defined(__AVX2__)
using Lanes = Avx2;
#else
using Lanes = Scalar;
#endif

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
