#include "fastvid/cpu/planar.h"

#include "fastvid/cpu/rgb_pixels.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Pixels between the two halves of a conversion, in the first cache.
constexpr int64_t kTile = 1024;

inline uint32_t quantise(float x) {
  // 1.5 * 2^23: adding it leaves the whole number, halves rounded to even, in the low bits.
  const float t = clamp_float(x, 1.0f) * 255.0f + 12582912.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &t, sizeof(bits));
  return bits & 255;
}

}  // namespace

void rgb_to_planar(const uint8_t* rgb, float* planes, int64_t plane, int64_t pixels) {
  uint32_t words[kTile];
  for (int64_t start = 0; start < pixels; start += kTile) {
    const int64_t count = pixels - start < kTile ? pixels - start : kTile;
    unpack_rgb(rgb + 3 * start, count, words);
    for (int c = 0; c < 3; ++c) {
      float* out = planes + c * plane + start;
      for (int64_t i = 0; i < count; ++i) {
        out[i] = static_cast<float>(static_cast<int32_t>(words[i] >> 8 * c & 255)) / 255.0f;
      }
    }
  }
}

void planar_to_rgb(const float* planes, int64_t plane, uint8_t* rgb, int64_t pixels) {
  uint32_t words[kTile];
  for (int64_t start = 0; start < pixels; start += kTile) {
    const int64_t count = pixels - start < kTile ? pixels - start : kTile;
    const float *r = planes + start, *g = r + plane, *b = g + plane;
    for (int64_t i = 0; i < count; ++i) {
      words[i] = quantise(r[i]) | quantise(g[i]) << 8 | quantise(b[i]) << 16;
    }
    pack_rgb(words, count, rgb + 3 * start);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
