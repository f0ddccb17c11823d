#include <utility>

#include "fastvid/core/error.h"
#include "fastvid/core/search_plan.h"
#include "fastvid/cuda/device.h"
#include "fastvid/cuda/inverse_search.cuh"
#include "fastvid/cuda/inverse_search.h"
#include "fastvid/cuda/workspace.h"

namespace fastvid::cuda {
namespace {

constexpr const char* kOp = "inverse_search";
constexpr int kThreads = 128;
constexpr int kPatches = kThreads / kPatchThreads;

// Both directions of a level in one launch: blockIdx.y chooses.
struct Levels {
  Level direction[2];
};

struct Planes {
  Plane plane[2];
};

struct Images {
  const float* image[2];
};

// The pixel of a padded plane that thread i writes; false beyond the plane.
__device__ bool padded_pixel(const Plane& plane, int64_t i, int64_t* x, int64_t* y) {
  const int64_t width = plane.width + 2 * kPlanePadding;
  *x = i % width - kPlanePadding;
  *y = i / width - kPlanePadding;
  return *y < plane.height + kPlanePadding;
}

__device__ int64_t inside(int64_t at, int64_t size) { return min(max(at, int64_t{0}), size - 1); }

__device__ int64_t thread_index() { return int64_t{blockIdx.x} * kThreads + threadIdx.x; }

__global__ void __launch_bounds__(kThreads) load_kernel(Images images, Planes planes) {
  const Plane& plane = planes.plane[blockIdx.y];
  int64_t x, y;
  if (!padded_pixel(plane, thread_index(), &x, &y)) return;
  const int64_t at = inside(y, plane.height) * plane.width + inside(x, plane.width);
  // __saturatef takes NaN to 0.
  plane.data[y * plane.pitch + x] = __saturatef(images.image[blockIdx.y][at]) * 255.0f;
}

__global__ void __launch_bounds__(kThreads) halve_kernel(Planes fine, Planes coarse) {
  const Plane& to = coarse.plane[blockIdx.y];
  const Plane& from = fine.plane[blockIdx.y];
  int64_t x, y;
  if (!padded_pixel(to, thread_index(), &x, &y)) return;
  const int64_t row = 2 * inside(y, to.height), column = 2 * inside(x, to.width);
  const float* upper = from.data + row * from.pitch + column;
  const float* lower = row + 1 < from.height ? upper + from.pitch : upper;
  to.data[y * to.pitch + x] = ((upper[0] + lower[0]) + (upper[1] + lower[1])) * 0.25f;
}

// Twice the mean of the four coarse pixels at the middle of the patch.
__device__ float coarse_flow(const Flow& coarse, const float* flow, int64_t x, int64_t y) {
  const int64_t left = min((x + 3) >> 1, coarse.width - 1);
  const int64_t right = min(left + 1, coarse.width - 1);
  const int64_t above = min((y + 3) >> 1, coarse.height - 1) * coarse.width;
  const int64_t below = min(((y + 3) >> 1) + 1, coarse.height - 1) * coarse.width;
  return ((flow[above + left] + flow[above + right]) + (flow[below + left] + flow[below + right])) *
         0.5f;
}

// Descends from (dx, dy) and writes what it found to patch `at` of the grid.
__device__ void descend(const Level& level, const Patch& patch, float dx, float dy,
                        const Grid& grid, int64_t at) {
  const Plane& to = level.to;
  dx = keep_inside(dx, patch.x, to.width);
  dy = keep_inside(dy, patch.y, to.height);
  const float start_dx = dx, start_dy = dy;
  float best_dx = dx, best_dy = dy, best_cost = 3e38f;
  for (int iteration = 0; iteration < level.iterations; ++iteration) {
    const Sums sums = patch.measure(to, dx, dy);
    if (!(sums.cost() < best_cost)) break;
    const float step_x = patch.inverse_xx * sums.dx + patch.inverse_xy * sums.dy;
    const float step_y = patch.inverse_xy * sums.dx + patch.inverse_yy * sums.dy;
    const float new_dx = keep_inside(dx - step_x, patch.x, to.width);
    const float new_dy = keep_inside(dy - step_y, patch.y, to.height);
    const float far_x = new_dx - start_dx, far_y = new_dy - start_dy;
    const bool near = far_x * far_x + far_y * far_y <= kFar;
    const bool small = step_x * step_x + step_y * step_y < kSmallStep;
    best_cost = sums.cost();
    best_dx = small && near ? new_dx : dx;
    best_dy = small && near ? new_dy : dy;
    if (small || !near) break;
    dx = new_dx;
    dy = new_dy;
  }
  if (fabsf(best_dx) < kStillRange && fabsf(best_dy) < kStillRange &&
      (best_dx != 0 || best_dy != 0)) {
    const float cost = patch.compare(to, 0, 0);
    const float explained = best_dx * best_dx * patch.xx + 2.0f * (best_dx * best_dy * patch.xy) +
                            best_dy * best_dy * patch.yy;
    if (explained <= cost * kStillShare) {
      best_dx = best_dy = 0;
      best_cost = cost;
    }
  }
  if (threadIdx.x % kPatchThreads != 0) return;
  grid.dx[at] = best_dx;
  grid.dy[at] = best_dy;
  grid.cost[at] = best_cost;
  grid.changed[at] = 1.0f;
}

__device__ int64_t patch_index() {
  return int64_t{blockIdx.x} * kPatches + threadIdx.x / kPatchThreads;
}

__global__ void __launch_bounds__(kThreads) search_kernel(Levels levels) {
  const Level& level = levels.direction[blockIdx.y];
  const int64_t at = patch_index();
  if (at >= level.columns * level.rows) return;
  const int64_t x = corner_of(at % level.columns, level.stride, level.from.width);
  const int64_t y = corner_of(at / level.columns, level.stride, level.from.height);
  Patch patch(level.from, x, y);
  patch.prepare(level.from);
  float dx = 0, dy = 0;
  if (level.coarse.dx != nullptr) {
    dx = coarse_flow(level.coarse, level.coarse.dx, x, y);
    dy = coarse_flow(level.coarse, level.coarse.dy, x, y);
  }
  descend(level, patch, dx, dy, level.found, at);
}

__device__ bool apart(float dx, float dy) { return dx * dx + dy * dy >= kApart; }

__global__ void __launch_bounds__(kThreads) propagate_kernel(Levels levels, bool first_round) {
  const Level& level = levels.direction[blockIdx.y];
  const Grid& found = level.found;
  const int64_t at = patch_index();
  if (at >= level.columns * level.rows) return;
  const int64_t column = at % level.columns, row = at / level.columns;
  Patch patch(level.from, corner_of(column, level.stride, level.from.width),
              corner_of(row, level.stride, level.from.height));
  const float own_dx = found.dx[at], own_dy = found.dy[at], own_cost = found.cost[at];
  const bool changed = found.changed[at] != 0;
  float limit = own_cost * kNeighbourShare - kSlack;
  const float zero_limit = own_cost * kZeroShare - kSlack;
  bool taken = false;
  float best_dx = own_dx, best_dy = own_dy;
  const auto attempt = [&](float dx, float dy) {
    const float cost = patch.compare(level.to, keep_inside(dx, patch.x, level.to.width),
                                     keep_inside(dy, patch.y, level.to.height));
    if (cost >= limit || (dx == 0 && dy == 0 && cost >= zero_limit)) return;
    taken = true;
    limit = cost;
    best_dx = dx;
    best_dy = dy;
  };
  if (limit > 0) {
    if (first_round && apart(own_dx, own_dy)) attempt(0, 0);
    const int64_t others[4] = {at - (column > 0), at + (column + 1 < level.columns),
                               at - (row > 0 ? level.columns : 0),
                               at + (row + 1 < level.rows ? level.columns : 0)};
    for (int k = 0; k < 4; ++k) {
      const float dx = found.dx[others[k]], dy = found.dy[others[k]];
      bool wanted = (changed || found.changed[others[k]] != 0) && apart(dx - own_dx, dy - own_dy);
      for (int j = 0; j < k; ++j) {
        wanted = wanted && apart(dx - found.dx[others[j]], dy - found.dy[others[j]]);
      }
      if (wanted) attempt(dx, dy);
    }
  }
  if (taken) {
    patch.prepare(level.from);
    descend(level, patch, best_dx, best_dy, level.propagated, at);
  } else if (threadIdx.x % kPatchThreads == 0) {
    level.propagated.dx[at] = own_dx;
    level.propagated.dy[at] = own_dy;
    level.propagated.cost[at] = own_cost;
    level.propagated.changed[at] = 0;
  }
}

// The patches that may cover pixel `at` along one axis: [first, end).
__device__ void covering(int64_t at, int stride, int64_t count, int64_t size, int64_t* first,
                         int64_t* end) {
  *first = max(int64_t{0}, (at - kPatchSize + stride) / stride);
  // The last patch stands back from its place in the grid.
  *end = at >= size - kPatchSize ? count : min(count, at / stride + 1);
  *first = min(*first, count - 1);
}

__global__ void __launch_bounds__(kThreads) densify_kernel(Levels levels) {
  const Level& level = levels.direction[blockIdx.y];
  const int64_t i = thread_index();
  const int64_t width = level.flow.width, height = level.flow.height;
  if (i >= width * height) return;
  const int64_t x = i % width, y = i / width;
  const float value = level.from.data[y * level.from.pitch + x];
  const int turns = (kPatchSize + level.stride - 1) / level.stride;
  int64_t rows[2], columns[2];
  covering(y, level.stride, level.rows, height, &rows[0], &rows[1]);
  covering(x, level.stride, level.columns, width, &columns[0], &columns[1]);
  float weights = 0, sum_dx = 0, sum_dy = 0;
  for (int64_t row = rows[0]; row < rows[1]; ++row) {
    const int64_t top = corner_of(row, level.stride, height);
    if (y < top || y >= top + kPatchSize) continue;
    // The order in which the CPU adds.
    for (int turn = 0; turn < turns; ++turn) {
      for (int64_t column = columns[0]; column < columns[1]; ++column) {
        const int64_t left = corner_of(column, level.stride, width);
        if (column % turns != turn || x < left || x >= left + kPatchSize) continue;
        const int64_t at = row * level.columns + column;
        const float dx = level.propagated.dx[at], dy = level.propagated.dy[at];
        const Place place(level.to, static_cast<float>(left) + dx, static_cast<float>(top) + dy);
        const float found =
            place.sample(level.to.pitch, static_cast<int>(x - left), static_cast<int>(y - top));
        const float weight = 1.0f / fmaxf(fabsf(found - value), 1.0f);
        weights += weight;
        sum_dx += weight * dx;
        sum_dy += weight * dy;
      }
    }
  }
  const float scale = 1.0f / weights;
  level.flow.dx[i] = sum_dx * scale;
  level.flow.dy[i] = sum_dy * scale;
}

__global__ void __launch_bounds__(kThreads) double_flow_kernel(Flow coarse, Flow fine) {
  const int64_t i = thread_index();
  if (i >= fine.width * fine.height) return;
  const int64_t x = i % fine.width, y = i / fine.width;
  const int64_t near_x = x >> 1, far_x = inside(near_x + ((x & 1) ? 1 : -1), coarse.width);
  const int64_t near_y = y >> 1, far_y = inside(near_y + ((y & 1) ? 1 : -1), coarse.height);
  const auto mix = [&](const float* p) {
    const float* close = p + near_y * coarse.width;
    const float* away = p + far_y * coarse.width;
    const float upper = close[near_x] * 0.75f + close[far_x] * 0.25f;
    const float lower = away[near_x] * 0.75f + away[far_x] * 0.25f;
    return (upper * 0.75f + lower * 0.25f) * 2.0f;
  };
  fine.dx[i] = mix(coarse.dx);
  fine.dy[i] = mix(coarse.dy);
}

dim3 blocks(int64_t items, int64_t per_block, int copies) {
  return {static_cast<unsigned>((items + per_block - 1) / per_block),
          static_cast<unsigned>(copies)};
}

int64_t padded_pixels(const Plane& plane) {
  return (plane.width + 2 * kPlanePadding) * (plane.height + 2 * kPlanePadding);
}

void search_level(Plan& plan, size_t index, int directions, cudaStream_t stream) {
  const auto both = [&] {
    Levels levels{};
    for (int i = 0; i < directions; ++i) levels.direction[i] = plan.levels[i][index];
    return levels;
  };
  const Level& shape = plan.levels[0][index];
  const dim3 patches = blocks(shape.columns * shape.rows, kPatches, directions);
  search_kernel<<<patches, kThreads, 0, stream>>>(both());
  for (int round = 0; round < kRounds; ++round) {
    for (int i = 0; i < directions && round > 0; ++i) {
      std::swap(plan.levels[i][index].found, plan.levels[i][index].propagated);
    }
    propagate_kernel<<<patches, kThreads, 0, stream>>>(both(), round == 0);
  }
  const dim3 pixels = blocks(shape.flow.width * shape.flow.height, kThreads, directions);
  densify_kernel<<<pixels, kThreads, 0, stream>>>(both());
}

void build_pyramids(const Plan& plan, const Images& images, cudaStream_t stream) {
  const auto both = [&](size_t i) { return Planes{{plan.planes[0][i], plan.planes[1][i]}}; };
  for (size_t i = 0; i < plan.planes[0].size(); ++i) {
    const dim3 grid = blocks(padded_pixels(plan.planes[0][i]), kThreads, 2);
    if (i == 0) {
      load_kernel<<<grid, kThreads, 0, stream>>>(images, both(0));
    } else {
      halve_kernel<<<grid, kThreads, 0, stream>>>(both(i - 1), both(i));
    }
  }
}

void search_pair(Plan plan, const Images& images, float* const (&flows)[2], int64_t finest_level,
                 cudaStream_t stream) {
  const int directions = flows[1] == nullptr ? 1 : 2;
  const auto finest = static_cast<size_t>(finest_level);
  for (int i = 0; i < directions; ++i) {
    Flow& flow = plan.levels[i][0].flow;
    flow.dx = flows[i];
    flow.dy = flows[i] + flow.width * flow.height;
  }
  build_pyramids(plan, images, stream);
  for (size_t level = plan.planes[0].size(); level-- > finest;) {
    search_level(plan, level, directions, stream);
  }
  for (size_t level = finest; level-- > 0;) {
    for (int i = 0; i < directions; ++i) {
      const Flow& fine = plan.levels[i][level].flow;
      double_flow_kernel<<<blocks(fine.width * fine.height, kThreads, 1), kThreads, 0, stream>>>(
          plan.levels[i][level + 1].flow, fine);
    }
  }
}

}  // namespace

void inverse_search(const Tensor& luma0, const Tensor& luma1, const Tensor& flow01,
                    const Tensor& flow10, const InverseSearchOptions& options, void* opaque) {
  const DeviceGuard guard(kOp, {&luma0, &luma1, &flow01, &flow10});
  const auto stream = static_cast<cudaStream_t>(opaque);
  const int64_t height = luma0.dim(2), width = luma0.dim(3), pixels = height * width;
  if (luma0.shape.elements() == 0) return;
  if (too_small(width, height, options.finest)) {
    const size_t bytes = static_cast<size_t>(flow01.shape.elements()) * sizeof(float);
    (void)cudaMemsetAsync(flow01.data, 0, bytes, stream);
    if (flow10.present()) (void)cudaMemsetAsync(flow10.data, 0, bytes, stream);
    check_launch(kOp);
    return;
  }
  const auto make = [&](float* memory) {
    return make_plan(width, height, flow10.present() ? 2 : 1, options.iterations, options.stride,
                     options.finest, memory);
  };
  const Workspace workspace(kOp, make(nullptr).floats * sizeof(float), stream);
  for (int64_t n = 0; n < luma0.dim(0); ++n) {
    const Images images{
        {luma0.as<const float>() + n * pixels, luma1.as<const float>() + n * pixels}};
    float* const flows[2] = {flow01.as<float>() + 2 * n * pixels,
                             flow10.present() ? flow10.as<float>() + 2 * n * pixels : nullptr};
    search_pair(make(static_cast<float*>(workspace.data())), images, flows, options.finest, stream);
    check_launch(kOp);
  }
}

}  // namespace fastvid::cuda
