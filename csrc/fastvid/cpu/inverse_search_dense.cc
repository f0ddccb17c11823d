#include "fastvid/cpu/inverse_search.h"
#include "fastvid/cpu/inverse_search_patch.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

FASTVID_INLINE void add_eight(float* p, const Eight& x) {
  const Eight sum = load_eight(p) + x;
  std::memcpy(p, &sum, sizeof(sum));
}

void repeat_border(float* row, int64_t width) {
  for (int64_t i = 1; i <= kPlanePadding; ++i) {
    row[-i] = row[0];
    row[width - 1 + i] = row[width - 1];
  }
}

// Copies the first or last row into the padding above or below it.
void repeat_rows(const Plane& plane, int64_t begin, int64_t end) {
  const auto bytes = static_cast<size_t>(plane.width + 2 * kPlanePadding) * sizeof(float);
  const auto copy = [&](int64_t from, int64_t to) {
    std::memcpy(plane.data + to * plane.pitch - kPlanePadding,
                plane.data + from * plane.pitch - kPlanePadding, bytes);
  };
  for (int64_t i = 1; i <= kPlanePadding; ++i) {
    if (begin == 0) copy(0, -i);
    if (end == plane.height) copy(end - 1, end - 1 + i);
  }
}

// Adds one patch to the rows [begin, end) of the sums.
FASTVID_INLINE void add_patch(const Level& level, int64_t at, int64_t x, int64_t y, int64_t begin,
                              int64_t end) {
  const float dx = level.propagated.dx[at], dy = level.propagated.dy[at];
  const Place where = place(level.to, static_cast<float>(x) + dx, static_cast<float>(y) + dy);
  Pair pixels[kPairs];
  sample(where, level.to.pitch, pixels);
  float weight[64] __attribute__((aligned(64)));
  const float* p = level.from.data + y * level.from.pitch + x;
  for (int i = 0; i < kPairs; ++i, p += 2 * level.from.pitch) {
    Pair error = pixels[i] - load_rows(p, p + level.from.pitch);
    for (int part = 0; part < Pair::kParts; ++part) {
      Vec e = error.part[part];
      e = e < 0 ? -e : e;
      error.part[part] = 1.0f / (e > 1.0f ? e : Vec{} + 1.0f);
    }
    store(weight + 16 * i, error);
  }
  const int64_t top = most(begin, y), bottom = least(end, y + kPatchSize);
  const int64_t width = level.flow.width, first = top * width + x;
  float* weights = level.weights + first;
  float* sum_dx = level.flow.dx + first;
  float* sum_dy = level.flow.dy + first;
  const float* of_row = weight + kPatchSize * (top - y);
  for (int64_t row = top; row < bottom; ++row) {
    const Eight w = load_eight(of_row);
    add_eight(weights, w);
    add_eight(sum_dx, w * dx);
    add_eight(sum_dy, w * dy);
    of_row += kPatchSize;
    weights += width;
    sum_dx += width;
    sum_dy += width;
  }
}

}  // namespace

void search_load_rows(const float* image, const Plane& plane, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y) {
    const float* from = image + y * plane.width;
    float* to = plane.data + y * plane.pitch;
    for (int64_t x = 0; x < plane.width; ++x) {
      const float low = from[x] > 0.0f ? from[x] : 0.0f;
      to[x] = (low < 1.0f ? low : 1.0f) * 255.0f;
    }
    repeat_border(to, plane.width);
  }
  repeat_rows(plane, begin, end);
}

void search_halve_rows(const Plane& fine, const Plane& coarse, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y) {
    const float* upper = fine.data + 2 * y * fine.pitch;
    const float* lower = 2 * y + 1 < fine.height ? upper + fine.pitch : upper;
    float* to = coarse.data + y * coarse.pitch;
    for (int64_t x = 0; x < coarse.width; ++x) {
      to[x] = ((upper[2 * x] + lower[2 * x]) + (upper[2 * x + 1] + lower[2 * x + 1])) * 0.25f;
    }
    repeat_border(to, coarse.width);
  }
  repeat_rows(coarse, begin, end);
}

void densify_rows(const Level& level, int64_t begin, int64_t end) {
  const int64_t width = level.flow.width, height = level.flow.height;
  const int64_t first = begin * width, count = (end - begin) * width;
  const auto bytes = static_cast<size_t>(count) * sizeof(float);
  std::memset(level.weights + first, 0, bytes);
  std::memset(level.flow.dx + first, 0, bytes);
  std::memset(level.flow.dy + first, 0, bytes);
  // Neighbours in a row overlap: with this many turns none reads what was stored just before.
  const int64_t turns = (kPatchSize + level.stride - 1) / level.stride;
  for (int64_t row = 0; row < level.rows; ++row) {
    const int64_t y = least(row * level.stride, height - kPatchSize);
    if (y + kPatchSize <= begin || y >= end) continue;
    for (int64_t turn = 0; turn < turns; ++turn) {
      for (int64_t column = turn; column < level.columns; column += turns) {
        const int64_t x = least(column * level.stride, width - kPatchSize);
        add_patch(level, row * level.columns + column, x, y, begin, end);
      }
    }
  }
  float* dx = level.flow.dx + first;
  float* dy = level.flow.dy + first;
  const float* weights = level.weights + first;
  for (int64_t i = 0; i < count; ++i) {
    const float scale = 1.0f / weights[i];
    dx[i] *= scale;
    dy[i] *= scale;
  }
}

void double_flow_rows(const Flow& coarse, const Flow& fine, int64_t begin, int64_t end) {
  for (int64_t y = begin; y < end; ++y) {
    // Fine pixel y lies a quarter pixel above or below a coarse one.
    const int64_t near_y = y >> 1;
    const int64_t far_y = most(0, least(coarse.height - 1, near_y + ((y & 1) ? 1 : -1)));
    const int64_t near_row = near_y * coarse.width, far_row = far_y * coarse.width;
    for (int64_t x = 0; x < fine.width; ++x) {
      const int64_t near_x = x >> 1;
      const int64_t far_x = most(0, least(coarse.width - 1, near_x + ((x & 1) ? 1 : -1)));
      const auto mix = [&](const float* p) {
        const float close = p[near_row + near_x] * 0.75f + p[near_row + far_x] * 0.25f;
        const float away = p[far_row + near_x] * 0.75f + p[far_row + far_x] * 0.25f;
        return (close * 0.75f + away * 0.25f) * 2.0f;
      };
      fine.dx[y * fine.width + x] = mix(coarse.dx);
      fine.dy[y * fine.width + x] = mix(coarse.dy);
    }
  }
}

}  // namespace fastvid::cpu::FASTVID_ISA
