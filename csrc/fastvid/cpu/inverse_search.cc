#include "fastvid/cpu/inverse_search.h"

#include "fastvid/cpu/inverse_search_patch.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

constexpr int kBatch = 16;
// Added to the diagonal of the Hessian: flat patches stay where they start.
constexpr float kDamping = 4.0f;
// A step below this many pixels (squared) ends the descent.
constexpr float kSmallStep = 0.02f * 0.02f;
// A motion below kStillRange pixels that explains no more than this share of the difference is
// noise: the patch stands still.
constexpr float kStillShare = 0.6f;
constexpr float kStillRange = 0.5f;
// Zero is where a descent starts if it costs this much less than the coarser level's flow.
constexpr float kZeroFactor = 3.0f;
constexpr float kZeroSlack = 64.0f;
// A neighbour's flow replaces the patch's own if it costs this much less.
constexpr float kPropagateFactor = 0.8f;
constexpr float kPropagateSlack = 8.0f;

// What the descent needs of a patch; gradients have no mean.
struct alignas(64) Template {
  float value[64], dx[64], dy[64];
};

// Sums over the patch of (difference, its square, its products with dx and with dy).
FASTVID_INLINE Quad measure(const Template& patch, const Place& at, int64_t pitch) {
  Pair pixels[kPairs];
  sample(at, pitch, pixels);
  Pair sum = splat(0), square = splat(0), dx = splat(0), dy = splat(0);
  for (int i = 0; i < kPairs; ++i) {
    const Pair difference = pixels[i] - load(patch.value + 16 * i);
    sum = sum + difference;
    square = square + difference * difference;
    dx = dx + difference * load(patch.dx + 16 * i);
    dy = dy + difference * load(patch.dy + 16 * i);
  }
  return sums(sum, square, dx, dy);
}

FASTVID_INLINE float cost_of(const Quad& sums) {
  const float cost = sums[1] - sums[0] * sums[0] * (1.0f / 64);
  return cost > 0 ? cost : 0;
}

struct Symmetric {
  float xx, xy, yy;
};

// The Hessian of the patch, and the inverse of the damped one.
struct Curvature {
  Symmetric hessian, inverse;
};

FASTVID_INLINE Curvature prepare(const SearchPlane& plane, int64_t x, int64_t y, Template& patch) {
  const float* p = plane.data + y * plane.pitch + x;
  const int64_t pitch = plane.pitch;
  const Pair half = splat(0.5f);
  Pair dx[kPairs], dy[kPairs];
  Pair sum_x = splat(0), sum_y = splat(0);
  for (int i = 0; i < kPairs; ++i, p += 2 * pitch) {
    store(patch.value + 16 * i, load_rows(p, p + pitch));
    dx[i] = (load_rows(p + 1, p + pitch + 1) - load_rows(p - 1, p + pitch - 1)) * half;
    dy[i] = (load_rows(p + pitch, p + 2 * pitch) - load_rows(p - pitch, p)) * half;
    sum_x = sum_x + dx[i];
    sum_y = sum_y + dy[i];
  }
  const Quad mean = sums(sum_x, sum_y, sum_x, sum_y) * (1.0f / 64);
  const Pair mean_x = splat(mean[0]), mean_y = splat(mean[1]);
  Pair xx = splat(0), xy = splat(0), yy = splat(0);
  for (int i = 0; i < kPairs; ++i) {
    const Pair x_only = dx[i] - mean_x, y_only = dy[i] - mean_y;
    store(patch.dx + 16 * i, x_only);
    store(patch.dy + 16 * i, y_only);
    xx = xx + x_only * x_only;
    xy = xy + x_only * y_only;
    yy = yy + y_only * y_only;
  }
  const Quad hessian = sums(xx, xy, yy, yy);
  const float a = hessian[0] + kDamping, b = hessian[1], c = hessian[2] + kDamping;
  const float determinant = a * c - b * b;
  const float scale = determinant > 1.0f ? 1.0f / determinant : 0.0f;
  return {{hessian[0], b, hessian[2]}, {c * scale, -(b * scale), a * scale}};
}

