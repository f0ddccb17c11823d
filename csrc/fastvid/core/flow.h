// The flow fields that ops take: as fine as the image, or 2, 4 or 8 times coarser.
#pragma once

#include "fastvid/core/tensor.h"

namespace fastvid {

// How many times coarser than (height, width) a field of `channels` channels for `batch` images is:
// 1, 2, 4 or 8; sizes are rounded up. Throws InputError for any other shape.
int flow_scale(const char* op, const Tensor& flow, int64_t batch, int64_t channels, int64_t height,
               int64_t width);

// Coordinates are float32 and offsets inside a plane int32: throws InputError for images larger
// than both count exactly.
void require_addressable(const char* op, const Tensor& image, int64_t height, int64_t width);

// Whether an output is large enough to write past the caches, and laid out for it: rows of whole
// cache lines that start at one.
bool may_stream(const Tensor& out, int64_t width);

// Bytes from which a result is taken not to stay in the caches.
constexpr int64_t kLargeBytes = int64_t{8} << 20;

}  // namespace fastvid
