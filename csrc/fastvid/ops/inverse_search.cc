#include "fastvid/ops/inverse_search.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "fastvid/core/arena.h"
#include "fastvid/core/error.h"
#include "fastvid/core/isa.h"
#include "fastvid/core/search_plan.h"
#include "fastvid/cpu/inverse_search.h"
#include "fastvid/cuda/inverse_search.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "inverse_search";
// Rows of one task of the pyramid and of the dense flow.
constexpr int64_t kRows = 16;
// Levels of at most this many pixels are searched by one task per direction: handing out their rows
// and waiting for them would cost more than it saves.
constexpr int64_t kSmallLevel = 1 << 14;

void require_range(const char* name, int64_t value, int64_t low, int64_t high) {
  if (value >= low && value <= high) return;
  throw InputError(std::string(kOp) + ": " + name + " must be from " + std::to_string(low) +
                   " to " + std::to_string(high) + ", got " + std::to_string(value));
}

// Runs all tasks on the calling thread.
class Alone final : public Executor {
 public:
  void run(size_t count, void (*task)(void*, size_t), void* context) const override {
    for (size_t i = 0; i < count; ++i) task(context, i);
  }
};

void build_pyramids(const search::Plan& plan, const float* luma0, const float* luma1,
                    const Executor& executor) {
  const auto load = FASTVID_BY_ISA(search_load_rows);
  const auto halve = FASTVID_BY_ISA(search_halve_rows);
  const auto count = static_cast<int64_t>(plan.planes[0].size());
  // A band of full size and its half in one go; the rest, a sixteenth, in one task per image.
  const int64_t height = plan.planes[0][0].height;
  const int64_t bands = (height + 2 * kRows - 1) / (2 * kRows);
  for_rows(executor, 2 * bands, 1, [&](int64_t task, int64_t) {
    const auto& planes = plan.planes[task / bands];
    const int64_t begin = task % bands * 2 * kRows, end = std::min(begin + 2 * kRows, height);
    load(task < bands ? luma0 : luma1, planes[0], begin, end);
    if (count > 1) halve(planes[0], planes[1], begin / 2, (end + 1) / 2);
  });
  for_rows(executor, 2, 1, [&](int64_t image, int64_t) {
    const auto& planes = plan.planes[image];
    for (int64_t i = 2; i < count; ++i) halve(planes[i - 1], planes[i], 0, planes[i].height);
  });
}

// One level in the directions [first, end).
void search_level(search::Plan& plan, size_t index, int first, int end, const Executor& executor) {
  const auto patches = FASTVID_BY_ISA(search_patches);
  const auto propagate = FASTVID_BY_ISA(propagate_patches);
  const auto densify = FASTVID_BY_ISA(densify_rows);
  const search::Level& shape = plan.levels[first][index];
  const int64_t rows = shape.rows, height = shape.flow.height, directions = end - first;
  for_rows(executor, directions * rows, 1, [&](int64_t task, int64_t) {
    patches(plan.levels[first + task / rows][index], task % rows);
  });
  for (int round = 0; round < search::kRounds; ++round) {
    for (int direction = first; direction < end && round > 0; ++direction) {
      search::Level& level = plan.levels[direction][index];
      std::swap(level.found, level.propagated);
    }
    for_rows(executor, directions * rows, 1, [&](int64_t task, int64_t) {
      propagate(plan.levels[first + task / rows][index], task % rows, round == 0);
    });
  }
  const int64_t bands = (height + kRows - 1) / kRows;
  for_rows(executor, directions * bands, 1, [&](int64_t task, int64_t) {
    const int64_t begin = task % bands * kRows;
    densify(plan.levels[first + task / bands][index], begin, std::min(begin + kRows, height));
  });
}

// From the coarsest level to the finest asked for.
void search_levels(search::Plan& plan, size_t finest, int directions, const Executor& executor) {
  const size_t levels = plan.planes[0].size();
  size_t large = finest;
  while (large < levels &&
         plan.planes[0][large].width * plan.planes[0][large].height > kSmallLevel) {
    ++large;
  }
  for_rows(executor, directions, 1, [&](int64_t direction, int64_t) {
    const auto first = static_cast<int>(direction);
    for (size_t i = levels; i-- > large;) search_level(plan, i, first, first + 1, Alone());
  });
  for (size_t i = large; i-- > finest;) search_level(plan, i, 0, directions, executor);
}

