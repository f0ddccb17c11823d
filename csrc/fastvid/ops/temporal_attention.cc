#include "fastvid/ops/temporal_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "fastvid/core/error.h"
#include "fastvid/core/isa.h"
#include "fastvid/core/overlap.h"
#include "fastvid/cpu/temporal_attention.h"
#include "fastvid/cuda/temporal_attention.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "temporal_attention";
constexpr float kLog2E = 1.44269504f;
// What a unit of work reads; it and the next one lie in the second cache together.
constexpr int64_t kUnitBytes = 160 << 10;
// What one task reads and writes.
constexpr int64_t kTaskBytes = 2 << 20;
// Results larger than this do not stay in the caches until they are read again.
constexpr size_t kStreamBytes = size_t{8} << 20;
constexpr int64_t kLine = 64;
// Rows of the table are whole vectors of every instruction set.
constexpr int64_t kTableStep = 16;

constexpr int64_t parts(int64_t n, int64_t most) { return (n + most - 1) / most; }

void check_sizes(const Tensor& q) {
  const int64_t frames = q.dim(1), dim = q.dim(4);
  const std::string got = ", got shape " + q.shape.text();
  if (frames < 1 || frames > TemporalAttentionArgs::kMaxFrames) {
    throw InputError(std::string(kOp) + ": q must have from 1 to 64 frames (axis 1)" + got,
                     "split the clip into windows of at most 64 frames");
  }
  if (dim < TemporalAttentionArgs::kDimStep || dim > TemporalAttentionArgs::kMaxDim ||
      dim % TemporalAttentionArgs::kDimStep != 0) {
    throw InputError(
        std::string(kOp) +
            ": q must have a multiple of 8 from 8 to 256 elements per head (axis 4)" + got,
        "pad the heads of q, k and v with zeros and give the scale of the unpadded size");
  }
}

void check_bias(const TemporalAttentionArgs& args) {
  if (!args.bias.present()) return;
  require_dtype(kOp, args.bias, DType::kFloat32);
  require_rank(kOp, args.bias, "(H, T, T)");
  const int64_t heads = args.bias.dim(0) == 1 ? 1 : args.q.dim(3);
  require_shape(kOp, args.bias, {heads, args.q.dim(1), args.q.dim(1)});
}

// The bias as the kernels take it, with the causal mask in it.
class Table {
 public:
  explicit Table(const TemporalAttentionArgs& args) {
    if (!args.bias.present() && !args.causal) return;
    const int64_t frames = args.q.dim(1), row = round_up(frames);
    const int64_t heads = args.bias.present() ? args.bias.dim(0) : 1;
    memory_.assign(static_cast<size_t>(heads * frames * row + kTableStep), 0.0f);
    const auto address = reinterpret_cast<uintptr_t>(memory_.data());
    data_ = memory_.data() + (kLine - address % kLine) % kLine / sizeof(float);
    head_ = heads == 1 ? 0 : frames;
    for (int64_t h = 0; h < heads; ++h) {
      const float* bias =
          args.bias.present() ? args.bias.as<const float>() + h * frames * frames : nullptr;
      for (int64_t u = 0; u < frames; ++u) {
        for (int64_t t = 0; t < frames; ++t) {
          const bool masked = args.causal && u > t;
          data_[(h * frames + u) * row + t] = masked ? -std::numeric_limits<float>::infinity()
                                              : bias == nullptr ? 0.0f
                                                                : kLog2E * bias[t * frames + u];
        }
      }
    }
  }
  static int64_t round_up(int64_t frames) { return parts(frames, kTableStep) * kTableStep; }
  const float* data() const { return data_; }
  int64_t head() const { return head_; }

 private:
  std::vector<float> memory_;
  float* data_ = nullptr;
  int64_t head_ = 0;
};

cpu::TemporalView view_of(const Tensor& tensor) {
  const auto size = static_cast<int64_t>(dtype_size(tensor.dtype));
  return {tensor.as<char>(), tensor.strides[0] * size, tensor.strides[1] * size,
          tensor.strides[2] * size, tensor.strides[3] * size};
}

