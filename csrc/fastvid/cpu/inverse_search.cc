#include "fastvid/cpu/inverse_search.h"

#include "fastvid/cpu/inverse_search_patch.h"

namespace fastvid::cpu::FASTVID_ISA {
namespace {

constexpr int kBatch = 16;
// What a patch may take over: zero and the flows of four neighbours.
constexpr int kTries = 5;

// What the descent needs of a patch; gradients have no mean.
struct alignas(64) Template {
  float value[64], dx[64], dy[64];
};

// Sums over the patch of (difference, its square, its products with dx and with dy).
FASTVID_INLINE Quad measure(const Template& patch, const Place& at, int64_t pitch) {
  Pair pixels[kPairs];
  sample(at, pitch, pixels);
  Pair sum = pixels[0] - load(patch.value), square = sum * sum;
  Pair dx = sum * load(patch.dx), dy = sum * load(patch.dy);
  for (int i = 1; i < kPairs; ++i) {
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

// The cost of a patch, its rows `patch_pitch` apart, when it lies at `at`.
FASTVID_INLINE float compare(const float* patch, int64_t patch_pitch, const Place& at,
                             int64_t pitch) {
  Pair pixels[kPairs];
  sample(at, pitch, pixels);
  Pair sum = pixels[0] - load_rows(patch, patch + patch_pitch), square = sum * sum;
  for (int i = 1; i < kPairs; ++i) {
    patch += 2 * patch_pitch;
    const Pair difference = pixels[i] - load_rows(patch, patch + patch_pitch);
    sum = sum + difference;
    square = square + difference * difference;
  }
  return cost_of(sums(sum, square, sum, square));
}

// Fills in a patch; returns the Hessian: xx, xy, yy.
FASTVID_INLINE Quad prepare(const Plane& plane, int64_t x, int64_t y, Template& patch) {
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
  return sums(xx, xy, yy, yy);
}

// Patches that descend side by side: the latency of one hides behind the others, and what is one
// number per patch is computed for all at once.
struct Batch {
  Template patch[kBatch];
  int64_t index[kBatch];  // in the grid
  struct alignas(64) Numbers {
    float x[kBatch], y[kBatch];  // the corner of the patch
    float hessian[3][kBatch];    // xx, xy, yy
    float inverse[3][kBatch];    // of the damped Hessian
    float start_dx[kBatch], start_dy[kBatch];
    float dx[kBatch], dy[kBatch];  // where it stands
    float best_dx[kBatch], best_dy[kBatch], best_cost[kBatch];
    float right[kBatch], down[kBatch];  // the place it stands at: weights and pixel
    int column[kBatch], row[kBatch];
    float sums[4][kBatch];  // what measure() found there
    int active[kBatch];     // -1 or 0
  } n{};
  int count = 0;
};

// Keeps a patch within its own size of the plane.
FASTVID_INLINE float keep_inside(float flow, float corner, int64_t size) {
  return clamp(flow, -(corner + kPatchSize), static_cast<float>(size) - corner);
}

FASTVID_INLINE Vec keep_inside(const Vec& flow, const Vec& corner, float size) {
  const Vec low = -(corner + static_cast<float>(kPatchSize)), high = size - corner;
  const Vec raised = flow > low ? flow : low;
  return raised < high ? raised : high;
}

FASTVID_INLINE int64_t corner_of(int64_t index, int stride, int64_t size) {
  return least(index * stride, size - kPatchSize);
}

void add_to_batch(const Level& level, Batch& batch, int64_t row, int64_t column, float dx,
                  float dy) {
  const int i = batch.count++;
  const int64_t x = corner_of(column, level.stride, level.from.width);
  const int64_t y = corner_of(row, level.stride, level.from.height);
  const Quad hessian = prepare(level.from, x, y, batch.patch[i]);
  auto& n = batch.n;
  for (int k = 0; k < 3; ++k) n.hessian[k][i] = hessian[k];
  batch.index[i] = row * level.columns + column;
  n.x[i] = static_cast<float>(x);
  n.y[i] = static_cast<float>(y);
  n.dx[i] = n.start_dx[i] = keep_inside(dx, n.x[i], level.to.width);
  n.dy[i] = n.start_dy[i] = keep_inside(dy, n.y[i], level.to.height);
}

void start_batch(Batch& batch) {
  auto& n = batch.n;
  for (int i = 0; i < kBatch; i += kLanes) {
    const Vec a = load_lanes(n.hessian[0] + i) + kDamping, b = load_lanes(n.hessian[1] + i);
    const Vec c = load_lanes(n.hessian[2] + i) + kDamping;
    const Vec determinant = a * c - b * b;
    const Vec scale = determinant > 1.0f ? 1.0f / determinant : Vec{};
    store_lanes(n.inverse[0] + i, c * scale);
    store_lanes(n.inverse[1] + i, -(b * scale));
    store_lanes(n.inverse[2] + i, a * scale);
    store_lanes(n.best_cost + i, 3e38f - Vec{});
  }
  for (int i = 0; i < kBatch; ++i) n.active[i] = i < batch.count ? -1 : 0;
}

// Splits `at` into a whole number and the share of the next one.
FASTVID_INLINE void split(const Vec& at, int* whole, float* share) {
  Integers floor = __builtin_convertvector(at, Integers);
  floor += at < __builtin_convertvector(floor, Vec);
  std::memcpy(whole, &floor, sizeof(floor));
  store_lanes(share, at - __builtin_convertvector(floor, Vec));
}

void find_places(Batch& batch) {
  auto& n = batch.n;
  for (int i = 0; i < kBatch; i += kLanes) {
    split(load_lanes(n.x + i) + load_lanes(n.dx + i), n.column + i, n.right + i);
    split(load_lanes(n.y + i) + load_lanes(n.dy + i), n.row + i, n.down + i);
  }
}

// Takes a step from what was measured: keeps the best place and drops the patches that are done,
// because the step is small, the cost rose, or they went further than a patch.
void step(const Plane& to, Batch& batch) {
  auto& n = batch.n;
  const auto width = static_cast<float>(to.width), height = static_cast<float>(to.height);
  for (int i = 0; i < kBatch; i += kLanes) {
    const Vec sum = load_lanes(n.sums[0] + i), square = load_lanes(n.sums[1] + i);
    const Vec by_dx = load_lanes(n.sums[2] + i), by_dy = load_lanes(n.sums[3] + i);
    const Vec varied = square - sum * sum * (1.0f / 64);
    const Vec cost = varied > 0.0f ? varied : Vec{};
    const Vec xy = load_lanes(n.inverse[1] + i);
    const Vec step_x = load_lanes(n.inverse[0] + i) * by_dx + xy * by_dy;
    const Vec step_y = xy * by_dx + load_lanes(n.inverse[2] + i) * by_dy;
    const Vec dx = load_lanes(n.dx + i), dy = load_lanes(n.dy + i);
    const Vec new_dx = keep_inside(dx - step_x, load_lanes(n.x + i), width);
    const Vec new_dy = keep_inside(dy - step_y, load_lanes(n.y + i), height);
    const Vec far_x = new_dx - load_lanes(n.start_dx + i);
    const Vec far_y = new_dy - load_lanes(n.start_dy + i);
    Integers active;
    std::memcpy(&active, n.active + i, sizeof(active));
    const Vec best_cost = load_lanes(n.best_cost + i);
    const Integers near = far_x * far_x + far_y * far_y <= kFar;
    const Integers small = step_x * step_x + step_y * step_y < kSmallStep;
    const Integers better = active & (cost < best_cost);
    const Integers last = small & near;
    store_lanes(n.best_dx + i, better ? (last ? new_dx : dx) : load_lanes(n.best_dx + i));
    store_lanes(n.best_dy + i, better ? (last ? new_dy : dy) : load_lanes(n.best_dy + i));
    store_lanes(n.best_cost + i, better ? cost : best_cost);
    store_lanes(n.dx + i, new_dx);
    store_lanes(n.dy + i, new_dy);
    active = better & near & ~small;
    std::memcpy(n.active + i, &active, sizeof(active));
  }
}

// Lists the active patches; returns their number.
FASTVID_INLINE int list_active(const Batch& batch, int (&list)[kBatch]) {
  int count = 0;
  for (int i = 0; i < batch.count; ++i) {
    list[count] = i;
    count -= batch.n.active[i];
  }
  return count;
}

void measure_active(const Plane& to, Batch& batch, const int (&list)[kBatch], int count) {
  auto& n = batch.n;
  for (int k = 0; k < count; ++k) {
    const int i = list[k];
    const Place at{to.data + n.row[i] * to.pitch + n.column[i], n.right[i], n.down[i]};
    const Quad sums = measure(batch.patch[i], at, to.pitch);
    for (int j = 0; j < 4; ++j) n.sums[j][i] = sums[j];
  }
}

void descend(const Plane& to, Batch& batch, int iterations) {
  start_batch(batch);
  int list[kBatch];
  for (int iteration = 0; iteration < iterations; ++iteration) {
    const int count = list_active(batch, list);
    if (count == 0) return;
    find_places(batch);
    measure_active(to, batch, list, count);
    step(to, batch);
  }
}

// Sets the best place of those patches to zero whose motion is noise around it.
void rest(const Plane& to, Batch& batch) {
  auto& n = batch.n;
  for (int i = 0; i < batch.count; ++i) {
    const float dx = n.best_dx[i], dy = n.best_dy[i];
    const bool slow = (dx < kStillRange) & (dx > -kStillRange) & (dy < kStillRange) &
                      (dy > -kStillRange) & ((dx != 0) | (dy != 0));
    if (!slow) continue;
    const float cost =
        compare(batch.patch[i].value, kPatchSize, place(to, n.x[i], n.y[i]), to.pitch);
    const float explained =
        dx * dx * n.hessian[0][i] + 2.0f * (dx * dy * n.hessian[1][i]) + dy * dy * n.hessian[2][i];
    if (explained > cost * kStillShare) continue;
    n.best_dx[i] = n.best_dy[i] = 0;
    n.best_cost[i] = cost;
  }
}

// Descends and writes the batch to the grid.
void finish(const Level& level, Batch& batch, const Grid& grid) {
  descend(level.to, batch, level.iterations);
  rest(level.to, batch);
  for (int i = 0; i < batch.count; ++i) {
    const int64_t at = batch.index[i];
    grid.dx[at] = batch.n.best_dx[i];
    grid.dy[at] = batch.n.best_dy[i];
    grid.cost[at] = batch.n.best_cost[i];
    grid.changed[at] = 1.0f;
  }
  batch.count = 0;
}

// Twice the mean of the four coarse pixels at the middle of the patch.
FASTVID_INLINE void coarse_flow(const Flow& coarse, int64_t x, int64_t y, float& dx, float& dy) {
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

// A flow that a patch of a row may take.
struct Try {
  float dx[kTries * kBatch], dy[kTries * kBatch], cost[kTries * kBatch];
  int patch[kTries * kBatch];
  int count = 0;

  void add(int i, float x, float y, bool wanted) {
    dx[count] = x;
    dy[count] = y;
    patch[count] = i;
    count += wanted;
  }
};

FASTVID_INLINE bool apart(float dx, float dy) { return dx * dx + dy * dy >= kApart; }

// What the patch could take over: zero (once), and its neighbours' flows if they, or its own, are
// new and they are none that it has tried.
FASTVID_INLINE void add_tries(const Level& level, int64_t row, int64_t column, int i,
                              bool first_round, Try& tries) {
  const Grid& found = level.found;
  const int64_t at = row * level.columns + column;
  const int64_t others[4] = {at - (column > 0), at + (column + 1 < level.columns),
                             at - (row > 0 ? level.columns : 0),
                             at + (row + 1 < level.rows ? level.columns : 0)};
  const float own_dx = found.dx[at], own_dy = found.dy[at];
  const bool changed = found.changed[at] != 0;
  tries.add(i, 0, 0, first_round & apart(own_dx, own_dy));
  for (int k = 0; k < 4; ++k) {
    const float dx = found.dx[others[k]], dy = found.dy[others[k]];
    bool wanted = (changed | (found.changed[others[k]] != 0)) & apart(dx - own_dx, dy - own_dy);
    for (int j = 0; j < k; ++j) {
      wanted &= apart(dx - found.dx[others[j]], dy - found.dy[others[j]]);
    }
    tries.add(i, dx, dy, wanted);
  }
}

}  // namespace

void search_patches(const Level& level, int64_t row) {
  const int64_t y = corner_of(row, level.stride, level.from.height);
  Batch batch;
  for (int64_t column = 0; column < level.columns; ++column) {
    const int64_t x = corner_of(column, level.stride, level.from.width);
    float dx = 0, dy = 0;
    if (level.coarse.dx != nullptr) coarse_flow(level.coarse, x, y, dx, dy);
    add_to_batch(level, batch, row, column, dx, dy);
    if (batch.count == kBatch) finish(level, batch, level.found);
  }
  finish(level, batch, level.found);
}

void propagate_patches(const Level& level, int64_t row, bool first_round) {
  const Plane& to = level.to;
  const Grid& found = level.found;
  const Grid& out = level.propagated;
  const int64_t y = corner_of(row, level.stride, level.from.height);
  const float* pixels = level.from.data + y * level.from.pitch;
  Batch batch;
  for (int64_t first = 0; first < level.columns; first += kBatch) {
    const int count = static_cast<int>(least(kBatch, level.columns - first));
    float limit[kBatch], zero_limit[kBatch];
    int taken[kBatch];
    Try tries;
    for (int i = 0; i < count; ++i) {
      const int64_t at = row * level.columns + first + i;
      out.dx[at] = found.dx[at];
      out.dy[at] = found.dy[at];
      out.cost[at] = found.cost[at];
      out.changed[at] = 0;
      limit[i] = found.cost[at] * kNeighbourShare - kSlack;
      zero_limit[i] = found.cost[at] * kZeroShare - kSlack;
      taken[i] = -1;
      if (limit[i] > 0) add_tries(level, row, first + i, i, first_round, tries);
    }
    for (int k = 0; k < tries.count; ++k) {
      const int64_t x = corner_of(first + tries.patch[k], level.stride, level.from.width);
      const auto left = static_cast<float>(x), top = static_cast<float>(y);
      const Place at = place(to, left + keep_inside(tries.dx[k], left, to.width),
                             top + keep_inside(tries.dy[k], top, to.height));
      tries.cost[k] = compare(pixels + x, level.from.pitch, at, to.pitch);
    }
    for (int k = 0; k < tries.count; ++k) {
      const int i = tries.patch[k];
      const bool zero = (tries.dx[k] == 0) & (tries.dy[k] == 0);
      if (tries.cost[k] >= limit[i] || (zero && tries.cost[k] >= zero_limit[i])) continue;
      limit[i] = tries.cost[k];
      taken[i] = k;
    }
    for (int i = 0; i < count; ++i) {
      if (taken[i] < 0) continue;
      add_to_batch(level, batch, row, first + i, tries.dx[taken[i]], tries.dy[taken[i]]);
      if (batch.count == kBatch) finish(level, batch, out);
    }
  }
  finish(level, batch, out);
}

}  // namespace fastvid::cpu::FASTVID_ISA
