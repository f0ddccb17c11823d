#include "fastvid/ops/softmax_splat.h"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <string>

#include "fastvid/core/arena.h"
#include "fastvid/core/error.h"
#include "fastvid/core/flow.h"
#include "fastvid/core/isa.h"
#include "fastvid/cpu/softmax_splat.h"
#include "fastvid/cuda/softmax_splat.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "softmax_splat";
constexpr int64_t kFloatBytes = sizeof(float);
// A band of target rows is as high as its sums stay near the second cache, and low enough that
// every thread gets several.
constexpr int64_t kBandBytes = int64_t{2} << 20;
constexpr int64_t kMaxBandRows = 48, kMinBandRows = 8, kBandsOfThread = 4;
constexpr uintptr_t kWorkspaceAlignment = 16;
// Rows of one task of finding where the source goes.
constexpr int64_t kReachRows = 32;
// Bands that may be under way at once; memory that no thread comes to use is never touched.
constexpr int64_t kMaxWorkers = 64, kMaxScratchBytes = int64_t{256} << 20;

bool has_metric(SplatMode mode) {
  return mode == SplatMode::kLinear || mode == SplatMode::kSoftmax;
}

cpu::Splat kernel_of(const SoftmaxSplatArgs& args, const Tensor& out) {
  return {.image = args.image.data,
          .flow = args.flow.as<const float>(),
          .metric = args.metric.as<const float>(),
          .out = out.data,
          .dtype = args.image.dtype,
          .channels = args.image.dim(1),
          .height = args.image.dim(2),
          .width = args.image.dim(3),
          .weights = args.mode == SplatMode::kSoftmax  ? cpu::Splat::kSoftmax
                     : args.mode == SplatMode::kLinear ? cpu::Splat::kLinear
                                                       : cpu::Splat::kOnes,
          .normalise = args.mode != SplatMode::kSum};
}

int64_t band_rows(const cpu::Splat& splat) {
  const int64_t row = cpu::splat_groups(splat) * cpu::splat_stride(splat.width) * kFloatBytes;
  const int64_t cached = kBandBytes / row;
  const int64_t shared =
      std::max(kMinBandRows, splat.height / (kBandsOfThread * default_threads()));
  return std::clamp(std::min(cached, shared), int64_t{1}, kMaxBandRows);
}

int64_t to_cache_line(int64_t floats) { return (floats + 15) / 16 * 16; }

// One image of the batch.
void run(cpu::Splat splat, Arena& arena, const Executor& executor) {
  const auto find_reach = FASTVID_BY_ISA(splat_reach);
  const auto fill_band = FASTVID_BY_ISA(splat_band);
  const int64_t height = splat.height, rows = band_rows(splat);
  const int64_t bands = (height + rows - 1) / rows;
  const int64_t reach = to_cache_line(2 * height * (cpu::splat_segments(splat.width) + 1));
  const int64_t scratch = to_cache_line(cpu::splat_scratch(splat, rows));
  const int64_t room = std::max(int64_t{2}, kMaxScratchBytes / (scratch * kFloatBytes));
  const int64_t workers = std::min({bands, kMaxWorkers, room});
  float* memory =
      arena.reserve(static_cast<size_t>(reach + to_cache_line(height) + workers * scratch));
  splat.reach = reinterpret_cast<cpu::Reach*>(memory);
  splat.highest = memory + reach;
  float* sums = splat.highest + to_cache_line(height);

  for_rows(executor, height, kReachRows,
           [&](int64_t begin, int64_t end) { find_reach(splat, begin, end); });
  if (splat.weights == cpu::Splat::kSoftmax) {
    splat.peak = *std::max_element(splat.highest, splat.highest + height);
  }
  // Each worker takes the next band with scratch of its own; which one it is changes no result.
  std::atomic<int64_t> next_band{0}, next_worker{0};
  for_rows(executor, workers, 1, [&](int64_t, int64_t) {
    int64_t band = next_band.fetch_add(1);
    if (band >= bands) return;
    float* own = sums + next_worker.fetch_add(1) * scratch;
    for (; band < bands; band = next_band.fetch_add(1)) {
      fill_band(splat, band * rows, std::min(band * rows + rows, height), own);
    }
  });
}

}  // namespace

