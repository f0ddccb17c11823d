#include "fastvid/core/flow.h"

#include <string>

#include "fastvid/core/error.h"

namespace fastvid {
namespace {

constexpr int64_t kMaxSide = int64_t{1} << 24;
constexpr int64_t kMaxPlane = (int64_t{1} << 31) - 1;
constexpr uintptr_t kCacheLine = 64;

}  // namespace

int flow_scale(const char* op, const Tensor& flow, int64_t batch, int64_t channels, int64_t height,
               int64_t width) {
  for (int k : {1, 2, 4, 8}) {
    if (flow.shape == Shape{batch, channels, (height + k - 1) / k, (width + k - 1) / k}) return k;
  }
  throw InputError(std::string(op) + ": " + flow.name + " must have shape " +
                   Shape{batch, channels, height, width}.text() +
                   ", or height and width divided by 2, 4 or 8 and rounded up, got " +
                   flow.shape.text());
}

void require_addressable(const char* op, const Tensor& image, int64_t height, int64_t width) {
  if (height <= kMaxSide && width <= kMaxSide && height * width <= kMaxPlane) return;
  throw InputError(std::string(op) + ": " + image.name +
                   " must have sides of at most 2^24 and fewer than 2^31 pixels, got shape " +
                   image.shape.text());
}

bool may_stream(const Tensor& out, int64_t width) {
  const auto size = static_cast<int64_t>(dtype_size(out.dtype));
  return out.shape.elements() * size >= kLargeBytes && width * size % 64 == 0 &&
         reinterpret_cast<uintptr_t>(out.data) % kCacheLine == 0;
}

}  // namespace fastvid
