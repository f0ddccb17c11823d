// `Window`: lanes that can read a row of neighbouring elements at once, where this instruction set
// has permutes for it; else, and for images smaller than a window, `Scalar`.
#pragma once

#include "fastvid/cpu/lanes.h"

#if defined(__AVX512VBMI__)
#include "fastvid/cpu/window_avx512.h"
#elif defined(__AVX2__)
#include "fastvid/cpu/window_avx2.h"
#endif

namespace fastvid::cpu::FASTVID_ISA {
namespace {

#if defined(__AVX512VBMI__)
using Window = Avx512Window;
#elif defined(__AVX2__)
using Window = Avx2Window;
#else
using Window = Scalar;
#endif

inline bool window_fits(int64_t height, int64_t width) {
#if defined(__AVX2__)
  return height >= 2 && width >= Window::kWidth;
#else
  return height >= 1 && width >= 1;
#endif
}

}  // namespace
}  // namespace fastvid::cpu::FASTVID_ISA
