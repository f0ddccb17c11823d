#include "fastvid/ops/qk_norm_rope.h"

#include <algorithm>
#include <cmath>

#include "fastvid/core/error.h"
#include "fastvid/core/flow.h"
#include "fastvid/core/isa.h"
#include "fastvid/core/overlap.h"
#include "fastvid/cpu/qk_norm_rope.h"
#include "fastvid/cuda/qk_norm_rope.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "qk_norm_rope";
// Elements of one task: at least enough work to outweigh handing it over, and at most what leaves
// many tasks, because each starts with memory that nobody fetched in advance.
constexpr int64_t kElements = 1 << 15, kMostElements = 1 << 18, kTasks = 32;
// Elements of a token, which the CUDA kernel counts in 32 bits.
constexpr int64_t kMaxWidth = int64_t{1} << 30;

std::string subject(const Tensor& tensor) { return std::string(kOp) + ": " + tensor.name; }

void require_absent(const Tensor& tensor, const char* without) {
  if (!tensor.present()) return;
  throw InputError(subject(tensor) + " must be None without " + without + ", got shape " +
                   tensor.shape.text());
}

void check_weight(const Tensor& weight, const Tensor& x, QkNorm norm) {
  if (norm == QkNorm::kNone) return require_absent(weight, "norm");
  if (!weight.present()) return;
  require_dtype(kOp, weight, DType::kFloat32);
  require_shape(kOp, weight, {norm == QkNorm::kHead ? x.dim(3) : x.dim(2) * x.dim(3)});
}

void check_table(const Tensor& table, const QkNormRopeArgs& args) {
  if (args.rope == Rope::kNone) return require_absent(table, "rope");
  const int64_t tokens = args.q.dim(1), heads = args.q.dim(2), half = args.q.dim(3) / 2;
  if (!table.present()) {
    throw InputError(subject(table) + " must be given with rope, got None",
                     "make it with fastvid.ops.rope_table_3d");
  }
  require_dtype(kOp, table, DType::kFloat32);
  if (table.shape == Shape{tokens, half}) return;
  if (table.shape == Shape{tokens, heads * half} && args.k.dim(2) == heads) return;
  throw InputError(subject(table) + " must have shape " + Shape{tokens, half}.text() +
                   (args.k.dim(2) == heads ? " or " + Shape{tokens, heads * half}.text() : "") +
                   ", got " + table.shape.text());
}

void check_pair(const QkNormRopeArgs& args) {
  const Tensor &q = args.q, &k = args.k;
  require_dtype(kOp, q, {DType::kFloat32, DType::kFloat16, DType::kBFloat16});
  require_dtype(kOp, k, q.dtype);
  for (const Tensor* x : {&q, &k}) {
    require_rank(kOp, *x, "(B, N, H, D)");
    require_not_empty(kOp, *x);
    if (x->dim(2) > kMaxWidth / x->dim(3)) {
      throw InputError(subject(*x) + " must have at most 2^30 elements per token, got shape " +
                       x->shape.text());
    }
  }
  const bool rotated = args.rope != Rope::kNone;
  if (k.dim(0) != q.dim(0) || k.dim(3) != q.dim(3) || (rotated && k.dim(1) != q.dim(1))) {
    throw InputError(subject(k) + " must have the " + (rotated ? "batch, tokens" : "batch") +
                     " and dim of q " + q.shape.text() + ", got " + k.shape.text());
  }
  if (rotated && q.dim(3) % 2 != 0) {
    throw InputError(subject(q) + " must have an even dim for rope, got shape " + q.shape.text());
  }
}

void check_output(const Tensor& out, const Tensor& own, const QkNormRopeArgs& args) {
  require_dtype(kOp, out, own.dtype);
  require_shape(kOp, out, own.shape);
  for (const Tensor* input :
       {&args.q, &args.k, &args.q_weight, &args.k_weight, &args.cos, &args.sin}) {
    if (!input->present() || (input == &own && same_elements(out, own))) continue;
    if (may_overlap(out, *input)) {
      throw InputError(subject(out) + " must not share memory with " + input->name +
                       ", got overlapping arrays");
    }
  }
}

