#include "fastvid/core/search_plan.h"

#include <algorithm>

namespace fastvid::search {
namespace {

// The coarsest level has at least this many pixels on its shorter side.
constexpr int64_t kCoarsestSide = 16;
constexpr int64_t kFloatsPerLine = 16;

int64_t round_up(int64_t floats) {
  return (floats + kFloatsPerLine - 1) / kFloatsPerLine * kFloatsPerLine;
}

// Hands out pieces of memory; with a null base it only counts.
class Cursor {
 public:
  explicit Cursor(float* base) : base_(base) {}
  float* take(int64_t floats) {
    float* piece = base_ == nullptr ? nullptr : base_ + used_;
    used_ += static_cast<size_t>(round_up(floats));
    return piece;
  }
  size_t used() const { return used_; }

 private:
  float* base_;
  size_t used_ = 0;
};

Plane make_plane(int64_t width, int64_t height, Cursor& cursor) {
  constexpr int64_t padding = kPlanePadding;
  const int64_t pitch = round_up(width + 2 * padding);
  float* corner = cursor.take(pitch * (height + 2 * padding));
  return {corner == nullptr ? nullptr : corner + padding * pitch + padding, width, height, pitch};
}

Flow make_flow(int64_t width, int64_t height, Cursor& cursor) {
  float* dx = cursor.take(width * height);
  return {dx, cursor.take(width * height), width, height};
}

Grid make_grid(int64_t count, Cursor& cursor) {
  float* pieces[4];
  for (float*& piece : pieces) piece = cursor.take(count);
  return {pieces[0], pieces[1], pieces[2], pieces[3]};
}

int64_t patches_along(int64_t size, int64_t stride) {
  return (size - kPatchSize + stride - 1) / stride + 1;
}

Level make_level(const Plane& from, const Plane& to, int64_t iterations, int64_t stride,
                 Cursor& cursor) {
  Level level{};
  level.from = from;
  level.to = to;
  level.columns = patches_along(from.width, stride);
  level.rows = patches_along(from.height, stride);
  level.stride = static_cast<int>(stride);
  level.iterations = static_cast<int>(iterations);
  level.found = make_grid(level.columns * level.rows, cursor);
  level.propagated = make_grid(level.columns * level.rows, cursor);
  level.flow = make_flow(from.width, from.height, cursor);
  level.weights = cursor.take(from.width * from.height);
  return level;
}

}  // namespace

bool too_small(int64_t width, int64_t height, int64_t finest) {
  return ((std::min(width, height) - 1) >> finest) + 1 < kPatchSize;
}

Plan make_plan(int64_t width, int64_t height, int directions, int64_t iterations, int64_t stride,
               int64_t finest, float* memory) {
  Plan plan;
  Cursor cursor(memory);
  for (int64_t level = 0;; ++level) {
    for (auto& planes : plan.planes) planes.push_back(make_plane(width, height, cursor));
    width = (width + 1) / 2;
    height = (height + 1) / 2;
    const int64_t side = std::min(width, height);
    if (side < kPatchSize || (side < kCoarsestSide && level >= finest)) break;
  }
  for (int direction = 0; direction < directions; ++direction) {
    auto& levels = plan.levels[direction];
    for (size_t i = 0; i < plan.planes[0].size(); ++i) {
      levels.push_back(make_level(plan.planes[direction][i], plan.planes[1 - direction][i],
                                  iterations, stride, cursor));
    }
    for (size_t i = 0; i + 1 < levels.size(); ++i) levels[i].coarse = levels[i + 1].flow;
  }
  plan.floats = cursor.used();
  return plan;
}

}  // namespace fastvid::search