// Patches that descend side by side, so that the latency of one hides behind the others.
struct Batch {
  Template patch[kBatch];
  Curvature curvature[kBatch];
  float x[kBatch], y[kBatch];                                 // the corner of the patch
  float dx[kBatch], dy[kBatch];                               // where it stands
  float best_dx[kBatch], best_dy[kBatch], best_cost[kBatch];  // the best place so far
  float start_dx[kBatch], start_dy[kBatch], start_cost[kBatch];
  float still_cost[kBatch];  // at zero
};

FASTVID_INLINE Place place_of(const SearchPlane& to, const Batch& batch, int64_t i, float dx,
                              float dy) {
  return place(to, batch.x[i] + dx, batch.y[i] + dy);
}

// Keeps a patch within its own size of the plane.
FASTVID_INLINE float keep_inside(float flow, float corner, int64_t size) {
  return clamp(flow, -(corner + kPatchSize), static_cast<float>(size) - corner);
}

// Gradient descent of the patches listed, each until its step is small, its cost rises, or it has
// gone further than a patch.
void descend(const SearchPlane& to, Batch& batch, int* active, int count, int iterations) {
  for (int iteration = 0; iteration < iterations && count > 0; ++iteration) {
    int left = 0;
    for (int k = 0; k < count; ++k) {
      const int i = active[k];
      const float dx = batch.dx[i], dy = batch.dy[i];
      const Quad sums = measure(batch.patch[i], place_of(to, batch, i, dx, dy), to.pitch);
      const float cost = cost_of(sums);
      const bool better = (cost < batch.best_cost[i]) | (iteration == 0);
      batch.best_dx[i] = better ? dx : batch.best_dx[i];
      batch.best_dy[i] = better ? dy : batch.best_dy[i];
      batch.best_cost[i] = better ? cost : batch.best_cost[i];
      const Symmetric& inverse = batch.curvature[i].inverse;
      const float step_x = inverse.xx * sums[2] + inverse.xy * sums[3];
      const float step_y = inverse.xy * sums[2] + inverse.yy * sums[3];
      const float new_dx = keep_inside(dx - step_x, batch.x[i], to.width);
      const float new_dy = keep_inside(dy - step_y, batch.y[i], to.height);
      const float far_x = new_dx - batch.start_dx[i], far_y = new_dy - batch.start_dy[i];
      const bool far = far_x * far_x + far_y * far_y > 1.0f * kPatchSize * kPatchSize;
      const bool small = step_x * step_x + step_y * step_y < kSmallStep;
      batch.dx[i] = new_dx;
      batch.dy[i] = new_dy;
      active[left] = i;
      left += better & !far & !small;
    }
    count = left;
  }
}

// The best place of a patch, or zero where that is as good.
FASTVID_INLINE void settle(const Batch& batch, int64_t i, const SearchGrid& grid, int64_t at) {
  const float dx = batch.best_dx[i], dy = batch.best_dy[i], cost = batch.best_cost[i];
  const bool slow =
      (dx < kStillRange) & (dx > -kStillRange) & (dy < kStillRange) & (dy > -kStillRange);
  const Symmetric& h = batch.curvature[i].hessian;
  const float explained = dx * dx * h.xx + 2.0f * (dx * dy * h.xy) + dy * dy * h.yy;
  const bool still = slow & (explained <= batch.still_cost[i] * kStillShare);
  grid.dx[at] = still ? 0.0f : dx;
  grid.dy[at] = still ? 0.0f : dy;
  grid.cost[at] = still ? batch.still_cost[i] : cost;
}

FASTVID_INLINE int64_t corner_of(int64_t index, int stride, int64_t size) {
  return least(index * stride, size - kPatchSize);
}

// Twice the mean of the four coarse pixels at the middle of the patch.
FASTVID_INLINE void coarse_flow(const SearchFlow& coarse, int64_t x, int64_t y, float& dx,
                                float& dy) {
  const int64_t left = least((x + 3) >> 1, coarse.width - 1);
  const int64_t right = least(left + 1, coarse.width - 1);
  const int64_t above = least((y + 3) >> 1, coarse.height - 1) * coarse.width;
  const int64_t below = least(((y + 3) >> 1) + 1, coarse.height - 1) * coarse.width;
  const auto mean = [&](const float* p) {
    return ((p[above + left] + p[above + right]) + (p[below + left] + p[below + right])) * 0.5f;
  };
  dx = mean(coarse.dx);
  dy = mean(coarse.dy);
}

}  // namespace

