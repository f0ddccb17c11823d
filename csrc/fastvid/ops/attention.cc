#include "fastvid/ops/attention.h"

#include <algorithm>
#include <cmath>

#include "fastvid/core/arena.h"
#include "fastvid/core/error.h"
#include "fastvid/core/overlap.h"
#include "fastvid/cpu/attention.h"
#include "fastvid/cuda/attention.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "attention";
// Panels of keys of one task: enough work to outweigh handing it over.
constexpr int64_t kPanels = 4;
// Packed keys and values of one group, in floats: they are to stay in the last cache.
constexpr int64_t kGroup = int64_t{4} << 20;
// Memory that a thread keeps between calls at most, in floats.
constexpr size_t kKept = size_t{8} << 20;

std::string subject(const Tensor& tensor) { return std::string(kOp) + ": " + tensor.name; }

void check_bias(const Tensor& bias, const Tensor& q, const Tensor& k) {
  if (!bias.present()) return;
  require_dtype(kOp, bias, DType::kFloat32);
  const Shape whole{q.dim(0), q.dim(2), q.dim(1), k.dim(1)};
  const bool fits = bias.shape.rank() == 4 && (bias.dim(0) == 1 || bias.dim(0) == whole[0]) &&
                    (bias.dim(1) == 1 || bias.dim(1) == whole[1]) && bias.dim(2) == whole[2] &&
                    bias.dim(3) == whole[3];
  if (fits) return;
  throw InputError(subject(bias) + " must have shape " + whole.text() +
                   ", or 1 in place of the first or second size, got " + bias.shape.text());
}

Attention kernel_of(const AttentionArgs& args, const Tensor& out) {
  const auto strides = [](const Tensor& t) {
    return Attention::Strides{t.strides[0], t.strides[1], t.strides[2]};
  };
  const Tensor &q = args.q, &bias = args.bias;
  const auto dim = static_cast<float>(q.dim(3));
  return {.q = q.data,
          .k = args.k.data,
          .v = args.v.data,
          .out = out.data,
          .q_strides = strides(q),
          .k_strides = strides(args.k),
          .v_strides = strides(args.v),
          .out_strides = strides(out),
          .bias = bias.as<const float>(),
          .bias_batch = bias.present() && bias.dim(0) > 1 ? bias.strides[0] : 0,
          .bias_head = bias.present() && bias.dim(1) > 1 ? bias.strides[1] : 0,
          .bias_query = bias.present() ? bias.strides[2] : 0,
          .batch = q.dim(0),
          .heads = q.dim(2),
          .queries = q.dim(1),
          .keys = args.k.dim(1),
          .dim = q.dim(3),
          .scale = args.scale.value_or(1.0f / std::sqrt(dim)),
          .causal = args.causal};
}

using Kernel = void(const Attention&, const AttentionGroup&, int64_t, int64_t);
struct Kernels {
  Kernel *pack, *attend;
};

Kernels kernels_for(DType dtype) {
  if (dtype == DType::kFloat32) {
    return {FASTVID_BY_ISA(attention_pack_float32), FASTVID_BY_ISA(attention_float32)};
  }
  if (dtype == DType::kFloat16) {
    return {FASTVID_BY_ISA(attention_pack_float16), FASTVID_BY_ISA(attention_float16)};
  }
#ifdef FASTVID_X86
  if (cpu_isa() == Isa::kAvx512Bf16) {
    return {&cpu::avx512_bf16::attention_pack_bfloat16, &cpu::avx512_bf16::attention_bfloat16};
  }
#endif
  return {FASTVID_BY_ISA(attention_pack_bfloat16), FASTVID_BY_ISA(attention_bfloat16)};
}

void run_on_cpu(const Attention& a, const Kernels& kernels, const Executor& executor) {
  const int64_t all = a.batch * a.heads, size = AttentionGroup::floats(a);
  const int64_t heads = std::clamp<int64_t>(kGroup / (2 * size), 1, all);
  thread_local Arena kept;
  Arena once;
  const auto floats = static_cast<size_t>(2 * heads * size);
  float* memory = (floats > kKept ? once : kept).reserve(floats);
  for (int64_t first = 0; first < all; first += heads) {
    const int64_t count = std::min(heads, all - first);
    const AttentionGroup group{first, memory, memory + heads * size};
    for_rows(executor, count * AttentionGroup::panels(a), kPanels,
             [&](int64_t begin, int64_t end) { kernels.pack(a, group, begin, end); });
    for_rows(executor, count * AttentionGroup::blocks(a), 1,
             [&](int64_t begin, int64_t end) { kernels.attend(a, group, begin, end); });
  }
}

}  // namespace

Tensor attention_output(const AttentionArgs& args) {
  const Tensor &q = args.q, &k = args.k;
  require_dtype(kOp, q, {DType::kFloat32, DType::kFloat16, DType::kBFloat16});
  require_rank(kOp, q, "(B, Nq, H, D)");
  require_not_empty(kOp, q);
  if (q.dim(3) > Attention::kMaxDim) {
    throw InputError(subject(q) + " must have a dim of at most 256, got shape " + q.shape.text());
  }
  require_dtype(kOp, k, q.dtype);
  require_rank(kOp, k, "(B, Nk, H, D)");
  require_not_empty(kOp, k);
  if (k.dim(0) != q.dim(0) || k.dim(2) != q.dim(2) || k.dim(3) != q.dim(3)) {
    throw InputError(subject(k) + " must have the batch, heads and dim of q " + q.shape.text() +
                     ", got " + k.shape.text());
  }
  require_dtype(kOp, args.v, q.dtype);
  require_shape(kOp, args.v, k.shape);
  check_bias(args.bias, q, k);
  // Small and large enough for the division of the bias by it.
  if (args.scale && !(*args.scale >= 1e-30f && *args.scale <= 1e30f)) {
    throw InputError("attention: scale must be from 1e-30 to 1e30, got " +
                     std::to_string(*args.scale));
  }
  return {.name = "out", .dtype = q.dtype, .shape = q.shape};
}

void attention(const AttentionArgs& args, const Tensor& out, const Executor& executor) {
  const Tensor expected = attention_output(args);
  require_dtype(kOp, out, expected.dtype);
  require_shape(kOp, out, expected.shape);
  for (const Tensor* input : {&args.q, &args.k, &args.v, &args.bias}) {
    if (input->present() && may_overlap(out, *input)) {
      throw InputError(subject(out) + " must not share memory with " + input->name +
                       ", got overlapping arrays");
    }
  }
  const Attention kernel = kernel_of(args, out);
  if (on_cuda(kOp, {&args.q, &args.k, &args.v, &args.bias, &out})) {
    cuda::attention(args, kernel, out, executor.cuda_stream());
    return;
  }
  run_on_cpu(kernel, kernels_for(out.dtype), executor);
}

}  // namespace fastvid
