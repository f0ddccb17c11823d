#include "fastvid/core/isa.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace fastvid {
namespace {

bool machine_runs(Isa isa) {
#ifdef FASTVID_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2");
  if (isa == Isa::kAvx2) return avx2;
  if (isa == Isa::kAvx512) {
    return avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vbmi");
  }
#endif
  return isa == Isa::kBaseline;
}

Isa choose() {
  constexpr Isa kAll[] = {Isa::kAvx512, Isa::kAvx2, Isa::kBaseline};
  const char* forced = std::getenv("FASTVID_CPU_ISA");
  if (forced == nullptr || *forced == '\0') {
    for (Isa isa : kAll) {
      if (machine_runs(isa)) return isa;
    }
  } else {
    for (Isa isa : kAll) {
      if (std::string(forced) != isa_name(isa)) continue;
      if (machine_runs(isa)) return isa;
      throw std::invalid_argument(std::string("FASTVID_CPU_ISA: this machine cannot run ") +
                                  forced);
    }
    throw std::invalid_argument(
        std::string("FASTVID_CPU_ISA must be baseline, avx2 or avx512, got ") + forced);
  }
  return Isa::kBaseline;
}

}  // namespace

Isa cpu_isa() {
  static const Isa isa = choose();
  return isa;
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace fastvid
