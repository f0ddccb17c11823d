// How an op of fastvid is offered to onnxruntime. An op is described once, statically:
//
//   const Op kWarp{{.name = "Warp",
//                   .inputs = {{"image", kAnyDType}, {"flow", DType::kFloat32}},
//                   .outputs = {{kAnyDType}},
//                   .attributes = {{"zeros", 0}},
//                   .compute = [](const Call& call) { ... }}};
//
// and is then part of domain `fastvid`, version 1, of this library: for the CPU provider, and for
// the CUDA provider where this build has kernels for it. Its checks are the op's own: an exception
// from `compute` becomes an error of the session's run.
#pragma once

#include <string>
#include <variant>
#include <vector>

#include "abi.h"
#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid::onnxruntime {

// As an input's dtype: several are allowed, and the op's own checks say which. As an output's: that
// of an input.
constexpr DType kAnyDType = DType::kOther;
constexpr int kRankOfInput = 0;

struct Input {
  const char* name;
  DType dtype;
  bool optional = false;
  // In host memory on every device.
  bool host = false;
};

using Value = std::variant<int64_t, float, std::string>;

// An attribute of the node; absent means `fallback`, whose type is the attribute's.
struct Attribute {
  const char* name;
  Value fallback;
};

// The dtype of an output, or with kAnyDType that of input `like`; where `switch_attribute`, an
// integer, is not 0, `other` instead, and where `wide_attribute` is not 0, uint16.
struct Result {
  DType dtype;
  const char* switch_attribute = nullptr;
  DType other = DType::kOther;
  int like = 0;
  int rank = 4;  // kRankOfInput: that of input `like`
  const char* wide_attribute = nullptr;

  bool varies() const {
    return dtype == kAnyDType || switch_attribute != nullptr || wide_attribute != nullptr;
  }
};

class Call;

struct Description {
  const char* name;
  std::vector<Input> inputs;
  std::vector<Result> outputs;
  std::vector<Attribute> attributes{};
  void (*compute)(const Call&);
  // Whether there are CUDA kernels, in builds that have any.
  bool cuda = true;
};

// One run of one node.
class Call {
 public:
  Call(OrtKernelContext* context, const Description& description, Device device,
       const std::vector<Value>& values)
      : context_(context), description_(description), device_(device), values_(values) {}

  // The i-th input; not present() where an optional one was left out.
  Tensor input(size_t i) const;
  // Allocates the i-th output with the shape of `expected`.
  Tensor output(const Tensor& expected, size_t i = 0) const;
  int64_t integer(const char* name) const { return std::get<int64_t>(attribute(name)); }
  float number(const char* name) const { return std::get<float>(attribute(name)); }
  const std::string& text(const char* name) const { return std::get<std::string>(attribute(name)); }
  // Runs on onnxruntime's own threads, or on its CUDA stream.
  const Executor& executor() const { return executor_; }

 private:
  class SessionExecutor final : public Executor {
   public:
    SessionExecutor(OrtKernelContext* context, Device device)
        : context_(context), device_(device) {}
    void run(size_t count, void (*task)(void*, size_t), void* context) const override;
    void* cuda_stream() const override;

   private:
    OrtKernelContext* context_;
    Device device_;
  };

  const Value& attribute(const char* name) const;

  OrtKernelContext* context_;
  const Description& description_;
  Device device_;
  const std::vector<Value>& values_;
  SessionExecutor executor_{context_, device_};
};

// A described op for one execution provider.
struct ProviderOp : CustomOp {
  ProviderOp(const Description& op_description, Device op_device);

  const Description* description;
  Device device;
};

// A described op; constructing it adds it to the domain.
class Op {
 public:
  explicit Op(Description description);
  Op(const Op&) = delete;
  Op& operator=(const Op&) = delete;

  const ProviderOp& cpu() const { return cpu_; }
  const ProviderOp& cuda() const { return cuda_; }

 private:
  Description description_;
  ProviderOp cpu_{description_, Device::kCpu}, cuda_{description_, Device::kCuda};
};

// Every described op, in the order of the linker.
const std::vector<const Op*>& all_ops();

OrtStatus* failure(const std::string& message);
void release(OrtStatus* status);
ElementType element_type(DType dtype);

// What onnxruntime calls while it loads a graph: the dtypes of outputs that vary.
OrtStatus* infer_outputs(const CustomOp* op, OrtShapeInferContext* context);

}  // namespace fastvid::onnxruntime
