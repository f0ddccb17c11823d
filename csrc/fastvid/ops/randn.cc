#include "fastvid/ops/randn.h"

#include "fastvid/core/isa.h"
#include "fastvid/cpu/randn.h"
#include "fastvid/cuda/randn.h"

namespace fastvid {
namespace {

// Elements of one task, whole blocks of four: enough work to outweigh handing it over.
constexpr int64_t kGrain = 1 << 15;

template <class T>
void fill(T* data, void (*kernel)(const Noise&, uint64_t, int64_t, T*), const Tensor& out,
          const Noise& noise, const Executor& executor) {
  for_rows(executor, out.shape.elements(), kGrain, [&](int64_t begin, int64_t end) {
    kernel(noise, noise.offset + static_cast<uint64_t>(begin), end - begin, data + begin);
  });
}

}  // namespace

void randn(const Tensor& out, const Noise& noise, const Executor& executor) {
  constexpr const char* op = "randn";
  require_dtype(op, out, {DType::kFloat32, DType::kFloat16, DType::kBFloat16});
  if (on_cuda(op, {&out})) {
    cuda::randn(out, noise, executor.cuda_stream());
    return;
  }
  if (out.dtype == DType::kFloat16) {
    fill(out.as<Half>(), FASTVID_BY_ISA(randn_half), out, noise, executor);
  } else if (out.dtype == DType::kBFloat16) {
    fill(out.as<BFloat16>(), FASTVID_BY_ISA(randn_bfloat16), out, noise, executor);
  } else {
    fill(out.as<float>(), FASTVID_BY_ISA(randn), out, noise, executor);
  }
}

}  // namespace fastvid