SplatMode splat_mode(const std::string& name) {
  if (name == "sum") return SplatMode::kSum;
  if (name == "average") return SplatMode::kAverage;
  if (name == "linear") return SplatMode::kLinear;
  if (name == "softmax") return SplatMode::kSoftmax;
  throw InputError(std::string(kOp) + ": mode must be one of sum, average, linear, softmax, got '" +
                   name + "'");
}

Tensor softmax_splat_output(const SoftmaxSplatArgs& args) {
  const Tensor &image = args.image, &metric = args.metric;
  require_dtype(kOp, image, {DType::kFloat32, DType::kFloat16, DType::kBFloat16});
  require_dtype(kOp, args.flow, DType::kFloat32);
  require_rank(kOp, image, "(N, C, H, W)");
  require_shape(kOp, args.flow, {image.dim(0), 2, image.dim(2), image.dim(3)});
  require_addressable(kOp, image, image.dim(2), image.dim(3));
  if (has_metric(args.mode)) {
    if (!metric.present()) {
      throw InputError(
          std::string(kOp) + ": metric must be given for modes linear and softmax, got none",
          "pass the metric, or use mode average");
    }
    require_dtype(kOp, metric, DType::kFloat32);
    require_shape(kOp, metric, {image.dim(0), 1, image.dim(2), image.dim(3)});
  } else if (metric.present()) {
    throw InputError(
        std::string(kOp) + ": metric must be absent for modes sum and average, got an array",
        "leave it out, or use mode linear or softmax");
  }
  Tensor out{.name = "out", .dtype = image.dtype, .shape = image.shape};
  out.set_contiguous();
  return out;
}

int64_t softmax_splat_workspace(const SoftmaxSplatArgs& args) {
  const int64_t pixels = args.image.dim(2) * args.image.dim(3);
  const int64_t lanes = args.image.dim(1) + (args.mode == SplatMode::kSum ? 0 : 1);
  return 16 + (args.deterministic ? pixels * (4 + 8 * lanes) : 16 * pixels * ((lanes + 3) / 4));
}

namespace {

void check_workspace(const SoftmaxSplatArgs& args, const Tensor& out) {
  const Tensor& workspace = args.workspace;
  if (!workspace.present()) return;
  require_dtype(kOp, workspace, DType::kUint8);
  require_rank(kOp, workspace, "(bytes)");
  require_apart(kOp, workspace, {&args.image, &args.flow, &args.metric, &out});
  const int64_t bytes = softmax_splat_workspace(args);
  const auto address = reinterpret_cast<uintptr_t>(workspace.data);
  if (workspace.dim(0) >= bytes && address % kWorkspaceAlignment == 0) return;
  throw InputError(std::string(kOp) + ": workspace must have at least " + std::to_string(bytes) +
                   " bytes, aligned to 16, got " + std::to_string(workspace.dim(0)));
}

}  // namespace

void softmax_splat(const SoftmaxSplatArgs& args, const Tensor& out, const Executor& executor) {
  const Tensor expected = softmax_splat_output(args);
  require_dtype(kOp, out, expected.dtype);
  require_shape(kOp, out, expected.shape);
  require_apart(kOp, out, {&args.image, &args.flow, &args.metric});
  check_workspace(args, out);
  if (on_cuda(kOp, {&args.image, &args.flow, &args.metric, &args.workspace, &out})) {
    cuda::softmax_splat(args, out, softmax_splat_workspace(args), executor.cuda_stream());
    return;
  }
  if (args.workspace.present()) {
    throw InputError(std::string(kOp) + ": workspace must be absent on the CPU, got an array");
  }
  if (out.shape.elements() == 0) return;
  thread_local Arena arena;
  cpu::Splat splat = kernel_of(args, out);
  const int64_t pixels = splat.height * splat.width;
  const int64_t bytes =
      splat.channels * pixels * static_cast<int64_t>(dtype_size(args.image.dtype));
  for (int64_t n = 0; n < args.image.dim(0); ++n) {
    run(splat, arena, executor);
    splat.image = static_cast<const char*>(splat.image) + bytes;
    splat.out = static_cast<char*>(splat.out) + bytes;
    splat.flow += 2 * pixels;
    if (splat.metric != nullptr) splat.metric += pixels;
  }
}

}  // namespace fastvid
