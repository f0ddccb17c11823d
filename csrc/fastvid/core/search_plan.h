// Lays out the memory of an inverse search.
#pragma once

#include <cstddef>
#include <vector>

#include "fastvid/core/search.h"

namespace fastvid::search {

// All levels of one pair of images, finest first; direction 0 is from the first to the second.
struct Plan {
  std::vector<Plane> planes[2];
  std::vector<Level> levels[2];
  size_t floats = 0;  // the memory it needs
};

// Whether an image is too small for a patch on level `finest`.
bool too_small(int64_t width, int64_t height, int64_t finest);

// The plan in `memory` (64-byte aligned); null only counts. The image must not be too small.
Plan make_plan(int64_t width, int64_t height, int directions, int64_t iterations, int64_t stride,
               int64_t finest, float* memory);

}  // namespace fastvid::search
