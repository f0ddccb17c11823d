#include "fastvid/cpu/randn.h"

#include "fastvid/cpu/normals.h"

namespace fastvid::cpu::FASTVID_ISA {

void randn(const Noise& noise, uint64_t begin, int64_t count, float* out) {
  normals(noise, begin, count, out);
}

}  // namespace fastvid::cpu::FASTVID_ISA
