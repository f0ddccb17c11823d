// Offers every op to a session, and tells onnxruntime the dtypes of outputs that vary.
#include <atomic>
#include <mutex>
#include <string>

#include "fastvid/cuda/device.h"
#include "op.h"

namespace fastvid::onnxruntime {
namespace {

Table the_table = nullptr;

int64_t read_switch(const char* name, const OrtShapeInferContext* context) {
  const OrtOpAttr* attribute = nullptr;
  release(call<OrtStatus*>(kShapeInferContextGetAttribute, context, name, &attribute));
  int64_t value = 0;
  size_t written = 0;
  if (attribute != nullptr) {
    release(call<OrtStatus*>(kReadOpAttr, attribute, kAttributeInt64, static_cast<void*>(&value),
                             sizeof(value), &written));
  }
  return value;
}

// What onnxruntime knows of an input while it loads a graph; belongs to the context.
const OrtTypeInfo* input_info(size_t i, const OrtShapeInferContext* context) {
  OrtTypeInfo* info = nullptr;
  release(call<OrtStatus*>(kShapeInferContextGetInputTypeShape, context, i, &info));
  return info;
}

size_t output_rank(const Result& result, const OrtShapeInferContext* context) {
  if (result.rank != kRankOfInput) return static_cast<size_t>(result.rank);
  size_t rank = 0;
  if (const auto* info = input_info(static_cast<size_t>(result.like), context); info != nullptr) {
    release(call<OrtStatus*>(kGetDimensionsCount, info, &rank));
  }
  return rank < Shape::kMaxRank ? rank : Shape::kMaxRank;
}

// The dtype of an output; undefined where onnxruntime does not know that of the input it follows.
ElementType output_type(const Result& result, const OrtShapeInferContext* constant) {
  if (result.wide_attribute != nullptr && read_switch(result.wide_attribute, constant) != 0) {
    return element_type(DType::kUint16);
  }
  if (result.switch_attribute != nullptr && read_switch(result.switch_attribute, constant) != 0) {
    return element_type(result.other);
  }
  if (result.dtype != kAnyDType) return element_type(result.dtype);
  ElementType type = ElementType::kUndefined;
  if (const auto* info = input_info(static_cast<size_t>(result.like), constant); info != nullptr) {
    release(call<OrtStatus*>(kGetTensorElementType, info, &type));
  }
  return type;
}

// Says that an output has `rank` sizes, each unlike all others: onnxruntime must not take two sizes
// for equal because both are unknown.
OrtStatus* set_unknown_sizes(OrtTypeInfo* info, size_t rank) {
  static std::atomic<uint64_t> counter{0};
  int64_t sizes[Shape::kMaxRank];
  std::string names[Shape::kMaxRank];
  const char* pointers[Shape::kMaxRank];
  for (size_t i = 0; i < rank; ++i) {
    sizes[i] = -1;
    names[i] = "fastvid_size_" + std::to_string(counter++);
    pointers[i] = names[i].c_str();
  }
  auto* status = call<OrtStatus*>(kSetDimensions, info, static_cast<const int64_t*>(sizes), rank);
  if (status != nullptr) return status;
  return call<OrtStatus*>(kSetSymbolicDimensions, info, static_cast<const char**>(pointers), rank);
}

OrtStatus* set_output(OrtShapeInferContext* context, size_t i, ElementType type, size_t rank) {
  OrtTypeInfo* info = nullptr;
  if (auto* status = call<OrtStatus*>(kCreateTensorTypeAndShapeInfo, &info)) return status;
  auto* status = call<OrtStatus*>(kSetTensorElementType, info, type);
  if (status == nullptr) status = set_unknown_sizes(info, rank);
  if (status == nullptr) {
    status = call<OrtStatus*>(kShapeInferContextSetOutputTypeShape,
                              static_cast<const OrtShapeInferContext*>(context), i,
                              static_cast<const OrtTypeInfo*>(info));
  }
  call<void>(kReleaseTensorTypeAndShapeInfo, info);
  return status;
}

OrtStatus* add_ops(OrtCustomOpDomain* domain) {
  const auto add = [domain](const ProviderOp& op) {
    return call<OrtStatus*>(kCustomOpDomainAdd, domain, static_cast<const CustomOp*>(&op));
  };
  for (const Op* op : all_ops()) {
    if (auto* status = add(op->cpu())) return status;
    // Without kernels the nodes of a CUDA session run on the CPU.
    if (!cuda::compiled() || !op->cuda().description->cuda) continue;
    if (auto* status = add(op->cuda())) return status;
  }
  return nullptr;
}

OrtStatus* register_all(OrtSessionOptions* options, const ApiBase* base) {
  static std::mutex mutex;
  static OrtCustomOpDomain* domain = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  the_table = base->get_api(kApiVersion);
  if (the_table == nullptr) {
    the_table = base->get_api(1);
    return failure(std::string("fastvid: onnxruntime must be 1.24 or newer, got ") +
                   base->get_version_string());
  }
  if (domain == nullptr) {
    OrtCustomOpDomain* created = nullptr;
    if (auto* status = call<OrtStatus*>(kCreateCustomOpDomain, "fastvid", &created)) return status;
    if (auto* status = add_ops(created)) return status;
    domain = created;
  }
  return call<OrtStatus*>(kAddCustomOpDomain, options, domain);
}

}  // namespace

Table table() { return the_table; }

OrtStatus* infer_outputs(const CustomOp* custom, OrtShapeInferContext* context) {
  const Description& description = *static_cast<const ProviderOp*>(custom)->description;
  for (size_t i = 0; i < description.outputs.size(); ++i) {
    const Result& result = description.outputs[i];
    if (!result.varies()) continue;
    const ElementType type = output_type(result, context);
    if (type == ElementType::kUndefined) {
      return failure(std::string("fastvid.") + description.name + ": the dtype of input " +
                     description.inputs[result.like].name + " is not known");
    }
    if (auto* status = set_output(context, i, type, output_rank(result, context))) {
      return status;
    }
  }
  return nullptr;
}

}  // namespace fastvid::onnxruntime

// The entry point that SessionOptions.register_custom_ops_library looks up.
extern "C" __attribute__((visibility("default"))) fastvid::onnxruntime::OrtStatus*
RegisterCustomOps(fastvid::onnxruntime::OrtSessionOptions* options,
                  const fastvid::onnxruntime::ApiBase* base) {
  return fastvid::onnxruntime::register_all(options, base);
}