NormRope kernel_of(const QkNormRopeArgs& args, const Tensor& x, const Tensor& weight,
                   const Tensor& out) {
  const auto strides = [](const Tensor& t) {
    return NormRope::Strides{t.strides[0], t.strides[1], t.strides[2]};
  };
  const int64_t heads = x.dim(2), dim = x.dim(3);
  const bool rotated = args.rope != Rope::kNone;
  const bool per_head = rotated && args.cos.dim(1) != dim / 2;
  const auto line = static_cast<int64_t>(64 / dtype_size(out.dtype));
  const bool lines = reinterpret_cast<uintptr_t>(out.data) % 64 == 0 && dim % line == 0 &&
                     out.strides[0] % line == 0 && out.strides[1] % line == 0 &&
                     out.strides[2] % line == 0;
  const int64_t bytes = out.shape.elements() * static_cast<int64_t>(dtype_size(out.dtype));
  return {.in = x.data,
          .out = out.data,
          .in_strides = strides(x),
          .out_strides = strides(out),
          .batch = x.dim(0),
          .tokens = x.dim(1),
          .heads = heads,
          .dim = dim,
          .norm = args.norm,
          .rope = args.rope,
          .weight = weight.as<const float>(),
          .cos = args.cos.as<const float>(),
          .sin = args.sin.as<const float>(),
          .table_token = rotated ? args.cos.dim(1) : 0,
          .table_head = per_head ? dim / 2 : 0,
          .eps = args.eps,
          .stream = out.data != x.data && lines && bytes >= kLargeBytes};
}

}  // namespace

QkNormRopeOutputs qk_norm_rope_outputs(const QkNormRopeArgs& args) {
  check_pair(args);
  if (args.norm == QkNorm::kNone && args.rope == Rope::kNone) {
    throw InputError("qk_norm_rope: norm or rope must be given, got None for both");
  }
  check_weight(args.q_weight, args.q, args.norm);
  check_weight(args.k_weight, args.k, args.norm);
  check_table(args.cos, args);
  check_table(args.sin, args);
  if (args.rope != Rope::kNone) require_shape(kOp, args.sin, args.cos.shape);
  if (!(args.eps >= 0.0f) || !std::isfinite(args.eps)) {
    throw InputError("qk_norm_rope: eps must be a finite number of at least 0, got " +
                     std::to_string(args.eps));
  }
  return {.q = {.name = "q_out", .dtype = args.q.dtype, .shape = args.q.shape},
          .k = {.name = "k_out", .dtype = args.k.dtype, .shape = args.k.shape}};
}

void qk_norm_rope(const QkNormRopeArgs& args, const Tensor& q_out, const Tensor& k_out,
                  const Executor& executor) {
  qk_norm_rope_outputs(args);
  check_output(q_out, args.q, args);
  check_output(k_out, args.k, args);
  if (may_overlap(q_out, k_out)) {
    throw InputError(
        "qk_norm_rope: q_out must not share memory with k_out, got overlapping arrays");
  }
  const NormRope q = kernel_of(args, args.q, args.q_weight, q_out);
  const NormRope k = kernel_of(args, args.k, args.k_weight, k_out);
  if (on_cuda(kOp, {&args.q, &args.k, &args.q_weight, &args.k_weight, &args.cos, &args.sin, &q_out,
                    &k_out})) {
    cuda::qk_norm_rope(args, q, k, q_out, k_out, executor.cuda_stream());
    return;
  }
  const auto kernel = q_out.dtype == DType::kFloat32   ? FASTVID_BY_ISA(qk_norm_rope_float32)
                      : q_out.dtype == DType::kFloat16 ? FASTVID_BY_ISA(qk_norm_rope_float16)
                                                       : FASTVID_BY_ISA(qk_norm_rope_bfloat16);
  const int64_t width = (q.heads + k.heads) * q.dim;
  const int64_t q_tokens = q.batch * q.tokens, k_tokens = k.batch * k.tokens;
  const int64_t least = std::max<int64_t>(kElements / width, 1);
  const int64_t grain =
      std::clamp(q_tokens / kTasks, least, std::max(kMostElements / width, least));
  // One pass where they have the same tokens: the tables' rows are then still near for k.
  const int64_t both = q_tokens == k_tokens ? q_tokens : 0;
  for_rows(executor, both, grain, [&](int64_t begin, int64_t end) {
    kernel(q, begin, end);
    kernel(k, begin, end);
  });
  if (both != 0) return;
  for_rows(executor, q_tokens, grain, [&](int64_t begin, int64_t end) { kernel(q, begin, end); });
  for_rows(executor, k_tokens, grain, [&](int64_t begin, int64_t end) { kernel(k, begin, end); });
}

}  // namespace fastvid
