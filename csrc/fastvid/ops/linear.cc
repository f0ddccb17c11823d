#include "fastvid/ops/linear.h"

#include <algorithm>

#include "fastvid/core/arena.h"
#include "fastvid/core/error.h"
#include "fastvid/cpu/linear.h"

namespace fastvid {
namespace {

constexpr const char* kOp = "linear";
// Rows of x that one task rounds.
constexpr int64_t kRounded = 64;
// Memory that a thread keeps between calls at most, in floats.
constexpr size_t kKept = size_t{8} << 20;

using Kernel = void(const Linear&, int64_t, int64_t);

Kernel* float32_kernel(DType weight) {
  if (weight == DType::kFloat32) return FASTVID_BY_ISA(linear_float32);
  if (weight == DType::kFloat16) return FASTVID_BY_ISA(linear_float16);
  return FASTVID_BY_ISA(linear_bfloat16);
}

Kernel* rounded_kernel(DType weight) {
  if (weight == DType::kFloat32) return FASTVID_BY_ISA(linear_rounded_float32);
  if (weight == DType::kFloat16) return FASTVID_BY_ISA(linear_rounded_float16);
  return FASTVID_BY_ISA(linear_bfloat16);
}

#ifdef FASTVID_X86
Kernel* pair_kernel(DType weight) {
  if (weight == DType::kFloat32) return &cpu::avx512_bf16::linear_float32;
  if (weight == DType::kFloat16) return &cpu::avx512_bf16::linear_float16;
  return &cpu::avx512_bf16::linear_bfloat16;
}
#endif

void run(const Linear& a, Kernel* kernel, const Executor& executor) {
  for_rows(executor, a.tiles(), 1, [&](int64_t begin, int64_t end) { kernel(a, begin, end); });
}

void run_in_bfloat16(Linear a, DType weight, const Executor& executor) {
  thread_local Arena kept;
  Arena once;
  const auto* x = static_cast<const float*>(a.x);
  const bool pairs = cpu_isa() == Isa::kAvx512Bf16;
  const int64_t width = pairs ? (a.depth + 1) / 2 : a.depth;
  const auto floats = static_cast<size_t>(a.rows * width);
  float* memory = (floats > kKept ? once : kept).reserve(floats);
  Kernel* kernel = nullptr;
#ifdef FASTVID_X86
  if (pairs) {
    kernel = pair_kernel(weight);
    for_rows(executor, a.rows, kRounded, [&](int64_t begin, int64_t end) {
      cpu::avx512_bf16::linear_pair(x, a.depth, reinterpret_cast<uint32_t*>(memory), begin, end);
    });
  }
#endif
  if (kernel == nullptr) {
    kernel = rounded_kernel(weight);
    const auto round = FASTVID_BY_ISA(linear_round);
    for_rows(executor, a.rows, kRounded, [&](int64_t begin, int64_t end) {
      round(x + begin * width, memory + begin * width, (end - begin) * width);
    });
  }
  a.x = memory;
  a.stride = width;
  run(a, kernel, executor);
}

}  // namespace

Tensor linear_output(const LinearArgs& args) {
  const Tensor &x = args.x, &weight = args.weight, &bias = args.bias;
  require_dtype(kOp, x, DType::kFloat32);
  if (x.shape.rank() < 2) {
    throw InputError("linear: x must have 2 to 6 sizes, got shape " + x.shape.text());
  }
  require_dtype(kOp, weight, {DType::kFloat32, DType::kFloat16, DType::kBFloat16});
  require_rank(kOp, weight, "(N, K)");
  require_not_empty(kOp, weight);
  const int last = x.shape.rank() - 1;
  if (weight.dim(1) != x.dim(last)) {
    throw InputError("linear: weight must have shape (N, " + std::to_string(x.dim(last)) +
                     ") for x of shape " + x.shape.text() + ", got " + weight.shape.text());
  }
  if (bias.present()) {
    require_dtype(kOp, bias, DType::kFloat32);
    require_shape(kOp, bias, {weight.dim(0)});
  }
  int64_t sizes[Shape::kMaxRank];
  std::copy_n(x.shape.data(), x.shape.rank(), sizes);
  sizes[last] = weight.dim(0);
  return {.name = "out", .dtype = DType::kFloat32, .shape = Shape(sizes, x.shape.rank())};
}

void linear(const LinearArgs& args, const Tensor& out, const Executor& executor) {
  const Tensor expected = linear_output(args);
  require_dtype(kOp, out, expected.dtype);
  require_shape(kOp, out, expected.shape);
  require_apart(kOp, out, {&args.x, &args.weight, &args.bias});
  if (on_cuda(kOp, {&args.x, &args.weight, &args.bias, &out})) {
    throw NoDeviceError("linear: there is no CUDA kernel, arrays must be on the CPU",
                        "on a GPU take the matrix product of torch or of the runtime");
  }
  const int64_t depth = args.weight.dim(1), columns = args.weight.dim(0);
  const Linear a{.x = args.x.data,
                 .stride = depth,
                 .weight = args.weight.data,
                 .bias = args.bias.as<const float>(),
                 .out = out.as<float>(),
                 .rows = out.shape.elements() / columns,
                 .columns = columns,
                 .depth = depth};
  if (a.rows == 0) return;
  if (args.bfloat16) {
    run_in_bfloat16(a, args.weight.dtype, executor);
  } else {
    run(a, float32_kernel(args.weight.dtype), executor);
  }
}

}  // namespace fastvid
