#include <atomic>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>

#include "fastvid/core/error.h"
#include "op.h"

namespace fastvid::onnxruntime {
namespace {

Table the_table = nullptr;

// Function-local, so that ops of other files can add themselves while the library loads.
std::vector<Op*>& all_ops() {
  static std::vector<Op*> ops;
  return ops;
}

struct Kernel {
  const Op* op;
  std::vector<int64_t> attributes;
};

ElementType element_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat32:
      return ElementType::kFloat32;
    case DType::kUint8:
      return ElementType::kUint8;
    case DType::kUint16:
      return ElementType::kUint16;
    default:
      return ElementType::kUndefined;
  }
}

DType dtype_of(ElementType type) {
  for (DType dtype : {DType::kFloat32, DType::kUint8, DType::kUint16}) {
    if (type == element_type(dtype)) return dtype;
  }
  return DType::kOther;
}

const Op& op_of(const CustomOp* op) { return *static_cast<const Op*>(op); }

OrtStatus* failure(const char* message) {
  return call<OrtStatus*>(kCreateStatus, kInvalidArgument, message);
}

void release(OrtStatus* status) {
  if (status != nullptr) call<void>(kReleaseStatus, status);
}

// For calls that fail only where onnxruntime itself is out of memory or misused.
void check(OrtStatus* status) {
  if (status == nullptr) return;
  release(status);
  throw Error("onnxruntime: a call of its interface failed");
}

Tensor tensor_of(OrtValue* value, const char* name) {
  Tensor tensor{.name = name};
  OrtTypeInfo* info = nullptr;
  check(call<OrtStatus*>(kGetTensorTypeAndShape, static_cast<const OrtValue*>(value), &info));
  const auto* constant = static_cast<const OrtTypeInfo*>(info);
  ElementType type = ElementType::kUndefined;
  size_t rank = 0;
  int64_t sizes[Shape::kMaxRank] = {};
  check(call<OrtStatus*>(kGetTensorElementType, constant, &type));
  check(call<OrtStatus*>(kGetDimensionsCount, constant, &rank));
  if (rank <= Shape::kMaxRank) check(call<OrtStatus*>(kGetDimensions, constant, sizes + 0, rank));
  call<void>(kReleaseTensorTypeAndShapeInfo, info);
  tensor.shape = Shape(sizes, static_cast<int>(rank));
  tensor.dtype = dtype_of(type);
  tensor.set_contiguous();
  check(call<OrtStatus*>(kGetTensorMutableData, value, &tensor.data));
  return tensor;
}

// The dtype of an output where an attribute of the node may switch it.
DType output_dtype(const OutputType& output, const OrtShapeInferContext* context) {
  const OrtOpAttr* attribute = nullptr;
  release(call<OrtStatus*>(kShapeInferContextGetAttribute, context, output.switch_attribute,
                           &attribute));
  int64_t value = 0;
  size_t written = 0;
  if (attribute != nullptr) {
    release(call<OrtStatus*>(kReadOpAttr, attribute, kAttributeInt64, static_cast<void*>(&value),
                             sizeof(value), &written));
  }
  return value != 0 ? output.other : output.dtype;
}

// Says that an output has four sizes, each unlike all others: onnxruntime must not take two sizes
// for equal because both are unknown.
OrtStatus* set_unknown_sizes(OrtTypeInfo* info) {
  static std::atomic<uint64_t> counter{0};
  constexpr size_t kRank = 4;
  int64_t sizes[kRank];
  std::string names[kRank];
  const char* pointers[kRank];
  for (size_t i = 0; i < kRank; ++i) {
    sizes[i] = -1;
    names[i] = "fastvid_size_" + std::to_string(counter++);
    pointers[i] = names[i].c_str();
  }
  auto* status = call<OrtStatus*>(kSetDimensions, info, static_cast<const int64_t*>(sizes), kRank);
  if (status != nullptr) return status;
  return call<OrtStatus*>(kSetSymbolicDimensions, info, static_cast<const char**>(pointers), kRank);
}

// onnxruntime asks this only of ops with an output whose dtype is not fixed.
OrtStatus* infer_outputs(const CustomOp* custom, OrtShapeInferContext* context) {
  const auto* constant = static_cast<const OrtShapeInferContext*>(context);
  const Description& description = op_of(custom).description();
  for (size_t i = 0; i < description.outputs.size(); ++i) {
    const OutputType& output = description.outputs[i];
    if (output.switch_attribute == nullptr) continue;
    OrtTypeInfo* info = nullptr;
    if (auto* status = call<OrtStatus*>(kCreateTensorTypeAndShapeInfo, &info)) return status;
    auto* status =
        call<OrtStatus*>(kSetTensorElementType, info, element_type(output_dtype(output, constant)));
    if (status == nullptr) status = set_unknown_sizes(info);
    if (status == nullptr) {
      status = call<OrtStatus*>(kShapeInferContextSetOutputTypeShape, constant, i,
                                static_cast<const OrtTypeInfo*>(info));
    }
    call<void>(kReleaseTensorTypeAndShapeInfo, info);
    if (status != nullptr) return status;
  }
  return nullptr;
}

OrtStatus* create_kernel(const CustomOp* custom, Table, const OrtKernelInfo* info, void** kernel) {
  const Op& op = op_of(custom);
  auto created = std::make_unique<Kernel>(Kernel{&op, {}});
  for (const Attribute& attribute : op.description().attributes) {
    int64_t value = attribute.fallback;
    release(call<OrtStatus*>(kKernelInfoGetAttributeInt64, info, attribute.name, &value));
    created->attributes.push_back(value);
  }
  *kernel = created.release();
  return nullptr;
}

