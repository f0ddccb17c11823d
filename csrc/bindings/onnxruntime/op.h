// How an op of fastvid is offered to onnxruntime. An op is described once, statically:
//
//   const Op kOp{{.name = "RgbToPlanar",
//                 .inputs = {{"frames", DType::kUint8}},
//                 .output = {DType::kFloat32},
//                 .compute = [](const Call& call) { ... }}};
//
// and is then part of domain `fastvid`, version 1, of this library. Its checks are the op's own: an
// exception from `compute` becomes an error of the session's run.
#pragma once

#include <vector>

#include "abi.h"
#include "fastvid/core/executor.h"
#include "fastvid/core/tensor.h"

namespace fastvid::onnxruntime {

struct Input {
  const char* name;
  DType dtype;
  bool optional = false;
};

// An integer attribute of the node; absent means `fallback`.
struct Attribute {
  const char* name;
  int64_t fallback;
};

// The dtype of an output; with `switch_attribute`, `other` where that attribute is not 0.
struct OutputType {
  DType dtype;
  const char* switch_attribute = nullptr;
  DType other = DType::kOther;
};

// One run of one node.
class Call {
 public:
  Call(OrtKernelContext* context, const std::vector<Input>& inputs,
       const std::vector<Attribute>& attributes, const std::vector<int64_t>& values)
      : context_(context), inputs_(inputs), attributes_(attributes), values_(values) {}

  // The i-th input; not present() where an optional one was left out.
  Tensor input(size_t i) const;
  // Allocates the i-th output with the shape of `expected`.
  Tensor output(const Tensor& expected, size_t i = 0) const;
  int64_t attribute(const char* name) const;
  // Runs on onnxruntime's own threads.
  const Executor& executor() const;

 private:
  class PoolExecutor final : public Executor {
   public:
    explicit PoolExecutor(OrtKernelContext* context) : context_(context) {}
    void run(size_t count, void (*task)(void*, size_t), void* context) const override;

   private:
    OrtKernelContext* context_;
  };

  OrtKernelContext* context_;
  const std::vector<Input>& inputs_;
  const std::vector<Attribute>& attributes_;
  const std::vector<int64_t>& values_;
  PoolExecutor executor_{context_};
};

struct Description {
  const char* name;
  std::vector<Input> inputs;
  std::vector<OutputType> outputs;
  std::vector<Attribute> attributes{};
  void (*compute)(const Call&);
};

// A described op; constructing it adds it to the domain.
class Op : public CustomOp {
 public:
  explicit Op(Description description);
  const Description& description() const { return description_; }

 private:
  Description description_;
};

}  // namespace fastvid::onnxruntime
