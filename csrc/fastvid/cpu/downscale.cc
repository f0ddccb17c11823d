#include "fastvid/cpu/downscale.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

// Pixels of `out` that are made at a time; the sums of their columns stay in the first cache.
constexpr int64_t kTile = 256;

template <int kFactor>
void downscale_by(const float* in, float* out, int64_t rows, int64_t width) {
  constexpr float kScale = 1.0f / (kFactor * kFactor);
  const int64_t stride = width * kFactor;
  float sums[kTile * kFactor];
  for (int64_t row = 0; row < rows; ++row) {
    const float* block = in + row * kFactor * stride;
    for (int64_t start = 0; start < width; start += kTile) {
      const int64_t count = width - start < kTile ? width - start : kTile;
      const float* top = block + start * kFactor;
      for (int64_t i = 0; i < count * kFactor; ++i) {
        float sum = top[i];
        for (int y = 1; y < kFactor; ++y) sum += top[y * stride + i];
        sums[i] = sum;
      }
      float* target = out + row * width + start;
      for (int64_t i = 0; i < count; ++i) {
        float sum = sums[i * kFactor];
        for (int x = 1; x < kFactor; ++x) sum += sums[i * kFactor + x];
        target[i] = sum * kScale;
      }
    }
  }
}

}  // namespace

void downscale(const float* in, float* out, int64_t rows, int64_t width, int64_t factor) {
  if (factor == 2) {
    downscale_by<2>(in, out, rows, width);
  } else if (factor == 4) {
    downscale_by<4>(in, out, rows, width);
  } else {
    downscale_by<8>(in, out, rows, width);
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
