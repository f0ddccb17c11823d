// The instruction sets the CPU kernels are compiled for, and the one this process uses.
#pragma once

namespace fastvid {

// The last is the third with AVX-512 BF16, of which attention and linear have a copy.
enum class Isa { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };

// The best set this machine runs, or the one FASTVID_CPU_ISA names (baseline, avx2, avx512,
// avx512_bf16).
// The variable is read once. Throws InputError for an unknown name or one the machine lacks.
Isa cpu_isa();

// Makes every later call use the named set, nullptr for the default one: how one test process
// compares all of them. Throws as cpu_isa() does.
void force_cpu_isa(const char* name);

bool machine_runs(Isa isa);
const char* isa_name(Isa isa);

// Picks one of three functions of the same type by the instruction set in use.
template <class F>
F* by_isa(F* baseline, F* avx2, F* avx512) {
  switch (cpu_isa()) {
    case Isa::kAvx512:
    case Isa::kAvx512Bf16:
      return avx512;
    case Isa::kAvx2:
      return avx2;
    default:
      return baseline;
  }
}

}  // namespace fastvid

// For what must not cost a call: vectors would pass through memory.
#define FASTVID_INLINE __attribute__((always_inline)) inline
// The same, after the parameters of a lambda.
#define FASTVID_INLINE_LAMBDA __attribute__((always_inline))

// FASTVID_BY_ISA(warp_rows) is cpu::{baseline,avx2,avx512}::warp_rows, whichever is in use.
#ifdef FASTVID_X86
#define FASTVID_BY_ISA(f) \
  ::fastvid::by_isa(::fastvid::cpu::baseline::f, ::fastvid::cpu::avx2::f, ::fastvid::cpu::avx512::f)
#define FASTVID_DECLARE_KERNELS(...) \
  namespace fastvid::cpu::baseline { \
  __VA_ARGS__                        \
  }                                  \
  namespace fastvid::cpu::avx2 {     \
  __VA_ARGS__                        \
  }                                  \
  namespace fastvid::cpu::avx512 {   \
  __VA_ARGS__                        \
  }
#else
#define FASTVID_BY_ISA(f) (&::fastvid::cpu::baseline::f)
#define FASTVID_DECLARE_KERNELS(...) \
  namespace fastvid::cpu::baseline { \
  __VA_ARGS__                        \
  }
#endif