void search_pair(const float* luma0, const float* luma1, float* const (&flows)[2], int64_t height,
                 int64_t width, const InverseSearchOptions& options, const Executor& executor) {
  thread_local Arena arena;
  const int directions = flows[1] == nullptr ? 1 : 2;
  const auto make = [&](float* memory) {
    return search::make_plan(width, height, directions, options.iterations, options.stride,
                             options.finest, memory);
  };
  search::Plan plan = make(arena.reserve(make(nullptr).floats));
  const auto finest = static_cast<size_t>(options.finest);
  const int64_t pixels = width * height;
  for (int i = 0; i < directions && finest == 0; ++i) {
    plan.levels[i][0].flow = {flows[i], flows[i] + pixels, width, height};
  }
  build_pyramids(plan, luma0, luma1, executor);
  search_levels(plan, finest, directions, executor);
  const auto enlarge = FASTVID_BY_ISA(double_flow_rows);
  for (size_t level = finest; level-- > 0;) {
    for (int i = 0; i < directions; ++i) {
      const search::Flow coarse = plan.levels[i][level + 1].flow;
      search::Flow fine = plan.levels[i][level].flow;
      if (level == 0) fine = {flows[i], flows[i] + pixels, width, height};
      for_rows(executor, fine.height, kRows,
               [&](int64_t begin, int64_t end) { enlarge(coarse, fine, begin, end); });
    }
  }
}

}  // namespace

Tensor inverse_search_output(const Tensor& luma0, const Tensor& luma1,
                             const InverseSearchOptions& options) {
  for (const Tensor* luma : {&luma0, &luma1}) {
    require_dtype(kOp, *luma, DType::kFloat32);
    require_rank(kOp, *luma, "(N, 1, H, W)");
    if (luma->dim(1) != 1) {
      throw InputError(std::string(kOp) + ": " + luma->name +
                       " must have 1 channel second, got shape " + luma->shape.text());
    }
  }
  require_shape(kOp, luma1, luma0.shape);
  require_range("iterations", options.iterations, 1, 64);
  require_range("stride", options.stride, 1, search::kPatchSize);
  require_range("finest", options.finest, 0, 2);
  return {.name = "flow01",
          .dtype = DType::kFloat32,
          .shape = {luma0.dim(0), 2, luma0.dim(2), luma0.dim(3)}};
}

void inverse_search(const Tensor& luma0, const Tensor& luma1, const Tensor& flow01,
                    const Tensor& flow10, const InverseSearchOptions& options,
                    const Executor& executor) {
  const Tensor expected = inverse_search_output(luma0, luma1, options);
  for (const Tensor* flow : {&flow01, &flow10}) {
    if (!flow->present()) continue;
    require_dtype(kOp, *flow, expected.dtype);
    require_shape(kOp, *flow, expected.shape);
    require_apart(kOp, *flow, {&luma0, &luma1});
  }
  if (flow10.present()) require_apart(kOp, flow10, {&flow01});
  if (on_cuda(kOp, {&luma0, &luma1, &flow01, &flow10})) {
    cuda::inverse_search(luma0, luma1, flow01, flow10, options, executor.cuda_stream());
    return;
  }
  const int64_t height = luma0.dim(2), width = luma0.dim(3), pixels = height * width;
  const bool empty = search::too_small(width, height, options.finest);
  for (int64_t n = 0; n < luma0.dim(0); ++n) {
    float* const flows[2] = {flow01.as<float>() + 2 * n * pixels,
                             flow10.present() ? flow10.as<float>() + 2 * n * pixels : nullptr};
    if (empty) {
      for (float* flow : flows) {
        if (flow != nullptr) std::memset(flow, 0, static_cast<size_t>(2 * pixels) * sizeof(float));
      }
      continue;
    }
    search_pair(luma0.as<const float>() + n * pixels, luma1.as<const float>() + n * pixels, flows,
                height, width, options, executor);
  }
}

}  // namespace fastvid