// Whether every row of out is whole cache lines, and all of it too much for the caches.
bool may_stream(const Tensor& out) {
  const auto size = static_cast<int64_t>(dtype_size(out.dtype));
  bool whole = reinterpret_cast<uintptr_t>(out.data) % kLine == 0 && out.dim(4) * size % kLine == 0;
  for (int i = 0; i < 4; ++i) whole = whole && out.strides[i] * size % kLine == 0;
  return whole && out.extent() >= kStreamBytes;
}

void run_on_cpu(const TemporalAttentionArgs& args, float scale, const Tensor& out,
                const Executor& executor) {
  const Tensor& q = args.q;
  const int64_t frames = q.dim(1), heads = q.dim(3), dim = q.dim(4);
  const Table table(args);
  const int64_t head_bytes = frames * dim * static_cast<int64_t>(dtype_size(q.dtype));
  const int64_t groups = parts(heads, std::max<int64_t>(1, kUnitBytes / (3 * head_bytes)));
  const int64_t group = parts(heads, groups);
  const cpu::TemporalAttention kernel{.q = view_of(q),
                                      .k = view_of(args.k),
                                      .v = view_of(args.v),
                                      .out = view_of(out),
                                      .frames = frames,
                                      .positions = q.dim(2),
                                      .heads = heads,
                                      .dim = dim,
                                      .group = group,
                                      .groups = parts(heads, group),
                                      .units = q.dim(0) * q.dim(2) * parts(heads, group),
                                      .scale = scale * kLog2E,
                                      .table = table.data(),
                                      .table_row = Table::round_up(frames),
                                      .table_head = table.head(),
                                      .stream = may_stream(out)};
  const auto run = q.dtype == DType::kFloat32   ? FASTVID_BY_ISA(temporal_attention_float32)
                   : q.dtype == DType::kFloat16 ? FASTVID_BY_ISA(temporal_attention_float16)
                                                : FASTVID_BY_ISA(temporal_attention_bfloat16);
  const int64_t grain = std::max<int64_t>(1, kTaskBytes / (4 * group * head_bytes));
  for_rows(executor, kernel.units, grain,
           [&](int64_t begin, int64_t end) { run(kernel, begin, end); });
}

}  // namespace

Tensor temporal_attention_output(const TemporalAttentionArgs& args) {
  require_dtype(kOp, args.q, {DType::kFloat32, DType::kFloat16, DType::kBFloat16});
  require_rank(kOp, args.q, "(B, T, S, H, D)");
  check_sizes(args.q);
  for (const Tensor* tensor : {&args.k, &args.v}) {
    require_dtype(kOp, *tensor, args.q.dtype);
    require_shape(kOp, *tensor, args.q.shape);
  }
  check_bias(args);
  if (args.scale.has_value() && !std::isfinite(*args.scale)) {
    throw InputError(std::string(kOp) + ": scale must be finite, got " +
                     std::to_string(*args.scale));
  }
  Tensor out{.name = "out", .dtype = args.q.dtype, .shape = args.q.shape};
  out.set_contiguous();
  return out;
}

void temporal_attention(const TemporalAttentionArgs& args, const Tensor& out,
                        const Executor& executor) {
  const Tensor expected = temporal_attention_output(args);
  require_dtype(kOp, out, expected.dtype);
  require_shape(kOp, out, expected.shape);
  for (const Tensor* input : {&args.q, &args.k, &args.v, &args.bias}) {
    if (input->present() && may_overlap(out, *input)) {
      throw InputError(std::string(kOp) + ": out must not share memory with " + input->name +
                       ", got overlapping arrays");
    }
  }
  const float scale =
      args.scale.value_or(static_cast<float>(1.0 / std::sqrt(static_cast<double>(args.q.dim(4)))));
  if (on_cuda(kOp, {&args.q, &args.k, &args.v, &args.bias, &out})) {
    cuda::temporal_attention(args, scale, out, executor.cuda_stream());
    return;
  }
  if (out.shape.elements() == 0) return;
  run_on_cpu(args, scale, out, executor);
}

}  // namespace fastvid
