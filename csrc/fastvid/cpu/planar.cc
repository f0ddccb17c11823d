#include "fastvid/cpu/planar.h"

#include "fastvid/cpu/rgb_pixels.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Pixels between the two halves of a conversion, in the first cache.
constexpr int64_t kTile = 1024;

template <uint32_t kTop = 255>
inline uint32_t quantise(float x) {
  // 1.5 * 2^23: adding it leaves the whole number, halves rounded to even, in the low bits.
  const float t = clamp_float(x, 1.0f) * static_cast<float>(kTop) + 12582912.0f;
  uint32_t bits;
  __builtin_memcpy(&bits, &t, sizeof(bits));
  return bits & kTop;
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

void wide_rgb_to_planar(const uint16_t* rgb, float* planes, int64_t plane, int64_t pixels) {
  float *r = planes, *g = r + plane, *b = g + plane;
  for (int64_t i = 0; i < pixels; ++i) {
    r[i] = static_cast<float>(rgb[3 * i]) / 65535.0f;
    g[i] = static_cast<float>(rgb[3 * i + 1]) / 65535.0f;
    b[i] = static_cast<float>(rgb[3 * i + 2]) / 65535.0f;
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

void planar_to_wide_rgb(const float* planes, int64_t plane, uint16_t* rgb, int64_t pixels) {
  const float *r = planes, *g = r + plane, *b = g + plane;
  for (int64_t i = 0; i < pixels; ++i) {
    rgb[3 * i] = static_cast<uint16_t>(quantise<65535>(r[i]));
    rgb[3 * i + 1] = static_cast<uint16_t>(quantise<65535>(g[i]));
    rgb[3 * i + 2] = static_cast<uint16_t>(quantise<65535>(b[i]));
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
