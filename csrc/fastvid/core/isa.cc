#include "fastvid/core/isa.h"

#include <atomic>
#include <cstdlib>
#include <string>

#include "fastvid/core/error.h"

namespace fastvid {
namespace {

constexpr Isa kAll[] = {Isa::kAvx512Bf16, Isa::kAvx512, Isa::kAvx2, Isa::kBaseline};
constexpr int kNotForced = -1;
std::atomic<int> forced{kNotForced};

Isa named(const char* source, const std::string& name) {
  for (Isa isa : kAll) {
    if (name != isa_name(isa)) continue;
    if (machine_runs(isa)) return isa;
    throw InputError(std::string(source) + " must be a set this machine runs, got " + name);
  }
  throw InputError(std::string(source) + " must be baseline, avx2, avx512 or avx512_bf16, got " +
                   name);
}

Isa choose() {
  const char* name = std::getenv("FASTVID_CPU_ISA");
  if (name != nullptr && *name != '\0') return named("FASTVID_CPU_ISA", name);
  for (Isa isa : kAll) {
    if (machine_runs(isa)) return isa;
  }
  return Isa::kBaseline;
}

}  // namespace

bool machine_runs(Isa isa) {
#ifdef FASTVID_X86
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2");
  if (isa == Isa::kAvx2) return avx2;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vbmi");
  if (isa == Isa::kAvx512) return avx512;
  if (isa == Isa::kAvx512Bf16) return avx512 && __builtin_cpu_supports("avx512bf16");
#endif
  return isa == Isa::kBaseline;
}

Isa cpu_isa() {
  if (const int isa = forced.load(std::memory_order_relaxed); isa != kNotForced) {
    return static_cast<Isa>(isa);
  }
  static const Isa isa = choose();
  return isa;
}

void force_cpu_isa(const char* name) {
  forced = name == nullptr ? kNotForced : static_cast<int>(named("_force_isa: name", name));
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx2:
      return "avx2";
    default:
      return "baseline";
  }
}

}  // namespace fastvid