void search_patches(const SearchLevel& level, int64_t row) {
  const SearchPlane& to = level.to;
  const int64_t y = corner_of(row, level.stride, level.from.height);
  Batch batch;
  for (int64_t first = 0; first < level.columns; first += kBatch) {
    const int count = static_cast<int>(least(kBatch, level.columns - first));
    int active[kBatch];
    for (int i = 0; i < count; ++i) {
      const int64_t x = corner_of(first + i, level.stride, level.from.width);
      batch.curvature[i] = prepare(level.from, x, y, batch.patch[i]);
      batch.x[i] = static_cast<float>(x);
      batch.y[i] = static_cast<float>(y);
      float dx = 0, dy = 0;
      if (level.coarse.dx != nullptr) coarse_flow(level.coarse, x, y, dx, dy);
      dx = keep_inside(dx, batch.x[i], to.width);
      dy = keep_inside(dy, batch.y[i], to.height);
      const float still = cost_of(measure(batch.patch[i], place_of(to, batch, i, 0, 0), to.pitch));
      const float cost = cost_of(measure(batch.patch[i], place_of(to, batch, i, dx, dy), to.pitch));
      const bool from_zero = still * kZeroFactor + kZeroSlack < cost;
      batch.dx[i] = batch.start_dx[i] = from_zero ? 0.0f : dx;
      batch.dy[i] = batch.start_dy[i] = from_zero ? 0.0f : dy;
      batch.still_cost[i] = still;
      active[i] = i;
    }
    descend(to, batch, active, count, level.iterations);
    for (int i = 0; i < count; ++i) {
      settle(batch, i, level.found, row * level.columns + first + i);
    }
  }
}

void propagate_patches(const SearchLevel& level, int64_t row) {
  const SearchPlane& to = level.to;
  const SearchGrid& found = level.found;
  const int64_t y = corner_of(row, level.stride, level.from.height);
  Batch batch;
  int active[kBatch];
  int64_t where[kBatch];
  int count = 0;
  const auto flush = [&] {
    descend(to, batch, active, count, level.iterations);
    for (int i = 0; i < count; ++i) settle(batch, i, level.propagated, where[i]);
    count = 0;
  };
  for (int64_t column = 0; column < level.columns; ++column) {
    const int64_t at = row * level.columns + column;
    const float own_dx = found.dx[at], own_dy = found.dy[at], own_cost = found.cost[at];
    level.propagated.dx[at] = own_dx;
    level.propagated.dy[at] = own_dy;
    level.propagated.cost[at] = own_cost;
    const int64_t neighbours[4] = {at - (column > 0), at + (column + 1 < level.columns),
                                   at - (row > 0 ? level.columns : 0),
                                   at + (row + 1 < level.rows ? level.columns : 0)};
    const int i = count;
    bool prepared = false, improved = false;
    float best_cost = own_cost * kPropagateFactor - kPropagateSlack;
    for (const int64_t other : neighbours) {
      const float apart_x = found.dx[other] - own_dx, apart_y = found.dy[other] - own_dy;
      if (best_cost <= 0 || apart_x * apart_x + apart_y * apart_y < 0.25f) continue;
      if (!prepared) {
        prepared = true;
        const int64_t x = corner_of(column, level.stride, level.from.width);
        batch.curvature[i] = prepare(level.from, x, y, batch.patch[i]);
        batch.x[i] = static_cast<float>(x);
        batch.y[i] = static_cast<float>(y);
      }
      const float dx = keep_inside(found.dx[other], batch.x[i], to.width);
      const float dy = keep_inside(found.dy[other], batch.y[i], to.height);
      const float cost = cost_of(measure(batch.patch[i], place_of(to, batch, i, dx, dy), to.pitch));
      if (cost >= best_cost) continue;
      improved = true;
      best_cost = cost;
      batch.dx[i] = batch.start_dx[i] = dx;
      batch.dy[i] = batch.start_dy[i] = dy;
    }
    if (!improved) continue;
    batch.still_cost[i] = cost_of(measure(batch.patch[i], place_of(to, batch, i, 0, 0), to.pitch));
    where[i] = at;
    active[i] = i;
    if (++count == kBatch) flush();
  }
  flush();
}

}  // namespace fastvid::cpu::FASTVID_ISA