// No exception may cross onnxruntime's frames.
OrtStatus* compute(void* opaque, OrtKernelContext* context) {
  const auto& kernel = *static_cast<const Kernel*>(opaque);
  const Description& description = kernel.op->description();
  try {
    description.compute(
        Call(context, description.inputs, description.attributes, kernel.attributes));
    return nullptr;
  } catch (const std::exception& error) {
    return failure((std::string("fastvid.") + description.name + ": " + error.what()).c_str());
  } catch (...) {
    return failure((std::string("fastvid.") + description.name + ": unknown error").c_str());
  }
}

OrtStatus* register_all(OrtSessionOptions* options, const ApiBase* base) {
  static std::mutex mutex;
  static OrtCustomOpDomain* domain = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  the_table = base->get_api(kApiVersion);
  if (the_table == nullptr) {
    the_table = base->get_api(1);
    const std::string found = base->get_version_string();
    return failure(("fastvid: onnxruntime must be 1.22 or newer, got " + found).c_str());
  }
  if (domain == nullptr) {
    OrtCustomOpDomain* created = nullptr;
    if (auto* status = call<OrtStatus*>(kCreateCustomOpDomain, "fastvid", &created)) return status;
    for (const Op* op : all_ops()) {
      if (auto* status =
              call<OrtStatus*>(kCustomOpDomainAdd, created, static_cast<const CustomOp*>(op))) {
        return status;
      }
    }
    domain = created;
  }
  return call<OrtStatus*>(kAddCustomOpDomain, options, domain);
}

}  // namespace

Table table() { return the_table; }

Tensor Call::input(size_t i) const {
  const Input& input = inputs_[i];
  const auto* context = static_cast<const OrtKernelContext*>(context_);
  size_t count = 0;
  check(call<OrtStatus*>(kKernelContextGetInputCount, context, &count));
  const OrtValue* value = nullptr;
  if (i < count) check(call<OrtStatus*>(kKernelContextGetInput, context, i, &value));
  if (value == nullptr) return {.name = input.name};
  return tensor_of(const_cast<OrtValue*>(value), input.name);
}

Tensor Call::output(const Tensor& expected, size_t i) const {
  OrtValue* value = nullptr;
  check(call<OrtStatus*>(kKernelContextGetOutput, context_, i, expected.shape.data(),
                         static_cast<size_t>(expected.shape.rank()), &value));
  return tensor_of(value, expected.name);
}

int64_t Call::attribute(const char* name) const {
  for (size_t i = 0; i < attributes_.size(); ++i) {
    if (std::strcmp(attributes_[i].name, name) == 0) return values_[i];
  }
  throw Error(std::string("no attribute is called ") + name);
}

const Executor& Call::executor() const { return executor_; }

void Call::PoolExecutor::run(size_t count, void (*task)(void*, size_t), void* context) const {
  check(call<OrtStatus*>(kKernelContextParallelFor, static_cast<const OrtKernelContext*>(context_),
                         task, count, size_t{0}, context));
}

Op::Op(Description description) : CustomOp{}, description_(std::move(description)) {
  version = kCustomOpVersion;
  get_name = [](const CustomOp* op) { return op_of(op).description().name; };
  get_execution_provider = [](const CustomOp*) { return "CPUExecutionProvider"; };
  get_input_type = [](const CustomOp* op, size_t i) {
    return element_type(op_of(op).description().inputs[i].dtype);
  };
  get_input_count = [](const CustomOp* op) { return op_of(op).description().inputs.size(); };
  get_output_type = [](const CustomOp* op, size_t i) {
    const OutputType& output = op_of(op).description().outputs[i];
    return output.switch_attribute != nullptr ? ElementType::kUndefined
                                              : element_type(output.dtype);
  };
  get_output_count = [](const CustomOp* op) { return op_of(op).description().outputs.size(); };
  destroy_kernel = [](void* kernel) { delete static_cast<Kernel*>(kernel); };
  get_input_presence = [](const CustomOp* op, size_t i) {
    return op_of(op).description().inputs[i].optional ? Presence::kOptional : Presence::kRequired;
  };
  get_output_presence = [](const CustomOp*, size_t) { return Presence::kRequired; };
  get_input_memory = [](const CustomOp*, size_t) { return 0; };
  get_variadic_input_minimum = get_variadic_output_minimum = [](const CustomOp*) { return 0; };
  get_variadic_input_homogeneity =
      get_variadic_output_homogeneity = [](const CustomOp*) { return 0; };
  create_kernel_v2 = &onnxruntime::create_kernel;
  compute_v2 = &onnxruntime::compute;
  for (const OutputType& output : description_.outputs) {
    if (output.switch_attribute != nullptr) infer_output_shapes = &infer_outputs;
  }
  get_start_version = [](const CustomOp*) { return 1; };
  get_end_version = [](const CustomOp*) { return 1; };
  all_ops().push_back(this);
}

}  // namespace fastvid::onnxruntime

// The entry point that SessionOptions.register_custom_ops_library looks up.
extern "C" __attribute__((visibility("default"))) fastvid::onnxruntime::OrtStatus*
RegisterCustomOps(fastvid::onnxruntime::OrtSessionOptions* options,
                  const fastvid::onnxruntime::ApiBase* base) {
  return fastvid::onnxruntime::register_all(options, base);
}
