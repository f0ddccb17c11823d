#include "fastvid/cpu/randn.h"

#include "fastvid/cpu/lanes.h"
#include "fastvid/cpu/normals.h"

namespace fastvid::cpu::FASTVID_ISA {

namespace {

// Rounds what is drawn; a tile at a time stays in the first cache.
template <class T>
void rounded(const Noise& noise, uint64_t begin, int64_t count, T* out) {
  alignas(64) float tile[kNoiseTile];
  for (int64_t done = 0; done < count; done += kNoiseTile) {
    const int64_t n = count - done < kNoiseTile ? count - done : kNoiseTile;
    normals(noise, begin + static_cast<uint64_t>(done), n, tile);
    int64_t i = 0;
    for (; i + Lanes::kLanes <= n; i += Lanes::kLanes) {
      Lanes::store(out + done + i, Lanes::load(tile + i));
    }
    for (; i < n; ++i) Scalar::store(out + done + i, tile[i]);
  }
}

}  // namespace

void randn(const Noise& noise, uint64_t begin, int64_t count, float* out) {
  normals(noise, begin, count, out);
}

void randn_half(const Noise& noise, uint64_t begin, int64_t count, Half* out) {
  rounded(noise, begin, count, out);
}

void randn_bfloat16(const Noise& noise, uint64_t begin, int64_t count, BFloat16* out) {
  rounded(noise, begin, count, out);
}

}  // namespace fastvid::cpu::FASTVID_ISA
