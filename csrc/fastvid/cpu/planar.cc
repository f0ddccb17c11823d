#include "fastvid/cpu/planar.h"

#include <cmath>

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// The comparisons are written so that NaN becomes 0.
inline uint8_t quantise(float x) {
  const float low = x > 0.0f ? x : 0.0f;
  const float clamped = low < 1.0f ? low : 1.0f;
  return static_cast<uint8_t>(std::nearbyintf(clamped * 255.0f));
}

}  // namespace

void rgb_to_planar(const uint8_t* rgb, float* planes, int64_t plane, int64_t pixels) {
  for (int c = 0; c < 3; ++c) {
    for (int64_t i = 0; i < pixels; ++i) planes[c * plane + i] = rgb[3 * i + c] / 255.0f;
  }
}

void planar_to_rgb(const float* planes, int64_t plane, uint8_t* rgb, int64_t pixels) {
  for (int64_t i = 0; i < pixels; ++i) {
    for (int c = 0; c < 3; ++c) rgb[3 * i + c] = quantise(planes[c * plane + i]);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
